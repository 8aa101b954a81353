"""A study: several ways to fine-tune one base, over seeds, chosen on development text and compared on held-out text."""
