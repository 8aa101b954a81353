"""Flags with any value: a valid configuration or a sentence, and what a checkpoint stores is what was given."""

from __future__ import annotations

import argparse
import pickle
from argparse import ArgumentParser, Namespace
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langspec_lora.cli.commands import COMMANDS, parser_of
from langspec_lora.cli.main import main
from langspec_lora.cli.parser import CommandParser
from langspec_lora.config import (
    AdapterConfig,
    check_language_number,
    freezes_base,
    has_adapters,
    trained_languages,
)
from langspec_lora.errors import UserError
from langspec_lora.flags import AbsentFlag, AdapterFlags, BaseFlag, PruningFlags
from langspec_lora.generation import BatchLimits, GenerationSettings
from langspec_lora.languages import PAPER_LEVELS, LanguageTable, languages_from_json, languages_to_json
from langspec_lora.pruning_flags import pruning_from_args
from langspec_lora.scaling import SCALINGS
from langspec_lora.settings import add_flags, check_values, given_flags, read_flags
from langspec_lora.sites import POSITIONS, SIDES
from langspec_lora.values import content_of, names_of, read_strictly
from tests.properties import LANGUAGE_ROWS, NAMES, NUMBERS, WORDS, examples

SIZES = {"encoder_layers": 3, "decoder_layers": 2, "encoder_embed_dim": 16, "decoder_embed_dim": 8}
SIZES |= {"encoder_ffn_embed_dim": 12, "decoder_ffn_embed_dim": 24}
FAIRSEQ_FLAGS = (AdapterFlags, PruningFlags, BaseFlag, AbsentFlag)


def fairseq_parser() -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False)
    for settings in FAIRSEQ_FLAGS:
        add_flags(parser, settings, in_fairseq=True)
    return parser


TRAINING_FLAGS = [action.option_strings[0] for action in fairseq_parser()._actions if action.nargs != 0]


def nearly_right(flag: str) -> st.SearchStrategy[tuple[str, str]]:
    """A flag with values of its form, of which some are one too high, too few or repeated."""
    if flag.endswith("-layer"):
        values = st.lists(st.integers(0, 3).map(str), min_size=1, max_size=3).map("_".join)
    elif flag.endswith("-position"):
        some = ("q", "k", "crossq", "fc1", "fc2", "x")
        values = st.lists(st.sampled_from(some), min_size=1, max_size=3).map("_".join)
    elif flag.endswith("-direction"):
        values = st.lists(st.sampled_from((*SIDES, *SIDES, "x")), min_size=1, max_size=4).map("_".join)
    else:
        values = st.integers(-2, 30).map(str) | WORDS
    return st.tuples(st.just(flag), values | values | WORDS)


@examples(150)
@given(
    st.lists(st.sampled_from(TRAINING_FLAGS).flatmap(nearly_right), max_size=2).map(dict),
    st.just(["en", "fr", "wo"]) | st.lists(NAMES, max_size=4),
)
def test_training_flags_of_any_value_are_a_configuration_or_a_sentence(values, langs) -> None:
    parser = fairseq_parser()
    try:
        args = parser.parse_args([f"{flag}={value}" for flag, value in values.items()])
        check_values(args)
    except (UserError, argparse.ArgumentError):
        return
    args = Namespace(**vars(args), **SIZES, langs=",".join(langs))
    for check in (AdapterConfig.from_args, pruning_from_args, has_adapters, freezes_base):
        try:
            found = check(args)
        except UserError as error:
            assert str(error)
            continue
        if isinstance(found, AdapterConfig):
            assert found.sites
            assert all(0 <= site.layer < SIZES[f"{site.stack}_layers"] for site in found.sites)
            assert all(found.side(site) in SIDES for site in found.sites)
            assert all(rank >= 1 for rank in found.languages.ranks)
            assert found.start + found.dim <= 24
        if check is pruning_from_args:
            assert 0 <= args.target_pruning_ratio < 1
            assert args.pruning_t2 >= 1


