"""Checkpoints held against the model they are meant for, by their outline alone."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from langspec_lora.adapters.entries import adapter_shapes, language_manifest
from langspec_lora.checkpoints.arguments import check_stored_arguments, stored_config, stored_langs, stored_languages
from langspec_lora.checkpoints.compatibility import check_generation_checkpoints, check_training_checkpoint
from langspec_lora.checkpoints.outline import Outline
from langspec_lora.checkpoints.starting_point import check_start_flags, starting_checkpoint
from langspec_lora.config import AdapterConfig, StackConfig
from langspec_lora.errors import UserError
from langspec_lora.flags import add_adapter_flags
from langspec_lora.languages import LanguageTable, languages_to_json
from tests.optional import needs_mapped_files

SIZES = {"encoder_layers": 2, "encoder_embed_dim": 6, "encoder_ffn_embed_dim": 10}
SIZES |= {"decoder_layers": 1, "decoder_embed_dim": 4, "decoder_ffn_embed_dim": 8}
TABLE = LanguageTable(("en", "wo"), ("high", "low"), (2, 3))
VOCABULARY = 9


def stored_arguments(**changes: object) -> Namespace:
    """What a checkpoint stores of a small model with adapters."""
    parser = ArgumentParser()
    add_adapter_flags(parser)
    given = {**vars(parser.parse_args([])), **SIZES, "langs": "en,wo", "adapter_languages": languages_to_json(TABLE)}
    return Namespace(**{**given, **changes})


def command(**changes: object) -> Namespace:
    """Arguments of a training that starts from nothing."""
    start = {"restore_file": "checkpoint_last.pt", "save_dir": "nowhere", "finetune_from_model": None}
    resets = ("optimizer", "lr_scheduler", "meters", "dataloader")
    given = {**vars(stored_arguments()), **start, **{f"reset_{name}": False for name in resets}}
    return Namespace(**{**given, **changes})


def base_shapes(args: Namespace, vocabulary: int = VOCABULARY) -> dict[str, tuple[int, ...]]:
    """Those that the checks look at."""
    shapes = {"encoder.embed_tokens.weight": (vocabulary, args.encoder_embed_dim)}
    for stack in ("encoder", "decoder"):
        for layer in range(getattr(args, f"{stack}_layers")):
            width, ffn = getattr(args, f"{stack}_embed_dim"), getattr(args, f"{stack}_ffn_embed_dim")
            shapes[f"{stack}.layers.{layer}.fc1.weight"] = (ffn, width)
    return shapes


def all_shapes(args: Namespace) -> dict[str, tuple[int, ...]]:
    """Those of a model with adapters."""
    return {**base_shapes(args), **adapter_shapes(args, AdapterConfig.from_args(args))}


def write(path: Path, shapes: Mapping[str, tuple[int, ...]], args: Namespace | None) -> str:
    """Writes a checkpoint whose adapters, if it has some, are those of the arguments."""
    model = {name: torch.zeros(shape, dtype=dtype_of(name)) for name, shape in shapes.items()}
    stored = getattr(args, "adapter_languages", None)
    if "adapters.manifest" in model and stored:
        model["adapters.manifest"] = torch.tensor(list(stored.encode()))
    torch.save({"model": model, "args": args}, path)
    return str(path)


def dtype_of(name: str) -> torch.dtype:
    """The dtype of an entry of a model."""
    return torch.uint8 if name.endswith("_mask") else torch.int64 if name.startswith("adapters.") else torch.float32


@pytest.mark.parametrize(
    ("dim", "sizes"), [(0, {"fc1": (6, 10), "crossk": (6, 4)}), (3, {"fc1": (3, 3), "crossk": (3, 3)})]
)
def test_entries_of_adapters_are_named_and_sized_before_anything_is_built(dim, sizes) -> None:
    stacks = {
        "encoder": StackConfig((1,), ("fc1",), ("src", "tgt")),
        "decoder": StackConfig((0,), ("crossk",), ("tgt",)),
    }
    manifest = '{"names": ["en", "wo"], "levels": ["high", "low"], "ranks": [2, 3], "sha256": "' + "0" * 64 + '"}'
    expected = {"adapters.manifest": (len(manifest),), "adapters.mask_epoch": (1,)}
    for name, (width_in, width_out) in (
        ("encoder.layers.1.fc1", sizes["fc1"]),
        ("decoder.layers.0.encoder_attn.k_proj", sizes["crossk"]),
    ):
        expected |= {
            f"{name}.lora_A": (5, width_in),
            f"{name}.lora_B": (5, width_out),
            f"{name}.lora_mask": (5, width_out),
        }
    assert adapter_shapes(stored_arguments(), AdapterConfig(TABLE, stacks, dim, 0, "rank")) == expected


@pytest.mark.parametrize(
    ("changes", "there", "start"),
    [
        ({}, (), None),
        ({"finetune_from_model": "base.pt"}, (), ("base.pt", False)),
        ({"finetune_from_model": "base.pt"}, ("checkpoint_last.pt",), ("checkpoint_last.pt", True)),
        ({"reset_optimizer": True}, ("checkpoint_last.pt",), ("checkpoint_last.pt", False)),
        ({"restore_file": "other.pt"}, ("checkpoint_last.pt",), ("other.pt", True)),
        ({"restore_file": "other.pt", "reset_optimizer": True}, (), ("other.pt", False)),
        ({"restore_file": "other.pt", "checkpoint_suffix": "-rank-0"}, (), ("other-rank-0.pt", True)),
        ({"checkpoint_suffix": "-0"}, ("checkpoint_last-0.pt",), ("checkpoint_last-0.pt", True)),
        ({"checkpoint_suffix": "-0"}, ("checkpoint_last.pt",), None),
        ({"checkpoint_suffix": None}, ("checkpoint_last.pt",), ("checkpoint_last.pt", True)),
        ({"continue_once": "once.pt"}, (), ("once.pt", True)),
        ({"continue_once": "once.pt", "reset_optimizer": True}, (), ("once.pt", False)),
        ({"continue_once": "once.pt"}, ("checkpoint_last.pt",), ("checkpoint_last.pt", True)),
    ],
)
def test_training_starts_from_the_file_that_fairseq_takes(changes, there, start, tmp_path) -> None:
    for name in there:
        (tmp_path / name).touch()
    found = starting_checkpoint(command(save_dir=str(tmp_path), **changes))
    if start is not None and start[0] in there:
        start = str(tmp_path / start[0]), start[1]
    assert found == start


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        *(({f"reset_{name}": True}, f"--reset-{name.replace('_', '-')}") for name in ("optimizer", "lr_scheduler")),
        *(({f"reset_{name}": True}, f"--reset-{name}") for name in ("meters", "dataloader")),
        ({"restore_file": "other.pt"}, "--restore-file other.pt"),
        ({"reset_meters": True, "restore_file": "other.pt"}, "--reset-meters"),
    ],
)
def test_training_starts_in_one_way_only(changes, named) -> None:
    check_start_flags(command(**changes))
    check_start_flags(command(finetune_from_model="base.pt"))
    with pytest.raises(UserError, match=f"^{named} was given with --finetune-from-model, .*; leave out one of them"):
        check_start_flags(command(finetune_from_model="base.pt", **changes))


def check_training(path: str, args: Namespace, vocabulary: int = VOCABULARY, **flags: object) -> None:
    """Checks a training that starts from a file."""
    args = Namespace(**{**vars(args), "finetune_from_model": path, **flags})
    check_training_checkpoint(args, AdapterConfig.from_args(args), vocabulary)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"encoder_layers": 3}, "--encoder-layers is 2 there and 3 in the command; give --encoder-layers 2, or"),
        ({"decoder_layers": 2}, "--decoder-layers is 1 there and 2 in the command"),
        ({"encoder_embed_dim": 8}, "--encoder-embed-dim is 6 there and 8 in the command"),
        ({"decoder_embed_dim": 8}, "--decoder-embed-dim is 4 there and 8 in the command"),
        ({"encoder_ffn_embed_dim": 8}, "--encoder-ffn-embed-dim is 10 there and 8 in the command"),
        ({"decoder_ffn_embed_dim": 7}, "--decoder-ffn-embed-dim is 8 there and 7 in the command"),
    ],
)
def test_base_of_another_size_is_named_with_the_flag(tmp_path, changes, words) -> None:
    args = command()
    path = write(tmp_path / "base.pt", base_shapes(args), None)
    check_training(path, args)
    with pytest.raises(UserError) as refusal:
        check_training(path, command(**changes))
    assert f"checkpoint {path} has another size: {words}" in str(refusal.value)


def test_base_without_a_whole_transformer_is_named(tmp_path) -> None:
    shapes = base_shapes(command())
    no_embedding = {name: shape for name, shape in shapes.items() if "embed" not in name}
    with pytest.raises(UserError, match=r"does not hold a Transformer \(no encoder\.embed_tokens\.weight\)"):
        check_training(write(tmp_path / "a.pt", no_embedding, None), command())
    no_linear = {
        name.replace("0.fc1.weight", "0.fc1.bias"): shape[:1] for name, shape in shapes.items() if "layers" in name
    }
    no_linear |= {name: shape for name, shape in shapes.items() if "embed" in name}
    with pytest.raises(UserError, match="--encoder-embed-dim is None there and 6"):
        check_training(write(tmp_path / "b.pt", no_linear, None), command())


def test_embedding_that_is_a_single_number_is_no_vocabulary(tmp_path) -> None:
    path = write(tmp_path / "a.pt", {"encoder.embed_tokens.weight": ()}, None)
    with pytest.raises(UserError, match="has a vocabulary of 0, "):
        check_generation_checkpoints([path], ["en"], 1)
    check_generation_checkpoints([write(tmp_path / "b.pt", {}, None)], ["en"], 1)  # which holds no such entry


HOLDING = "but the dictionary (with the language tokens of --langs) has"


@pytest.mark.parametrize(
    ("langs", "vocabulary", "words"),
    [
        ("en,wo", 8, "after the tokens of its 2 languages, such as <mask>; append them to a copy of the dictionary"),
        (
            ["en", "wo", "fr"],
            8,
            "it lacks 1 tokens, those that its training appended after the tokens of its 3 languages",
        ),
        (None, 7, "it lacks 2 tokens, those that its training appended: a token __xx__ for each of its --langs"),
        ("en,wo", 10, None),
    ],
)
def test_other_dictionary_is_named_with_what_it_lacks(tmp_path, langs, vocabulary, words) -> None:
    args = command(langs=langs)
    path = write(tmp_path / "base.pt", base_shapes(args), Namespace(langs=langs))
    check_generation_checkpoints([path], ["en"], VOCABULARY)
    for check in (
        lambda: check_training(path, command(), vocabulary),
        lambda: check_generation_checkpoints([path], ["en"], vocabulary),
    ):
        with pytest.raises(UserError, match=f"{path} has a vocabulary of 9, ") as refusal:
            check()
        message = str(refusal.value)
        assert f"{HOLDING} {vocabulary}; give the model's dictionary with --fixed-dictionary" in message
        assert message.endswith("has tokens for") if words is None else words in message


def test_training_from_nothing_has_nothing_to_check() -> None:
    check_training_checkpoint(command(), None, 1)


def test_adapters_that_training_starts_from_have_the_command_s_languages_and_sizes(tmp_path) -> None:
    args = command()
    path = write(tmp_path / "ours.pt", all_shapes(args), stored_arguments())
    check_training(path, args)
    check_training(path, command(adapter_languages=languages_to_json(LanguageTable(("wo",), ("low",), (3,)))))
    other = LanguageTable(("en", "fr"), ("high", "low"), (2, 3))
    with pytest.raises(UserError, match=f"^checkpoint {path} has no adapters for fr; it knows en, wo"):
        check_training(path, command(adapter_languages=languages_to_json(other)))
    with pytest.raises(
        UserError, match=rf"^checkpoint {path} has decoder\.layers\.0\.encoder_attn\.k_proj\.lora_A of shape"
    ):
        check_training(path, command(dim=3))
    with pytest.raises(UserError, match=f"^checkpoint {path} holds adapters, but --add-lora False was given"):
        check_training_checkpoint(command(finetune_from_model=path), None, VOCABULARY)
    part = all_shapes(args)
    del part["decoder.layers.0.fc2.lora_B"]
    with pytest.raises(UserError, match="holds only part of the adapters: 1 of"):
        check_training(write(tmp_path / "part.pt", part, stored_arguments()), args)


def check_for(purpose: str, path: str, args: Namespace) -> None:
    if purpose == "training":
        check_training(path, args)
    else:
        check_generation_checkpoints([path], ["en", "wo"], VOCABULARY)


@pytest.mark.parametrize("part", ["encoder.embed_tokens.weight", "decoder.layers.0.fc2.lora_A"])
@pytest.mark.parametrize("purpose", ["training", "generation"])
def test_flipped_bit_is_named_before_a_model_is_built(tmp_path, part, purpose) -> None:
    args = command()
    shapes = all_shapes(args)
    path = Path(write(tmp_path / "ours.pt", shapes, stored_arguments()))
    state = torch.load(path, weights_only=False)
    state["model"][part] = torch.full(shapes[part], 0.3)
    torch.save(state, path)
    content = bytearray(path.read_bytes())
    content[content.index(state["model"][part].numpy().tobytes()) + 3] ^= 0x40  # 0.3 becomes 1e38
    path.write_bytes(content)
    assert torch.load(path, weights_only=False)["model"][part].max() > 1e37  # torch says nothing
    with pytest.raises(UserError, match=f"^checkpoint {path} is damaged: a checksum is wrong"):
        check_for(purpose, str(path), args)


@needs_mapped_files
@pytest.mark.parametrize("purpose", ["training", "generation"])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"decoder.layers.0.fc2.lora_A": torch.full((5, 8), float("nan"))}, "has infinite numbers or NaN"),
        (
            {"decoder.layers.0.fc2.lora_mask": torch.full((5, 4), 7, dtype=torch.uint8)},
            "has numbers other than 0 and 1",
        ),
        ({"decoder.layers.0.fc2.lora_B": torch.ones(5, 4, dtype=torch.int64)}, "has int64 numbers in"),
        ({"adapters.mask_epoch": torch.tensor([-1])}, "has no epoch in"),
        ({"adapters.manifest": language_manifest(LanguageTable(("wo", "en"), ("low", "high"), (3, 2)))}, "is damaged"),
    ],
)
def test_numbers_that_no_training_leaves_are_named_before_a_model_is_built(tmp_path, change, words, purpose) -> None:
    args = command()
    path = write(tmp_path / "ours.pt", all_shapes(args), stored_arguments())
    state = torch.load(path, weights_only=False)
    torch.save({**state, "model": {**state["model"], **change}}, path)
    with pytest.raises(UserError, match=f"^checkpoint {path} {words}"):
        check_for(purpose, path, args)


def test_adapters_without_languages_in_the_arguments_are_left_to_their_manifest(tmp_path) -> None:
    args = command()
    silent = stored_arguments(adapter_languages=None)
    check_training(write(tmp_path / "silent.pt", {**all_shapes(args), "adapters.manifest": (9,)}, silent), args)


def test_resumption_keeps_the_order_of_languages_that_the_optimizer_s_state_has(tmp_path) -> None:
    path = write(tmp_path / "checkpoint_last.pt", all_shapes(command()), stored_arguments())
    turned = {"adapter_languages": languages_to_json(LanguageTable(("wo", "en"), ("low", "high"), (3, 2)))}
    check_training(path, command(save_dir=str(tmp_path)))
    check_training(path, command(save_dir=str(tmp_path), reset_optimizer=True, **turned))
    with pytest.raises(UserError, match=f"^checkpoint {path} was trained with --langs en,wo, .* start a new run with"):
        check_training(path, command(save_dir=str(tmp_path), **turned))


def test_every_model_of_an_ensemble_has_whole_adapters_for_all_languages(tmp_path) -> None:
    args = stored_arguments()
    shapes = all_shapes(args)
    whole = write(tmp_path / "whole.pt", shapes, args)
    stock = write(tmp_path / "stock.pt", base_shapes(args), Namespace(**SIZES))
    plain = write(tmp_path / "plain.pt", base_shapes(args), stored_arguments(add_lora=False))
    check_generation_checkpoints([whole, stock, plain], ["wo", "en"], VOCABULARY)
    with pytest.raises(UserError, match=f"^checkpoint {whole} has no adapters for fr, de; it knows en, wo$"):
        check_generation_checkpoints([stock, whole], ["fr", "en", "de"], VOCABULARY)
    none = write(tmp_path / "none.pt", base_shapes(args), args)
    with pytest.raises(UserError, match=f"^checkpoint {none} was trained with adapters but does not hold any;"):
        check_generation_checkpoints([whole, none], ["en"], VOCABULARY)
    narrow = write(tmp_path / "narrow.pt", {**shapes, "encoder.layers.1.fc2.lora_A": (5, 9)}, args)
    with pytest.raises(UserError, match=rf"{narrow} has encoder\.layers\.1\.fc2\.lora_A of shape \(5, 9\)"):
        check_generation_checkpoints([narrow], ["en"], VOCABULARY)
    wrong = write(tmp_path / "wrong.pt", shapes, stored_arguments(dropout=2.0))
    with pytest.raises(UserError, match="argument dropout is"):
        check_generation_checkpoints([wrong], ["en"], VOCABULARY)
    vague = stored_arguments()
    del vague.add_lora
    unsaid = write(tmp_path / "unsaid.pt", shapes, vague)
    with pytest.raises(UserError, match=r"unsaid\.pt holds adapters, but its arguments lack add_lora; give a whole"):
        check_generation_checkpoints([unsaid], ["en"], VOCABULARY)
    deep = write(tmp_path / "deep.pt", shapes, stored_arguments(encoder_layers=3))
    with pytest.raises(UserError, match="encoder_layers is 3, but it holds a model of 2"):
        check_generation_checkpoints([deep], ["en"], VOCABULARY)


def test_base_that_is_elsewhere_is_looked_at_with_its_adapters(tmp_path) -> None:
    args = stored_arguments()
    lean = {name: shape for name, shape in all_shapes(args).items() if "lora" in name or name.startswith("adapters.")}
    base = write(tmp_path / "base.pt", base_shapes(args), None)
    path = write(tmp_path / "lean.pt", {**lean, "adapters.base": (71,)}, args)
    check_generation_checkpoints([path], ["en"], VOCABULARY, base)
    check_training(path, command(base_checkpoint=base))
    with pytest.raises(UserError, match="its base was not found"):
        check_generation_checkpoints([path], ["en"], VOCABULARY)
    with pytest.raises(UserError, match="has a vocabulary of 9"):
        check_generation_checkpoints([path], ["en"], 8, base)


@pytest.mark.parametrize(
    "changes", [{"encoder_lora_layer": 3}, {"dim": "x"}, {"lora_init": "x"}, {"adapter_languages": "{"}]
)
def test_stored_flags_that_are_wrong_are_named_with_the_checkpoint(changes) -> None:
    with pytest.raises(UserError, match=r"^here holds wrong training arguments \(.*; give a whole checkpoint$"):
        stored_config(stored_arguments(**changes), "here")
    with pytest.raises(UserError, match=r"^here holds wrong training arguments .*encoder_layers"):
        stored_config(Namespace(), "here")


HOSTILE = "__import__('os').system('true')"


@pytest.mark.parametrize("name", ["adaptive_softmax_cutoff", "decoder_xformers_att_config", "xformers_att_config"])
@pytest.mark.parametrize("value", [HOSTILE, "x", "(", "[" * 1000, "-" * 3000 + "1"])
def test_stored_argument_that_fairseq_would_run_is_refused(name, value) -> None:
    for args in (
        Namespace(**{name: value}),
        {name: value},
        Namespace(model=Namespace(**{name: value})),
        {1: {"deep": Namespace(**{name: value})}},
    ):
        with pytest.raises(UserError) as refusal:
            check_stored_arguments(args)
        assert f"its argument {name} is {value[:80]!r}, which fairseq would run" in str(refusal.value)
        assert value[:81] not in str(refusal.value) or len(value) <= 80


def test_stored_constants_and_other_texts_are_taken() -> None:
    constants = {"adaptive_softmax_cutoff": "1000,2000", "encoder_xformers_att_config": "{'a': [1]}"}
    check_stored_arguments(Namespace(**constants, xformers_att_config=None, arch=HOSTILE, nested={"lr": [HOSTILE]}))


def test_langs_of_a_checkpoint_are_read_however_fairseq_stored_them() -> None:
    assert stored_langs(Namespace(langs="en,wo")) == ("en", "wo")
    assert stored_langs(Namespace(langs=["en", "wo"])) == stored_langs(Namespace(langs=("en", "wo"))) == ("en", "wo")
    for args in (None, Namespace(), Namespace(langs=None), Namespace(langs=""), Namespace(langs=3)):
        assert stored_langs(args) == ()


def test_languages_of_a_checkpoint_s_adapters_are_those_of_its_arguments() -> None:
    def languages(args: Namespace | None) -> LanguageTable | None:
        return stored_languages(Outline(Path("a.pt"), {}, args, None))

    assert languages(stored_arguments()) == TABLE
    assert languages(None) is languages(Namespace()) is languages(Namespace(adapter_languages=None)) is None
