"""Defaults of ``langspec-lora prepare``."""

from __future__ import annotations

MAX_LENGTH, MAX_RATIO = 250, 3.0
"""The limits of M2M100's own data. Of FLORES-101's dev, which is clean, they leave out one line in eight thousand."""

TEMPERATURE = 5.0
"""As for M2M100: a language with n sentences gets a share of n to the power of 1/5 of SentencePiece's text."""

HIGH, MED = 1_000_000, 100_000
"""Sentences from which on a language is high or med: the bounds of NLLB (2022), below which it calls languages low and
very low."""
