"""Evaluation of a checkpoint over all directions: decoded, scored and kept in a results folder."""
