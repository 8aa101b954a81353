"""A SentencePiece model as a tokenizer of the library ``tokenizers``, with fairseq's ids."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from langspec_lora.convert.hf.files import optional_module
from langspec_lora.convert.hf.normalisation import normalisation_steps
from langspec_lora.convert.hf.sentencepiece_model import BPE, UNIGRAM, WORD, Pieces
from langspec_lora.convert.hf.vocabulary import SPECIALS

_SPACE = "\u2581"
# Whitespace, according to Python's str.split.
_WHITE = r"[\t-\r\x1c-\x20\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}]+"


class NoTokenizer(Exception):
    """The library has no tokenizer that splits text like a SentencePiece model; the message says why."""


def build_tokenizer(pieces: Pieces, tokens: Sequence[str], language_token: str | None) -> Any:
    """Builds a tokenizer that splits text like a SentencePiece model and a fairseq dictionary.

    Args:
        pieces: the SentencePiece model.
        tokens: the dictionary's tokens by id.
        language_token: the token to put before each text, or None.

    Returns:
        A ``tokenizers.Tokenizer``; each text ends with ``</s>``.

    Raises:
        NoTokenizer: the library cannot split text that way.
    """
    _check(pieces, tokens)
    library = optional_module("tokenizers")
    others = [token for token in tokens if token not in pieces.scores]
    if pieces.model_type == UNIGRAM:
        lowest = min(pieces.scores.values())
        scored = [(token, pieces.scores.get(token, lowest)) for token in tokens]
        model = library.models.Unigram(scored, unk_id=tokens.index("<unk>"), byte_fallback=bool(pieces.byte_pieces))
    else:
        ids = {token: number for number, token in enumerate(tokens)}
        merges = _merges(pieces.scores) if pieces.model_type == BPE else []
        model = library.models.BPE(
            ids, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=bool(pieces.byte_pieces)
        )
    tokenizer = library.Tokenizer(model)
    tokenizer.normalizer = library.normalizers.Sequence(_normalizers(pieces, library))
    steps = _pre_tokenizers(pieces, others, library)
    if steps:
        tokenizer.pre_tokenizer = library.pre_tokenizers.Sequence(steps)
    scheme = "always" if pieces.adds_space else "never"
    tokenizer.decoder = library.decoders.Metaspace(prepend_scheme=scheme, split=False)
    if pieces.byte_pieces:
        decoders = library.decoders
        first = [decoders.Strip(" ", 1, 0)] if pieces.adds_space else []
        tokenizer.decoder = decoders.Sequence(
            [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *first]
        )
    special = [token for token in others if token in SPECIALS or token.startswith("__")]
    tokenizer.add_special_tokens([library.AddedToken(token, normalized=False, special=True) for token in special])
    single = ["$A", "</s>"] if language_token is None else [language_token, "$A", "</s>"]
    named = [(token, tokens.index(token)) for token in single if token != "$A"]
    tokenizer.post_processor = library.processors.TemplateProcessing(single=single, special_tokens=named)
    return tokenizer


def _check(pieces: Pieces, tokens: Sequence[str]) -> None:
    """Raises NoTokenizer for models that the library cannot express."""
    if pieces.model_type == WORD:
        raise NoTokenizer("it is a model of whole words")
    if not pieces.marks_spaces:
        raise NoTokenizer("it does not write spaces as \u2581 before a word")
    if pieces.user_defined:
        raise NoTokenizer(f"it has user-defined symbols, such as {pieces.user_defined[0]!r}")
    known = set(tokens)
    lacking = [piece for piece in (*pieces.scores, *pieces.byte_pieces) if piece not in known]
    if lacking:
        raise NoTokenizer(f"{len(lacking)} of its pieces are missing from the dictionary, such as {lacking[0]!r}")
    spaced = [piece for piece in pieces.scores if re.search(r"\s", piece)]
    if spaced:
        raise NoTokenizer(f"its piece {spaced[0]!r} holds whitespace, at which fairseq splits")
    single = {character for piece in pieces.scores for character in piece if character in pieces.scores}
    partial = [piece for piece in pieces.scores if not set(piece) <= single]
    if pieces.model_type != UNIGRAM and partial:
        raise NoTokenizer(f"it has no pieces for the characters of its piece {partial[0]!r}")
    # SentencePiece passes unknown text through, and the dictionary may hold it as a token.
    unknown = [token for token in tokens if not single & set(token) and (not pieces.byte_pieces or len(token) == 1)]
    if unknown:
        raise NoTokenizer(f"it has no piece for any character of the token {unknown[0]!r}, which a text may hold")


def _normalizers(pieces: Pieces, library: Any) -> list[Any]:
    """What SentencePiece does to a text before it splits it."""
    normalised = normalisation_steps(pieces.character_map)
    if normalised is None:
        raise NoTokenizer("its normalisation is not one of Unicode's")
    steps = list(normalised)

    def replace(pattern: str, text: str) -> Any:
        return library.normalizers.Replace(library.Regex(pattern), text)

    if pieces.merges_spaces:
        steps += [replace(" {2,}", " "), replace(rf"\A +|[ {_SPACE}]+\z", "")]
    if pieces.adds_space:
        steps.append(library.normalizers.Prepend(_SPACE))
    return [*steps, library.normalizers.Replace(" ", _SPACE)]


def _pre_tokenizers(pieces: Pieces, others: Sequence[str], library: Any) -> list[Any]:
    """Where a text is divided before the model splits it.

    Fairseq splits the line of pieces at whitespace, so whitespace never reaches a piece. And a text may spell a token
    that is not a piece, such as ``__en__``; it is divided where no piece reaches across, and so stays text.

    Args:
        pieces: the SentencePiece model.
        others: the tokens that are not pieces.
        library: the library ``tokenizers``.
    """
    steps = []
    if not pieces.byte_pieces:
        steps.append(library.pre_tokenizers.Split(library.Regex(_WHITE), "removed"))
    if pieces.model_type == UNIGRAM:
        pairs = {piece[place : place + 2] for piece in pieces.scores for place in range(len(piece) - 1)}
        known = None if pieces.byte_pieces else pieces.scores
        cuts = "|".join(_cut(token, pairs, known) for token in others)
        steps.append(library.pre_tokenizers.Split(library.Regex(cuts), "isolated"))
    return steps


def _cut(token: str, pairs: set[str], known: Mapping[str, float] | None) -> str:
    """A pattern for a place within a token where no piece, and no run of unknown characters, reaches across."""
    for place in range(1, len(token)):
        before, after = token[place - 1], token[place]
        if before + after not in pairs and (known is None or before in known or after in known):
            return f"(?<={re.escape(token[:place])})(?={re.escape(token[place:])})"
    raise NoTokenizer(f"its pieces can spell the token {token!r}")


def _merges(scores: Mapping[str, float]) -> list[tuple[str, str]]:
    """The merges of a BPE model, best first: SentencePiece merges the two pieces whose union has the best score."""
    merges = []
    for piece, score in scores.items():
        halves = ((piece[:cut], piece[cut:]) for cut in range(1, len(piece)))
        merges += [(-score, left, right) for left, right in halves if left in scores and right in scores]
    merges.sort(key=lambda merge: merge[0])
    return [(left, right) for _, left, right in merges]
