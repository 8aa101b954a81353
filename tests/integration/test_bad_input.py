"""Bad input to the stock commands: one line that says what to change, before a model is built, and nothing is run."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from fairseq import checkpoint_utils, options, tasks
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.tasks.translation_multi_simple_epoch import TranslationMultiSimpleEpochTask

from tests import toy

PLUGIN = Path(__file__).parents[2] / "langspec_lora"
PRE_NORM = ("--encoder-normalize-before", "--decoder-normalize-before")
STOCK = ("--task", "translation_multi_simple_epoch", "--arch", "transformer", *PRE_NORM)
PREFIX = "langspec-lora: error: "


class Touch:
    """Pickles as a command of the shell that writes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch '{self.marker}'",)


def write_checkpoint(path: Path, flags: list[str], change: Callable[[dict], None] = lambda state: None) -> Path:
    """Writes what fairseq-train would after no update at all.

    Args:
        path: the file.
        flags: the flags of the training.
        change: changes the state before it is written.
    """
    _, model = toy.build(flags)
    args = toy.parse(flags)
    if getattr(model, "config", None) is not None:
        from langspec_lora.config import languages_to_json

        args.adapter_languages = languages_to_json(model.config.languages)
    history = {"criterion_name": "X", "optimizer_name": "FairseqAdam", "lr_scheduler_state": {}, "num_updates": 0}
    state = {
        "args": args,
        "cfg": None,
        "model": model.state_dict(),
        "optimizer_history": [history],
        "extra_state": {"train_iterator": {"epoch": 1, "iterations_in_epoch": 0}},
        "last_optimizer_state": None,
    }
    change(state)
    torch.save(state, path)
    return path


def without_one_adapter(state: dict) -> None:
    del state["model"][next(name for name in state["model"] if name.endswith("lora_B"))]


def cut_short(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-100])
    return path


