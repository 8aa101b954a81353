"""``langspec-lora add-language``: adds new languages to trained adapters."""

# Imports in functions: they keep torch out of --help.

from __future__ import annotations

import argparse
from pathlib import Path

from langspec_lora.data.directions import Direction
from langspec_lora.errors import UserError, collect_errors
from langspec_lora.files import check_file
from langspec_lora.flags import add_base_flag
from langspec_lora.keys import with_groups
from langspec_lora.languages import DEFAULT_RANKS, LEVELS, PAPER_RESOURCES, LanguageTable, check_rank
from langspec_lora.naming import some_of
from langspec_lora.notes import show
from langspec_lora.resources import read_groups, read_resources
from langspec_lora.scaling import scaling_of
from langspec_lora.sites import SHARED
from langspec_lora.values import content_of, names_of

EXAMPLE = "checkpoints/checkpoint_best.pt --langs sw --lang-resources languages.yaml --out with_sw.pt"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags."""
    parser.add_argument("checkpoint", type=Path, metavar="CK", help="checkpoint with adapters")
    parser.add_argument("--langs", required=True, metavar="A,B", help="languages to add")
    parser.add_argument(
        "--lang-resources", metavar="FILE", help="YAML file of levels and languages (default: the paper's twelve)"
    )
    parser.add_argument(
        "--lang-groups", metavar="FILE", help="YAML file of groups, if adapters belong to groups, old or new"
    )
    parser.add_argument(
        "--lang-pairs", metavar="A-B,…", help="directions to add, if adapters belong to directions, or a file of them"
    )
    for level in LEVELS:
        parser.add_argument(
            f"--{level}-rank", type=int, metavar="R", help=f"rank of new {level}-resource languages (default: as in CK)"
        )
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="seed for drawing the new LoRA A")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="checkpoint to write")
    add_base_flag(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it exists")


def run(args: argparse.Namespace) -> int:
    """Writes the checkpoint and prints how to train the new languages."""
    from langspec_lora.adapters.edit import add_languages, check_new_languages, check_seed
    from langspec_lora.checkpoints.stored_model import StoredModel

    given = {level: rank for level in LEVELS if (rank := getattr(args, f"{level}_rank")) is not None}
    with collect_errors() as errors:
        with errors.check():
            check_file(args.out, args.overwrite)
        with errors.check():
            check_seed(args.seed)
        for level, rank in given.items():
            with errors.check():
                check_rank(rank, f"--{level}-rank")
        with errors.check():
            resources = read_resources(args.lang_resources) if args.lang_resources else PAPER_RESOURCES
        with errors.check():
            groups = read_groups(args.lang_groups) if args.lang_groups else None
        with errors.check():
            names = names_of(args.langs, "--langs")
        with errors.check():
            pairs = names_of(content_of(args.lang_pairs), "--lang-pairs", "en-fr,fr-en") if args.lang_pairs else []
            directions = [(pair.source, pair.target) for pair in map(Direction.parse, pairs)]
        with errors.check():
            stored = StoredModel.with_adapters(args.checkpoint, args.base_checkpoint)
            stored.check_base_is_found()
        errors.raise_found()
        with errors.check():
            check_new_languages(stored.adapters, names)
        ranks = {level: getattr(stored.args, f"{level}_rank", None) or DEFAULT_RANKS[level] for level in LEVELS}
        where = args.lang_resources and f"file {args.lang_resources}"
        new = LanguageTable.build(
            names, resources, {**ranks, **given}, where or "built-in table of the paper's twelve languages"
        )
        table = stored.adapters.languages
        if table.groups and groups is None:
            raise UserError("the adapters belong to groups; say which those of --langs are in as --lang-groups")
        if groups is not None:
            if not table.groups:
                raise UserError("--lang-groups is for adapters that belong to groups, and these do not; leave it out")
            new = with_groups(new, groups, f"--lang-groups {args.lang_groups}")
    init = stored.settings.get("lora_init") or "rank"
    adapters = add_languages(stored.adapters, new, init, args.seed, directions, stored.base)
    stored.write(adapters, args.out)
    show(f"written: {args.out}")
    langs = some_of(adapters.languages.names, ",")
    if adapters.key == SHARED:
        show(f"all languages share one adapter: train it with --finetune-from-model {args.out} --langs {langs}")
        return 0
    scaling = scaling_of(stored.args)  # which is in B now
    more = f" {scaling}" if scaling else ""
    trains = f"--train-languages {some_of(names, ',')}{more}"
    show(f"train them with --finetune-from-model {args.out} --langs {langs} {trains}")
    if "…" in langs:
        show(f"langspec-lora inspect {args.out} lists all languages in the order of --langs")
    return 0
