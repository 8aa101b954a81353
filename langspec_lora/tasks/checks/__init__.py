"""Flags against each other, the languages and the checkpoint: what is wrong is refused, what does nothing is named."""
