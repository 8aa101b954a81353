"""Adapters as plain data: entries of a state, packed by site, edited, counted, read and written as files."""
