"""Training directions, and the check that two directions may share data."""

from __future__ import annotations

from typing import Any

from langspec_lora.errors import UserError


def training_directions(manager: Any) -> list[tuple[str, str]]:
    """Source and target of each training direction, including those of fairseq's ``--extra-lang-pairs``.

    Args:
        manager: fairseq's data manager.
    """
    _, pairs = manager.get_data_paths_and_lang_pairs(manager.args.train_subset)
    sides = [pair.split("-") for category in pairs.values() for pair in category]
    return [(side[0], side[-1]) for side in sides]


def check_shared_directions(manager: Any, split: str) -> None:
    """Checks that ``--enable-reservsed-directions-shared-datasets`` gives each side the right tokens.

    With this flag, fairseq (``MultilingualDatasetManager.load_langpair_dataset``) uses the sides of en-fr for fr-en
    unchanged, including language tokens and truncation.

    Args:
        manager: fairseq's data manager.
        split: the split to load.

    Raises:
        UserError: a language has different tokens as source and as target, or only sources are truncated.
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
        fault = "--truncate-source truncates only sources"
    elif not args.lang_tok_replacing_bos_eos:
        as_source = manager.get_encoder_langtok(source, target, before_source)
        as_target = manager.get_decoder_langtok(source, before_target) if before_target else None
        if as_source != as_target:
            fault = (
                f"the language token of {source} differs between source of {source}-{target} and target of "
                f"{target}-{source} (--encoder-langtok, --decoder-langtok)"
            )
    if fault:
        raise UserError(
            f"--enable-reservsed-directions-shared-datasets uses the sides of {source}-{target} unchanged for "
            f"{target}-{source}, but {fault}; leave the flag out"
        )
