"""Names from somebody else's files: none becomes a path, none reaches the terminal or a page as more than text."""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from langspec_lora.adapters.adapter_folder import content_hash
from langspec_lora.cli.main import main
from langspec_lora.notes import PrintableFormatter, note, show
from langspec_lora.report.html import html_report
from langspec_lora.report.report import terminal_text, write_files
from langspec_lora.report.runs import run_names
from tests import ROOT
from tests.analyses import made_analysis

STORED = ROOT / "tests" / "stored"
HOSTILE = "<script>alert(1)</script>|x"
CONTROLS = "\x1b[2J\x9b31m\u202egnp.exe\n# title"


def rename(table: dict[str, list], name: str) -> str:
    return json.dumps({**table, "names": [name, *table["names"][1:]]})


def named_checkpoint(path: Path, name: str, manifest: bool = True) -> Path:
    """The stored checkpoint, with another name for its first language."""
    state = torch.load(STORED / "whole.pt", weights_only=False)
    args = state["cfg"]["model"]
    args.adapter_languages = text = rename(json.loads(args.adapter_languages), name)
    if manifest:
        state["model"]["adapters.manifest"] = torch.tensor(list(text.encode()))
    torch.save(state, path)
    return path


def named_folder(folder: Path, name: str) -> Path:
    """The stored adapter folder, with another name for its first language, and a right hash."""
    shutil.copytree(STORED / "adapter", folder)
    with safe_open(str(folder / "adapter.safetensors"), framework="pt") as file:
        config = json.loads(file.metadata()["langspec_lora"])
    config["languages"][0]["name"] = name
    tensors = load_file(folder / "adapter.safetensors")
    config["sha256"] = content_hash(config, tensors)
    save_file(tensors, folder / "adapter.safetensors", {"langspec_lora": json.dumps(config)})
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def refusal_of(arguments: Sequence[object]) -> str:
    with pytest.raises(SystemExit) as refusal:
        main(list(map(str, arguments)))
    message = str(refusal.value.code)
    assert message.startswith("langspec-lora: error: ")
    assert all(line.isprintable() for line in message.splitlines())
    return message


