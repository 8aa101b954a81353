"""Fixtures that several test files share."""

from __future__ import annotations

import copy
import logging
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from fairseq.dataclass import utils as dataclass_utils

from langspec_lora.tasks import signals
from tests import toy

with suppress(ImportError):  # only tests of properties need it
    from hypothesis import HealthCheck, settings

    _COMMON = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}
    settings.register_profile("same", max_examples=100, derandomize=True, **_COMMON)
    settings.register_profile("long", max_examples=10_000, print_blob=True, **_COMMON)
    settings.load_profile("same")


ONCE = {
    "unit/test_scripts.py",
    "unit/cli/test_full_output.py",
    "unit/report/test_heat_map.py",
    "unit/report/test_html.py",
    "unit/report/test_report.py",
    "unit/report/test_texts.py",
    "unit/report/test_subspaces.py",
    "integration/test_docs_commands.py",
    "integration/test_examples.py",
    "integration/test_recipes.py",
}
"""Long tests that depend on the versions of torch, fairseq and NumPy in nothing that other tests do not."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests of Hugging Face's formats, by their folders and files, and those of :data:`ONCE`."""
    for item in items:
        path = item.path.relative_to(Path(__file__).parent)
        if path.as_posix() in ONCE:
            item.add_marker(pytest.mark.once)
        if "hf" in path.parts or "huggingface" in path.stem or "peft" in path.stem:
            item.add_marker(pytest.mark.hf)


@pytest.fixture(scope="session", autouse=True)
def _settings_are_composed_once() -> Iterator[None]:
    """Keeps what Hydra makes of a command's arguments, which takes fairseq half a second each time."""
    stock, known = dataclass_utils.compose, {}

    def compose(name: str, overrides: list[str], **options):
        key = (name, *overrides)
        if key not in known:
            known[key] = stock(name, overrides=overrides, **options)
        return copy.deepcopy(known[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataclass_utils, "compose", compose)
        yield


@pytest.fixture(autouse=True)
def _log_is_as_it_was() -> None:
    """Undoes what a command that ran in this process has set for the rest of the process."""
    logging.getLogger("fairseq").setLevel(logging.NOTSET)
    logging.disable(logging.NOTSET)


@pytest.fixture(autouse=True)
def _signals_are_as_they_were() -> None:
    """Ends what a training in this process has left: until then, processes that are forked have SIGTERM blocked."""
    for noted in [*signals._waiting]:
        noted.end()


@pytest.fixture(scope="session")
def toy_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A binarised folder of five small languages, all twenty directions; see :mod:`tests.toy`."""
    return toy.write_data(tmp_path_factory.mktemp("toy"))


FAKE_COMET = '''
"""Stands in for unbabel-comet: its two functions and its model's ``predict``."""
from types import SimpleNamespace

calls = []


def download_model(name):
    if name != "Some/model":
        raise KeyError(f"Model {name} not supported by COMET.")
    return "downloaded.ckpt"


def load_from_checkpoint(path):
    calls.append(path)
    return SimpleNamespace(predict=predict)


def predict(samples, batch_size, gpus, progress_bar):
    calls.append({"batch_size": batch_size, "gpus": gpus, "progress_bar": progress_bar})
    scores = [len(s["mt"]) + 100 * len(s["src"]) + 10000 * len(s["ref"]) for s in samples]
    return SimpleNamespace(scores=scores, system_score=sum(scores) / len(scores) / 1e6)
'''


@pytest.fixture
def fake_comet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Installs a stand-in for unbabel-comet, whose ``calls`` hold what it was asked for."""
    packages = tmp_path / "packages"
    (packages / "comet").mkdir(parents=True)
    (packages / "comet" / "__init__.py").write_text(FAKE_COMET)
    (packages / "unbabel_comet-2.2.9.dist-info").mkdir()
    (packages / "unbabel_comet-2.2.9.dist-info" / "METADATA").write_text("Name: unbabel-comet\nVersion: 2.2.9\n")
    monkeypatch.syspath_prepend(packages)
    yield
    sys.modules.pop("comet", None)
