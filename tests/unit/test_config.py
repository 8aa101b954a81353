"""The plugin's flags: what they mean, what is taken where they are left out, and what each mistake gets."""

from __future__ import annotations

import argparse
import pickle
import shlex

import pytest

from langspec_lora.config import (
    AdapterConfig,
    check_language_number,
    freezes_base,
    has_adapters,
    trained_languages,
)
from langspec_lora.errors import SeveralErrors, UserError
from langspec_lora.flags import add_adapter_flags, add_task_flags, flag_table
from langspec_lora.languages import languages_from_json, languages_to_json
from langspec_lora.pruning.choices import PruningSettings
from langspec_lora.pruning.schedule import PruningSchedule
from langspec_lora.pruning_flags import pruning_from_args
from langspec_lora.settings import check_values
from langspec_lora.values import true_or_false
from tests import toy

TWELVE = "en,fr,it,de,nl,zh,ja,ko,oc,or,sd,wo"
REQUIRED = (
    *("data-bin", "--task", "translation_multi_simple_epoch_lora", "--arch", "langspec_m2m100_lora_base"),
    *("--langs", TWELVE, "--lang-pairs", "en-fr"),
)
ENCODER = ("q", "k", "v", "fc1", "fc2")
DECODER = ("q", "k", "v", "crossq", "crossk", "crossv", "fc1", "fc2")


def args(*flags: str):
    return toy.parse([*REQUIRED, *flags])


def config(*flags: str) -> AdapterConfig:
    return AdapterConfig.from_args(args(*flags))


def refusal_of(function, *flags: str) -> str:
    with pytest.raises(UserError) as refusal:
        function(args(*flags))
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


FLAGS = {
    "--add-lora": (True, "BOOL"),
    "--freeze-original-parameters": (None, "BOOL"),
    "--train-languages": (None, "A,B"),
    "--lang-resources": (None, "FILE"),
    "--high-rank": (2, "R"),
    "--med-rank": (2, "R"),
    "--low-rank": (8, "R"),
    "--save-adapters-only": (None, "BOOL"),
    "--weight-learning": (False, "BOOL"),
    "--weight-learning-lr": (None, "LR"),
    "--lora-dropout": (0.0, "P"),
    "--directions": ("soft", "{soft,argmax}"),
    "--eval-translations": (0, "N"),
    "--eval-beam": (5, "N"),
    "--eval-max-len": (200, "N"),
    "--eval-tokenize": ("spm", "NAME"),
    "--eval-remove-bpe": ("sentencepiece", "METHOD"),
    "--train-parts": (None, "A,B"),
    "--adapter-key": ("language", "language|group|direction|shared"),
    "--lang-groups": (None, "FILE"),
    "--shared-rank": (None, "R"),
    "--lora-alpha": (None, "A"),
    "--lora-scaling": (None, "rank|root|constant"),
    "--encoder-lora-layer": (None, "0_1_…"),
    "--encoder-lora-position": (None, "q_k_…"),
    "--encoder-activation-direction": (None, "src_…_tgt"),
    "--decoder-lora-layer": (None, "0_1_…"),
    "--decoder-lora-position": (None, "q_k_…"),
    "--decoder-activation-direction": (None, "src_…_tgt"),
    "--language-num": (None, "N"),
    "--dim": (0, "D"),
    "--start-idx": (0, "S"),
    "--lora-init": ("rank", "rank|standard|principal"),
    "--base-checkpoint": (None, "FILE"),
    "--pruning": (False, "BOOL"),
    "--pruning-t1": (2, "EPOCH"),
    "--pruning-t2": (10, "EPOCHS"),
    "--target-pruning-ratio": (0.9, "P"),
    "--pruning-scope": (None, "language|layer|matrix"),
    "--pruning-criterion": ("magnitude", "magnitude|random|first-order"),
    "--pruning-target": ("b", "b|ab"),
    "--pruning-unit": ("entry", "entry|rank"),
    "--global-pruning": (False, "BOOL"),
    "--cross-language": (False, "BOOL"),
    "--absent-languages": ("rest", "{rest,move}"),
}
"""What a flag is where it is left out, and what ``--help`` calls its value."""

