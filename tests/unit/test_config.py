"""The plugin's flags: what they mean, what is taken where they are left out, and what each mistake gets."""

from __future__ import annotations

import shlex

import pytest

from langspec_lora.config import (
    AdapterConfig,
    freezes_base,
    has_adapters,
    languages_from_json,
    languages_to_json,
    parse_bool,
    pruning_from_args,
)
from langspec_lora.errors import UserError
from langspec_lora.pruning.schedule import PruningSchedule
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


def test_without_flags_every_place_is_adapted_with_the_published_directions_and_ranks() -> None:
    found = config()
    for stack, positions in (("encoder", ENCODER), ("decoder", DECODER)):
        assert found.stacks[stack].layers == tuple(range(12))
        assert found.stacks[stack].positions == positions
    assert found.stacks["encoder"].directions == ("src",) * 9 + ("tgt",) * 3
    assert found.stacks["decoder"].directions == ("tgt",) * 12
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
    assert pruning_from_args(args(*published)) == (PruningSchedule(2, 10, 0.9), "language")
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
    assert found.stacks["decoder"].directions == ("src", "tgt") * 6
    assert (found.dim, found.start) == (512, 256)


@pytest.mark.parametrize(("layers", "by_source"), [(1, 0), (2, 1), (4, 3), (6, 4), (24, 18)])
def test_three_quarters_of_the_encoder_go_by_source_at_any_depth(layers, by_source) -> None:
    found = config("--encoder-layers", str(layers))
    assert found.stacks["encoder"].directions == ("src",) * by_source + ("tgt",) * (layers - by_source)


def test_single_language_ranks_go_before_their_level(tmp_path) -> None:
    levels = tmp_path / "levels of mine.yaml"
    levels.write_text("high: [en]\nlow: [no, wo]\nranks: {no: 32}\n", encoding="utf-8")
    flags = ("--langs", "wo,no,en", "--lang-resources", str(levels), "--high-rank", "5", "--low-rank", "6")
    assert config(*flags).languages.ranks == (6, 32, 5)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--encoder-lora-layer 0_12", "--encoder-lora-layer 0_12: '12' is no layer of the encoder; .*from 0 to 11"),
        ("--encoder-lora-layer -1", "'-1' is no layer"),
        ("--encoder-lora-layer 0,1", "'0,1' is no layer .* joined by _"),
        ("--encoder-lora-layer ''", "'' is no layer"),
        ("--encoder-lora-layer 1_", "'' is no layer"),
        ("--encoder-lora-layer ²", "'²' is no layer"),
        ("--encoder-lora-layer ٣", "'٣' is no layer"),
        ("--decoder-lora-layer 3_4_3", "--decoder-lora-layer 3_4_3: 3 stands there twice"),
        ("--encoder-layers 6 --encoder-lora-layer 6", "'6' is no layer of the encoder; expected numbers from 0 to 5"),
        ("--encoder-lora-position q_crossq", "'crossq' is no position of the encoder; expected q, k, v, fc1, fc2"),
        ("--decoder-lora-position q_out", "'out' is no position of the decoder; .*crossq, crossk, crossv, fc1, fc2"),
        ("--decoder-lora-position q_Q", "'Q' is no position"),
        ("--decoder-lora-position q_q", "q stands there twice"),
        ("--encoder-activation-direction src_tgt", "2 directions for 12 encoder layers; give one for each"),
        (f"--decoder-activation-direction {'tgt_' * 12}tgt", "13 directions for 12 decoder layers"),
        (f"--encoder-activation-direction {'src_' * 11}both", "'both' is no direction; expected src or tgt"),
        (f"--encoder-activation-direction {'src_' * 11}", "'' is no direction"),
        ("--encoder-lora-layer none --decoder-lora-layer none", "adapt nothing"),
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
        ("--lora-init normal", "--lora-init normal: expected rank or standard"),
        ("--langs en,xx", "no resource level for xx"),
        ("--langs en,fr,en", "names 'en' twice"),
        ("--langs en,", "lacks a language"),
        ("--lang-resources nowhere.yaml", "nowhere.yaml: No such file"),
    ],
)
def test_wrong_adapter_flags_are_named_in_one_line(flags, words) -> None:
    with pytest.raises(UserError, match=words) as refusal:
        config(*shlex.split(flags))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("init", ["rank", "standard"])
def test_a_is_drawn_as_the_flag_says(init) -> None:
    assert config("--lora-init", init).init == init


def test_keys_and_values_of_cross_attention_read_the_encoder_s_width() -> None:
    narrow = ("--encoder-embed-dim", "512", "--encoder-lora-layer", "none", "--dim", "600")
    for position in ("crossk", "crossv"):
        with pytest.raises(UserError, match="narrowest adapted decoder layer has 512"):
            config(*narrow, "--decoder-lora-position", position)
    assert config(*narrow, "--decoder-lora-position", "q_crossq").dim == 600


def test_slice_is_measured_only_where_pairs_stand() -> None:
    narrow = ("--decoder-ffn-embed-dim", "512", "--dim", "600")
    assert config(*narrow, "--decoder-lora-position", "q_crossk").dim == 600
    assert config(*narrow, "--decoder-lora-layer", "none").dim == 600


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("", None),
        ("--pruning False --target-pruning-ratio 0.7", None),
        ("--pruning True", (PruningSchedule(2, 10, 0.9), "language")),
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
    assert pruning_from_args(args(*shlex.split(flags))) == expected


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
    with pytest.raises(SystemExit) as refusal:
        args(*shlex.split(flags))
    assert refusal.value.code == f"langspec-lora: error: {words}"
    assert capsys.readouterr() == ("", "")


def test_true_and_false_are_read_in_any_case_and_nothing_else() -> None:
    assert [parse_bool(word) for word in ("True", "TRUE", "true", "1", "yes")] == [True] * 5
    assert [parse_bool(word) for word in ("False", "FALSE", "false", "0", "no")] == [False] * 5
    for word in ("", "None", "2", "tru"):
        with pytest.raises(ValueError, match=f"^{word}$"):
            parse_bool(word)


@pytest.mark.parametrize(
    ("flags", "adapters", "freezes"),
    [
        ("", True, True),
        ("--add-lora False", False, False),
        ("--freeze-original-parameters False", True, False),
        ("--add-lora False --freeze-original-parameters False", False, False),
    ],
)
def test_base_is_frozen_by_default_where_there_are_pairs(flags, adapters, freezes) -> None:
    parsed = args(*shlex.split(flags))
    assert (has_adapters(parsed), freezes_base(parsed)) == (adapters, freezes)


def test_nothing_left_to_train_is_an_error() -> None:
    words = "leaves nothing to train; set --freeze-original-parameters False"
    assert words in refusal_of(has_adapters, "--add-lora", "False", "--freeze-original-parameters", "True")


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


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"names": ["en"]}', '{"names": 1, "levels": 2, "ranks": 3}', 7])
def test_damaged_table_of_languages_is_a_sentence(text) -> None:
    with pytest.raises(UserError, match="table of languages is damaged"):
        languages_from_json(text)