@pytest.fixture(scope="module")
def checkpoints(toy_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of good and bad checkpoints; ``executed`` lies in it if a hostile one was run."""
    folder = tmp_path_factory.mktemp("check points")
    base, plugin = toy.base_flags(toy_data, *STOCK), toy.plugin_flags(toy_data)
    write_checkpoint(folder / "base.pt", base)
    write_checkpoint(folder / "adapted.pt", plugin)
    write_checkpoint(folder / "part.pt", plugin, without_one_adapter)
    three = ["--langs", "en,fr,nl", "--lang-pairs", "en-fr,fr-nl"]
    write_checkpoint(folder / "three.pt", [*plugin, *three])
    write_checkpoint(folder / "deep.pt", [*base, "--encoder-layers", "3"])
    write_checkpoint(folder / "wide.pt", [*base, "--encoder-embed-dim", "32", "--decoder-embed-dim", "32"])
    write_checkpoint(folder / "ffn.pt", [*base, "--decoder-ffn-embed-dim", "48"])
    write_checkpoint(folder / "post-norm.pt", [flag for flag in base if flag not in PRE_NORM])
    more_words = folder / "dict.txt"
    more_words.write_text((toy_data.parent / "dict.txt").read_text() + "more 1\nwords 1\n")
    write_checkpoint(folder / "words.pt", [*base, "--fixed-dictionary", str(more_words)])
    write_checkpoint(folder / "hostile.pt", base, lambda state: state.update(cfg={"x": [Touch(folder / "executed")]}))
    cut_short(write_checkpoint(folder / "damaged.pt", base))
    return folder


@pytest.fixture
def unbuilt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails a test that gets as far as a model."""

    def build_model(*args, **kwargs):
        pytest.fail("a model was built")

    monkeypatch.setattr(TranslationMultiSimpleEpochTask, "build_model", build_model)


def refusal_of(function: Callable, *args) -> str:
    with pytest.raises(SystemExit) as refusal:
        function(*args)
    message = refusal.value.code
    assert message.startswith(PREFIX)
    assert message.isprintable()
    return message


def set_up_generation(data: Path, path: Path | str, *more: str, parser: Callable = options.get_generation_parser):
    """Sets up the task as fairseq-generate does before it loads the model."""
    flags = [
        *(str(data), "--task", "translation_multi_simple_epoch_lora", "--path", str(path), "--gen-subset", "test"),
        *("--langs", ",".join(toy.LANGUAGES), "--lang-pairs", ",".join(toy.PAIRS), "-s", "en", "-t", "wo"),
        *("--encoder-langtok", "src", "--decoder-langtok", "--fixed-dictionary", str(data.parent / "dict.txt")),
        *more,
    ]
    args = options.parse_args_and_arch(parser(), flags)
    return tasks.setup_task(convert_namespace_to_omegaconf(args).task)


def load_for_generation(data: Path, path: Path):
    task = set_up_generation(data, path)
    return checkpoint_utils.load_model_ensemble([str(path)], task=task)


def own_copy(toy_data: Path, folder: Path) -> Path:
    """The toy data with dictionary and levels, to be spoilt."""
    shutil.copytree(toy_data, folder / "bin")
    for name in ("dict.txt", "levels.yaml"):
        shutil.copy(toy_data.parent / name, folder)
    return folder / "bin"


@pytest.mark.usefixtures("unbuilt")
@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--encoder-lora-position", "q_crossq"], "'crossq' is no position of the encoder"),
        (["--decoder-lora-layer", "0_2"], "'2' is no layer of the decoder; expected numbers from 0 to 1"),
        (["--encoder-activation-direction", "src"], "1 directions for 2 encoder layers"),
        (["--encoder-activation-direction", "src_sideways"], "'sideways' is no direction"),
        (["--language-num", "12"], "--language-num 12 was given, but --langs names 5 languages"),
        (["--low-rank", "0"], "--low-rank: rank 0"),
        (["--dim", "17"], "reaches feature 17, but the narrowest adapted encoder layer has 16"),
        (["--langs", "en,fr,xx", "--lang-pairs", "en-fr"], "no resource level for xx"),
        (["--pruning", "True", "--pruning-t2", "0"], "--pruning-t2 0"),
        (["--pruning", "True", "--target-pruning-ratio", "1"], "--target-pruning-ratio 1.0"),
        (["--pruning", "True", "--pruning-scope", "all"], "--pruning-scope all"),
        (["--pruning", "True", "--add-lora", "False"], "--pruning True needs adapters"),
        (["--add-lora", "False", "--freeze-original-parameters", "True"], "leaves nothing to train"),
        (["--lang-pairs", "en-xx"], "--lang-pairs holds en-xx, but 'xx' is not in --langs en,fr,nl,wo,sd"),
        (["--lang-pairs", "en_fr"], "--lang-pairs holds 'en_fr'; expected directions such as en-fr"),
        (["--fixed-dictionary", "nowhere.txt"], "dictionary nowhere.txt cannot be read: No such file or directory"),
    ],
)
def test_wrong_flag_of_a_training_ends_it_before_a_model_is_built(toy_data, flags, words) -> None:
    assert words in refusal_of(toy.build, toy.plugin_flags(toy_data, *flags))


@pytest.mark.usefixtures("unbuilt")
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nowhere.pt", "does not exist; check the path"),
        ("damaged.pt", "is damaged"),
        ("hostile.pt", r"was refused: it names 'posix.system', which no checkpoint needs"),
        ("deep.pt", "is of another size: --encoder-layers is 3 there and 2 in the command; give --encoder-layers 3"),
        ("wide.pt", "--encoder-embed-dim is 32 there and 16 in the command"),
        ("ffn.pt", "--decoder-ffn-embed-dim is 48 there and 24 in the command"),
        (
            "words.pt",
            "has a vocabulary of 71, the dictionary (with the language tokens of --langs) 69; give the model's",
        ),
        ("part.pt", "holds only part of the adapters: 1 of"),
        ("three.pt", "has no adapters for wo, sd; it knows en, fr, nl"),
    ],
)
def test_wrong_checkpoint_ends_a_training_before_a_model_is_built(toy_data, checkpoints, tmp_path, name, words) -> None:
    path = checkpoints / name
    start = ["--finetune-from-model", str(path), "--save-dir", str(tmp_path)]
    message = refusal_of(toy.build, toy.plugin_flags(toy_data, *start))
    assert f"checkpoint {path}" in message
    assert words in message
    assert not (checkpoints / "executed").exists()