KINDS = {
    "True or False": [flag for flag, (_, value) in FLAGS.items() if value == "BOOL"],
    "a whole number": [flag for flag, (_, value) in FLAGS.items() if value in ("R", "N", "D", "S", "EPOCH", "EPOCHS")],
    "a number": [flag for flag, (_, value) in FLAGS.items() if value in ("A", "P")],
}


@pytest.fixture(scope="module")
def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(formatter_class=lambda prog: argparse.HelpFormatter(prog, 2, 99, 10**4))
    add_adapter_flags(parser)
    add_task_flags(parser)
    return parser


def test_help_says_of_every_flag_what_it_takes_and_what_it_does(parser) -> None:
    lines = [line.split(maxsplit=2) for line in parser.format_help().splitlines() if line.startswith("  --")]
    assert {flag: value for flag, value, _ in lines} == {flag: value for flag, (_, value) in FLAGS.items()}
    said = {flag: meaning for flag, _, meaning in lines}
    assert len(set(said.values())) == len(FLAGS)
    assert "src in the first three quarters, tgt after" in said["--encoder-activation-direction"]
    assert "(default: tgt)" in said["--decoder-activation-direction"]
    assert f"of {' '.join(ENCODER)} (" in said["--encoder-lora-position"]
    assert f"of {' '.join(DECODER)} (" in said["--decoder-lora-position"]


def test_all_wrong_flags_are_listed_together() -> None:
    wrong = "--encoder-lora-layer 99 --decoder-lora-position x --lora-init zero --med-rank 0"
    with pytest.raises(SeveralErrors) as refusal:
        config(*wrong.split())
    flags = ("--encoder-lora-layer", "--decoder-lora-position", "--lora-init", "--med-rank")
    for error, flag in zip(refusal.value.errors, flags, strict=True):
        assert str(error).startswith(flag)
    wrong = "--pruning-t1 -1 --pruning-t2 0 --target-pruning-ratio 1 --pruning-scope head"
    with pytest.raises(SeveralErrors) as refusal:
        pruning_from_args(args(*wrong.split()))
    assert len(refusal.value.errors) == 4


def test_table_has_each_flag_once_with_its_value_and_its_default() -> None:
    rows = {row.flag: row for row in flag_table()}
    assert len(flag_table()) == len(rows)
    assert {flag: row.metavar for flag, row in rows.items()} == {
        flag: value.strip("{}").replace(",", "|") if value.startswith("{") else value
        for flag, (_, value) in FLAGS.items()
    }
    assert (rows["--low-rank"].default, rows["--encoder-lora-layer"].default) == ("8", "all")
    assert rows["--absent-languages"].default == "rest"
    assert not any("default" in row.help for row in rows.values())


def test_flags_that_are_left_out_have_their_defaults_in_every_training() -> None:
    parsed = vars(args())
    assert {flag: parsed[flag[2:].replace("-", "_")] for flag in FLAGS} == {flag: FLAGS[flag][0] for flag in FLAGS}


@pytest.mark.parametrize(("flag", "expected"), [(flag, kind) for kind, flags in KINDS.items() for flag in flags])
def test_every_value_is_read_strictly(parser, flag, expected) -> None:
    for text in ("maybe", "1_0", "٣", ""):
        with pytest.raises(UserError) as refusal:
            check_values(parser.parse_args([flag, text]))
        assert str(refusal.value) == f"{flag} {text}: expected {expected}"
    value = {"True or False": False, "a whole number": 30, "a number": 0.25}[expected]
    read = vars(parser.parse_args([flag, str(value)]))[flag[2:].replace("-", "_")]
    assert (read, type(read)) == (value, type(value))