FEW = st.lists(st.integers(0, 4).map(str), min_size=1, max_size=2)
SIDES_OF_LAYERS = st.one_of(
    st.lists(st.sampled_from(SIDES), min_size=2, max_size=2),
    st.lists(st.sampled_from(SIDES), min_size=3, max_size=3),
    st.lists(st.sampled_from((*SIDES, *SIDES, "x")), max_size=4),
)


@examples(100)
@given(st.sampled_from((("encoder", 3), ("decoder", 2))), FEW, SIDES_OF_LAYERS)
def test_layers_and_sides_are_right_exactly_where_the_model_has_them(stack, layers, sides) -> None:
    name, count = stack
    words = [f"--{name}-lora-layer={'_'.join(layers)}", f"--{name}-activation-direction={'_'.join(sides)}"]
    args = Namespace(**vars(fairseq_parser().parse_args(words)), **SIZES, langs="en,fr,wo", lang_pairs="en-fr,wo-en")
    right = all(int(layer) < count for layer in layers) and len({*layers}) == len(layers)
    if right and len(sides) == count and "x" not in sides:
        config = AdapterConfig.from_args(args)
        assert {site.layer for site in config.sites if site.stack == name} == {*map(int, layers)}
        assert config.stacks[name].sides == tuple(sides)
    else:
        with pytest.raises(UserError, match=rf"--{name}-(lora-layer|activation-direction)"):
            AdapterConfig.from_args(args)


@examples(80)
@given(
    st.integers(0, 28),
    st.integers(0, 14),
    st.sampled_from(("none", "0_2")),
    st.lists(st.sampled_from(tuple(POSITIONS["encoder"])), min_size=1, max_size=2, unique=True),
    st.sampled_from(("none", "1")),
    st.lists(st.sampled_from(tuple(POSITIONS["decoder"])), min_size=1, max_size=2, unique=True),
)
def test_a_slice_is_right_exactly_where_all_adapted_layers_have_its_features(
    dim, start, encoder, in_encoder, decoder, in_decoder
) -> None:
    words = [
        f"--dim={dim}",
        f"--start-idx={start}",
        f"--encoder-lora-layer={encoder}",
        f"--decoder-lora-layer={decoder}",
    ]
    words += [f"--encoder-lora-position={'_'.join(in_encoder)}", f"--decoder-lora-position={'_'.join(in_decoder)}"]
    widths = {("encoder", "fc"): (16, 12), ("decoder", "fc"): (8, 24), ("encoder", "q"): (16,), ("decoder", "q"): (8,)}
    found = []
    for stack, layers, positions in (("encoder", encoder, in_encoder), ("decoder", decoder, in_decoder)):
        for position in positions if layers != "none" else ():
            found += widths[stack, "fc" if position in ("fc1", "fc2") else "q"]
            found += (16,) if position in ("crossk", "crossv") else ()
    args = Namespace(**vars(fairseq_parser().parse_args(words)), **SIZES, langs="en,fr,wo")
    if found and (start + dim <= min(found) if dim else not start):
        config = AdapterConfig.from_args(args)
        assert (config.dim, config.start) == (dim, start)
    else:
        with pytest.raises(UserError, match=r"--dim|--start-idx|adapt nothing"):
            AdapterConfig.from_args(args)


def adapter_flags() -> st.SearchStrategy[dict]:
    """Values of the model's flags that are right together."""
    stacks = {}
    for stack, layers in (("encoder", 3), ("decoder", 2)):
        some = st.lists(st.sampled_from([str(layer) for layer in range(layers)]), min_size=1, unique=True)
        positions = st.lists(st.sampled_from(tuple(POSITIONS[stack])), min_size=1, unique=True)
        sides = st.lists(st.sampled_from(SIDES), min_size=layers, max_size=layers)
        stacks[f"{stack}_lora_layer"] = st.none() | some.map("_".join)
        stacks[f"{stack}_lora_position"] = st.none() | positions.map("_".join)
        stacks[f"{stack}_activation_direction"] = st.none() | sides.map("_".join)
    numbers = {"dim": st.integers(0, 4), "high_rank": st.integers(1, 9), "low_rank": st.integers(1, 9)}
    numbers |= {"lora_alpha": st.none() | st.floats(1e-4, 1e4), "lora_scaling": st.sampled_from((None, *SCALINGS))}
    return st.fixed_dictionaries({**stacks, **numbers, "lora_init": st.sampled_from(("rank", "standard"))})


