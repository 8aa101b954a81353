"""Translates batches of any directions, or raw text, with a model that is loaded once."""
