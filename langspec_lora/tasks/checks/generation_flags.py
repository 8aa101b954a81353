"""fairseq's flags of a search that do nothing, or end in an error, with models that translate from left to right."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path

from langspec_lora.errors import UserError, collect_errors
from langspec_lora.naming import cut, some_of

_ITERATIVE: Mapping[str, object] = {
    "iter_decode_eos_penalty": 0.0,
    "iter_decode_max_iter": 10,
    "iter_decode_force_max_iter": False,
    "iter_decode_with_beam": 1,
    "iter_decode_with_external_reranker": False,
    "retain_iter_history": False,
    "decoding_format": None,
}
"""Flags of models that translate by iterative refinement, with their defaults."""


def check_search_flags(args: Namespace) -> None:
    """Refuses flags of a search that fairseq accepts and then fails on.

    Args:
        args: the arguments of a command that translates.

    Raises:
        UserError: such flags are given; all of them are listed.
    """
    if hasattr(args, "output_word_probs"):
        raise UserError(
            "fairseq-eval-lm scores language models, but these models translate; for the scores of references, use "
            "fairseq-generate --score-reference"
        )
    with collect_errors() as errors:
        with errors.check():
            if getattr(args, "constraints", None):
                raise UserError(
                    "--constraints: fairseq's multilingual task cannot force words into a translation; leave it out, "
                    "or force the first words with --prefix-size"
                )
        with errors.check():
            _check_input(args)
        with errors.check():
            if is_interactive(args) and getattr(args, "score_reference", False):
                raise UserError("--score-reference: fairseq-interactive reads no references; use fairseq-generate")
        with errors.check():
            if getattr(args, "replace_unk", None):
                # utils.replace_unk wants one source position for each token, but searches return none, or pairs.
                raise UserError(
                    "--replace-unk: fairseq cannot read the alignments of its own searches any more; leave it out, or "
                    "replace unknown words by the lines A- of --print-alignment"
                )
        with errors.check():
            if getattr(args, "print_step", False):
                raise UserError("--print-step: only iterative refinement has steps, not these models; leave it out")


def is_interactive(args: Namespace) -> bool:
    """Whether the arguments are those of ``fairseq-interactive``, which alone has a buffer."""
    return hasattr(args, "buffer_size")


def _check_input(args: Namespace) -> None:
    text = getattr(args, "input", "-")
    if is_interactive(args) and text != "-" and not Path(text).is_file():
        raise UserError(f"--input {text} is no file; give the text to translate, one sentence per line")


def unused_search_flags(args: Namespace) -> list[str]:
    """Names the flags of a search that have no effect."""
    given = [
        f"--{name.replace('_', '-')}" + ("" if value is True else f" {cut(value)}")
        for name, default in _ITERATIVE.items()
        if (value := getattr(args, name, None)) not in (None, default)
    ]
    found = [f"{some_of(given)}: no effect, since only iterative refinement reads it"] if given else []
    shards = getattr(args, "num_shards", None) or 1
    if shards > 1:
        found.append(
            f"--num-shards {shards}: no effect, since fairseq-generate translates all sentences; 'langspec-lora "
            "evaluate' divides directions between processes"
        )
    if is_interactive(args) and getattr(args, "prefix_size", None):
        found.append(f"--prefix-size {args.prefix_size}: no effect, since fairseq-interactive reads no references")
    modules = getattr(args, "retain_dropout_modules", None)
    if modules and not getattr(args, "retain_dropout", False):
        found.append("--retain-dropout-modules: no effect without --retain-dropout")
    beam, nbest = getattr(args, "beam", None), getattr(args, "nbest", None)
    if beam and nbest and nbest > beam:
        found.append(f"--nbest {nbest}: a search with --beam {beam} finds at most {beam} hypotheses")
    return found
