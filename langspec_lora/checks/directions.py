"""Languages against the directions of a training: whose adapters train, and which data may be shared."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from langspec_lora.config import AdapterConfig
from langspec_lora.errors import UserError
from langspec_lora.lora import SOURCE, TARGET


def languages_that_do_not_train(
    config: AdapterConfig, directions: Iterable[tuple[str, str]], trained: Sequence[int], frozen: bool
) -> list[str]:
    """Names the languages whose adapters should train and that no direction reaches.

    Args:
        config: which adapters the model has.
        directions: source and target of each training direction.
        trained: ids of the languages that should train.
        frozen: whether only adapters train.

    Returns:
        Sentences.

    Raises:
        UserError: no adapter would train at all, nor anything else.
    """
    directions = list(directions)
    sides = {stack.directions[layer] for stack in config.stacks.values() if stack.positions for layer in stack.layers}
    named = {SOURCE: {source for source, _ in directions}, TARGET: {target for _, target in directions}}
    reached = set().union(*(named[side] for side in sides))
    wanted = [config.languages.names[language] for language in trained]
    absent = [name for name in wanted if name not in named[SOURCE] | named[TARGET]]
    one_sided = [name for name in wanted if name not in reached and name not in absent]
    found = []
    if absent:
        found.append(f"no direction of --lang-pairs has {', '.join(absent)}, so these adapters do not train")
    if one_sided:
        side, other = ("source", TARGET) if TARGET in sides else ("target", SOURCE)
        found.append(
            f"--lang-pairs has {', '.join(one_sided)} as {side} only, and every adapted layer goes by {other}, so "
            "these adapters do not train"
        )
    if frozen and not reached & set(wanted):
        raise UserError(f"nothing would train: {'; '.join(found)}; give --lang-pairs with the languages to train")
    return found


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
