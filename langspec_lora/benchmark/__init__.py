"""Measures what language-specific adapters cost, against one shared adapter, a loop over languages and others."""
