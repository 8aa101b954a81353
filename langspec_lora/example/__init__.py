"""The built-in example: twelve invented languages, on which everything runs on a CPU."""
