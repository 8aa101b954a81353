"""What the task knows of the command that runs it: whether it trains, and which language tokens its model knows."""

from __future__ import annotations

import sys

import pytest
from fairseq import options, tasks
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq_cli import generate, interactive, train, validate

from langspec_lora.errors import UserError
from langspec_lora.generation import BatchLimits, GenerationSettings
from langspec_lora.inference.model import LoadedModel
from langspec_lora.inference.model_files import ModelFiles
from langspec_lora.inference.model_spec import ModelSpec
from langspec_lora.models.transformer import LanguageSpecificTransformer
from langspec_lora.tasks.checks.command import is_training
from langspec_lora.tasks.checks.language_tokens import LanguageTokens
from langspec_lora.tasks.translation import LanguageSpecificTranslationTask
from tests import toy
from tests.bad_input import refusal_of, set_up_generation, write_checkpoint

TASK = ("--task", "translation_multi_simple_epoch_lora")
LANGS = ("--langs", ",".join(toy.LANGUAGES), "--lang-pairs", ",".join(toy.PAIRS))


class Reached(Exception):
    """The command has come as far as building a model."""


@pytest.fixture
def verdicts(monkeypatch) -> list[bool]:
    """What the task takes each model for that it is asked to build; nothing is built."""
    found: list[bool] = []

    def build_model(self, args, from_checkpoint=False):
        found.append(is_training(self.args, from_checkpoint))
        raise Reached

    monkeypatch.setattr(LanguageSpecificTranslationTask, "build_model", build_model)
    return found


def flags_of(data, path, save) -> dict:
    tokens = ("--encoder-langtok", "src", "--decoder-langtok", "--fixed-dictionary", str(data.parent / "dict.txt"))
    used = (str(data), *TASK, *LANGS, *tokens, "--path", str(path), "--cpu")
    one = ("-s", "en", "-t", "wo")
    training = toy.plugin_flags(data, "--optimizer", "adam", "--cpu", "--save-dir", str(save))
    return {
        "train": (train, training, True),
        "train of one direction": (train, [*training, *one], True),
        "generate": (generate, [*used, *one], False),
        "interactive": (interactive, [*used, *one], False),
        "validate": (validate, [*used, "--max-tokens", "400"], False),
        "validate as trained": (validate, [str(data), *TASK, "--path", str(path), "--max-tokens", "400"], False),
    }


@pytest.mark.parametrize("command", flags_of(*[toy.Path("x")] * 3))
def test_only_fairseq_train_trains(toy_data, checkpoints, tmp_path, monkeypatch, verdicts, command) -> None:
    program, flags, trains = flags_of(toy_data, checkpoints / "adapted.pt", tmp_path)[command]
    monkeypatch.setattr(sys, "argv", ["fairseq", *flags])
    with pytest.raises(Reached):
        program.cli_main()
    assert verdicts == [trains]


def test_torch_hub_does_not_train(toy_data, checkpoints, verdicts) -> None:
    with pytest.raises(Reached):
        LanguageSpecificTransformer.from_pretrained(str(checkpoints), "adapted.pt", str(toy_data))
    assert verdicts == [False]


def test_no_parser_but_that_of_training_lacks_a_path() -> None:
    """On which the answer rests, whatever builds the model."""
    parsers = {name: getattr(options, name) for name in dir(options) if name.startswith("get_") and "parser" in name}
    lacking = [name for name, make in parsers.items() if name != "get_parser" and not has_path(make())]
    assert set(lacking) - {"get_preprocessing_parser"} == {"get_training_parser"}


def has_path(parser) -> bool:
    return any(action.dest == "path" for action in parser._actions)


@pytest.mark.usefixtures("unbuilt")
@pytest.mark.parametrize("flags", [("-s", "fr", "-t", "wo"), ("-s", "fr"), ("-t", "wo")])
@pytest.mark.parametrize("arch", ["langspec_m2m100_lora_tiny", "transformer"])
def test_training_of_one_direction_is_refused_and_sent_to_lang_pairs(toy_data, flags, arch) -> None:
    message = refusal_of(toy.build, toy.plugin_flags(toy_data, *flags) if "lora" in arch else stock(toy_data, *flags))
    given = " ".join({"-s": "--source-lang", "-t": "--target-lang"}.get(word, word) for word in flags)
    assert f"{given}: these flags are for translation" in message
    assert "name the directions to train with --lang-pairs only, such as --lang-pairs " in message