@examples(80)
@given(adapter_flags(), st.lists(st.sampled_from(tuple(PAPER_LEVELS)), min_size=1, max_size=6, unique=True))
def test_what_a_checkpoint_stores_is_the_configuration_of_its_training(flags, langs) -> None:
    parser = fairseq_parser()
    words = [
        word
        for name, value in flags.items()
        if value is not None
        for word in (f"--{name.replace('_', '-')}", str(value))
    ]
    args = parser.parse_args(words)
    check_values(args)
    for name, value in flags.items():
        assert getattr(args, name) == value
    args = Namespace(**vars(args), **SIZES, langs=",".join(langs), lang_pairs=f"{langs[0]}-{langs[-1]}")
    config = AdapterConfig.from_args(args)
    for stack in POSITIONS:  # by hand
        text = flags[f"{stack}_lora_layer"]
        if text is not None:
            assert "_".join(map(str, config.stacks[stack].layers)) == text
        if flags[f"{stack}_activation_direction"] is not None:
            assert "_".join(config.stacks[stack].sides) == flags[f"{stack}_activation_direction"]
    stored = Namespace(**{**vars(args), "adapter_languages": languages_to_json(config.languages), "langs": None})
    assert AdapterConfig.from_args(pickle.loads(pickle.dumps(stored))) == config


@examples(60)
@given(LANGUAGE_ROWS)
def test_a_table_of_languages_is_stored_as_it_is(rows) -> None:
    table = LanguageTable(*map(tuple, zip(*rows, strict=True)))
    assert languages_from_json(languages_to_json(table)) == table


def our_parser(*settings: type) -> CommandParser:
    parser = CommandParser(prog="p")
    read_strictly(parser)
    for group in settings:
        add_flags(parser, group)
    return parser


SEARCH_FLAGS = [
    action.option_strings[0] for action in our_parser(GenerationSettings, BatchLimits)._actions if action.nargs != 0
]


@examples(100)
@given(
    st.dictionaries(st.sampled_from(SEARCH_FLAGS), NUMBERS | WORDS, max_size=4)
    | st.dictionaries(
        st.sampled_from(SEARCH_FLAGS), st.integers(0, 9999).map(str) | st.floats(0, 9).map(str) | NUMBERS, max_size=2
    )
)
def test_flags_of_a_search_of_any_value_are_settings_or_mistakes(values) -> None:
    try:
        args = our_parser(GenerationSettings, BatchLimits).parse([f"{flag}={value}" for flag, value in values.items()])
        found = [read_flags(args, settings) for settings in (GenerationSettings, BatchLimits)]
    except SystemExit as end:
        assert end.code == 2
    except UserError as error:
        assert str(error)
    else:  # what was read is what was given, by Python's own reading
        for flag, value in values.items():
            name = flag.lstrip("-").replace("-", "_")
            held = next(getattr(group, name) for group in found if hasattr(group, name))
            assert held == (value if isinstance(held, str) else type(held)(value))
            if not isinstance(held, str):  # Python also reads 1_0 and the digits of any script
                assert set(value) <= set("0123456789+-.eE")


VALID_SEARCHES = st.builds(
    GenerationSettings,
    beam=st.integers(1, 2**31),
    lenpen=st.floats(allow_nan=False, allow_infinity=False),
    unkpen=st.floats(allow_nan=False, allow_infinity=False),
    max_len_a=st.floats(0, 1e300),
    max_len_b=st.integers(1, 10**12),
    no_repeat_ngram_size=st.integers(0, 9),
    temperature=st.floats(1e-300, 1e300),
    unnormalized=st.booleans(),
    diverse_beam_strength=st.floats(0, 1e300),
    seed=st.integers(0, 2**32 - 1),
    remove_bpe=st.sampled_from(("sentencepiece", "@@ ", "none")),
)


