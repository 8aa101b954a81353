"""fairseq's features of a training, beside adapters: the rows of :mod:`tests.fairseq_features` on data, batches, logs.

Every training is the stock program's, with a frozen base and with pruning. After each, the base is the same bit for
bit, the right share of each language is pruned, and what is pruned is zero. Then each feature must have had its effect.
"""

from __future__ import annotations

import json
import logging
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from fairseq.logging import progress_bar
from fairseq.tasks import FairseqTask
from fairseq_cli import train as fairseq_train

from langspec_lora.tasks.checks import unused_fairseq_flags
from tests import toy
from tests.bad_input import refusal_of
from tests.evaluations import run_stock
from tests.fairseq_features import BATCHES, CHECKPOINTS, DATA, LOGS, MODELS, REFUSED, WARNED, WORKS, Feature

SHARE = 0.8
FLAGS = (
    *("--lang-pairs", "en-fr,wo-nl", "--max-tokens", "900", "--seed", "2", "--cpu", "--lr", "3e-3"),
    *("--optimizer", "adam", "--pruning", "True", "--pruning-t1", "1", "--pruning-t2", "1", "--max-epoch", "2"),
    *("--target-pruning-ratio", str(SHARE), "--log-format", "simple", "--log-interval", "1"),
)
PLAIN = ("--no-save", "--disable-validation")
REST = ("sd",)
"""Languages that are in no direction of FLAGS."""


@dataclass
class Training:
    """What a training has read, printed and left.

    Attributes:
        folder: its ``--save-dir``.
        log: what the program logged.
        batches: what the task was given, by epoch.
        before: the parameters before the first update.
        model: the model after the last.
        trainer: fairseq's trainer.
    """

    folder: Path
    log: str = ""
    batches: list[tuple[int, dict]] = field(default_factory=list)
    before: dict[str, torch.Tensor] = field(default_factory=dict)
    model: torch.nn.Module | None = None
    trainer: fairseq_train.Trainer | None = None

    @property
    def sources(self) -> list[torch.Tensor]:
        """The sources of all batches, each ``(batch, length)``."""
        return [batch["net_input"]["src_tokens"] for _, batch in self.batches]

    def texts(self, epoch: int | None = None) -> list[list[str]]:
        """The words of each source, without padding, in the order of reading."""
        dictionary = self.trainer.task.source_dictionary
        return [
            [dictionary[token] for token in row.tolist() if token != dictionary.pad()]
            for number, batch in self.batches
            if epoch in (None, number)
            for row in batch["net_input"]["src_tokens"]
        ]

    def updates_of(self, language: str) -> torch.Tensor:
        """How far the adapters of a language have moved, as one vector."""
        layout = self.model.adapters.routing.layout.packed["src"]
        rows = layout.slice(self.model.adapters.config.languages.names.index(language))
        moved = [
            (value - self.before[name])[rows].flatten()
            for name, value in self.model.named_parameters()
            if name.endswith("lora_A")
        ]
        return torch.cat(moved)

    def files(self) -> set[str]:
        """The names of the checkpoints."""
        return {path.name for path in self.folder.glob("*.pt")}


def without(flags: list[str], *names: str) -> list[str]:
    """Flags of a command without some of them and their values."""
    kept = list(flags)
    for name in names:
        while name in kept:
            place = kept.index(name)
            has_value = place + 1 < len(kept) and not kept[place + 1].startswith("--")
            del kept[place : place + 1 + has_value]
    return kept


@pytest.fixture(scope="module")
def places(toy_data, tmp_path_factory) -> dict[str, Path]:
    """The paths that the table's flags name."""
    folder = tmp_path_factory.mktemp("places")
    text = (toy_data.parent / "dict.txt").read_text()
    (folder / "longer.txt").write_text(f"{text}more 1\nwords 1\n")
    (folder / "weights.json").write_text('{"main:en-fr": 0.0, "main:wo-nl": 2}')
    return {
        "data": toy_data,
        "dict": toy_data.parent / "dict.txt",
        "longer": folder / "longer.txt",
        "weights": folder / "weights.json",
        "nothing": folder / "nothing",
    }