@pytest.mark.parametrize(("flag", "other"), [("--source-lang", "--target-lang"), ("--target-lang", "--source-lang")])
def test_one_side_of_a_direction_alone_is_refused_in_translation(toy_data, checkpoints, flag, other) -> None:
    flags = [str(toy_data), *TASK, *LANGS, "--path", str(checkpoints / "adapted.pt"), flag, "wo"]
    settings = convert_namespace_to_omegaconf(options.parse_args_and_arch(options.get_generation_parser(), flags))
    assert f"{flag} wo was given without {other}" in refusal_of(tasks.setup_task, settings.task)


def stock(data, *flags: str) -> list[str]:
    return toy.base_flags(data, *TASK, "--arch", "transformer", *flags)


@pytest.fixture(scope="module")
def trained(toy_data, tmp_path_factory):
    """Checkpoints of trainings with other language tokens."""
    folder = tmp_path_factory.mktemp("tokens")
    plain = toy.plugin_flags(toy_data)
    none = [flag for flag in plain if flag not in ("--encoder-langtok", "src", "--decoder-langtok")]
    for name, flags in {
        "published": plain,
        "target": [*plain, "--encoder-langtok", "tgt"],
        "none": none,
        "table": [*none, "--langtoks", "{'main': ('src', 'tgt')}"],
        "mined": [*plain, "--langtoks", "{'main': ('src.mined', 'tgt')}", "--langtoks-specs", "main,mined"],
        "mbart": [*plain, "--lang-tok-style", "mbart"],
        "replacing": [*plain, "--lang-tok-replacing-bos-eos"],
    }.items():
        write_checkpoint(folder / f"{name}.pt", flags)
    return folder


def told(caplog) -> list[str]:
    return [record.message for record in caplog.records if "was trained with" in record.message]


@pytest.mark.parametrize("parser", [options.get_generation_parser, options.get_interactive_generation_parser])
@pytest.mark.parametrize(
    ("name", "more", "stored", "own"),
    [
        ("published", ("--encoder-langtok", "tgt"), "--encoder-langtok src --decoder-langtok", "--encoder-langtok tgt"),
        ("target", (), "--encoder-langtok tgt --decoder-langtok", "--encoder-langtok src"),
        ("none", (), "no language tokens (neither", "--encoder-langtok src"),
        (
            "published",
            ("--lang-tok-replacing-bos-eos",),
            "--encoder-langtok src --decoder-langtok, but",
            "--encoder-langtok src --decoder-langtok --lang-tok-replacing-bos-eos",
        ),
        ("replacing", (), "--encoder-langtok src --decoder-langtok --lang-tok-replacing-bos-eos", "--encoder-langtok"),
        (
            "published",
            ("--langtoks", "{'main': ('tgt', 'tgt')}"),
            "--encoder-langtok src --decoder-langtok",
            "--encoder-langtok tgt --decoder-langtok",
        ),
    ],
)
def test_other_language_tokens_than_those_of_the_training_are_named_once(
    toy_data, trained, caplog, parser, name, more, stored, own
) -> None:
    path = trained / f"{name}.pt"
    set_up_generation(toy_data, path, *more, parser=parser)
    (message,) = told(caplog)
    assert message.startswith(f"checkpoint {path} was trained with {stored}")
    assert f", but this command has {own}" in message
    assert "; give the same flags" in message


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("published", ()),
        ("published", ("--langtoks", "{'main': ('src', 'tgt')}")),
        ("table", ()),
        ("target", ("--encoder-langtok", "tgt")),
        ("replacing", ("--lang-tok-replacing-bos-eos",)),
    ],
)
def test_language_tokens_of_the_training_are_not_remarked_however_they_are_written(
    toy_data, trained, caplog, name, more
) -> None:
    set_up_generation(toy_data, trained / f"{name}.pt", *more)
    assert told(caplog) == []