@examples(80)
@given(VALID_SEARCHES, st.builds(BatchLimits, st.integers(1, 2**31 - 1), st.none() | st.integers(1, 2**31 - 1)))
def test_the_flags_of_settings_give_these_settings(search, limits) -> None:
    for settings in (search, limits):
        group = type(settings)
        words = [word for word in given_flags(settings) if word != "None"]
        if isinstance(settings, BatchLimits) and settings.batch_size is None:
            words.remove("--batch-size")
        # A negative number behind a flag would be a flag to argparse, had it no "=".
        args = our_parser(group).parse(joined(words))
        assert read_flags(args, group) == settings


def joined(words: list[str]) -> list[str]:
    """``--flag=value`` for ``--flag value``."""
    found: list[str] = []
    for word in words:
        if word.startswith("--"):
            found.append(word)
        else:
            found[-1] += f"={word}"
    return found


ALL_WORDS = {name: sorted(parser_of(name)._option_string_actions) for name in COMMANDS}


@st.composite
def command_lines(draw, commands=tuple(COMMANDS)) -> tuple[str, list[str]]:
    """A command and words from its own flags, wrong ones, and values."""
    command = draw(st.sampled_from(commands))
    flags = st.sampled_from(ALL_WORDS[command])
    odd = st.sampled_from(
        ("--", "-", "--=", "-x", "--unknown", "--out=", "-qv", "--l", "-1", "-.5", "--no such", "@file")
    )
    word = st.one_of(flags, flags, odd, WORDS, st.tuples(flags, WORDS).map("=".join), flags.map(lambda flag: flag[:-1]))
    return command, draw(st.lists(word, max_size=6))


@examples(150)
@given(command_lines())
def test_any_words_are_arguments_or_end_a_command_with_its_mistakes(line) -> None:
    command, words = line
    try:
        args = parser_of(command).parse(words)
    except SystemExit as end:
        assert end.code in (0, 2)
    else:
        assert isinstance(args, Namespace)


@examples(60)
@given(command_lines(("inspect", "report", "join", "average", "remove-language", "add-language", "export", "import")))
def test_a_command_on_nothing_ends_in_a_sentence(tmp_path_factory, line) -> None:
    command, words = line
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.getbasetemp())
        with pytest.raises(SystemExit) as end:
            main([command, *words])
    assert end.value.code in (0, 2) or str(end.value.code).startswith("langspec-lora: error: ")


@examples(60)
@given(st.lists(NAMES | st.text(max_size=3) | NAMES.map(" {} ".format), max_size=4).map(",".join))
def test_a_list_of_names_is_what_stands_between_commas_or_a_sentence(text) -> None:
    parts = [part.strip() for part in text.split(",")]
    if all(parts) and len(set(parts)) == len(parts):
        assert names_of(text, "--langs") == parts
    else:
        with pytest.raises(UserError):
            names_of(text, "--langs")


@examples(40)
@given(st.text(max_size=300))
def test_a_value_that_names_no_file_is_the_value(text) -> None:
    if not text.strip("./"):
        return
    assert content_of(text) == text


@examples(40)
@given(
    st.none()
    | WORDS
    | st.lists(st.sampled_from(("en", "fr", "wo", " en", "fr ", "EN", "nl", "")), min_size=1, max_size=3).map(",".join),
    st.none() | st.integers(-1, 3),
)
def test_languages_to_train_are_some_of_the_model_or_a_sentence(names, number) -> None:
    table = LanguageTable(("en", "fr", "wo"), ("high", "high", "low"), (2, 2, 8))
    args = Namespace(train_languages=names, add_lora=True, freeze_original_parameters=None, language_num=number)
    wanted = list(table.names) if names is None else [name.strip() for name in names.split(",")]
    if set(wanted) <= set(table.names) and len(set(wanted)) == len(wanted):
        assert trained_languages(args, table) == tuple(n for n, name in enumerate(table.names) if name in wanted)
    else:
        with pytest.raises(UserError, match="--train-languages"):
            trained_languages(args, table)
    if number in (None, 3):
        check_language_number(args, table.names)
    else:
        with pytest.raises(UserError):
            check_language_number(args, table.names)


def test_every_flag_of_the_plugin_is_tried() -> None:
    declared = {field.name for group in FAIRSEQ_FLAGS for field in fields(group)}
    assert {flag.lstrip("-").replace("-", "_") for flag in TRAINING_FLAGS} == declared
