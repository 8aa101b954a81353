"""What the plugin's flags mean: parsed once, and checked before anything expensive starts."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from langspec_lora.errors import UserError, collect_errors
from langspec_lora.flags import AdapterFlags
from langspec_lora.key_flags import check_key_flags, default_side, mixture_rate, with_keys
from langspec_lora.keys import kind_of_key
from langspec_lora.languages import LEVELS, PAPER_RESOURCES, LanguageTable, check_rank, languages_from_json
from langspec_lora.naming import cut, some_of
from langspec_lora.resources import read_resources
from langspec_lora.scaling import Scaling, scaling_of
from langspec_lora.settings import check_numbers
from langspec_lora.sites import INITS, LEARNED, POSITIONS, SIDES, SOURCE, TARGET, Site, in_model_order, sites_of
from langspec_lora.values import check_once, names_of


@dataclass(frozen=True)
class StackConfig:
    """Where one stack (encoder or decoder) is adapted.

    Attributes:
        layers: indices of the adapted layers.
        positions: names of the adapted positions.
        sides: for each layer of the stack, adapted or not, what selects the adapter: ``src``, ``tgt``, ``direction``
            or ``shared``.
    """

    layers: tuple[int, ...]
    positions: tuple[str, ...]
    sides: tuple[str, ...]


@dataclass(frozen=True)
class AdapterConfig:
    """Which adapters a model has.

    Attributes:
        languages: names, levels and ranks, and what the adapters belong to.
        stacks: for ``encoder`` and ``decoder``, where it is adapted.
        dim: width of the slice, 0 for the whole layer.
        start: first feature of the slice.
        init: ``"rank"`` or ``"standard"``.
        mixture_rate: learning rate of the weights of source and target, divided by that of all else.
        scaling: what the adapters' products are multiplied by; None for no factor.
        dropout: in training, the share of the entries that A reads which are zero.
    """

    languages: LanguageTable
    stacks: Mapping[str, StackConfig]
    dim: int
    start: int
    init: str
    mixture_rate: float = 1.0
    scaling: Scaling | None = None
    dropout: float = 0.0

    @classmethod
    def from_args(cls, args: Namespace) -> AdapterConfig:
        """Parses and checks the flags of a training command, or of the arguments that a checkpoint stores.

        Args:
            args: fairseq's arguments, architecture defaults filled in.

        Raises:
            UserError: flags have wrong values; the message lists each with its value and what was expected.
        """
        with collect_errors() as errors:
            with errors.check():
                stacks = check_adapter_flags(args)
                if not any(stack.layers for stack in stacks.values()):
                    raise UserError(
                        "--encoder-lora-layer and --decoder-lora-layer adapt nothing; name layers, or give "
                        "--add-lora False"
                    )
            languages = _languages(args)
        rate, scaling = mixture_rate(args), scaling_of(args)
        dropout = getattr(args, "lora_dropout", 0.0)  # which earlier versions did not store
        config = cls(languages, stacks, args.dim, args.start_idx, args.lora_init, rate, scaling, dropout)
        return replace(config, languages=with_keys(args, languages, config.sides))

    @property
    def sites(self) -> list[Site]:
        """The adapted sites."""
        stacks = self.stacks
        return sites_of({s: stacks[s].layers for s in stacks}, {s: stacks[s].positions for s in stacks})

    def side(self, site: Site) -> str:
        """What selects the adapter at a site: ``src``, ``tgt``, ``direction`` or ``shared``."""
        return self.stacks[site.stack].sides[site.layer]

    @property
    def mixed_layers(self) -> tuple[tuple[str, int], ...]:
        """Stack and index of the layers that mix the adapters of source and target, in the order of the model."""
        mixed = (site[:2] for site in sorted(self.sites, key=in_model_order) if self.side(site) == LEARNED)
        return tuple(dict.fromkeys(mixed))

    @property
    def features(self) -> slice | None:
        """The features of input and output that the adapters cover; None for all."""
        return slice(self.start, self.start + self.dim) if self.dim else None

    @property
    def key(self) -> str:
        """What the adapters belong to: one of ``--adapter-key``'s words, or ``key`` if they belong to several."""
        return kind_of_key(self.languages, self.sides)

    @property
    def sides(self) -> set[str]:
        """The sides of the adapted layers."""
        return {stack.sides[layer] for stack in self.stacks.values() if stack.positions for layer in stack.layers}


