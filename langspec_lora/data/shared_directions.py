"""Training directions, and which of them may share data."""

from __future__ import annotations

from typing import Any

from langspec_lora.errors import UserError


def training_directions(manager: Any) -> list[tuple[str, str]]:
    """Source and target of each direction to train, those of fairseq's ``--extra-lang-pairs`` included.

    Args:
        manager: fairseq's data manager.
    """
    _, pairs = manager.get_data_paths_and_lang_pairs(manager.args.train_subset)
    sides = [pair.split("-") for category in pairs.values() for pair in category]
    return [(side[0], side[-1]) for side in sides]


def check_shared_directions(manager: Any, split: str) -> None:
    """Makes sure that ``--enable-reservsed-directions-shared-datasets`` gives each side its own tokens.

    fairseq (``MultilingualDatasetManager.load_langpair_dataset``) hands the training direction fr-en the sides of en-fr
    as they are, language tokens and cuts included.

    Args:
        manager: fairseq's data manager.
        split: the split that will be loaded.

    Raises:
        UserError: a language has another token as source than as target, or only its sources are cut.
    """
    args = manager.args
    if not args.enable_reservsed_directions_shared_datasets or split != getattr(args, "train_subset", None):
        return
    folders, pairs = manager.get_data_paths_and_lang_pairs(split)
    for category in folders.keys() & pairs.keys():
        if category.startswith("mono_"):
            continue
        for pair in pairs[category]:
            source, target = pair.split("-")
            if f"{target}-{source}" in pairs[category]:
                _check_shared(manager, category, source, target)


def _check_shared(manager: Any, category: str, source: str, target: str) -> None:
    args = manager.args
    before_source, before_target = args.langtoks.get(category, (None, None))
    fault = None
    if args.truncate_source:
        fault = "--truncate-source cuts only sources"
    elif not args.lang_tok_replacing_bos_eos:
        as_source = manager.get_encoder_langtok(source, target, before_source)
        as_target = manager.get_decoder_langtok(source, before_target) if before_target else None
        if as_source != as_target:
            fault = (
                f"{source} has another language token as source of {source}-{target} than as target of "
                f"{target}-{source} (--encoder-langtok, --decoder-langtok)"
            )
    if fault:
        raise UserError(
            f"--enable-reservsed-directions-shared-datasets gives {target}-{source} the sides of {source}-{target} as "
            f"they are, but {fault}; leave the flag out"
        )