@pytest.mark.usefixtures("unbuilt")
@pytest.mark.parametrize("flag", ["--restore-file", "--continue-once"])
@pytest.mark.parametrize(("name", "words"), [("nowhere.pt", "does not exist"), ("hostile.pt", "was refused")])
def test_checkpoint_to_resume_from_is_checked_too(toy_data, checkpoints, tmp_path, flag, name, words) -> None:
    start = [flag, str(checkpoints / name), "--save-dir", str(tmp_path)]
    assert f"{name} {words}" in refusal_of(toy.build, toy.plugin_flags(toy_data, *start))
    assert not (checkpoints / "executed").exists()


@pytest.mark.parametrize("name", ["base.pt", "adapted.pt"])
def test_right_checkpoint_is_not_refused(toy_data, checkpoints, tmp_path, name) -> None:
    flags = toy.plugin_flags(toy_data, "--finetune-from-model", str(checkpoints / name), "--save-dir", str(tmp_path))
    _, model = toy.build(flags)
    model.load_state_dict(torch.load(checkpoints / name, weights_only=False)["model"])


@pytest.mark.usefixtures("unbuilt")
def test_stock_model_is_not_trained_from_a_hostile_checkpoint_either(toy_data, checkpoints, tmp_path) -> None:
    flags = [*STOCK, "--task", "translation_multi_simple_epoch_lora", "--save-dir", str(tmp_path)]
    path = str(checkpoints / "hostile.pt")
    assert "was refused" in refusal_of(toy.build, toy.base_flags(toy_data, *flags, "--finetune-from-model", path))
    assert not (checkpoints / "executed").exists()


@pytest.mark.usefixtures("unbuilt")
def test_hostile_checkpoint_that_a_training_would_resume_from_is_refused(toy_data, checkpoints, tmp_path) -> None:
    shutil.copy(checkpoints / "hostile.pt", tmp_path / "checkpoint_last.pt")
    base = str(checkpoints / "base.pt")
    flags = toy.plugin_flags(toy_data, "--save-dir", str(tmp_path), "--finetune-from-model", base)
    assert f"checkpoint {tmp_path / 'checkpoint_last.pt'} was refused" in refusal_of(toy.build, flags)
    assert not (checkpoints / "executed").exists()


@pytest.mark.usefixtures("unbuilt")
def test_resuming_with_another_order_of_languages_is_refused(toy_data, checkpoints, tmp_path) -> None:
    shutil.copy(checkpoints / "adapted.pt", tmp_path / "checkpoint_last.pt")
    flags = toy.plugin_flags(toy_data, "--save-dir", str(tmp_path), "--langs", "fr,en,nl,wo,sd")
    message = refusal_of(toy.build, flags)
    assert "was trained with --langs en,fr,nl,wo,sd" in message
    assert "resume with the same --langs, or start a new run with --finetune-from-model" in message


@pytest.mark.usefixtures("unbuilt")
@pytest.mark.parametrize("flag", [["--reset-optimizer"], ["--reset-dataloader"], ["--restore-file", "other.pt"]])
def test_two_ways_to_start_at_once_are_refused(toy_data, checkpoints, tmp_path, flag) -> None:
    start = ["--finetune-from-model", str(checkpoints / "base.pt"), "--save-dir", str(tmp_path)]
    message = refusal_of(toy.build, toy.plugin_flags(toy_data, *start, *flag))
    assert f"{' '.join(flag)} was given beside --finetune-from-model" in message


def test_checkpoint_of_another_architecture_is_named_by_its_first_difference(toy_data, checkpoints) -> None:
    _, model = toy.build(toy.plugin_flags(toy_data))
    state = torch.load(checkpoints / "post-norm.pt", weights_only=False)["model"]
    message = refusal_of(model.load_state_dict, state)
    assert 'does not fit the model: Missing key(s) in state_dict: "encoder.layer_norm.weight"' in message


def remove(data: Path, *prefixes: str) -> None:
    for prefix in prefixes:
        for path in data.glob(f"{prefix}*"):
            path.unlink()


def binarise(side: Path, sentences: int) -> None:
    """Writes a side of some sentences in place of the one that is there."""
    text = side.parent / "text"
    text.write_text("en1 en2\n" * sentences)
    toy._write_side(side, text, toy.Dictionary.load(str(side.parent.parent / "dict.txt")))
    text.unlink()


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