def check_adapter_flags(args: Namespace) -> dict[str, StackConfig]:
    """Parses and checks the adapter flags that do not depend on the languages.

    Args:
        args: fairseq's arguments, architecture defaults filled in.

    Returns:
        Where each stack is adapted.

    Raises:
        UserError: flags have wrong values; all of them are listed.
    """
    stacks: dict[str, StackConfig] = {}
    with collect_errors() as errors:
        for stack in POSITIONS:
            with errors.check():
                stacks[stack] = _parse_stack(args, stack)
        with errors.check():
            check_key_flags(args)
        with errors.check():
            check_numbers(AdapterFlags, args)
        with errors.check():
            scaling_of(args)
        with errors.check():
            if args.lora_init not in INITS:
                raise UserError(f"--lora-init {args.lora_init}: expected {' or '.join(INITS)}")
        for level in LEVELS:
            with errors.check():
                check_rank(getattr(args, f"{level}_rank"), f"--{level}-rank")
        if len(stacks) == len(POSITIONS):
            _check_slice(args, stacks)
    return stacks


def check_language_number(args: Namespace, names: Sequence[str]) -> None:
    """Checks that ``--language-num``, if given, is the number of languages.

    Raises:
        UserError: they differ.
    """
    if args.language_num is not None and args.language_num != len(names):
        raise UserError(
            f"--language-num {args.language_num} was given, but --langs names {len(names)} languages; "
            "make them agree, or leave --language-num out"
        )


def has_adapters(args: Namespace) -> bool:
    """Whether the arguments ask for adapters.

    Raises:
        UserError: without adapters, and with the base frozen, nothing would be left to train.
    """
    if not args.add_lora and args.freeze_original_parameters:
        raise UserError(
            "--add-lora False with --freeze-original-parameters True leaves nothing to train; "
            "set --freeze-original-parameters False for full fine-tuning"
        )
    return args.add_lora


def freezes_base(args: Namespace) -> bool:
    """Whether only the adapters train."""
    return args.add_lora if args.freeze_original_parameters is None else args.freeze_original_parameters


def trained_languages(args: Namespace, languages: LanguageTable) -> tuple[int, ...]:
    """The ids of the languages whose adapters train.

    Args:
        args: the arguments of a training.
        languages: those of its model.

    Raises:
        UserError: ``--train-languages`` names unknown languages, or the base would train too.
    """
    names = getattr(args, "train_languages", None)
    if names is None:
        return tuple(range(len(languages)))
    if not freezes_base(args):
        raise UserError(
            f"--train-languages {cut(names)} keeps all other languages as they are, but --freeze-original-parameters "
            "False trains the base below them; give one of the two"
        )
    chosen = names_of(names, "--train-languages")
    unknown = [name for name in chosen if name not in languages.names]
    if unknown:
        raise UserError(
            f"--train-languages names {unknown[0]!r}, which is not in --langs {some_of(languages.names, ',')}; "
            "name languages of the model, joined by commas"
        )
    for name, group in zip(languages.names, languages.groups, strict=False):
        if name not in chosen and (
            sharing := [other for other in chosen if languages.groups[languages.id(other)] == group]
        ):
            raise UserError(
                f"--train-languages names {sharing[0]} without {name}, but both share the adapter of group {group}; "
                "name all languages of the group, or none"
            )
    return tuple(index for index, name in enumerate(languages.names) if name in chosen)


def _languages(args: Namespace) -> LanguageTable:
    stored = getattr(args, "adapter_languages", None)
    if stored:  # from a checkpoint: the YAML file of the training may be gone
        return languages_from_json(stored)
    names = args.langs.split(",") if isinstance(args.langs, str) else list(args.langs or ())
    ranks = {level: getattr(args, f"{level}_rank") for level in LEVELS}
    with collect_errors() as errors:
        with errors.check():
            check_language_number(args, names)
        if args.lang_resources:
            return LanguageTable.build(names, read_resources(args.lang_resources), ranks, f"file {args.lang_resources}")
        return LanguageTable.build(names, PAPER_RESOURCES, ranks, "built-in table of the paper's twelve languages")