def test_absent_languages_rest_or_move(parser, capsys) -> None:
    for word in ("rest", "move"):
        assert parser.parse_args(["--absent-languages", word]).absent_languages == word
    with pytest.raises(SystemExit):
        parser.parse_args(["--absent-languages", "stay"])
    assert "--absent-languages: invalid choice: 'stay'" in capsys.readouterr().err


def test_without_flags_every_site_is_adapted_with_the_published_sides_and_ranks() -> None:
    found = config()
    for stack, positions in (("encoder", ENCODER), ("decoder", DECODER)):
        assert found.stacks[stack].layers == tuple(range(12))
        assert found.stacks[stack].positions == positions
    assert found.stacks["encoder"].sides == ("src",) * 9 + ("tgt",) * 3
    assert found.stacks["decoder"].sides == ("tgt",) * 12
    assert found.languages.names == tuple(TWELVE.split(","))
    assert found.languages.ranks == (2,) * 8 + (8,) * 4
    assert (found.dim, found.start, found.init) == (0, 0, "rank")


def test_published_flags_mean_what_the_defaults_mean_but_for_the_slice() -> None:
    published = shlex.split("""
        --add-lora True --freeze-original-parameters True
        --encoder-lora-layer "0_1_2_3_4_5_6_7_8_9_10_11" --encoder-lora-position "q_k_v_fc1_fc2"
        --decoder-lora-layer "0_1_2_3_4_5_6_7_8_9_10_11"
        --decoder-lora-position "q_k_v_crossq_crossk_crossv_fc1_fc2"
        --dim 1024 --high-rank 2 --med-rank 2 --low-rank 8
        --encoder-activation-direction "src_src_src_src_src_src_src_src_src_tgt_tgt_tgt"
        --decoder-activation-direction "tgt_tgt_tgt_tgt_tgt_tgt_tgt_tgt_tgt_tgt_tgt_tgt"
        --language-num 12 --pruning True --pruning-t1 2 --pruning-t2 10 --target-pruning-ratio 0.9
    """)
    found, default = config(*published), config()
    assert (found.stacks, found.languages) == (default.stacks, default.languages)
    assert found.dim == 1024
    assert pruning_from_args(args(*published)) == PruningSettings(PruningSchedule(2, 10, 0.9), "language")
    assert has_adapters(args(*published))
    assert freezes_base(args(*published))


def test_chosen_layers_positions_and_directions_are_taken_as_given() -> None:
    found = config(
        *("--encoder-lora-layer", "11_0_3", "--encoder-lora-position", "fc2_q", "--decoder-lora-layer", "none"),
        *("--decoder-activation-direction", "_".join(["src", "tgt"] * 6), "--dim", "512", "--start-idx", "256"),
    )
    assert found.stacks["encoder"].layers == (11, 0, 3)
    assert found.stacks["encoder"].positions == ("fc2", "q")
    assert found.stacks["decoder"].layers == ()
    assert found.stacks["decoder"].sides == ("src", "tgt") * 6
    assert (found.dim, found.start) == (512, 256)


@pytest.mark.parametrize(("layers", "by_source"), [(1, 0), (2, 1), (4, 3), (6, 4), (24, 18)])
def test_three_quarters_of_the_encoder_go_by_source_at_any_depth(layers, by_source) -> None:
    found = config("--encoder-layers", str(layers))
    assert found.stacks["encoder"].sides == ("src",) * by_source + ("tgt",) * (layers - by_source)


