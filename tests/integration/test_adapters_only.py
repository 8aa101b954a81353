"""Checkpoints without their base: what stock fairseq-train writes, resumes from and generates with."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from langspec_lora.cli.main import main
from tests import toy
from tests.bad_input import write_checkpoint
from tests.trainings import (
    EPOCHS,
    ONE_THREAD,
    TRAINING,
    WITHIN_EPOCHS,
    command,
    generate_here,
    run,
    state,
    train,
    train_here,
)


def is_adapter(name: str) -> bool:
    return "lora_" in name or name.startswith("adapters.")


def test_every_checkpoint_holds_the_adapters_of_a_whole_one_and_no_base(runs) -> None:
    lean, whole = runs.folders
    names = {path.name for path in whole.glob("*.pt")}
    assert names == {path.name for path in lean.glob("*.pt")}
    assert len(names) > EPOCHS
    for name in names:
        one, other = state(lean / name), state(whole / name)
        assert all(is_adapter(entry) for entry in one)
        assert set(one) - {"adapters.base"} == {entry for entry in other if is_adapter(entry)}
        for entry in set(one) - {"adapters.base"}:
            assert torch.equal(one[entry], other[entry]), entry


def test_a_run_resumed_from_adapters_only_ends_as_one_that_nothing_interrupts(runs, base, toy_data, tmp_path) -> None:
    lean = runs.lean
    shutil.copy(lean / "checkpoint2.pt", tmp_path / "checkpoint_last.pt")
    train(toy_data, tmp_path, *WITHIN_EPOCHS)  # finds its base without --finetune-from-model
    expected, actual = (state(folder / f"checkpoint{EPOCHS}.pt") for folder in (lean, tmp_path))
    assert expected.keys() == actual.keys()
    for name in expected:
        assert torch.equal(expected[name], actual[name]), name


def test_fairseq_generate_translates_alike_from_both_and_finds_a_base_that_has_moved(
    runs, base, toy_data, tmp_path
) -> None:
    lean, whole = (folder / "checkpoint_last.pt" for folder in runs.folders)
    expected = generate_here(toy_data, whole, tmp_path / "whole")
    assert len(set(expected)) > 1
    assert generate_here(toy_data, lean, tmp_path / "lean") == expected
    moved = tmp_path / "moved.pt"
    base.rename(moved)
    try:
        with pytest.raises(SystemExit, match=r"its base .*base\.pt was not found; .* as --base-checkpoint"):
            generate_here(toy_data, lean, tmp_path / "gone")
        assert generate_here(toy_data, lean, tmp_path / "moved", "--base-checkpoint", str(moved)) == expected
    finally:
        moved.rename(base)


def test_another_base_is_refused(runs, base, toy_data, tmp_path) -> None:
    other = torch.load(base, weights_only=False)
    other["model"]["decoder.layers.1.fc1.bias"][3] += 1e-3
    torch.save(other, tmp_path / "other.pt")
    with pytest.raises(SystemExit, match="is not the base model of"):
        generate_here(
            toy_data,
            runs.lean / "checkpoint_last.pt",
            tmp_path / "out",
            "--base-checkpoint",
            str(tmp_path / "other.pt"),
        )


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ((), "start with --finetune-from-model"),
        (("--freeze-original-parameters", "False"), "the base is trained as well"),
    ],
)
def test_adapters_only_where_no_base_would_be_found_is_refused(base, toy_data, tmp_path, flags, words) -> None:
    start = ("--finetune-from-model", str(base)) if flags else ()
    with pytest.raises(SystemExit, match=words):
        train_here(toy_data, tmp_path, "--save-adapters-only", "True", *start, *flags)
    assert not list(tmp_path.glob("*.pt"))


KILLED = """
import os, shutil, signal, sys, torch
from fairseq import checkpoint_utils
from fairseq_cli.train import cli_main
when, target = sys.argv.pop(1), sys.argv.pop(1)
save, copyfile = torch.save, shutil.copyfile

