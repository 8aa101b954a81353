"""Languages join, leave and come together; what was there stays bit for bit, in training too."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from fairseq import checkpoint_utils

from langspec_lora.cli.main import main
from tests import toy
from tests.bad_input import set_up_generation, write_checkpoint
from tests.integration.test_export import load, refusal, run
from tests.trainings import PLUGIN, command
from tests.trainings import run as run_program

OLD = ("en", "fr", "nl")
OLD_ROWS, NEW_ROWS = slice(0, 7), slice(7, 15)  # ranks 2, 2, 3; 4, 4


def fill(seed: int):
    def change(state: dict) -> None:
        for name, value in state["model"].items():
            if name.endswith("lora_B"):
                value.normal_(generator=torch.Generator().manual_seed(seed + len(name)), std=0.3)
                mask = state["model"][name.replace("lora_B", "lora_mask")]
                mask.bernoulli_(0.6, generator=torch.Generator().manual_seed(seed))
                value.masked_fill_(mask == 0, 0)

    return change


@pytest.fixture(scope="module")
def three(toy_data, tmp_path_factory) -> Path:
    """A checkpoint of three languages."""
    flags = ["--langs", ",".join(OLD), "--lang-pairs", "en-fr,fr-en,nl-en"]
    path = tmp_path_factory.mktemp("three") / "three.pt"
    return write_checkpoint(path, [*toy.plugin_flags(toy_data), *flags], fill(1))


@pytest.fixture(scope="module")
def five(three, toy_data, tmp_path_factory) -> Path:
    """The same with two more."""
    path = tmp_path_factory.mktemp("five") / "five.pt"
    levels = toy_data.parent / "levels.yaml"
    run("add-language", three, "--langs", "wo,sd", "--lang-resources", levels, "--out", path)
    return path


def logits(path: Path, data: Path, pairs: list[tuple[str, str]], merged: bool) -> list[torch.Tensor]:
    """Logits of the test sentences, direction by direction, as generation computes them."""
    source, target = pairs[0]
    task = set_up_generation(data, path, "--lang-pairs", f"{source}-{target}", "-s", source, "-t", target)
    model = checkpoint_utils.load_model_ensemble([str(path)], task=task)[0][0].eval()
    names = [name for name in toy.LANGUAGES if name in model.adapters.config.languages.names]
    model.adapters.bind_languages(toy.LANGUAGES, names)
    five_task, _ = toy.build(toy.plugin_flags(data))
    batch = toy.mixed_batch(five_task)["net_input"]
    outputs = []
    for source, target in pairs:
        ids = [toy.LANGUAGES.index(name) for name in (source, target)]
        languages = {"src_lang_id": torch.tensor(ids[:1]), "tgt_lang_id": torch.tensor(ids[1:])}
        with torch.no_grad(), model.adapters.merged(*ids) if merged else torch.enable_grad():
            outputs.append(model(**{**batch, **languages})[0])
    return outputs


def same_pairs(one: dict, other: dict, rows: slice = OLD_ROWS, other_rows: slice = OLD_ROWS) -> bool:
    names = [name for name in one if name.rpartition(".lora_")[1]]
    assert len(names) == 26 * 3
    return all(torch.equal(one[name][rows], other[name][other_rows]) for name in names)


def test_new_adapters_are_fresh_and_the_others_stay(three, five) -> None:
    before, after = load(three)["model"], load(five)["model"]
    assert same_pairs(before, after)
    base = [name for name in before if "lora" not in name and not name.startswith("adapters.")]
    assert all(torch.equal(before[name], after[name]) for name in base if not name.endswith("_float_tensor"))
    for name in (name for name in after if name.endswith("lora_A")):
        drawn = after[name][NEW_ROWS]
        assert drawn.abs().max() <= 0.5  # 1 / √4
        assert drawn.abs().max() > 0.4
        assert not after[name.replace("lora_A", "lora_B")][NEW_ROWS].any()
        assert (after[name.replace("lora_A", "lora_mask")][NEW_ROWS] == 1).all()


PAIRS = [("en", "fr"), ("fr", "nl"), ("nl", "en")]


@pytest.fixture(scope="module")
def trained(five, toy_data, tmp_path_factory) -> tuple[Path, str]:
    """The new languages trained alone, with what would move other rows: momentum, weight decay and pruning."""
    save = tmp_path_factory.mktemp("trained")
    log = run_program(
        command("fairseq-train"),
        *toy.plugin_flags(
            toy_data,
            *("--user-dir", str(PLUGIN), "--finetune-from-model", str(five), "--train-languages", "wo,sd"),
            *("--lang-pairs", "en-wo,wo-en,sd-nl,wo-sd", "--optimizer", "adam", "--lr", "0.02", "--cpu"),
            *("--weight-decay", "0.1", "--clip-norm", "1", "--max-epoch", "3", "--save-dir", str(save)),
            *("--pruning", "True", "--pruning-t1", "1", "--pruning-t2", "1", "--target-pruning-ratio", "0.5"),
            *("--disable-validation", "--log-format", "simple"),
        ),
    )
    return save / "checkpoint_last.pt", log


def test_training_new_languages_moves_no_other_row(five, trained) -> None:
    before, after = load(five)["model"], load(trained[0])["model"]
    assert same_pairs(before, after)
    for name in (name for name in after if name.rpartition(".lora_")[1]):
        assert not torch.equal(before[name][NEW_ROWS], after[name][NEW_ROWS]), name
    masks = [value[NEW_ROWS] for name, value in after.items() if name.endswith("lora_mask")]
    assert sum(int((mask == 0).sum()) for mask in masks) == sum(mask.numel() for mask in masks) // 2
    per_rank = 2 * (5 + 8) * 2 * 16 + 2 * 2 * 2 * (24 - 16)
    assert f"trainable {8 * per_rank:,} |" in trained[1]


@pytest.mark.parametrize("stage", ["five", "trained"])
@pytest.mark.parametrize("merged", [True, False])
def test_logits_of_other_directions_stay_bit_for_bit(stage, merged, three, toy_data, request) -> None:
    after = request.getfixturevalue(stage)
    after = after[0] if stage == "trained" else after
    expected, actual = (logits(path, toy_data, PAIRS, merged) for path in (three, after))
    for one, other in zip(expected, actual, strict=True):
        if merged:  # as generation computes
            assert torch.equal(one, other)
        else:  # as validation does: a wider matrix product, whose sums may be rounded in another order
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(expected[0], expected[1], atol=1e-3)


def test_new_directions_do_learn(five, trained, toy_data) -> None:
    one, other = (logits(path, toy_data, [("en", "wo")], True)[0] for path in (five, trained[0]))
    assert (one - other).abs().max() > 0.1


def test_languages_leave_and_the_rest_stays(five, toy_data, tmp_path) -> None:
    run("remove-language", five, "--langs", "wo,fr", "--out", tmp_path / "left.pt")
    before, after = load(five)["model"], load(tmp_path / "left.pt")["model"]
    assert same_pairs(before, after, slice(0, 2), slice(0, 2))
    assert same_pairs(before, after, slice(4, 7), slice(2, 5))
    assert same_pairs(before, after, slice(11, 15), slice(5, 9))
    assert after["decoder.layers.0.fc1.lora_A"].size(0) == 9
    assert torch.equal(*(logits(path, toy_data, [("sd", "nl")], True)[0] for path in (five, tmp_path / "left.pt")))


@pytest.fixture(scope="module")
def other(three, toy_data, tmp_path_factory) -> Path:
    """Another training on the same base: of nl and wo."""
    base = load(three)["model"]

    def change(state: dict) -> None:
        fill(40)(state)
        state["model"].update({name: value for name, value in base.items() if name in state["model"] and
                               "lora" not in name and not name.startswith("adapters.")})  # fmt: skip

    flags = ["--langs", "nl,wo", "--lang-pairs", "nl-wo"]
    path = tmp_path_factory.mktemp("other") / "other.pt"
    return write_checkpoint(path, [*toy.plugin_flags(toy_data), *flags], change)


@pytest.mark.parametrize(("prefer", "order"), [("A", ["en", "fr", "nl", "wo"]), ("B", ["en", "fr", "nl", "wo"])])
def test_two_trainings_come_together(prefer, order, three, other, tmp_path) -> None:
    run("join", three, other, "--prefer", prefer, "--out", tmp_path / "joined.pt")
    a, b, joined = (load(path)["model"] for path in (three, other, tmp_path / "joined.pt"))
    names = bytes(joined["adapters.manifest"].tolist()).decode()
    assert names.startswith('{"names": ' + str(order).replace("'", '"'))
    assert same_pairs(a, joined, slice(0, 4), slice(0, 4))
    assert same_pairs(a, joined, slice(4, 7), slice(4, 7)) is (prefer == "A")
    assert same_pairs(b, joined, slice(0, 3), slice(4, 7)) is (prefer == "B")
    assert same_pairs(b, joined, slice(3, 7), slice(7, 11))


def test_an_adapter_folder_joins_too(three, other, tmp_path) -> None:
    run("export", other, "--format", "adapter", "--out", tmp_path / "other")
    for first, second, name in ((three, tmp_path / "other", "one"), (three, other, "two")):
        run("join", first, second, "--prefer", "B", "--out", tmp_path / f"{name}.pt")
    one, two = (load(tmp_path / f"{name}.pt")["model"] for name in ("one", "two"))
    assert all(torch.equal(one[name], two[name]) for name in one if not name.endswith("_float_tensor"))


def test_what_does_not_fit_together_is_named(three, five, other, toy_data, tmp_path) -> None:
    levels = toy_data.parent / "levels.yaml"
    flags = ["--langs", "wo,sd", "--lang-pairs", "wo-sd"]
    plugin = toy.plugin_flags(toy_data)
    strange = write_checkpoint(tmp_path / "strange.pt", [*plugin, *flags], fill(3))
    state = load(strange)
    state["model"]["encoder.layers.0.fc1.weight"] += 1
    torch.save(state, strange)
    sliced = write_checkpoint(tmp_path / "sliced.pt", [*plugin, *flags, "--dim", "4"])
    part = write_checkpoint(tmp_path / "part.pt", [*plugin, *flags, "--encoder-lora-position", "q"])
    turned = write_checkpoint(tmp_path / "turned.pt", [*plugin, *flags, "--decoder-activation-direction", "src_tgt"])
    out = tmp_path / "out.pt"
    for words, message in (
        (["join", three, other], "A and B both have adapters for nl; choose with --prefer A or --prefer B"),
        (["join", three, strange], "is not the base model of"),
        (["join", three, sliced], "A has --dim 0, but B has 4"),
        (["join", three, part], "B has no adapters at encoder.0.fc1"),
        (
            ["join", three, turned],
            "decoder layer 0 in A, but the source language does in B (--adapter-key, ",
        ),
        (["add-language", three, "--langs", "wo,fr", "--lang-resources", levels], "fr, which already has adapters"),
        (["add-language", three, "--langs", "wo,wo", "--lang-resources", levels], "names 'wo' twice"),
        (["add-language", three, "--langs", "xx"], "no resource level for xx"),
        (["add-language", three, "--langs", "wo", "--low-rank", "0"], "expected a whole number of at least 1"),
        (["remove-language", three, "--langs", "sd"], "unknown language 'sd'"),
        (["remove-language", three, "--langs", "en,fr,nl"], "names all languages; keep at least one"),
    ):
        assert message in refusal(*words, "--out", out)
        assert not out.exists()
    assert "already exists" in refusal("remove-language", five, "--langs", "wo", "--out", three)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--train-languages", "wo,xx"], "--train-languages names 'xx', which is not in --langs"),
        (["--train-languages", "wo", "--freeze-original-parameters", "False"], "trains the base below them"),
        (["--train-languages", "wo", "--add-lora", "False"], "--train-languages needs adapters"),
    ],
)
def test_languages_that_cannot_train_alone_are_named_before_a_model_is_built(
    flags, message, toy_data, capsys, unbuilt
) -> None:
    with pytest.raises(SystemExit, match=message):
        toy.build([*toy.plugin_flags(toy_data), *flags])


def test_help_names_every_command(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    for name in ("inspect", "export", "import", "add-language", "remove-language", "join"):
        assert f"\n  {name} " in text
