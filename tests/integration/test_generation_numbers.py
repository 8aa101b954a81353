"""Numbers that no generation can work with: named in all commands, before a model is loaded."""

from __future__ import annotations

import pytest
from fairseq import checkpoint_utils

from langspec_lora.cli.main import main
from langspec_lora.errors import UserError
from langspec_lora.generation import GenerationSettings
from tests import toy
from tests.bad_input import refusal_of, refusals_of, set_up_generation

WRONG = [
    *(("--beam", value) for value in ("0", "-1")),
    *(("--lenpen", value) for value in ("nan", "inf")),
    ("--unkpen", "nan"),
    *(("--max-len-a", value) for value in ("-0.5", "nan", "inf")),
    ("--max-len-b", "-3"),
    *(("--min-len", value) for value in ("300", "-1")),
    ("--no-repeat-ngram-size", "-2"),
    *(("--temperature", value) for value in ("0", "-1", "nan", "inf")),
    *(("--sampling-topk", value) for value in ("0", "-2")),
    *(("--sampling-topp", value) for value in ("5", "0", "nan", "-0.5")),
    *(("--diverse-beam-groups", value) for value in ("0", "-2")),
    *(("--diverse-beam-strength", value) for value in ("nan", "-1")),
    *(("--diversity-rate", value) for value in ("nan", "-0.5")),
    *(("--seed", value) for value in ("-1", str(2**32))),
]
SAMPLED = ("--sampling-topk", "--sampling-topp")


@pytest.mark.parametrize(("flag", "value"), [*WRONG, ("--max-tokens", "0"), ("--batch-size", str(2**70))])
def test_translate_and_evaluate_refuse_it(tmp_path, capsys, flag, value) -> None:
    more = [flag, value, *(["--sampling"] if flag in SAMPLED else [])]
    (tmp_path / "ck.pt").touch()
    evaluation = ["evaluate", str(tmp_path), "--checkpoint", str(tmp_path / "ck.pt"), "--out", str(tmp_path / "out")]
    translation = ["translate", str(tmp_path / "ck.pt"), "-s", "en", "-t", "fr", "en1"]
    if value in ("nan", "inf"):  # which their parser does not take for numbers
        for command in (evaluation, translation):
            with pytest.raises(SystemExit, match="2"):
                main([*command, *more])
            assert f"argument {flag}: expected a number, got '{value}'" in capsys.readouterr().err
        return
    for command in (evaluation, translation):
        first, *others = refusals_of(main, [*command, *more])
        assert f"{flag} {_shown(value)}" in first
        assert any("ck.pt" in other for other in others)  # which is empty


@pytest.mark.parametrize(("flag", "value"), [("--temperature", "0"), ("--max-len-b", "-3"), ("--sampling-topp", "5")])
def test_fairseq_generate_refuses_it_too(toy_data, checkpoints, flag, value) -> None:
    more = [flag, value, *(["--sampling"] if flag in SAMPLED else [])]
    assert f"{flag} {_shown(value)}" in refusal_of(set_up_generation, toy_data, checkpoints / "adapted.pt", *more)


def _shown(value: str) -> str:
    return value if value.lstrip("-").isdigit() else str(float(value))


@pytest.mark.parametrize(
    "settings",
    [
        {"beam": "5"},
        {"beam": 2.5},
        {"beam": True},
        {"temperature": "warm"},
        {"temperature": None},
        {"sampling": True, "sampling_topk": 2, "sampling_topp": 0.5},
    ],
)
def test_settings_of_another_type_are_refused(settings) -> None:
    with pytest.raises(UserError):
        GenerationSettings(**settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"lenpen": -1.0, "unkpen": float("inf"), "temperature": 0.01},
        {"max_len_a": 1.0, "max_len_b": 0, "min_len": 4},
        {"max_len_b": 4, "min_len": 4},
        {"sampling": True, "sampling_topk": 1},
        {"sampling": True, "sampling_topp": 1.0},
        {"diversity_rate": 0.0, "no_repeat_ngram_size": 1},
        {"beam": 4, "diverse_beam_groups": 4, "diverse_beam_strength": 0.0},
    ],
)
def test_what_is_taken_works_in_fairseqs_generator(toy_data, adapted, settings) -> None:
    generation = GenerationSettings(**{"max_len_b": 8, **settings})
    assert len(_translate(toy_data, adapted, generation)[0][0]["tokens"]) > 1


def test_min_len_above_what_a_batch_may_have_is_said_in_a_sentence(toy_data, adapted) -> None:
    generation = GenerationSettings(max_len_a=0.1, max_len_b=2, min_len=4)
    assert "--min-len exceeds the maximum length of a hypothesis" in refusal_of(
        _translate, toy_data, adapted, generation
    )


def _translate(toy_data, adapted, generation: GenerationSettings) -> list:
    task = set_up_generation(toy_data, adapted)
    models, _ = checkpoint_utils.load_model_ensemble([str(adapted)], task=task)
    batch = task.build_dataset_for_inference([task.source_dictionary.encode_line("en1 en2").long()], [3])
    sample = batch.collater([batch[0]])
    generator = task.build_generator(models, toy.Namespace(**vars(generation)))
    return task.inference_step(generator, models, sample)