def everything(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


@pytest.mark.parametrize("name", ["../../x", "/abs/x", "..", CONTROLS])
@pytest.mark.parametrize(
    "command",
    [
        ("export", "CK", "--format", "peft", "--all", "--out", "OUT"),
        ("export", "CK", "--format", "adapter", "--out", "OUT"),
        ("inspect", "CK"),
        ("join", "CK", "CK", "--prefer", "A", "--out", "OUT"),
        ("average", "CK", "CK", "--out", "OUT"),
        ("remove-language", "CK", "--langs", "wo", "--out", "OUT"),
        ("add-language", "CK", "--langs", "it", "--out", "OUT"),
    ],
    ids=lambda words: "_".join(words[:1] + words[2:4]),
)
def test_checkpoint_with_such_a_language_is_refused_by_every_command(tmp_path, name, command) -> None:
    folder = tmp_path / "far" / "below"
    folder.mkdir(parents=True)
    places = {"CK": named_checkpoint(folder / "ck.pt", name), "OUT": folder / "out"}
    before = everything(tmp_path)
    message = refusal_of([places.get(word, word) for word in command])
    assert "a language's name cannot have" in message
    assert everything(tmp_path) == before


def test_names_that_only_the_arguments_have_are_refused_too(tmp_path) -> None:
    path = named_checkpoint(tmp_path / "ck.pt", "it", manifest=False)
    assert "those of its training have it," in refusal_of(["inspect", path])


@pytest.mark.parametrize("name", ["../../x", CONTROLS])
def test_adapter_folder_with_such_a_language_is_refused(tmp_path, name) -> None:
    folder = named_folder(tmp_path / "folder", name)
    for command in (["inspect", folder], ["import", folder, "--from", "adapter", "--base", STORED / "base.pt"]):
        out = ["--out", tmp_path / "out.pt"] if command[0] == "import" else []
        assert "a language's name cannot have" in refusal_of([*command, *out])
    assert not (tmp_path / "out.pt").exists()


def test_index_of_weights_may_name_no_file_elsewhere(tmp_path) -> None:
    """See also tests/unit/convert/hf; here the names that are no file of the folder at all."""
    from langspec_lora.convert.hf.files import read_tensors
    from langspec_lora.errors import UserError

    for name in ("../../secret.safetensors", "/etc/passwd", "..", ".", "", "a\0b.bin"):
        index = {"weight_map": {"model.shared.weight": name}}
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
        with pytest.raises(UserError, match="was refused") as refusal:
            read_tensors(tmp_path, "model")
        assert str(refusal.value).isprintable()


def test_what_a_terminal_would_obey_is_shown(capsys) -> None:
    show(f"written: {CONTROLS}", "second\nthird")
    note(CONTROLS)
    shown = capsys.readouterr()
    assert shown.out == "written: \\x1b[2J\\x9b31m\\u202egnp.exe\n# title\nsecond\nthird\n"
    assert shown.err == "langspec-lora: \\x1b[2J\\x9b31m\\u202egnp.exe\\n# title\n"


def test_logs_of_commands_are_escaped_too() -> None:
    record = logging.LogRecord("langspec_lora.x", logging.WARNING, "x.py", 1, "%s has changed", (CONTROLS,), None)
    shown = PrintableFormatter("langspec-lora: %(message)s").format(record)
    assert shown == "langspec-lora: \\x1b[2J\\x9b31m\\u202egnp.exe\n# title has changed"


@pytest.mark.parametrize("as_json", [False, True])
def test_inspect_shows_names_of_files_as_text(tmp_path, capsys, as_json) -> None:
    """The path of the base is what the checkpoint says."""
    state = torch.load(STORED / "adapters_only.pt", weights_only=False)
    state["cfg"]["model"].base_checkpoint = f"{HOSTILE}{CONTROLS}"
    path = tmp_path / f"{HOSTILE.replace('/', '')}{CONTROLS}.pt"
    torch.save(state, path)
    main(["inspect", str(path), *(["--json"] if as_json else [])])
    out = capsys.readouterr().out
    assert all(line.isprintable() for line in out.splitlines())
    if as_json:
        assert json.loads(out)["path"] == str(path)
        assert json.loads(out)["base"]["path"] == f"{HOSTILE}{CONTROLS}"
    else:
        assert "<script" not in out
        assert "\n# title" not in out
        assert "&lt;script>alert(1)&lt;/script>\\|x" in out


class Elements(HTMLParser):
    """The elements of a page, and its visible text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_names_in_a_report_are_text_in_every_format(tmp_path, monkeypatch) -> None:
    plain = made_analysis(tmp_path)
    (tmp_path / "runs" / f"{HOSTILE.replace('/', '')}{CONTROLS}$\\x$").mkdir(parents=True)
    names = run_names([*(tmp_path / "runs").iterdir(), Path("b"), Path("c")], None)
    bad = f"{HOSTILE}{CONTROLS}"
    settings = {"generation": {bad: bad}, "subset": "test", bad: 1}
    runs = tuple(
        replace(
            run,
            name=name,
            checkpoint=bad,
            signatures={"bleu": f"{bad}`"},
            folder=Path(bad),
            settings={**settings, "n": number},
        )
        for number, (run, name) in enumerate(zip(plain.runs, names, strict=True))
    )
    analysis = replace(plain, runs=runs, notes=(bad,), labels={"bleu": bad, "chrf": bad})
    write_files(analysis, tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    markdown = (tmp_path / "out" / "report.md").read_text()
    usual, found = Elements(html_report(plain)), Elements(page)
    assert found.tags.count("script") == usual.tags.count("script") == 1
    assert any("<script>alert(1)</script>|x" in text for text in found.text)
    for text in (page, markdown, terminal_text(analysis)):
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)
    for text in (markdown, terminal_text(analysis)):
        assert "<script" not in re.sub("`[^`]*`", "", text)  # in code it is text
        assert "\n# title" not in text
        tables = re.findall(r"(?:^\|.*\n)+", f"{text}\n", re.M)
        assert tables
        for table in tables:  # as many cells in each line
            assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1
