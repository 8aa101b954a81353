"""``langspec-lora export`` and ``import``, held against stock fairseq and against plain loops."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fairseq import checkpoint_utils
from fairseq_cli import generate

from langspec_lora.checkpoints.fingerprint import base_fingerprint
from langspec_lora.cli.main import main
from tests import ROOT, toy
from tests.bad_input import PREFIX, STOCK, set_up_generation, write_checkpoint
from tests.evaluations import contents, published_hypotheses, run_stock


def load(path: Path) -> dict:
    return torch.load(path, weights_only=False)


def refusal(*command: object) -> str:
    with pytest.raises(SystemExit) as refused:
        main([str(word) for word in command])
    message = refused.value.code
    assert message.startswith(PREFIX)
    assert message.replace("\n", "").isprintable()
    return message


def run(*command: object) -> None:
    assert main([str(word) for word in command]) == 0


@pytest.fixture(scope="module")
def pruned(toy_data, tmp_path_factory) -> Path:
    """A checkpoint of random adapters, half of B pruned, with a slice."""

    def fill(state: dict) -> None:
        torch.manual_seed(6)
        for name, value in state["model"].items():
            if name.endswith("lora_B"):
                mask = state["model"][name.replace("lora_B", "lora_mask")]
                mask.bernoulli_(0.5)
                value.normal_().masked_fill_(mask == 0, 0)
        state["model"]["adapters.mask_epoch"].fill_(3)

    flags = toy.plugin_flags(toy_data, "--dim", "12", "--start-idx", "3", "--lora-init", "standard")
    return write_checkpoint(tmp_path_factory.mktemp("pruned") / "pruned.pt", flags, fill)


def stock_base(checkpoint: Path, data: Path, path: Path) -> Path:
    """Writes the base of a checkpoint as stock fairseq would have written it before the training, copies and all."""
    model = load(checkpoint)["model"]

    def fill(state: dict) -> None:
        for name, value in state["model"].items():
            if name in model:
                value.copy_(model[name])
            elif name.endswith("in_proj_weight"):
                value.fill_(7)  # copies, which do not count

    return write_checkpoint(path, toy.base_flags(data, *STOCK), fill)


@pytest.mark.parametrize("base", ["own", "stock"])
@pytest.mark.parametrize("kind", ["adapted", "pruned"])
def test_a_checkpoint_comes_back_bit_for_bit_from_its_adapters_and_base(
    kind, base, toy_data, tmp_path, request
) -> None:
    checkpoint = request.getfixturevalue(kind)
    source = checkpoint if base == "own" else stock_base(checkpoint, toy_data, tmp_path / "base.pt")
    run("export", checkpoint, "--format", "adapter", "--out", tmp_path / "adapter")
    run("import", tmp_path / "adapter", "--from", "adapter", "--base", source, "--out", tmp_path / "back.pt")
    expected, actual = load(checkpoint)["model"], load(tmp_path / "back.pt")["model"]
    assert expected.keys() == actual.keys()
    for name, value in expected.items():
        if not name.endswith("._float_tensor"):
            assert value.dtype == actual[name].dtype
            assert torch.equal(value, actual[name]), name
    models = [
        checkpoint_utils.load_model_ensemble([str(path)], task=set_up_generation(toy_data, path))[0][0].eval()
        for path in (checkpoint, tmp_path / "back.pt")
    ]
    task, _ = toy.build(toy.plugin_flags(toy_data))
    batch = toy.mixed_batch(task)
    assert models[1].adapters.config == models[0].adapters.config
    for model in models:
        model.adapters.bind_languages(toy.LANGUAGES, toy.LANGUAGES)
    assert torch.equal(*(toy.forward(model, batch) for model in models))


def test_another_base_is_refused_before_anything_is_written(pruned, toy_data, tmp_path) -> None:
    run("export", pruned, "--format", "adapter", "--out", tmp_path / "adapter")
    other = stock_base(pruned, toy_data, tmp_path / "base.pt")
    state = load(other)
    state["model"]["decoder.layers.1.fc2.bias"][3] += 1e-6
    torch.save(state, other)
    command = ["import", tmp_path / "adapter", "--from", "adapter", "--base", other, "--out", tmp_path / "back.pt"]
    assert "is not the base model of" in refusal(*command)
    assert not (tmp_path / "back.pt").exists()


def test_fingerprint_depends_on_weights_alone() -> None:
    torch.manual_seed(7)
    state = {"encoder.embed_tokens.weight": torch.randn(5, 4), "decoder.layers.0.fc1.bias": torch.randn(4)}
    state["decoder.embed_tokens.weight"] = state["encoder.embed_tokens.weight"]
    own = base_fingerprint(state)
    assert own.startswith("sha256:")
    assert base_fingerprint(dict(reversed(state.items()))) == own
    same = {
        "encoder.version": torch.tensor([3.0]),
        "encoder.embed_positions._float_tensor": torch.randn(1),
        "encoder.layers.0.in_proj_weight": torch.randn(2, 2),
        "encoder.layers.0.fc1.lora_A": torch.randn(2, 2),
        "decoder.output_projection.weight": state["encoder.embed_tokens.weight"].clone(),
    }
    assert base_fingerprint({**state, **same}) == own
    half = {name: value.half() for name, value in state.items()}
    assert base_fingerprint({name: value.float() for name, value in half.items()}) == base_fingerprint(half) != own
    bias = state["decoder.layers.0.fc1.bias"]
    for change in (
        {"decoder.layers.0.fc1.bias": bias.flip(0)},
        {"decoder.layers.0.fc1.bias": bias.view(2, 2)},
        {"decoder.layers.0.fc1.bias": bias.double()},
        {"decoder.layers.0.fc2.bias": bias},
        {"decoder.output_projection.weight": torch.randn(5, 4)},
    ):
        assert base_fingerprint({**state, **change}) != own


@pytest.mark.parametrize(("source", "target"), [("en", "wo"), ("sd", "fr")])
def test_stock_fairseq_without_the_plugin_translates_as_the_plugin_does(
    source, target, adapted, toy_data, tmp_path, monkeypatch
) -> None:
    run("export", adapted, "--format", "merged", "-s", source, "-t", target, "--out", tmp_path / "merged.pt")
    flags = [
        *(toy_data, "--fixed-dictionary", toy_data.parent / "dict.txt", "--langs", ",".join(toy.LANGUAGES)),
        *("--lang-pairs", f"{source}-{target}", "-s", source, "-t", target, "--beam", "5"),
        *("--decoder-langtok", "--encoder-langtok", "src", "--gen-subset", "test", "--dataset-impl", "mmap"),
        *("--required-batch-size-multiple", "1", "--remove-bpe", "sentencepiece", "--cpu", "--no-progress-bar"),
    ]
    task = "translation_multi_simple_epoch"
    run_stock(
        monkeypatch, generate, *flags, "--path", adapted, "--task", f"{task}_lora", "--results-path", tmp_path / "ours"
    )
    # In a process of its own, which never imports the plugin, and says so.
    code = (
        "import sys; from fairseq_cli.generate import cli_main; cli_main(); "
        "assert not any(name.startswith('langspec_lora.') and '.compat' not in name for name in sys.modules)"
    )
    command = [*flags, "--path", tmp_path / "merged.pt", "--task", task, "--results-path", tmp_path / "stock"]
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, command)], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    ours, stock = (published_hypotheses(tmp_path / name / "generate-test.txt") for name in ("ours", "stock"))
    assert stock == ours
    assert len(ours) == toy.SIZES["test"]
    state = load(tmp_path / "merged.pt")
    assert state["args"].arch == "transformer"
    assert not any("lora" in str(item) for item in vars(state["args"]).items())
    assert not any("lora" in name or name.startswith("adapters.") for name in state["model"])


def test_nothing_that_is_there_is_touched(pruned, checkpoints, tmp_path) -> None:
    taken = tmp_path / "taken.pt"
    taken.write_text("mine")
    before = contents(tmp_path)
    for command in (
        ["export", pruned, "--format", "merged", "-s", "en", "-t", "wo", "--out", taken],
        ["import", pruned, "--from", "lslo", "--out", taken],
    ):
        assert "already exists" in refusal(*command)
    for command, message in (
        (["export", pruned, "--format", "merged", "-s", "en"], "--format merged needs --target-lang"),
        (["export", pruned, "--format", "merged", "-s", "en", "-t", "xx"], "unknown language 'xx'"),
        (["export", pruned, "--format", "adapter", "-s", "en"], "does not take --source-lang"),
        (["export", checkpoints / "base.pt", "--format", "adapter"], "holds no adapters"),
        (["export", checkpoints / "part.pt", "--format", "adapter"], "only part of the adapters"),
        (["export", checkpoints / "hostile.pt", "--format", "adapter"], "was refused: it names"),
        (["export", checkpoints / "damaged.pt", "--format", "adapter"], "damaged"),
        (
            ["import", checkpoints, "--from", "adapter", "--base", pruned, "--langs", "en"],
            "2 mistakes\n  1. --from",
        ),
        (["import", tmp_path / "none", "--from", "adapter", "--base", pruned], "does not exist"),
    ):
        assert message in refusal(*command, "--out", tmp_path / "out")
    assert contents(tmp_path) == before
    assert not (checkpoints / "executed").exists()
    run("export", pruned, "--format", "merged", "-s", "en", "-t", "wo", "--out", taken, "--overwrite")
    assert load(taken)["model"]


@pytest.mark.parametrize("form", ["merged", "adapter"])
def test_a_full_disk_leaves_nothing_half(form, pruned, tmp_path) -> None:
    """A limit on the size of files stands for the disk."""
    direction = ["-s", "en", "-t", "wo"] if form == "merged" else []
    out = tmp_path / "folder" / "out"

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))

    command = [sys.executable, "-m", "langspec_lora.cli.main", "export", str(pruned), "--format", form, *direction]
    done = subprocess.run(
        [*command, "--out", str(out)], capture_output=True, text=True, cwd=ROOT, preexec_fn=limit, check=False
    )
    assert done.returncode == 1
    assert "choose a writable location with enough space" in done.stderr
    assert done.stderr.count("\n") == 1
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