def command(data: Path, places: dict[str, Path], row: Feature, *more: str) -> list[str]:
    """The flags of the stock program for a row of the table."""
    flags = row.flags.format(**places).split()
    own = toy.plugin_flags(data, *FLAGS, *more)
    if "--criterion" in flags and flags[flags.index("--criterion") + 1] in ("cross_entropy", "adaptive_loss"):
        own = without(own, "--label-smoothing")
    if "--criterion" in flags and flags[flags.index("--criterion") + 1] in ("ctc", "masked_lm", "model"):
        own = without(own, "--label-smoothing")
    if row in MODELS and row.state == WORKS:
        own = without(own, "--share-all-embeddings", "--share-decoder-input-output-embed")
    if "--longer" in flags or any(str(places["longer"]) in flag for flag in flags):
        own = without(own, "--fixed-dictionary")
    return [*own, *flags]


def train(flags: list[str], folder: Path) -> Training:
    """Runs the stock program in this process."""
    training = Training(folder)
    train_step, stock_trainer = FairseqTask.train_step, fairseq_train.Trainer

    class Trainer(stock_trainer):
        def __init__(self, cfg, task, model, *args, **kwargs):
            training.model, training.trainer = model, self
            training.before = {name: value.detach().clone() for name, value in model.named_parameters()}
            super().__init__(cfg, task, model, *args, **kwargs)

        def begin_epoch(self, epoch):
            training.epoch = epoch
            super().begin_epoch(epoch)

    def step(self, sample, *args, **kwargs):
        training.batches.append((training.epoch, sample))
        return train_step(self, sample, *args, **kwargs)

    records: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())
    logging.getLogger().addHandler(handler)
    logging.getLogger("fairseq").setLevel(logging.NOTSET)  # a command that ran before may have raised it
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FairseqTask, "train_step", step)
        patch.setattr(fairseq_train, "Trainer", Trainer)
        try:
            run_stock(patch, fairseq_train, *flags, "--save-dir", folder)
        finally:
            logging.getLogger().removeHandler(handler)
    training.log = "\n".join(records)
    return training


def check(training: Training, pruned: bool = True) -> None:
    """The base is unchanged, the second epoch's share is pruned, what is pruned is zero, and something has trained."""
    moved = 0
    for name, value in training.model.named_parameters():
        if value.requires_grad:
            moved += int(not torch.equal(value, training.before[name]))
            assert value.isfinite().all(), name
        else:
            assert torch.equal(value, training.before[name]), name
    assert moved
    assert all("lora_" in name for name, value in training.model.named_parameters() if value.requires_grad)
    zeros: dict[str, list[torch.Tensor]] = {}
    table, layout = training.model.adapters.config.languages, training.model.adapters.routing.layout.packed["src"]
    for linear in training.model.adapters.linears.values():
        assert not linear.lora_B[linear.lora_mask == 0].any()
        for number, name in enumerate(table.names):
            zeros.setdefault(name, []).append(linear.lora_mask[layout.slice(number)].flatten() == 0)
    for entries in map(torch.cat, zeros.values()):
        assert int(entries.sum()) == (round(SHARE * len(entries)) if pruned else 0)


@pytest.fixture(scope="module")
def plain(toy_data, tmp_path_factory) -> Training:
    """A training without any of the features."""
    return train(toy.plugin_flags(toy_data, *FLAGS, *PLAIN), tmp_path_factory.mktemp("plain"))


Effect = Callable[[Training, Training], object]


def starts(token: str) -> Effect:
    return lambda run, plain: {words[0] for words in run.texts()} == {token} if token else None


def same_weights(run: Training, plain: Training) -> bool:
    return all(torch.equal(value, run.model.state_dict()[name]) for name, value in plain.model.named_parameters())


def reads_only(*tokens: str) -> Effect:
    return lambda run, plain: {words[0] for words in run.texts()} == set(tokens)


def losses(run: Training, key: str = "loss") -> list[float]:
    """The losses of all updates, as the simple log says them."""
    lines = [line for line in run.log.splitlines() if line.startswith("epoch ") and f" {key}=" in line]
    return [float(line.split(f" {key}=")[1].split(",")[0]) for line in lines]