def _parse_stack(args: Namespace, stack: str) -> StackConfig:
    count, adapts = getattr(args, f"{stack}_layers"), getattr(args, f"{stack}_lora_layer") != "none"
    with collect_errors() as errors:
        with errors.check():
            sides = activation_sides(args, stack)
        with errors.check():
            layers = _parse_layers(args, stack, count) if adapts else ()
        positions = _parse_positions(args, stack) if adapts else ()
    return StackConfig(layers, positions, sides)


def _parse_layers(args: Namespace, stack: str, count: int) -> tuple[int, ...]:
    text = getattr(args, f"{stack}_lora_layer")
    if text is None:
        return tuple(range(count))
    flag = f"--{stack}-lora-layer {text}"
    layers = []
    for word in text.split("_"):
        # Python refuses to convert more than a few thousand digits.
        if not (word.isascii() and word.isdecimal()) or len(word) > 9 or int(word) >= count:
            raise UserError(
                f"{flag[:80]}: {word[:20]!r} is not a layer of the {stack}; expected numbers from 0 to {count - 1}, "
                "joined by _"
            )
        layers.append(int(word))
    check_once(layers, flag)
    return tuple(layers)


def _parse_positions(args: Namespace, stack: str) -> tuple[str, ...]:
    text = getattr(args, f"{stack}_lora_position")
    if text is None:
        return tuple(POSITIONS[stack])
    flag = f"--{stack}-lora-position {text}"
    for word in text.split("_"):
        if word not in POSITIONS[stack]:
            known = some_of(POSITIONS[stack])
            raise UserError(f"{flag}: {word!r} is not a position of the {stack}; expected {known}, joined by _")
    check_once(text.split("_"), flag)
    return tuple(text.split("_"))


def activation_sides(args: Namespace, stack: str) -> tuple[str, ...]:
    """For each layer of a stack, what selects the adapter.

    Args:
        args: fairseq's arguments.
        stack: ``encoder`` or ``decoder``.

    Raises:
        UserError: the flag has other words than those of :data:`~langspec_lora.sites.SIDES`, or not one for each layer.
    """
    count = getattr(args, f"{stack}_layers")
    text = getattr(args, f"{stack}_activation_direction")
    always = default_side(args)
    if text is None:
        by_source = count * 3 // 4 if stack == "encoder" else 0
        return (always,) * count if always else (SOURCE,) * by_source + (TARGET,) * (count - by_source)
    flag = f"--{stack}-activation-direction {text}"
    words = tuple(text.split("_"))
    unknown = [word for word in words if word not in SIDES]
    if unknown:
        raise UserError(
            f"{flag}: {unknown[0]!r} is not a side; expected {some_of(SIDES[:-1])} or {SIDES[-1]} for each layer, "
            "joined by _"
        )
    if len(words) != count:
        raise UserError(
            f"{flag}: expected src or tgt for each of the {count} {stack} layers, joined by _; got {len(words)}"
        )
    if always and set(words) != {always}:
        other = "--weight-learning True" if always == LEARNED else f"--adapter-key {args.adapter_key}"
        raise UserError(f"{flag}: {other} decides what selects the adapters of every layer; leave one of the two out")
    return words


def _check_slice(args: Namespace, stacks: Mapping[str, StackConfig]) -> None:
    if args.dim < 0 or args.start_idx < 0:
        raise UserError(
            f"--dim {args.dim} --start-idx {args.start_idx}: neither can be negative; --dim 0 is the whole layer"
        )
    if not args.dim:
        if args.start_idx:
            raise UserError(f"--start-idx {args.start_idx} needs --dim, the width of the slice")
        return
    for stack, config in stacks.items():
        if not config.layers:
            continue
        width = getattr(args, f"{stack}_embed_dim")
        if any(position.startswith("fc") for position in config.positions):
            width = min(width, getattr(args, f"{stack}_ffn_embed_dim"))
        if any(position in ("crossk", "crossv") for position in config.positions):
            width = min(width, args.encoder_embed_dim)
        if args.start_idx + args.dim > width:
            raise UserError(
                f"--dim {args.dim} --start-idx {args.start_idx} reaches feature {args.start_idx + args.dim}, "
                f"but the narrowest adapted {stack} layer has {width}; lower them, or give --dim 0 for whole layers"
            )
