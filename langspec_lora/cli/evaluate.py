"""``langspec-lora evaluate``: translates and scores all directions in one process."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from langspec_lora.cli.generation_flags import add_generation_flags, add_model_flags, decoder_langtok, precision
from langspec_lora.errors import UserError
from langspec_lora.values import content_of, names_of

if TYPE_CHECKING:
    from langspec_lora.evaluation.evaluate import Options
    from langspec_lora.evaluation.share import Share

EXAMPLE = "data-bin --checkpoint checkpoints/checkpoint_best.pt --base --out results"

TOKENIZERS = ("spm", "flores101", "flores200", "13a", "char", "none", "intl", "zh")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags; those of generation have fairseq-generate's names and defaults."""
    parser.add_argument("data_bin", type=Path, metavar="DATA_BIN", help="binarised folder")
    parser.add_argument(
        "--checkpoint",
        required=True,
        nargs="+",
        metavar="FILE",
        help="checkpoint; several, each of which is evaluated; those of an ensemble are joined by ':'",
    )
    parser.add_argument("--base", action="store_true", help="evaluate the base model, without its pairs, as well")
    parser.add_argument(
        "--out",
        required=True,
        type=Path,
        metavar="DIR",
        help="results folder, of several models with a folder for each; run again, it goes on",
    )
    parser.add_argument("--names", metavar="A,B,…", help="what several models are called (default: as their files)")
    parser.add_argument("--langs", metavar="A,B,…", help="languages between which to translate (default: the data's)")
    parser.add_argument(
        "--lang-pairs",
        default="all",
        metavar="A-B,…",
        help="directions, or a file that holds them (default: all ordered pairs of --langs)",
    )
    parser.add_argument("--gen-subset", default="test", metavar="SPLIT", help="split to translate (default: test)")
    parser.add_argument("--overwrite", action="store_true", help="replace the results of other settings in --out")

    scoring = parser.add_argument_group("scores")
    scoring.add_argument(
        "--tokenize",
        choices=TOKENIZERS,
        default="spm",
        help="sacrebleu's tokenizer of BLEU (default: spm, which is spBLEU)",
    )
    scoring.add_argument(
        "--comet",
        metavar="MODEL",
        help="score by this COMET model too: its name, or its .ckpt file (needs unbabel-comet)",
    )
    scoring.add_argument(
        "--references",
        type=Path,
        metavar="DIR",
        help="folder with SPLIT.LANG as raw text (default: the folder 'mono' in or beside DATA_BIN, or else the "
        "binarised targets turned back into text)",
    )

    add_model_flags(parser, dictionary="default: DATA_BIN's own")
    add = add_generation_flags(parser).add_argument
    add("--prefix-size", type=int, default=0, metavar="N", help="start with the reference's first N tokens")
    add("--remove-bpe", default="sentencepiece", metavar="KIND", help="what to undo (default: sentencepiece)")
    add(
        "--batching",
        choices=("auto", "mixed", "direction"),
        default="auto",
        help="let directions share batches where they fill none (auto), always, or never: the very batches of "
        "fairseq-generate",
    )


def run(args: argparse.Namespace) -> int:
    """Evaluates and prints where the results are."""
    from langspec_lora.evaluation.share import Share

    with Share.together() as share:
        return _evaluate(args, share)


def _evaluate(args: argparse.Namespace, share: Share) -> int:
    from langspec_lora.evaluation.evaluate import carry_out, counted, mean_scores, plan

    runs = _runs(args)
    plans = share.first(lambda: [plan(options) for options in runs.values()])
    for name, planned in zip(runs, plans, strict=True):
        scores = carry_out(planned, share)
        if scores:
            means = mean_scores(scores)
            words = [f"{_LABELS[metric].format(args.tokenize)} {mean:.2f}" for metric, mean in means.items()]
            print(f"{name + ': ' if len(runs) > 1 else ''}{counted(len(scores))}: {', '.join(words)} on average")
    if share.rank == 0:
        folders = shlex.join(str(options.out) for options in runs.values())
        # Without quotes around it: a folder with a space has its own.
        print(f"tables, heat maps and a page to read: langspec-lora report {folders}", file=sys.stderr)
    return 0


_LABELS = {"bleu": "BLEU ({})", "chrf": "chrF++", "comet": "COMET"}


def _runs(args: argparse.Namespace) -> dict[str, Options]:
    """What to evaluate, by name; several runs have a folder each below ``--out``."""
    from langspec_lora.evaluation.evaluate import Options
    from langspec_lora.inference.settings import Generation

    ensembles = [tuple(Path(path) for path in text.split(":")) for text in args.checkpoint]
    runs = [(ensemble, True) for ensemble in ensembles]
    if args.base:
        runs.insert(0, (ensembles[0], False))
    names = _names(args, ensembles)
    return {
        name: Options(
            data_bin=args.data_bin,
            checkpoints=checkpoints,
            out=args.out / name if len(runs) > 1 else args.out,
            pairs=pairs,
            subset=args.gen_subset,
            langs=tuple(names_of(args.langs, "--langs")) if args.langs else None,
            lang_pairs=content_of(args.lang_pairs),
            references=args.references,
            dictionary=args.fixed_dictionary,
            tokenize=args.tokenize,
            comet=args.comet,
            generation=Generation.from_args(args),
            encoder_langtok=args.encoder_langtok,
            decoder_langtok=decoder_langtok(args),
            precision=precision(args),
            cpu=args.cpu,
            base_checkpoint=args.base_checkpoint,
            max_tokens=args.max_tokens,
            batch_size=args.batch_size,
            batching=args.batching,
            overwrite=args.overwrite,
        )
        for name, (checkpoints, pairs) in zip(names, runs, strict=True)
    }


def _names(args: argparse.Namespace, ensembles: Sequence[tuple[Path, ...]]) -> list[str]:
    base = ["base"] if args.base else []
    if args.names:
        names = args.names.split(",")
        if len(names) != len(ensembles) + len(base) or len(set(names)) != len(names) or not all(names):
            raise UserError(
                f"--names {args.names} for {len(ensembles) + len(base)} models; give a different name to each"
                f"{', first to the base' if base else ''}"
            )
    else:
        own = ["+".join(path.stem for path in paths) for paths in ensembles]
        longer = ["+".join("-".join(path.with_suffix("").parts[-2:]) for path in paths) for paths in ensembles]
        names = [*base, *(own if len(set(own)) == len(own) else longer)]
        if len(set(names)) != len(names):
            raise UserError(f"the models {', '.join(names)} are not told apart by name; give --names")
    if any("/" in name or name in (".", "..") for name in names):
        raise UserError(f"--names {args.names}: a name becomes a folder of --out; leave '/' out of it")
    return names