EFFECTS: dict[str, Effect] = {
    "weights of directions": lambda run, plain: (
        {words[0] for words in run.texts()} == {"__en__"} and not run.updates_of("wo").any()
    ),
    "weights from a file": reads_only("__wo__"),
    "more data": lambda run, plain: (
        {2} <= {int(i) for _, batch in run.batches for i in batch["tgt_lang_id"]}
        and len(run.texts()) == 2 * (3 * toy.SIZES["train"])
    ),
    "language tokens in place of the ends": lambda run, plain: (
        {words[-1] for words in run.texts()} == {"__en__", "__wo__"}
    ),
    "language tokens of mBART": reads_only("[en]", "[wo]"),
    "the target's token before the source": reads_only("__fr__", "__nl__"),
    "tokens by table": lambda run, plain: not any(words[0].startswith("_") for words in run.texts()),
    "longest sentences skipped": lambda run, plain: (
        max(source.size(1) for source in run.sources) <= 6 < max(source.size(1) for source in plain.sources)
    ),
    "sentences cut": lambda run, plain: (
        max(source.size(1) for source in run.sources) == 6 and len(run.texts()) == len(plain.texts())
    ),
    "workers": same_weights,
    "batches of sentences": lambda run, plain: max(map(len, run.sources)) == 32 < max(map(len, plain.sources)),
    "batches of a multiple": lambda run, plain: (
        all(len(source) % 8 == 0 for source in run.sources)
        and not all(len(source) % 8 == 0 for source in plain.sources)
    ),
    "targets without their first token": lambda run, plain: not same_weights(run, plain),
    "the loss of a sentence": lambda run, plain: losses(run)[0] > 3 * losses(plain)[0],
    "sorted first epochs": lambda run, plain: (
        run.texts(1) != plain.texts(1) and sorted(run.texts(1)) == sorted(plain.texts(1))
    ),
    "accuracy": lambda run, plain: (
        all(0 <= value <= 100 for value in losses(run, "accuracy")) and losses(run, "accuracy")
    ),
    "plain cross-entropy": lambda run, plain: losses(run)[0] == pytest.approx(losses(plain, "nll_loss")[0], abs=1e-3),
    "several updates in one": lambda run, plain: (
        run.trainer.get_num_updates() < plain.trainer.get_num_updates() and len(run.batches) == len(plain.batches)
    ),
    "layer drop": lambda run, plain: not same_weights(run, plain),
}
TRAINED = [row for row in (*DATA, *BATCHES) if row.state == WORKS and not row.shown_by]


@pytest.mark.parametrize("row", TRAINED, ids=lambda row: row.name)
def test_feature_of_data_and_batches_works(row, toy_data, places, plain, tmp_path) -> None:
    training = train(command(toy_data, places, row, *PLAIN), tmp_path)
    check(training)
    assert EFFECTS[row.name](training, plain)


FILES: dict[str, Callable[[Training], bool]] = {
    "saving within epochs": lambda run: len([name for name in run.files() if name.startswith("checkpoint_2_")]) == 1,
    "last and best checkpoints": lambda run: (
        {"checkpoint2.pt", "checkpoint_last.pt", "checkpoint_best.pt"} < run.files()
        and not {"checkpoint1.pt"} & run.files()
        and len(run.files()) == 4
    ),
    "every second epoch": lambda run: run.files() == {"checkpoint2.pt", "checkpoint_best.pt", "checkpoint_last.pt"},
    "no checkpoint": lambda run: not run.files(),
    "no last checkpoint": lambda run: (
        "checkpoint_last.pt" not in run.files() and "last_optimizer_state" not in stored(run, "checkpoint2.pt")
    ),
    "another best metric": lambda run: (
        1 < stored(run, "checkpoint_best.pt")["extra_state"]["best"] < 10
        and f"best_nll_loss {stored(run, 'checkpoint_best.pt')['extra_state']['best']:g}"[:18] in run.log
    ),
    "a time limit": lambda run: (
        run.trainer.get_num_updates() == 1 and "checkpoint_last.pt" in run.files() and not run.updates_of("sd").any()
    ),
    "a limit of epochs": lambda run: {epoch for epoch, _ in run.batches} == {1} and "checkpoint1.pt" in run.files(),
    "a limit of updates": lambda run: run.trainer.get_num_updates() == 3 and "checkpoint_last.pt" in run.files(),
    "a least learning rate": lambda run: not run.batches,
    "a suffix": lambda run: "checkpoint_last.x.pt" in run.files(),
}


def stored(run: Training, name: str) -> dict:
    return torch.load(run.folder / name, map_location="cpu", weights_only=False)  # our own file


@pytest.mark.parametrize(
    "row", [row for row in CHECKPOINTS if row.state == WORKS and not row.shown_by], ids=lambda r: r.name
)
def test_feature_of_checkpoints_and_limits_works(row, toy_data, places, tmp_path) -> None:
    training = train(command(toy_data, places, row), tmp_path)
    assert FILES[row.name](training)
    if training.batches:
        check(training, pruned=training.batches[-1][0] == 2)


