"""``langspec-lora doctor``, and the tokenizers that sacrebleu can use."""

from __future__ import annotations

import argparse
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
import sacrebleu.tokenizers.tokenizer_spm
import sacrebleu.utils
import sentencepiece

from langspec_lora.cli import doctor
from langspec_lora.errors import UserError
from langspec_lora.tokenizers import require_tokenizer
from tests import ROOT


@pytest.fixture
def sacrebleu_folder(tmp_path, monkeypatch):
    """An empty folder in place of ``~/.sacrebleu``, and no way to download into it."""
    folder = tmp_path / "sacre bleu"
    for module in (sacrebleu.utils, sacrebleu.tokenizers.tokenizer_spm):
        monkeypatch.setattr(module, "SACREBLEU_DIR", str(folder))

    def refuse(*_: object) -> None:
        raise AssertionError("a download was tried")

    monkeypatch.setattr(sacrebleu.tokenizers.tokenizer_spm, "download_file", refuse)
    return folder


@pytest.fixture(scope="module")
def sentencepiece_model(tmp_path_factory) -> bytes:
    folder = tmp_path_factory.mktemp("spm")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a house and a tree", "the tree and the house"]),
        model_prefix=str(folder / "m"),
        vocab_size=20,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return (folder / "m.model").read_bytes()


def account(capsys, *checks, require=()) -> tuple[int, str]:
    """What the doctor prints when only these checks are made, and its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(doctor, "CHECKS", checks)
        code = doctor.run(argparse.Namespace(require_tokenizer=list(require)))
    return code, capsys.readouterr().out


def test_tokenizers_without_a_model_need_no_file(sacrebleu_folder):
    require_tokenizer("13a")
    require_tokenizer("char")
    assert not sacrebleu_folder.exists()


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("spm", "sacrebleu_tokenizer_spm.model"),
        ("flores101", "sacrebleu_tokenizer_spm.model"),
        ("flores200", "flores200sacrebleuspm"),
    ],
)
def test_a_missing_tokenizer_model_is_an_error_that_names_the_place_of_its_file(sacrebleu_folder, name, file):
    with pytest.raises(UserError) as caught:
        require_tokenizer(name)
    assert str(sacrebleu_folder / "models" / file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_tokenizer_whose_model_is_there_can_be_used(sacrebleu_folder, sentencepiece_model):
    (sacrebleu_folder / "models").mkdir(parents=True)
    (sacrebleu_folder / "models" / "sacrebleu_tokenizer_spm.model").write_bytes(sentencepiece_model)
    require_tokenizer("flores101")


@pytest.mark.parametrize("keep", [0, 0.5])
def test_a_truncated_tokenizer_model_is_an_error_that_names_the_file(sacrebleu_folder, sentencepiece_model, keep):
    model = sacrebleu_folder / "models" / "flores200sacrebleuspm"
    model.parent.mkdir(parents=True)
    model.write_bytes(sentencepiece_model[: int(keep * len(sentencepiece_model))])
    with pytest.raises(UserError, match="damaged") as caught:
        require_tokenizer("flores200")
    assert str(model) in str(caught.value)


def test_an_unknown_tokenizer_is_an_error_that_lists_the_known_ones(sacrebleu_folder):
    with pytest.raises(UserError, match=r"'spBLEU'.*flores101"):
        require_tokenizer("spBLEU")


def test_a_required_tokenizer_that_is_missing_makes_the_doctor_fail(sacrebleu_folder, capsys):
    assert account(capsys, require=["char"])[0] == 0
    code, output = account(capsys, require=["char", "flores101"])
    assert code == 1
    assert str(sacrebleu_folder / "models" / "sacrebleu_tokenizer_spm.model") in output


def test_a_package_that_fails_to_import_is_named_with_its_reason_and_no_traceback(capsys):
    def check_fairseq():
        raise ImportError("libcudart.so.11.0:\n cannot open shared object file")
        yield

    code, output = account(capsys, check_fairseq)
    assert code == 1
    assert "fairseq: its import fails (ImportError: libcudart.so.11.0: cannot open shared object file)" in output


def test_the_doctor_finds_everything_in_the_environment_of_the_tests(capsys):
    """All but the start-up file, which is missing where the tests run from a folder that was not installed."""
    checks = [check for check in doctor.CHECKS if check is not doctor.check_startup]
    code, output = account(capsys, *checks)
    assert code == 0, output
    assert str(ROOT / "langspec_lora") in output


def test_the_doctor_runs_where_neither_torch_nor_fairseq_does():
    code = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "fairseq", "sacrebleu", "numpy"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
from langspec_lora.cli.main import main
sys.exit(main(["doctor"]))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert not done.stderr
    assert all(f"wrong: {name}" in done.stdout for name in ("torch", "fairseq", "numpy"))


@pytest.mark.parametrize(
    ("folders", "found", "noted"),
    [([], "another project", True), (["multi_tensor_apply"], "NVIDIA's, without its CUDA modules", False)],
)
def test_another_project_called_apex_is_told_from_the_one_of_nvidia(
    tmp_path, monkeypatch, capsys, folders, found, noted
):
    for folder in [Path(), *folders]:
        (tmp_path / "apex" / folder).mkdir(parents=True)
        (tmp_path / "apex" / folder / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    code, output = account(capsys, doctor.check_apex)
    assert code == 0
    assert found in output
    assert ("note: apex" in output) is noted


def test_protobuf_without_which_sentencepiece_s_classes_fail_is_among_the_libraries() -> None:
    assert [finding.found for finding in doctor.check_libraries() if finding.name == "protobuf"] == [
        version("protobuf")
    ]


def test_extras_that_are_missing_are_named_with_what_installs_them(monkeypatch, capsys) -> None:
    def version(name: str) -> str:
        if name == "peft":
            return "1.2.3"
        raise PackageNotFoundError(name)

    monkeypatch.setattr(doctor, "version", version)
    code, output = account(capsys, doctor.check_extras)
    assert code == 0
    assert [line.split()[:2] for line in output.splitlines()[:4]] == [
        ["transformers", "not"], ["peft", "1.2.3"], ["py3langid", "not"], ["unbabel-comet", "not"],
    ]  # fmt: skip
    assert 'evaluate --comet; pip install ".[comet]"' in output


def test_a_version_with_a_local_part_is_compared_by_its_numbers():
    assert doctor._release("2.13.0+cpu") > doctor._release("2.6.0") > doctor._release("2.0.1+cu117")