SPOILT = {
    "no direction": (
        lambda data: remove(data, "train.en-nl.", "train.nl-en."),
        "there are no train data of en-nl in .*; binarise that direction, or leave it out",
    ),
    "no validation": (lambda data: remove(data, "valid."), "there are no valid data of en-fr"),
    "one side": (lambda data: remove(data, "train.wo-en.en."), "there are no train data of wo-en"),
    "no index": (
        lambda data: remove(data, "train.sd-en.sd.idx", "train.en-sd.sd.idx"),
        "there are no train data of en-sd",
    ),
    "empty": (
        lambda data: (binarise(data / "train.en-fr.en", 0), binarise(data / "train.en-fr.fr", 0)),
        "train data of en-fr in .* are empty; binarise text for that direction",
    ),
    "misaligned": (
        lambda data: binarise(data / "valid.fr-wo.wo", 11),
        "valid data of fr-wo in .* are misaligned: 12 sentences of fr, 11 of wo; binarise both sides again",
    ),
    "cut index": (lambda data: cut(data / "train.en-fr.fr.idx", -1), r"train\.en-fr\.fr\.idx is damaged"),
    "empty index": (lambda data: cut(data / "train.en-fr.fr.idx", 0), r"train\.en-fr\.fr\.idx is damaged"),
    "cut data": (lambda data: cut(data / "train.en-fr.en.bin", -1), r"train\.en-fr\.en\.bin is damaged"),
    "no folder": (shutil.rmtree, "there are no train data of en-fr"),
    "damaged dictionary": (
        lambda data: (data.parent / "dict.txt").write_text("no count\n"),
        r"dictionary .*dict\.txt is damaged \(Incorrect dictionary format",
    ),
}


@pytest.mark.usefixtures("unbuilt")
@pytest.mark.parametrize("kind", SPOILT)
def test_wrong_data_end_a_training_before_a_model_is_built(toy_data, tmp_path, kind) -> None:
    spoil, words = SPOILT[kind]
    data = own_copy(toy_data, tmp_path)
    spoil(data)
    assert re.search(words, refusal_of(toy.build, toy.plugin_flags(data)))


def test_data_named_for_the_other_direction_are_found_as_fairseq_finds_them(toy_data, tmp_path) -> None:
    data = own_copy(toy_data, tmp_path)
    remove(data, "train.fr-en.", "valid.fr-en.", "test.wo-en.")
    toy.build(toy.plugin_flags(data))


@pytest.mark.usefixtures("unbuilt")
def test_dictionaries_that_differ_between_languages_are_refused(toy_data, tmp_path) -> None:
    data = own_copy(toy_data, tmp_path)
    with (data / "dict.wo.txt").open("a") as file:
        file.write("more 1\n")
    flags = toy.plugin_flags(data)
    place = flags.index("--fixed-dictionary")
    del flags[place : place + 2]
    assert "give one for all languages with --fixed-dictionary" in refusal_of(toy.build, flags)
    (data / "dict.wo.txt").unlink()
    assert "dict.wo.txt cannot be read: No such file" in refusal_of(toy.build, flags)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nowhere.pt", "does not exist; check the path"),
        ("damaged.pt", "is damaged"),
        ("hostile.pt", "was refused: it names 'posix.system'"),
        ("words.pt", "has a vocabulary of 71, the dictionary (with the language tokens of --langs) 69"),
        ("part.pt", "holds only part of the adapters: 1 of"),
        ("three.pt", "has no adapters for wo; it knows en, fr, nl"),
    ],
)
def test_wrong_checkpoint_ends_a_generation_before_it_is_loaded(toy_data, checkpoints, name, words) -> None:
    path = checkpoints / name
    for joined in (path, f"{checkpoints / 'adapted.pt'}:{path}"):
        message = refusal_of(set_up_generation, toy_data, joined)
        assert f"checkpoint {path}" in message
        assert words in message
    assert not (checkpoints / "executed").exists()


@pytest.mark.parametrize("name", ["base.pt", "adapted.pt"])
def test_right_checkpoint_generates(toy_data, checkpoints, name) -> None:
    load_for_generation(toy_data, checkpoints / name)