def test_single_language_ranks_go_before_their_level(tmp_path) -> None:
    levels = tmp_path / "levels of mine.yaml"
    levels.write_text("high: [en]\nlow: [no, wo]\nranks: {no: 32}\n", encoding="utf-8")
    flags = ("--langs", "wo,no,en", "--lang-resources", str(levels), "--high-rank", "5", "--low-rank", "6")
    assert config(*flags).languages.ranks == (6, 32, 5)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--encoder-lora-layer 0_12", "--encoder-lora-layer 0_12: '12' is not a layer of the encoder; .*from 0 to 11"),
        ("--encoder-lora-layer -1", "'-1' is not a layer"),
        ("--encoder-lora-layer 0,1", "'0,1' is not a layer .* joined by _"),
        ("--encoder-lora-layer ''", "'' is not a layer"),
        ("--encoder-lora-layer 1_", "'' is not a layer"),
        ("--encoder-lora-layer ²", "'²' is not a layer"),
        ("--encoder-lora-layer ٣", "'٣' is not a layer"),
        ("--decoder-lora-layer 3_4_3", "--decoder-lora-layer 3_4_3 names 3 twice; name each one once"),
        ("--decoder-lora-layer 3_4_4_3", "names 3 twice"),
        ("--decoder-lora-layer 4_3_4_3", "names 4 twice"),
        (
            "--encoder-layers 6 --encoder-lora-layer 6",
            "'6' is not a layer of the encoder; expected numbers from 0 to 5",
        ),
        ("--encoder-lora-position q_crossq", "'crossq' is not a position of the encoder; expected q, k, v, fc1, fc2"),
        ("--decoder-lora-position q_out", "'out' is not a position of the decoder; .*crossq, crossk, crossv, fc1, fc2"),
        ("--decoder-lora-position q_Q", "'Q' is not a position"),
        ("--decoder-lora-position q_q", "names 'q' twice"),
        ("--encoder-activation-direction src_tgt", "for each of the 12 encoder layers, joined by _; got 2"),
        (f"--decoder-activation-direction {'tgt_' * 12}tgt", "for each of the 12 decoder layers, joined by _; got 13"),
        (
            f"--encoder-activation-direction {'src_' * 11}both",
            "'both' is not a side; expected src, tgt, direction, shared or learned",
        ),
        (f"--encoder-activation-direction {'src_' * 11}", "'' is not a side"),
        ("--encoder-activation-direction both_none_any", "'both' is not a side"),
        ("--encoder-lora-layer none --decoder-lora-layer none", "adapt nothing"),
        ("--encoder-layers 0 --decoder-lora-layer none", "adapt nothing"),
        ("--language-num 11", "--language-num 11 was given, but --langs names 12 languages; make them agree"),
        ("--language-num 0", "--language-num 0 was given"),
        ("--high-rank 0", "--high-rank: rank 0 was given"),
        ("--low-rank -8", "--low-rank: rank -8 was given"),
        ("--dim 1025", "--dim 1025 --start-idx 0 reaches feature 1025, .* narrowest adapted encoder layer has 1024"),
        ("--dim 1000 --start-idx 25", "reaches feature 1025"),
        ("--dim -1", "neither can be negative"),
        ("--dim 4 --start-idx -1", "neither can be negative"),
        ("--start-idx 5", "--start-idx 5 needs --dim"),
        ("--decoder-ffn-embed-dim 512 --dim 600", "narrowest adapted decoder layer has 512"),
        ("--encoder-lora-layer none --decoder-ffn-embed-dim 512 --dim 600", "adapted decoder layer has 512"),
        ("--lora-init normal", "--lora-init normal: expected rank or standard"),
        ("--langs en,xx", "no resource level for xx .levels come from the built-in table of the paper's twelve"),
        ("--langs en,fr,en", "names 'en' twice"),
        ("--langs en,", "has an empty name"),
        ("--lang-resources nowhere.yaml", "nowhere.yaml: No such file"),
    ],
)
def test_wrong_adapter_flags_are_named_in_one_line(flags, words) -> None:
    with pytest.raises(UserError, match=words) as refusal:
        config(*shlex.split(flags))
    assert "\n" not in str(refusal.value)


