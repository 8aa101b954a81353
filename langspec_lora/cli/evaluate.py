"""``langspec-lora evaluate``: translates and scores all directions in one process."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

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

    model = parser.add_argument_group("model")
    model.add_argument("--fixed-dictionary", type=Path, metavar="FILE", help="dictionary (default: DATA_BIN's own)")
    model.add_argument(
        "--encoder-langtok", choices=("src", "tgt", "none"), help="default: as the checkpoint was trained"
    )
    model.add_argument("--decoder-langtok", choices=("yes", "no"), help="default: as the checkpoint was trained")
    precision = model.add_mutually_exclusive_group()
    precision.add_argument("--fp16", action="store_true", help="half precision (GPU)")
    precision.add_argument("--bf16", action="store_true", help="bfloat16")
    model.add_argument("--cpu", action="store_true", help="do not use a GPU")

    generation = parser.add_argument_group("generation")
    add = generation.add_argument
    add("--beam", type=int, default=5, metavar="N", help="beam size (default: 5)")
    add("--lenpen", type=float, default=1.0, metavar="X", help="length penalty (default: 1)")
    add("--unkpen", type=float, default=0.0, metavar="X", help="unknown word penalty (default: 0)")
    add(
        "--max-len-a",
        type=float,
        default=0.0,
        metavar="A",
        help="at most A x + B tokens for a source of x (default: 0)",
    )
    add("--max-len-b", type=int, default=200, metavar="B", help="(default: 200)")
    add("--min-len", type=int, default=1, metavar="N", help="at least N tokens (default: 1)")
    add("--no-repeat-ngram-size", type=int, default=0, metavar="N", help="no n-gram of this size twice (default: off)")
    add("--temperature", type=float, default=1.0, metavar="X", help="(default: 1)")
    add("--unnormalized", action="store_true", help="compare scores without dividing by length")
    add("--match-source-len", action="store_true", help="as many tokens as the source has")
    add("--remove-bpe", default="sentencepiece", metavar="KIND", help="what to undo (default: sentencepiece)")
    add("--max-tokens", type=int, default=12000, metavar="N", help="tokens in a batch (default: 12000)")
    add("--batch-size", type=int, metavar="N", help="sentences in a batch at most (default: no limit)")
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
    from langspec_lora.evaluation.decoding import Generation
    from langspec_lora.evaluation.evaluate import Options, evaluate, mean_scores

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
            decoder_langtok=None if args.decoder_langtok is None else args.decoder_langtok == "yes",
            precision="fp16" if args.fp16 else "bf16" if args.bf16 else "fp32",
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
