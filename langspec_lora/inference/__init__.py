"""A model loaded once, which translates batches of any directions; and raw text in, raw text out."""
