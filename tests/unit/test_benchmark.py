"""That the benchmark compares what it says: the contenders compute the same, and the ratios are taken in turns."""

from __future__ import annotations

import json

import pytest
import torch

from langspec_lora.benchmark import compare, contenders, measure, report
from langspec_lora.benchmark.workload import LONGEST, SHAPES, SHORTEST, Ranks, build_model, make_batch
from langspec_lora.cli.main import main
from langspec_lora.lora import language_adam, routing
from tests.unit.lora.test_linear import Counter

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
TINY = SHAPES["tiny"]
SETTING = contenders.Setting(TINY, CPU, languages=6)


def logits(model, batch: dict) -> torch.Tensor:
    return model.eval()(**batch["net_input"])[0]


@pytest.mark.parametrize("kind", [contenders.LoopOverLanguages, contenders.SharedAdapter])
def test_reference_forms_compute_what_ours_does(kind) -> None:
    languages = 1 if kind is contenders.SharedAdapter else 6
    model = build_model(TINY, (4,) if languages == 1 else SETTING.ranks.of(languages))
    for linear in model.adapters.linears.values():
        torch.nn.init.normal_(linear.lora_B, std=0.1)
    batch = make_batch(TINY, languages, True, 1, CPU)
    expected = logits(model, batch)
    base = logits(build_model(TINY, None), {"net_input": {**batch["net_input"]}})
    for linear in model.adapters.linears.values():
        linear.__class__ = kind
    torch.testing.assert_close(logits(model, batch), expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(base, expected, atol=1e-2)


@pytest.mark.parametrize("dense", [True, False])
def test_a_whole_update_takes_as_many_operations_and_waits_for_200_languages_as_for_20(monkeypatch, dense) -> None:
    monkeypatch.setattr(routing, "DENSE_ROWS", 10**6 if dense else 0)
    monkeypatch.setattr(language_adam, "_leaves_out_rows", lambda device: False)  # as on a GPU
    counts = []
    for languages in (20, 200):  # of both the batch lacks some
        setting = contenders.Setting(TINY, CPU, languages=languages, ranks=Ranks(4, 4, 4))
        update = contenders.UPDATES["ours, mixed"](setting)
        with Counter() as counter:
            update()
        counts.append((counter.products, counter.operations, counter.waits))
    base = contenders.UPDATES["frozen base"](contenders.Setting(TINY, CPU, languages=2))
    with Counter() as counter:
        base()
    assert counts[0] == counts[1]
    assert counts[0][2] == counter.waits  # fairseq's own: whether there is padding


def test_trained_parameters_are_those_of_each_contender() -> None:
    per_rank = (
        (2 * 5 + 2 * 8) * 2 * TINY.size.width
    )  # five positions in each encoder layer, eight in each decoder layer
    trained = {name: contenders.UPDATES[name](SETTING).trained for name in contenders.UPDATES}
    assert trained["ours, mixed"] == trained["loop over languages"] == (2 + 2 + 2 + 2 + 8 + 8) * per_rank
    assert trained["one shared adapter"] == 4 * per_rank
    assert trained["frozen base"] == 2 * TINY.size.width
    assert trained["full fine-tuning"] == sum(parameter.numel() for parameter in build_model(TINY, None).parameters())


@pytest.mark.skipif(
    not compare.hugging_face_is_usable(), reason="transformers and peft: pip install .[hf], with a torch that they take"
)
def test_peft_contender_has_one_shared_adapter_of_the_same_rank_at_the_same_positions() -> None:
    update = compare.all_contenders()["update"]["Hugging Face + PEFT"](SETTING)
    adapted = {name for name, parameter in update.model.named_parameters() if parameter.requires_grad}
    assert len(adapted) == 2 * (2 * 5 + 2 * 8)
    assert all(4 in parameter.shape for parameter in update.model.parameters() if parameter.requires_grad)
    update()


@pytest.mark.parametrize("name", contenders.UPDATES)
def test_an_update_changes_what_trains_and_nothing_else(name) -> None:
    update = contenders.UPDATES[name](SETTING)
    before = {key: value.clone() for key, value in update.model.state_dict().items()}
    for _ in range(2):
        update()
    trained = {key for key, parameter in update.model.named_parameters() if parameter.requires_grad}
    # fairseq's _float_tensor is uninitialised memory: now and then NaN, which equals nothing
    after = {key: value for key, value in update.model.state_dict().items() if not key.endswith("_float_tensor")}
    changed = {key for key, value in after.items() if not torch.equal(value, before[key])}
    assert changed
    assert {key.replace("output_projection", "embed_tokens").split(".", 1)[1] for key in changed} <= {
        key.split(".", 1)[1] for key in trained
    }


def test_batches_mix_languages_only_where_asked_and_are_as_long_as_said() -> None:
    mixed, one = (make_batch(TINY, 6, choice, 1, CPU) for choice in (True, False))
    assert len(mixed["net_input"]["src_lang_id"].unique()) > 2
    assert mixed["target"].numel() <= TINY.tokens
    assert len(one["net_input"]["src_lang_id"]) == 1
    assert torch.equal(mixed["target"], one["target"])
    lengths = mixed["target"].ne(1).sum(1)
    previous = mixed["net_input"]["prev_output_tokens"]
    assert torch.equal(previous.ne(1), mixed["target"].ne(1))
    assert torch.equal(previous[0, 1:], mixed["target"][0, :-1])
    assert lengths.min() >= SHORTEST
    assert lengths.max() <= LONGEST


def test_contenders_take_turns_and_every_second_round_goes_backwards() -> None:
    calls = []
    timings = measure.time_in_turns({name: lambda name=name: calls.append(name) for name in "abc"}, 2)
    assert "".join(calls) == "abc" + "abc" + "cba"
    assert all(len(seconds) == 2 for seconds in timings.values())


def test_a_ratio_is_the_median_over_rounds_and_not_of_medians() -> None:
    assert measure.ratio((2.0, 9.0, 4.0), (1.0, 3.0, 4.0)) == 2.0


def test_targets_say_what_was_not_measured_and_what_was_missed() -> None:
    results = compare.Results({"gpu": None}, {})
    assert all(target.value is None and not target.reached for target in report.targets(results))
    shared, slow = {"seconds": [1.0, 1.0], "tokens": 9}, {"seconds": [1.2, 1.2], "tokens": 9}
    results.update = {"one shared adapter": shared, "ours, mixed": slow}
    first = report.targets(results)[0]
    assert first.value == pytest.approx(1.2)
    assert not first.reached
    results.update["ours, mixed"] = {"seconds": [1.1, 1.1], "tokens": 9}
    assert report.targets(results)[0].reached


def test_command_writes_the_tables_and_prints_them(tmp_path, capsys) -> None:
    rounds = ["--rounds", "1", "--threads", "1"]
    assert (
        main(["bench", "--cpu", "--shape", "tiny", *rounds, "--parts", "update", "translation", "--out", str(tmp_path)])
        == 0
    )
    printed = capsys.readouterr().out
    assert (tmp_path / "bench.md").read_text(encoding="utf-8") in printed
    data = json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))
    assert data["machine"]["torch"] == torch.__version__
    assert len(data["update"]["ours, mixed"]["seconds"]) == 1
    assert {"ours, merged", "base model"} <= data["translation"].keys()
    assert "\n| ours, mixed " in printed


def test_peak_memory_of_a_contender_is_measured_in_a_process_of_its_own() -> None:
    assert 10**6 < measure.peak_memory(contenders.UPDATES["ours, mixed"], SETTING) < 10**9


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--parts", "nonsense"], "--parts nonsense: expected update, translation"),
        (["--parts", "memory"], "name one of them too"),
        (["--rounds", "0"], "--rounds 0: expected"),
        (["--threads", "0"], "--threads 0: expected"),
        ([], "already holds a benchmark"),
    ],
)
def test_bad_input_ends_it_before_anything_is_measured(tmp_path, flags, words) -> None:
    (tmp_path / "bench.json").write_text("mine")
    with pytest.raises(SystemExit, match=words):
        main(["bench", *flags, "--out", str(tmp_path)])
    assert (tmp_path / "bench.json").read_text() == "mine"


def test_a_folder_that_cannot_be_made_is_named_before_anything_is_measured(tmp_path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match="file, which is a file; give another path"):
        main(["bench", "--out", str(tmp_path / "file" / "bench")])