def test_language_without_a_level_is_looked_for_in_the_file_that_was_given(tmp_path) -> None:
    levels = tmp_path / "levels.yaml"
    levels.write_text("high: [fr]\n", encoding="utf-8")
    message = refusal_of(AdapterConfig.from_args, "--langs", "en,fr", "--lang-resources", str(levels))
    assert f"no resource level for en (levels come from the file {levels})" in message


@pytest.mark.parametrize("langs", [["wo", "en"], ("wo", "en"), "wo,en"], ids=str)
def test_languages_are_a_list_or_its_text(langs) -> None:
    parsed = args()
    parsed.langs = langs
    assert AdapterConfig.from_args(parsed).languages.names == ("wo", "en")
    parsed.language_num = 2
    check_language_number(parsed, ("wo", "en"))
    parsed.langs = None
    with pytest.raises(UserError, match="--language-num 2 was given, but --langs names 0 languages"):
        AdapterConfig.from_args(parsed)


@pytest.mark.parametrize("names", ["wo,en", "en, wo"])
def test_languages_that_train_are_known_by_name(names) -> None:
    table = config().languages
    assert trained_languages(args("--train-languages", names), table) == (0, 11)


def test_all_languages_train_where_none_is_named() -> None:
    parsed = args()
    assert trained_languages(parsed, config().languages) == tuple(range(12))
    del parsed.train_languages  # as in an older checkpoint
    assert trained_languages(parsed, config().languages) == tuple(range(12))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--train-languages wo,xx,yy", "--train-languages names 'xx', which is not in --langs en,fr,it"),
        ("--train-languages wo --freeze-original-parameters False", "trains the base below them; give one of the two"),
        ("--train-languages wo,wo", "--train-languages names 'wo' twice"),
        ("--train-languages wo,", "--train-languages 'wo,' has an empty name"),
    ],
)
def test_languages_that_cannot_train_alone_are_named(flags, words) -> None:
    table = config().languages
    assert words in refusal_of(lambda parsed: trained_languages(parsed, table), *shlex.split(flags))


@pytest.mark.parametrize("init", ["rank", "standard"])
def test_a_is_drawn_as_the_flag_says(init) -> None:
    assert config("--lora-init", init).init == init


def test_keys_and_values_of_cross_attention_read_the_encoder_s_width() -> None:
    narrow = ("--encoder-embed-dim", "512", "--encoder-lora-layer", "none", "--dim", "600")
    for position in ("crossk", "crossv"):
        with pytest.raises(UserError, match="narrowest adapted decoder layer has 512"):
            config(*narrow, "--decoder-lora-position", position)
    assert config(*narrow, "--decoder-lora-position", "q_crossq").dim == 600


