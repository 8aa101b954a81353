"""Gradual pruning of the pairs while training; knows torch and not fairseq."""