def test_each_checkpoint_of_an_ensemble_is_compared(toy_data, trained, caplog) -> None:
    set_up_generation(toy_data, f"{trained / 'published.pt'}:{trained / 'target.pt'}:{trained / 'none.pt'}")
    assert [message.split()[1] for message in told(caplog)] == [str(trained / "target.pt"), str(trained / "none.pt")]


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ((), []),
        (("--encoder-langtok", "tgt"), ["--encoder-langtok tgt: no effect, since --langtoks (or the training) sets"]),
        (
            ("--langtoks", "{'main': ('tgt', 'tgt')}"),
            ["--encoder-langtok src: no effect", "checkpoint PATH was trained with --encoder-langtok src"],
        ),
    ],
)
def test_validation_with_other_language_tokens_is_told(
    toy_data, adapted, monkeypatch, verdicts, caplog, more, expected
) -> None:
    """Of a real training, whose arguments hold the tokens that fairseq has filled in."""
    monkeypatch.setattr(validate, "reset_logging", lambda: None)
    flags = [str(toy_data), *TASK, "--path", str(adapted), "--max-tokens", "400", "--cpu"]
    monkeypatch.setattr(sys, "argv", ["fairseq-validate", *flags, *more])
    with pytest.raises(Reached):
        validate.cli_main()
    ours = [record.message for record in caplog.records if record.name == "langspec_lora.tasks.checks.all_checks"]
    assert len(ours) == len(expected)
    for message, start in zip(ours, expected, strict=True):
        assert message.startswith(start.replace("PATH", str(adapted)))


@pytest.mark.parametrize("resumes", [True, False])
def test_training_that_goes_on_with_other_language_tokens_is_told(toy_data, trained, tmp_path, caplog, resumes) -> None:
    start = [str(trained / "target.pt"), "--save-dir", str(tmp_path)]
    toy.build(toy.plugin_flags(toy_data, "--restore-file" if resumes else "--finetune-from-model", *start))
    assert len(told(caplog)) == 1


def load(toy_data, path, **changes) -> LoadedModel:
    return load_with(toy_data.parent / "dict.txt", path, **changes)


def load_with(dictionary, path, **changes) -> LoadedModel:
    files = ModelFiles.of(ModelSpec((path,), device="cpu", **changes), dictionary, toy.LANGUAGES)
    return LoadedModel(files, GenerationSettings(beam=1), BatchLimits(), [("en", "wo")])


def test_evaluate_and_translate_take_the_tokens_of_the_training_and_tell_of_others(toy_data, trained, caplog) -> None:
    for name in ("published", "target", "none", "table"):
        stored = LanguageTokens.from_args(toy.torch.load(trained / f"{name}.pt", weights_only=False)["args"])
        assert LanguageTokens.from_args(load(toy_data, trained / f"{name}.pt").task.args) == stored
    assert told(caplog) == []
    load(toy_data, trained / "published.pt", encoder_langtok="tgt", decoder_langtok=False)
    (message,) = told(caplog)
    assert (
        "was trained with --encoder-langtok src --decoder-langtok, but this command has --encoder-langtok tgt;"
        in message
    )


def test_evaluate_and_translate_write_tokens_in_the_style_of_the_training(toy_data, trained, tmp_path) -> None:
    styled = tmp_path / "dict.txt"
    styled.write_text((toy_data.parent / "dict.txt").read_text() + "".join(f"[{name}] 1\n" for name in toy.LANGUAGES))
    path = tmp_path / "mbart.pt"
    flags = toy.plugin_flags(toy_data, "--lang-tok-style", "mbart", "--fixed-dictionary", str(styled))
    write_checkpoint(path, flags)
    loaded = load_with(styled, path)
    dictionary = loaded.task.target_dictionary
    assert dictionary[loaded.task.data_manager.get_decoder_langtok("wo", "tgt")] == "[wo]"


@pytest.mark.parametrize("name", ["replacing", "mined"])
def test_language_tokens_that_evaluate_does_not_do_are_refused(toy_data, trained, name) -> None:
    with pytest.raises(UserError, match=r"was trained with .*use fairseq-generate with these flags"):
        load(toy_data, trained / f"{name}.pt")
