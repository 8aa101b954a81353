"""The evaluation of checkpoints: all directions decoded, scored, and kept in a results folder."""