class Recorder:
    """Stands in for TensorBoard's writer, and for a run of Aim."""

    seen: list[tuple[str, float]] = []  # noqa: RUF012

    def __init__(self, *args: object) -> None:
        self.context: dict = {}

    def add_text(self, *args: object) -> None:
        pass

    def flush(self) -> None:
        pass

    def add_scalar(self, key: str, value: float, step: int) -> None:
        self.seen.append((key, float(value)))

    def track(self, value: float, name: str, step: int, context: dict) -> None:
        self.seen.append((name, float(value)))

    def set(self, key: str, value: object, strict: bool) -> None:
        self.context[key] = value


@pytest.fixture
def recorders(monkeypatch) -> list[tuple[str, float]]:
    """Stand-ins for the packages that record trainings; what they were given."""
    seen: list[tuple[str, float]] = []
    monkeypatch.setattr(Recorder, "seen", seen)
    config = types.SimpleNamespace(update=lambda values: None)
    log = lambda values, step: seen.extend(values.items())  # noqa: E731
    wandb = types.SimpleNamespace(init=lambda **_: None, log=log, config=config)
    monkeypatch.setattr(progress_bar, "SummaryWriter", Recorder)
    monkeypatch.setattr(progress_bar, "_tensorboard_writers", {})
    monkeypatch.setattr(progress_bar, "wandb", wandb)
    monkeypatch.setattr(progress_bar, "get_aim_run", lambda repo, run_hash: Recorder())
    return seen


def is_logged(run: Training, seen: list[tuple[str, float]]) -> bool:
    found = {key.rpartition("/")[2]: value for key, value in seen}
    return 1 < found["loss"] < 10


def json_lines(run: Training) -> list[str]:
    return [line for line in run.log.splitlines() if line.startswith('{"')]


LOGGED: dict[str, Callable[[Training, list], bool]] = {
    "JSON": lambda run, seen: any(1 < float(json.loads(line).get("loss", 0)) < 10 for line in json_lines(run)),
    "progress bar": lambda run, seen: "epoch 002 | loss " in run.log and not losses(run),
    "no log": lambda run, seen: " loss" not in run.log,
    "log file": lambda run, seen: " loss=" in (run.folder / "log").read_text(),
    **dict.fromkeys(("TensorBoard", "Weights & Biases", "Aim"), is_logged),
}


@pytest.mark.parametrize("row", [row for row in LOGS if row.state == WORKS], ids=lambda row: row.name)
def test_log_shows_what_it_should(row, toy_data, places, tmp_path, recorders, monkeypatch) -> None:
    # fairseq draws its bar only on a terminal.
    terminal = types.SimpleNamespace(isatty=lambda: True)
    monkeypatch.setattr(progress_bar, "sys", types.SimpleNamespace(stderr=terminal, argv=[]))
    training = train(command(toy_data, {**places, "folder": tmp_path}, row, "--no-save"), tmp_path)
    check(training)
    assert LOGGED[row.name](training, recorders)


ALL = (*DATA, *BATCHES, *CHECKPOINTS, *LOGS, *MODELS)


@pytest.mark.usefixtures("unbuilt")
@pytest.mark.parametrize("row", [row for row in ALL if row.state == REFUSED], ids=lambda row: row.name)
def test_feature_is_refused_before_a_model_is_built(row, toy_data, places, tmp_path) -> None:
    flags = command(toy_data, {**places, "folder": tmp_path}, row, "--save-dir", str(tmp_path))
    message = refusal_of(toy.build, flags)
    assert row.says.format(**places) in message
    assert "mistakes" not in message


@pytest.mark.parametrize("row", [row for row in ALL if row.state == WARNED], ids=lambda row: row.name)
def test_flag_that_does_nothing_is_named(row, toy_data, places, tmp_path, caplog, monkeypatch) -> None:
    monkeypatch.setattr(unused_fairseq_flags, "find_spec", lambda name: None)  # whatever is installed here
    with caplog.at_level(logging.WARNING, "langspec_lora"):
        toy.build(command(toy_data, {**places, "folder": tmp_path}, row, "--save-dir", str(tmp_path)))
    told = [record.message for record in caplog.records if record.name.startswith("langspec_lora")]
    named = [message for message in told if not message.endswith("has sd, so their adapters will not train")]
    assert len(named) == 1
    assert row.says in named[0]


def test_recorder_that_is_installed_is_not_warned_of(monkeypatch) -> None:
    args = toy.Namespace(tensorboard_logdir="x", wandb_project="y", sampling_method="concat")
    monkeypatch.setattr(unused_fairseq_flags, "find_spec", lambda name: name in ("tensorboardX", "wandb"))
    assert unused_fairseq_flags.unused_fairseq_flags(args) == []
