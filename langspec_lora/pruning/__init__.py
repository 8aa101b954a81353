"""Gradual pruning of the adapters while training; knows torch and not fairseq."""
