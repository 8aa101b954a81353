"""``langspec-lora translate``: raw text in, raw text out, line by line."""

# Imports in functions: they keep torch and fairseq out of --help.

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from langspec_lora.errors import UserError, collect_errors
from langspec_lora.files import text_lines
from langspec_lora.generation import BatchLimits, GenerationSettings
from langspec_lora.inference.model_spec import ModelSpec
from langspec_lora.settings import add_flags, read_flags

if TYPE_CHECKING:
    from langspec_lora.inference.translator import Translator

EXAMPLE = "checkpoints/checkpoint_best.pt -s en -t fr < text.en"

_BUFFER_SIZES = {"cuda": 1000, "cpu": 200}  # on a CPU larger batches gain little, and the first line would come late


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags; those of generation have fairseq's names and defaults."""
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="checkpoint, or several of an ensemble joined by ':'")
    parser.add_argument(
        "lines", nargs="*", type=str, metavar="LINE", help="text (default: the lines of the standard input)"
    )
    parser.add_argument("-s", "--source-lang", required=True, metavar="LANG", help="language of the text")
    parser.add_argument("-t", "--target-lang", required=True, metavar="LANG", help="language to translate into")
    parser.add_argument(
        "--buffer-size",
        type=int,
        metavar="N",
        help="lines of the standard input that are read and translated together; 1 answers each line at once "
        f"(default: {_BUFFER_SIZES['cuda']} with a GPU, {_BUFFER_SIZES['cpu']} without, 1 on a terminal)",
    )
    add_flags(parser.add_argument_group("model"), ModelSpec)
    generation = parser.add_argument_group("generation")
    # Raw text has no references to start from, and its SentencePiece pieces are always joined.
    add_flags(generation, GenerationSettings, without=("prefix_size", "remove_bpe"))
    add_flags(generation, BatchLimits)


def run(args: argparse.Namespace) -> int:
    """Translates."""
    from langspec_lora.inference.model_files import find_files
    from langspec_lora.inference.translator import Translator

    with collect_errors() as errors:
        with errors.check():
            if args.buffer_size is not None and args.buffer_size < 1:
                raise UserError(f"--buffer-size {args.buffer_size}: expected a number of lines of at least 1")
        generation = errors.attempt(lambda: read_flags(args, GenerationSettings), GenerationSettings())
        limits = errors.attempt(lambda: read_flags(args, BatchLimits), BatchLimits())
        with errors.check():
            checkpoints = tuple(Path(path) for path in args.checkpoint.split(":"))
            files = find_files(read_flags(args, ModelSpec, checkpoints=checkpoints))
            files.check_direction(args.source_lang, args.target_lang)
    translator = Translator(files, generation, limits)
    on_terminal = not args.lines and sys.stdin.isatty()
    if on_terminal:
        print("langspec-lora: type a line and press return; Ctrl-D ends", file=sys.stderr)
    # Bytes that are not UTF-8 become surrogates, which the translator finds and refuses.
    lines = args.lines or text_lines(sys.stdin.buffer, "the standard input", errors="surrogateescape")
    size = args.buffer_size or (1 if on_terminal else _BUFFER_SIZES[translator.device.type])
    _translate(translator, lines, args.source_lang, args.target_lang, size)
    return 0


def _translate(translator: Translator, lines: Iterable[str], source: str, target: str, size: int) -> None:
    """Prints the translations of lines, ``size`` at a time; those before a wrong line as well.

    Raises:
        UserError: a line is not UTF-8, or too long.
    """
    from langspec_lora.inference.translator import LineError

    done = 0
    lines = iter(lines)
    while chunk := list(islice(lines, size)):
        bad = None
        try:
            translations = translator.translate(chunk, source, target)
        except LineError as error:
            bad = error
            translations = translator.translate(chunk[: bad.index], source, target)
        sys.stdout.buffer.write("".join(f"{line}\n" for line in translations).encode())
        sys.stdout.buffer.flush()
        done += len(translations)
        if bad is not None:
            rest = "; the lines before it are translated" if done else ""
            raise UserError(f"line {done + 1}: {bad.reason}{rest}") from bad