def test_checkpoint_that_fairseq_would_load_in_place_of_the_named_one_is_checked(
    toy_data, checkpoints, tmp_path
) -> None:
    shutil.copy(checkpoints / "adapted.pt", tmp_path / "model.pt")
    shutil.copy(checkpoints / "hostile.pt", tmp_path / "model-shard0.pt")
    assert "model-shard0.pt was refused" in refusal_of(set_up_generation, toy_data, tmp_path / "model.pt")


def test_hostile_language_model_is_refused(toy_data, checkpoints) -> None:
    lm = str(checkpoints / "hostile.pt")
    assert "was refused" in refusal_of(set_up_generation, toy_data, checkpoints / "adapted.pt", "--lm-path", lm)
    assert not (checkpoints / "executed").exists()


@pytest.mark.parametrize("split", ["test", "test9"])
def test_missing_data_end_a_generation_before_the_model_is_loaded(toy_data, checkpoints, tmp_path, split) -> None:
    data = own_copy(toy_data, tmp_path)
    remove(data, "test.en-wo.", "test.wo-en.")
    message = refusal_of(set_up_generation, data, checkpoints / "adapted.pt", "--gen-subset", split)
    assert f"there are no {split} data of en-wo in {data}" in message


def test_generation_without_references_is_fine(toy_data, checkpoints, tmp_path) -> None:
    data = own_copy(toy_data, tmp_path)
    remove(data, "test.wo-en.", "test.en-wo.wo.")
    set_up_generation(data, checkpoints / "adapted.pt").load_dataset("test")


def test_interactive_translation_needs_no_data_but_a_right_checkpoint(toy_data, checkpoints, tmp_path) -> None:
    data = own_copy(toy_data, tmp_path)
    remove(data, "t", "v")
    parser = options.get_interactive_generation_parser
    set_up_generation(data, checkpoints / "adapted.pt", parser=parser)
    with pytest.raises(SystemExit, match="was refused"):
        set_up_generation(data, checkpoints / "hostile.pt", parser=parser)


def damaged_arguments(state: dict) -> None:
    del state["args"].low_rank, state["args"].start_idx


def changed_arguments(state: dict) -> None:
    state["args"].encoder_lora_layer = "0_9"


def damaged_languages(state: dict) -> None:
    state["args"].adapter_languages = '{"names": ["en"'


def other_ranks(state: dict) -> None:
    for name in [name for name in state["model"] if name.endswith("lora_A")]:
        state["model"][name] = state["model"][name][1:]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (damaged_arguments, "holds wrong training arguments"),
        (changed_arguments, "holds wrong training arguments (--encoder-lora-layer 0_9: '9' is no layer"),
        (damaged_languages, "the checkpoint's table of languages is damaged"),
        (other_ranks, "has decoder.layers.0.encoder_attn.k_proj.lora_A of size (14, 16), the model (15, 16)"),
    ],
)
def test_checkpoint_at_odds_with_itself_is_named(toy_data, tmp_path, change, words) -> None:
    path = write_checkpoint(tmp_path / "model.pt", toy.plugin_flags(toy_data), change)
    message = refusal_of(set_up_generation, toy_data, path)
    assert f"checkpoint {path}" in message
    assert words in message


def runs_in_stock_fairseq(path: Path, marker: Path) -> bool:
    with contextlib.suppress(Exception):
        checkpoint_utils.load_model_ensemble([str(path)])
    ran = marker.exists()
    marker.unlink(missing_ok=True)
    return ran


@pytest.mark.parametrize("key", ["adaptive_softmax_cutoff", "encoder_xformers_att_config"])
@pytest.mark.parametrize("kind", ["stock", "ours"])
def test_argument_that_fairseq_would_run_as_python_is_refused_and_not_run(toy_data, tmp_path, kind, key) -> None:
    marker = tmp_path / "executed"

    def change(state: dict) -> None:
        setattr(state["args"], key, f"open({str(marker)!r}, 'w') and None")

    flags = toy.base_flags(toy_data, *STOCK) if kind == "stock" else toy.plugin_flags(toy_data)
    path = write_checkpoint(tmp_path / "model.pt", flags, change)
    assert kind == "ours" or runs_in_stock_fairseq(path, marker)
    assert f'its argument {key} is "open(' in refusal_of(load_for_generation, toy_data, path)
    assert not marker.exists()


