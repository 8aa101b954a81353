"""A SentencePiece model as a tokenizer of the library ``tokenizers``, with fairseq's ids."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from langspec_lora.convert.hf.files import optional_module
from langspec_lora.convert.hf.normalisation import normalisation_steps
from langspec_lora.convert.hf.sentencepiece_model import BPE, CHAR, UNIGRAM, WORD, Pieces
from langspec_lora.convert.hf.vocabulary import SPECIALS

_SPACE = "\u2581"
# What Python's str.split takes for white space.
_WHITE = r"[\t-\r\x1c-\x20\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}]+"


class NoTokenizer(Exception):
    """Why no tokenizer of the library splits text as a SentencePiece model does, in words."""


def build_tokenizer(pieces: Pieces, tokens: Sequence[str], source: str | None) -> Any:
    """Builds a tokenizer that splits text as the SentencePiece model and fairseq's dictionary do.

    Args:
        pieces: the model.
        tokens: the tokens by id.
        source: the language token to put before each text, or None.

    Returns:
        A ``tokenizers.Tokenizer``; each text ends with ``</s>``.

    Raises:
        NoTokenizer: there is none.
    """
    _check(pieces, tokens)
    library = optional_module("tokenizers")
    own = [token for token in tokens if token not in pieces.scores]
    if pieces.kind == UNIGRAM:
        lowest = min(pieces.scores.values())
        scored = [(token, pieces.scores.get(token, lowest)) for token in tokens]
        model = library.models.Unigram(scored, unk_id=tokens.index("<unk>"), byte_fallback=bool(pieces.bytes))
    else:
        ids = {token: number for number, token in enumerate(tokens)}
        merges = _merges(pieces.scores) if pieces.kind == BPE else []
        model = library.models.BPE(ids, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=bool(pieces.bytes))
    tokenizer = library.Tokenizer(model)
    tokenizer.normalizer = library.normalizers.Sequence(_normalizers(pieces, library))
    steps = _pre_tokenizers(pieces, own, library)
    if steps:
        tokenizer.pre_tokenizer = library.pre_tokenizers.Sequence(steps)
    scheme = "always" if pieces.adds_space else "never"
    tokenizer.decoder = library.decoders.Metaspace(prepend_scheme=scheme, split=False)
    if pieces.bytes:
        decoders = library.decoders
        first = [decoders.Strip(" ", 1, 0)] if pieces.adds_space else []
        tokenizer.decoder = decoders.Sequence(
            [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *first]
        )
    special = [token for token in own if token in SPECIALS or token.startswith("__")]
    tokenizer.add_special_tokens([library.AddedToken(token, normalized=False, special=True) for token in special])
    single = ["$A", "</s>"] if source is None else [source, "$A", "</s>"]
    named = [(token, tokens.index(token)) for token in single if token != "$A"]
    tokenizer.post_processor = library.processors.TemplateProcessing(single=single, special_tokens=named)
    return tokenizer


def _check(pieces: Pieces, tokens: Sequence[str]) -> None:
    """Raises NoTokenizer with what of the model cannot be written for the library."""
    if pieces.kind not in (UNIGRAM, BPE, CHAR):
        raise NoTokenizer("it is a model of whole words" if pieces.kind == WORD else "it is of an unknown type")
    if not pieces.marks_spaces:
        raise NoTokenizer("it writes spaces otherwise than as \u2581 before a word")
    if pieces.user_defined:
        raise NoTokenizer(f"it has user-defined symbols, such as {pieces.user_defined[0]!r}")
    known = set(tokens)
    lacking = [piece for piece in (*pieces.scores, *pieces.bytes) if piece not in known]
    if lacking:
        raise NoTokenizer(f"the dictionary lacks {len(lacking)} of its pieces, such as {lacking[0]!r}")
    spaced = [piece for piece in pieces.scores if re.search(r"\s", piece)]
    if spaced:
        raise NoTokenizer(f"its piece {spaced[0]!r} holds white space, at which fairseq splits")
    single = {character for piece in pieces.scores for character in piece if character in pieces.scores}
    partial = [piece for piece in pieces.scores if not set(piece) <= single]
    if pieces.kind != UNIGRAM and partial:
        raise NoTokenizer(f"it lacks characters of its piece {partial[0]!r}")
    # SentencePiece hands on what it does not know as it is, and the dictionary may know that.
    unknown = [token for token in tokens if not single & set(token) and (not pieces.bytes or len(token) == 1)]
    if unknown:
        raise NoTokenizer(f"it knows no character of the token {unknown[0]!r}, which a text may hold")


def _normalizers(pieces: Pieces, library: Any) -> list[Any]:
    """What SentencePiece does to a text before it is split."""
    normalised = normalisation_steps(pieces.character_map)
    if normalised is None:
        raise NoTokenizer("its normalisation is none of Unicode's")
    steps = list(normalised)

    def replace(pattern: str, text: str) -> Any:
        return library.normalizers.Replace(library.Regex(pattern), text)

    if pieces.merges_spaces:
        steps += [replace(" {2,}", " "), replace(rf"\A +|[ {_SPACE}]+\z", "")]
    if pieces.adds_space:
        steps.append(library.normalizers.Prepend(_SPACE))
    return [*steps, library.normalizers.Replace(" ", _SPACE)]


def _pre_tokenizers(pieces: Pieces, own: Sequence[str], library: Any) -> list[Any]:
    """Where a text is parted before the model splits it.

    fairseq parts the pieces at white space, which is a piece of its own, unknown, if it is left in a text at all. And
    what a text spells like a token that is no piece, such as ``__en__``, is no such token: it is parted where no piece
    reaches across.
    """
    steps = []
    if not pieces.bytes:
        steps.append(library.pre_tokenizers.Split(library.Regex(_WHITE), "removed"))
    if pieces.kind == UNIGRAM:
        pairs = {piece[place : place + 2] for piece in pieces.scores for place in range(len(piece) - 1)}
        known = None if pieces.bytes else pieces.scores
        cuts = "|".join(_cut(token, pairs, known) for token in own)
        steps.append(library.pre_tokenizers.Split(library.Regex(cuts), "isolated"))
    return steps


def _cut(token: str, pairs: set[str], known: Mapping[str, float] | None) -> str:
    """A pattern of the place within a token across which no piece reaches, nor a run of what is not known."""
    for place in range(1, len(token)):
        before, after = token[place - 1], token[place]
        if before + after not in pairs and (known is None or before in known or after in known):
            return f"(?<={re.escape(token[:place])})(?={re.escape(token[place:])})"
    raise NoTokenizer(f"its pieces can spell the token {token!r}")


def _merges(scores: Mapping[str, float]) -> list[tuple[str, str]]:
    """The merges of a BPE model, the best first: SentencePiece joins the two pieces whose union has the best score."""
    merges = []
    for piece, score in scores.items():
        halves = ((piece[:cut], piece[cut:]) for cut in range(1, len(piece)))
        merges += [(-score, left, right) for left, right in halves if left in scores and right in scores]
    merges.sort(key=lambda merge: merge[0])
    return [(left, right) for _, left, right in merges]