def test_the_slice_is_checked_only_at_adapted_sites() -> None:
    narrow = ("--decoder-ffn-embed-dim", "512", "--dim", "600")
    assert config(*narrow, "--decoder-lora-position", "q_crossk").dim == 600
    assert config(*narrow, "--decoder-lora-layer", "none").dim == 600


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("", None),
        ("--pruning False --target-pruning-ratio 0.7", None),
        ("--pruning True", (PruningSchedule(2, 10, 0.9), "language")),
        ("--pruning True --pruning-criterion random", (PruningSchedule(2, 10, 0.9), "language", "random")),
        (
            "--pruning True --pruning-criterion first-order --pruning-target ab --pruning-unit rank",
            (PruningSchedule(2, 10, 0.9), "language", "first-order", "ab", "rank"),
        ),
        ("--pruning True --pruning-scope matrix", (PruningSchedule(2, 10, 0.9), "matrix")),
        ("--pruning True --pruning-scope layer", (PruningSchedule(2, 10, 0.9), "layer")),
        (
            "--pruning True --pruning-t1 0 --pruning-t2 1 --target-pruning-ratio 0",
            (PruningSchedule(0, 1, 0), "language"),
        ),
        ("--global-pruning True", (PruningSchedule(2, 10, 0.9), "language")),
        ("--global-pruning True --cross-language True", (PruningSchedule(2, 10, 0.9), "layer")),
        ("--pruning True --cross-language True --pruning-scope layer", (PruningSchedule(2, 10, 0.9), "layer")),
    ],
)
def test_pruning_flags_and_their_released_names(flags, expected) -> None:
    assert pruning_from_args(args(*shlex.split(flags))) == (expected and PruningSettings(*expected))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--pruning-t2 0", "--pruning-t2 0: expected the number of epochs until the target, at least 1"),
        ("--pruning-t2 -3", "--pruning-t2 -3"),
        ("--pruning-t1 -1", "--pruning-t1 -1: expected the epoch at which pruning starts"),
        ("--target-pruning-ratio 1", "--target-pruning-ratio 1.0: expected a share from 0 to below 1"),
        ("--target-pruning-ratio -0.1", "--target-pruning-ratio -0.1"),
        ("--target-pruning-ratio 90", "--target-pruning-ratio 90.0"),
        ("--target-pruning-ratio nan", "--target-pruning-ratio nan"),
        ("--pruning-scope model", "--pruning-scope model: expected language, layer, matrix"),
        ("--pruning-criterion l1", "--pruning-criterion l1: expected magnitude, random, first-order"),
        ("--pruning-target a", "--pruning-target a: expected b, ab"),
        ("--pruning-unit row", "--pruning-unit row: expected entry, rank"),
        (
            "--pruning-scope language --cross-language True",
            "the scope layer, but --pruning-scope language was given",
        ),
    ],
)
def test_wrong_pruning_flags_are_named_in_one_line(flags, words) -> None:
    assert words in refusal_of(pruning_from_args, "--pruning", "True", *shlex.split(flags))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--add-lora maybe", "--add-lora maybe: expected True or False"),
        ("--freeze-original-parameters 2", "--freeze-original-parameters 2: expected True or False"),
        ("--pruning ja", "--pruning ja: expected True or False"),
        ("--high-rank two", "--high-rank two: expected a whole number"),
        ("--dim 1024.0", "--dim 1024.0: expected a whole number"),
        ("--language-num twelve", "--language-num twelve: expected a whole number"),
        ("--pruning-t2 1.5", "--pruning-t2 1.5: expected a whole number"),
        ("--target-pruning-ratio most", "--target-pruning-ratio most: expected a number"),
    ],
)
def test_value_of_another_kind_is_one_line_without_fairseq_s_long_usage(capsys, flags, words) -> None:
    parsed = pickle.loads(pickle.dumps(args(*shlex.split(flags))))  # as fairseq hands it to its processes
    with pytest.raises(UserError) as refusal:
        check_values(parsed)
    assert str(refusal.value) == words
    assert capsys.readouterr() == ("", "")
    assert parsed == args()  # the defaults stand in for what is wrong


def test_all_values_of_another_kind_are_listed_together() -> None:
    with pytest.raises(UserError) as refusal:
        check_values(args("--add-lora", "maybe", "--high-rank", "two", "--dim", "8", "--pruning-t2", "1.5"))
    found = [
        "--add-lora maybe: expected True",
        "--high-rank two: expected a whole",
        "--pruning-t2 1.5: expected a whole",
    ]
    assert all(map(str.startswith, map(str, refusal.value.errors), found))
    assert len(refusal.value.errors) == len(found)


def test_true_and_false_are_read_in_any_case_and_nothing_else() -> None:
    assert [true_or_false(word) for word in ("True", "TRUE", "true", "1", "yes")] == [True] * 5
    assert [true_or_false(word) for word in ("False", "FALSE", "false", "0", "no")] == [False] * 5
    for word in ("", "None", "2", "tru"):
        with pytest.raises(ValueError, match=f"^{word}$"):
            true_or_false(word)