def test_model_of_another_kind_is_not_built_from_a_checkpoint(toy_data, tmp_path) -> None:
    """fairseq's convolutional model evaluates its list of layers."""
    marker = tmp_path / "executed"

    def change(state: dict) -> None:
        state["args"].arch = "fconv"
        state["args"].encoder_layers = f"open({str(marker)!r}, 'w')"

    path = write_checkpoint(tmp_path / "model.pt", toy.base_flags(toy_data, *STOCK), change)
    assert runs_in_stock_fairseq(path, marker)
    assert "holds a model of the kind 'fconv'" in refusal_of(load_for_generation, toy_data, path)
    assert not marker.exists()


def training(data: Path, save: Path, *more: str) -> list[str]:
    optimizer = ("--optimizer", "adam", "--lr", "1e-3", "--max-update", "1", "--cpu", "--save-dir", str(save))
    return ["fairseq-train", *toy.plugin_flags(data, "--user-dir", str(PLUGIN), *optimizer, *more)]


def generation(data: Path, path: Path, *more: str) -> list[str]:
    return [
        *("fairseq-generate", str(data), "--user-dir", str(PLUGIN), "--path", str(path), "--cpu"),
        *("--task", "translation_multi_simple_epoch_lora", "--encoder-langtok", "src", "--decoder-langtok"),
        *("--langs", ",".join(toy.LANGUAGES), "--lang-pairs", ",".join(toy.PAIRS)),
        *("--fixed-dictionary", str(data.parent / "dict.txt"), "-s", "en", "-t", "wo", *more),
    ]


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


COMMANDS = {
    "word": (lambda d, c, s: training(d, s, "--add-lora", "maybe"), "--add-lora maybe: expected True or False"),
    "position": (lambda d, c, s: training(d, s, "--encoder-lora-position", "q_out"), "'out' is no position"),
    "part": (lambda d, c, s: training(d, s, "--finetune-from-model", str(c / "part.pt")), "only part of the adapters"),
    "hostile": (
        lambda d, c, s: training(d, s, "--finetune-from-model", str(c / "hostile.pt")),
        "was refused: it names",
    ),
    "order": (lambda d, c, s: training(d, s, "--langs", "fr,en,nl,wo,sd"), "was trained with --langs en,fr,nl,wo,sd"),
    "split": (lambda d, c, s: training(d, s, "--valid-subset", "dev"), "there are no dev data of en-fr"),
    "hostile to generation": (lambda d, c, s: generation(d, c / "hostile.pt"), "was refused: it names 'posix.system'"),
    "language": (lambda d, c, s: generation(d, c / "three.pt"), "has no adapters for wo; it knows en, fr, nl"),
}


@pytest.fixture(scope="module")
def ended(toy_data, checkpoints, tmp_path_factory) -> Iterator[dict[str, tuple[subprocess.CompletedProcess, bool]]]:
    """Each command once, two at a time, and whether what lay in the folders is there unchanged."""

    def run(case: str) -> tuple[subprocess.CompletedProcess, bool]:
        save = tmp_path_factory.mktemp(case)
        shutil.copy(checkpoints / "adapted.pt", save / ("checkpoint_last.pt" if case == "order" else "mine.pt"))
        before = contents(save)
        program, *flags = COMMANDS[case][0](toy_data, checkpoints, save)
        done = subprocess.run(
            [Path(sys.executable).parent / program, *flags],
            capture_output=True,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            check=False,
        )
        return done, contents(save) == before

    before = contents(checkpoints)
    with ThreadPoolExecutor(2) as pool:
        results = dict(zip(COMMANDS, pool.map(run, COMMANDS), strict=True))
    assert contents(checkpoints) == before  # and so no "executed"
    return results


@pytest.mark.parametrize("case", COMMANDS)
def test_stock_command_ends_with_one_line_and_leaves_everything_as_it_was(ended, case) -> None:
    done, unchanged = ended[case]
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith(PREFIX)
    assert COMMANDS[case][1] in last
    assert done.stderr.count(PREFIX) == 1
    for word in ("Traceback", "usage:", "num. shared model params"):
        assert word not in done.stdout + done.stderr
    assert unchanged