def half(path):
    with open(path, "r+b") as file:
        file.truncate(os.path.getsize(path) // 2)
    os.kill(os.getpid(), signal.SIGKILL)

def saving(state, file, *rest, **options):
    save(state, file, *rest, **options)
    if when == "saving" and target in file.name:
        file.flush()
        half(file.name)

def copying(source, path, *rest, **options):
    copied = copyfile(source, path, *rest, **options)
    if when == "copying" and target in str(source):
        half(path)
    return copied

torch.save, shutil.copyfile = saving, copying
cli_main()
"""


@pytest.mark.parametrize("when", ["saving", "copying"])
def test_a_kill_while_a_checkpoint_is_written_leaves_the_one_before_whole(when, runs, base, toy_data, tmp_path) -> None:
    flags = toy.plugin_flags(toy_data, *TRAINING, "--save-dir", str(tmp_path), "--finetune-from-model", str(base))
    program = [sys.executable, "-c", KILLED, when, "checkpoint3.pt", *flags]
    done = subprocess.run(program, capture_output=True, text=True, check=False, env=ONE_THREAD)
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    assert (tmp_path / "checkpoint3.pt").exists() == (when == "copying")
    for name in ("checkpoint_last.pt", "checkpoint_best.pt"):
        kept, expected = state(tmp_path / name), state(tmp_path / "checkpoint2.pt")
        assert all(torch.equal(kept[entry], expected[entry]) for entry in expected)
    train(toy_data, tmp_path)
    expected, actual = (state(folder / f"checkpoint{EPOCHS}.pt") for folder in (runs.whole, tmp_path))
    assert all(torch.equal(expected[entry], actual[entry]) for entry in expected if is_adapter(entry))


def test_as_many_checkpoints_are_kept_as_fairseq_is_told(base, toy_data, tmp_path) -> None:
    train_here(
        toy_data,
        tmp_path,
        *("--finetune-from-model", str(base), "--keep-last-epochs", "2", "--keep-best-checkpoints", "1"),
        *("--best-checkpoint-metric", "nll_loss"),
    )
    names = sorted(path.name for path in tmp_path.glob("[!.]*"))
    best = [name for name in names if name.startswith("checkpoint.best_nll_loss_")]
    assert len(best) == 1
    last = [f"checkpoint{epoch}.pt" for epoch in (EPOCHS - 1, EPOCHS)]
    expected = [*last, "checkpoint_best.pt", "checkpoint_last.pt", "curves.jsonl"]
    assert [name for name in names if name not in best] == expected
    assert not any("weight" in name for name in state(tmp_path / best[0]))


@toy.needs_processes_on_cpu
def test_several_processes_save_and_resume_without_the_base(runs, toy_data, tmp_path) -> None:
    shutil.copy(runs.lean / "checkpoint2.pt", tmp_path / "checkpoint_last.pt")
    flags = toy.plugin_flags(toy_data, *TRAINING, "--save-dir", str(tmp_path), "--max-epoch", "3")
    flags += ["--distributed-backend", "gloo", "--ddp-backend", "legacy_ddp"]
    run(command("torchrun"), "--standalone", "--nproc_per_node", "2", command("fairseq-train"), *flags)
    saved = state(tmp_path / "checkpoint3.pt")
    assert all(is_adapter(name) for name in saved)
    assert torch.equal(saved["adapters.base"], state(runs.lean / "checkpoint2.pt")["adapters.base"])


def plain_average(paths: list[Path]) -> dict[str, torch.Tensor]:
    """As fairseq's scripts/average_checkpoints.py does it: whole numbers are divided without remainder."""
    states = [torch.load(path, weights_only=False)["model"] for path in paths]
    mean = {}
    for name in states[0]:
        total = sum(own[name].clone() for own in states)
        mean[name] = total / len(states) if total.is_floating_point() else total // len(states)
    return mean


def test_averaging_as_fairseq_does_works_on_both(runs, toy_data, tmp_path) -> None:
    hypotheses = []
    for folder, name in zip(runs.folders, ("lean", "whole"), strict=True):
        paths = [folder / f"checkpoint{epoch}.pt" for epoch in (3, 4)]
        content = torch.load(paths[0], weights_only=False)
        content["model"] = plain_average(paths)
        torch.save(content, tmp_path / f"{name}.pt")
        hypotheses.append(generate_here(toy_data, tmp_path / f"{name}.pt", tmp_path / name))
    assert hypotheses[0] == hypotheses[1]
    for folder, name in zip(runs.folders, ("lean", "whole"), strict=True):
        ours = tmp_path / f"ours-{name}.pt"
        main(["average", *(str(folder / f"checkpoint{epoch}.pt") for epoch in (3, 4)), "--out", str(ours)])
        expected, actual = plain_average([folder / "checkpoint3.pt", folder / "checkpoint4.pt"]), state(ours)
        assert set(actual) <= set(expected)
        for entry in filter(is_adapter, actual):
            if entry.endswith("lora_B"):  # what is pruned in one of the two is pruned in ours
                expected[entry] *= expected[entry.replace("lora_B", "lora_mask")]
            if entry != "adapters.mask_epoch":
                torch.testing.assert_close(actual[entry], expected[entry], rtol=1e-6, atol=1e-8)
        assert int(actual["adapters.mask_epoch"]) == 4


def test_what_does_not_average_is_refused(runs, toy_data, tmp_path) -> None:
    def refusal(*paths: Path) -> str:
        with pytest.raises(SystemExit) as refused:
            main(["average", *map(str, paths), "--out", str(tmp_path / "mean.pt")])
        assert not (tmp_path / "mean.pt").exists()
        return refused.value.code

    last = runs.whole / "checkpoint_last.pt"
    assert "give two or more" in refusal(last)
    flags = toy.plugin_flags(toy_data)
    content = torch.load(last, weights_only=False)
    content["model"]["decoder.layers.1.fc1.bias"][3] += 1e-3
    torch.save(content, tmp_path / "other.pt")
    assert "have different base models" in refusal(last, tmp_path / "other.pt")
    ranks = write_checkpoint(tmp_path / "ranks.pt", [*flags, "--low-rank", "5"])
    assert "of ranks 2/2/3/5/5" in refusal(last, ranks)
    sliced = write_checkpoint(tmp_path / "sliced.pt", [*flags, "--dim", "6"])
    assert "--dim 0, but" in refusal(last, sliced)


def test_everything_of_ours_reads_checkpoints_without_their_base(runs, base, toy_data, tmp_path, capsys) -> None:
    lean, whole = (folder / "checkpoint_last.pt" for folder in runs.folders)
    moved, other = tmp_path / "moved.pt", tmp_path / "other.pt"
    changed = torch.load(base, weights_only=False)
    changed["model"]["decoder.layers.1.fc1.bias"][3] += 1e-3
    torch.save(changed, other)

    def evaluate(checkpoint: Path, name: str, *flags: object) -> dict[str, str]:
        words = ["evaluate", toy_data, "--checkpoint", checkpoint, "--lang-pairs", "en-fr,wo-en", "--tokenize", "13a"]
        words += ["--references", toy_data.parent, "--max-len-b", "20", "--cpu", "--out", tmp_path / name, *flags]
        main([str(word) for word in words])
        return {path.name: path.read_text() for path in (tmp_path / name).rglob("*.hyp.txt")}

    def export(checkpoint: Path, *flags: object) -> dict[str, torch.Tensor]:
        out = tmp_path / "merged.pt"
        main([str(word) for word in ("export", checkpoint, "--format", "merged", "--out", out, "--overwrite", *flags)])
        return state(out)

    def add(checkpoint: Path, name: str, *flags: object) -> dict[str, torch.Tensor]:
        words = ["add-language", checkpoint, "--langs", "xh", "--lang-resources", tmp_path / "levels.yaml"]
        main([str(word) for word in [*words, "--out", tmp_path / name, *flags]])
        return state(tmp_path / name)

    def look(checkpoint: Path, *flags: object) -> dict:
        capsys.readouterr()
        main([str(word) for word in ("inspect", checkpoint, "--json", *flags)])
        return json.loads(capsys.readouterr().out)

    (tmp_path / "levels.yaml").write_text("low: [xh]\n")
    direction = ("-s", "wo", "-t", "nl")
    expected = evaluate(whole, "whole", "--base"), export(whole, *direction), add(whole, "added-whole.pt")
    assert evaluate(lean, "lean", "--base") == expected[0]
    inside, seen = look(whole), look(lean)
    assert inside["base"]["path"] is None
    assert seen["base"]["path"] == str(base)
    assert seen["base"]["parameters"] == inside["base"]["parameters"]
    assert {**seen, "base": 0, "path": 0} == {**inside, "base": 0, "path": 0}
    base.rename(moved)
    try:
        given = ("--base-checkpoint", moved)
        assert evaluate(lean, "given", "--base", *given) == expected[0]
        assert look(lean)["base"]["parameters"] is None
        assert look(lean, *given)["base"]["parameters"] == inside["base"]["parameters"]
        merged, added = export(lean, *direction, *given), add(lean, "added.pt", *given)
        for words in (
            ("evaluate", toy_data, "--checkpoint", lean, "--cpu", "--tokenize", "13a", "--out", tmp_path / "none"),
            ("export", lean, "--format", "merged", *direction, "--out", tmp_path / "none"),
            ("remove-language", lean, "--langs", "wo", "--out", tmp_path / "none"),
        ):
            for flags, message in (
                ((), "was not found; give the model"),
                (("--base-checkpoint", other), "is not the base model of"),
            ):
                with pytest.raises(SystemExit) as refused:
                    main([str(word) for word in (*words, *flags)])
                assert message in refused.value.code, words
                assert not (tmp_path / "none").exists()
    finally:
        moved.rename(base)
    assert merged.keys() == expected[1].keys()
    assert all(torch.equal(merged[name], expected[1][name]) for name in merged)
    assert all(map(is_adapter, added))
    for name in set(added) - {"adapters.base"}:
        assert torch.equal(added[name], expected[2][name]), name
    # The file that was added to knows where the base was given to it; that has gone back by now.
    added = torch.load(tmp_path / "added.pt", weights_only=False)
    assert added["args"].base_checkpoint == str(moved)


def test_languages_join_a_checkpoint_without_its_base_and_train(runs, base, toy_data, tmp_path) -> None:
    (tmp_path / "levels.yaml").write_text("high: [en, fr]\nmed: [nl]\nlow: [wo, sd]\n")
    left, joined, lean = tmp_path / "left.pt", tmp_path / "joined.pt", runs.lean / "checkpoint_last.pt"
    main(["remove-language", str(lean), "--langs", "wo", "--out", str(left)])
    main(["add-language", str(left), "--langs", "wo", "--lang-resources", str(tmp_path / "levels.yaml"),
          "--out", str(joined)])  # fmt: skip
    before = state(joined)
    order = ["--langs", "en,fr,nl,sd,wo", "--train-languages", "wo", "--finetune-from-model", str(joined)]
    train_here(toy_data, tmp_path / "out", *order, "--max-epoch", "1")
    after = state(tmp_path / "out" / "checkpoint_last.pt")
    assert all(map(is_adapter, after))
    changed = {name for name in after if not torch.equal(after[name], before[name])} - {"adapters.mask_epoch"}
    assert changed == {name for name in after if name.endswith(("lora_A", "lora_B"))}
    assert all(torch.equal(after[name][:11], before[name][:11]) for name in changed)
    assert all(not torch.equal(after[name][11:], before[name][11:]) for name in changed)
    content = torch.load(tmp_path / "out" / "checkpoint_last.pt", weights_only=False)
    assert content["cfg"]["model"].base_checkpoint == str(base)