@pytest.mark.parametrize(
    ("flags", "adapters", "freezes"),
    [
        ("", True, True),
        ("--add-lora False", False, False),
        ("--freeze-original-parameters False", True, False),
        ("--add-lora False --freeze-original-parameters False", False, False),
    ],
)
def test_base_is_frozen_by_default_if_there_are_adapters(flags, adapters, freezes) -> None:
    parsed = args(*shlex.split(flags))
    assert (has_adapters(parsed), freezes_base(parsed)) == (adapters, freezes)


def test_nothing_left_to_train_is_an_error() -> None:
    words = "leaves nothing to train; set --freeze-original-parameters False"
    assert words in refusal_of(has_adapters, "--add-lora", "False", "--freeze-original-parameters", "True")


@pytest.mark.parametrize(
    ("name", "layers", "width", "ffn", "heads", "norm_first"),
    [
        ("langspec_m2m100_lora_base", 12, 1024, 4096, 16, True),
        ("langspec_m2m100_lora_175m", 6, 512, 2048, 16, True),
        ("langspec_m2m100_lora_1_2b", 24, 1024, 8192, 16, True),
        ("langspec_m2m100_lora_tiny", 2, 64, 128, 4, True),
        ("langspec_transformer_lora", 6, 512, 2048, 8, False),
    ],
)
def test_architectures_have_their_sizes(name, layers, width, ffn, heads, norm_first) -> None:
    parsed = vars(args("--arch", name))
    for stack in ("encoder", "decoder"):
        sizes = [parsed[f"{stack}_{size}"] for size in ("layers", "embed_dim", "ffn_embed_dim", "attention_heads")]
        assert sizes == [layers, width, ffn, heads]
        assert parsed[f"{stack}_normalize_before"] is norm_first
    assert parsed["attention_dropout"] == (0.1 if width > 64 and norm_first else 0.0)


def test_released_architecture_is_the_base_size_and_never_changes_what_was_given() -> None:
    parsed = args("--arch", "global_pruning_langspec_m2m100_lora_base", "--decoder-layers", "3")
    assert (parsed.encoder_layers, parsed.decoder_layers) == (12, 3)
    assert (parsed.encoder_embed_dim, parsed.decoder_ffn_embed_dim, parsed.encoder_attention_heads) == (1024, 4096, 16)
    assert parsed.encoder_normalize_before
    assert parsed.decoder_normalize_before


@pytest.mark.parametrize("size", ["base", "175m", "1_2b"])
def test_what_the_published_command_leaves_open_is_as_m2m100_was_pretrained(size) -> None:
    parsed = args("--arch", f"langspec_m2m100_lora_{size}")
    assert {
        "attention_dropout": 0.1,
        "activation_dropout": 0.0,
        "activation_fn": "relu",
        "encoder_layerdrop": 0,
        "decoder_layerdrop": 0,
        "encoder_learned_pos": False,
        "decoder_learned_pos": False,
        "layernorm_embedding": False,
        "no_scale_embedding": False,
        "adaptive_softmax_cutoff": None,
        "cross_self_attention": False,
        "no_cross_attention": False,
        "no_token_positional_embeddings": False,
    }.items() <= vars(parsed).items()
    assert args("--arch", f"langspec_m2m100_lora_{size}", "--attention-dropout", "0").attention_dropout == 0


def test_table_of_languages_survives_a_checkpoint_in_any_script() -> None:
    table = config("--langs", "wo,en").languages
    named = type(table)(("日本", "ქა"), table.levels, table.ranks)
    assert languages_from_json(languages_to_json(named)) == named
    assert "日本" in languages_to_json(named)  # for whoever looks into the checkpoint


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"names": ["en"]}', '{"names": 1, "levels": 2, "ranks": 3}', 7, 100_000 * "["],
    ids=range(8),
)
def test_damaged_table_of_languages_is_a_sentence(text) -> None:
    with pytest.raises(UserError, match="table of languages is damaged"):
        languages_from_json(text)
