"""``langspec-lora evaluate``: translates and scores all directions in one process."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from langspec_lora.cli.generation_flags import add_generation_flags, add_model_flags, decoder_langtok, precision

HELP = "translate all directions in one process and score them"

TOKENIZERS = ("spm", "flores101", "flores200", "13a", "char", "none", "intl", "zh")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags; those of generation have fairseq-generate's names and defaults."""
    parser.add_argument("data_bin", type=Path, metavar="DATA_BIN", help="binarised folder")
    parser.add_argument(
        "--checkpoint", required=True, metavar="FILE", help="checkpoint, or several of an ensemble joined by ':'"
    )
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="results folder; run again, it goes on")
    parser.add_argument("--langs", metavar="A,B,…", help="languages between which to translate (default: the data's)")
    parser.add_argument(
        "--lang-pairs", default="all", metavar="A-B,…", help="directions (default: all ordered pairs of --langs)"
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
        "--references",
        type=Path,
        metavar="DIR",
        help="folder with SPLIT.LANG as raw text (default: the folder 'mono' in or beside DATA_BIN, or else the "
        "binarised targets turned back into text)",
    )

    add_model_flags(parser, dictionary="default: DATA_BIN's own")
    add = add_generation_flags(parser).add_argument
    add("--remove-bpe", default="sentencepiece", metavar="KIND", help="what to undo (default: sentencepiece)")
    add(
        "--batching",
        choices=("mixed", "direction"),
        default="mixed",
        help="let directions share batches, which is faster, or form the very batches of fairseq-generate",
    )


def run(args: argparse.Namespace) -> int:
    """Evaluates and prints where the results are."""
    # A line of fairseq's log for each file that is opened would bury the progress bar.
    logging.getLogger("fairseq").setLevel(logging.WARNING)
    from langspec_lora.evaluation.evaluate import Options, evaluate, mean_scores
    from langspec_lora.translation.settings import Generation

    scores = evaluate(
        Options(
            data_bin=args.data_bin,
            checkpoints=tuple(Path(path) for path in args.checkpoint.split(":")),
            out=args.out,
            subset=args.gen_subset,
            langs=tuple(args.langs.split(",")) if args.langs else None,
            lang_pairs=args.lang_pairs,
            references=args.references,
            dictionary=args.fixed_dictionary,
            tokenize=args.tokenize,
            generation=Generation.from_args(args),
            encoder_langtok=args.encoder_langtok,
            decoder_langtok=decoder_langtok(args),
            precision=precision(args),
            cpu=args.cpu,
            max_tokens=args.max_tokens,
            batch_size=args.batch_size,
            mixed=args.batching == "mixed",
            overwrite=args.overwrite,
        )
    )
    means = mean_scores(scores)
    print(
        f"{len(scores)} directions: BLEU ({args.tokenize}) {means['bleu']:.2f}, chrF++ {means['chrf']:.2f} on average"
    )
    print(f"results in {args.out}; 'langspec-lora report {args.out}' makes the table and the heat map", file=sys.stderr)
    return 0
