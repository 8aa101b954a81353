"""Gradual pruning of the adapters while training; imports torch, but not fairseq."""
