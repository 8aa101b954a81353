"""What the adapters of a language, a layer or a position are worth: the loss without them, or with another's."""
