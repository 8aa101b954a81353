"""``langspec-lora``: its help, what it says of mistakes, its log levels, and what it imports."""

from __future__ import annotations

import argparse
import importlib
import logging
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from langspec_lora.cli import doctor
from langspec_lora.cli.commands import COMMANDS, GROUPS, module_of, parser_of
from langspec_lora.cli.main import main
from langspec_lora.errors import UserError
from langspec_lora.notes import note
from langspec_lora.progress import Progress
from tests import ROOT

SLOW = {"torch", "fairseq", "numpy", "matplotlib", "sacrebleu", "omegaconf", "sentencepiece", "safetensors", "jinja2"}


def run(*words: str, path: Path = ROOT) -> subprocess.CompletedProcess:
    """Runs the program as a user does, with a folder of modules before all others."""
    program = [sys.executable, "-c", "from langspec_lora.cli.main import main; raise SystemExit(main())", *words]
    environment = {"PYTHONPATH": f"{path}:{ROOT}", "PATH": "/usr/bin:/bin"}
    return subprocess.run(program, env=environment, capture_output=True, text=True, check=False)


def refusal_of(capsys, *words: str) -> str:
    """The one line that a command line ends with before anything runs."""
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    output = capsys.readouterr()
    assert not output.out
    assert output.err.count("\n") == 1
    return output.err.rstrip("\n")


@pytest.mark.parametrize("words", [[], *([command] for command in COMMANDS)], ids=lambda words: "".join(words))
def test_help_imports_no_library_that_takes_long_and_no_other_command(words) -> None:
    code = f"""
import sys
from langspec_lora.cli.main import main
try:
    main([*{words}, "--help"])
except SystemExit as end:
    assert not end.code
print(*sys.modules, sep="\\n", file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    imported = done.stderr.split()
    assert not SLOW.intersection(imported)
    own_modules = [f"langspec_lora.cli.{command.replace('-', '_')}" for command in COMMANDS]
    own = [f"langspec_lora.cli.{command.replace('-', '_')}" for command in words]
    assert [name for name in own_modules if name in imported] == own


def test_importing_the_package_imports_nothing_but_the_standard_library() -> None:
    code = "import sys; old = set(sys.modules); import langspec_lora; print(*set(sys.modules) - old)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    imported = {name.partition(".")[0] for name in done.stdout.split()}
    assert imported <= {*sys.stdlib_module_names, "langspec_lora"}


def test_overview_lists_every_command_once_under_its_topic(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    lines = capsys.readouterr().out.splitlines()
    for title, commands in GROUPS.items():
        start = lines.index(f"{title}:") + 1
        assert [line.split()[0] for line in lines[start : start + len(commands)]] == list(commands)
    assert max(map(len, lines)) < 80


def test_every_module_of_the_folder_that_runs_is_a_command() -> None:
    modules = [path.stem for path in Path(doctor.__file__).parent.glob("*.py")]
    runs = {name for name in modules if hasattr(importlib.import_module(f"langspec_lora.cli.{name}"), "EXAMPLE")}
    assert runs == {command.replace("-", "_") for command in COMMANDS}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_every_default_and_an_example_that_parses(command) -> None:
    parser = parser_of(command)
    text = " ".join(parser.format_help().split())
    for action in parser._actions:
        if action.option_strings and action.default not in (None, False, argparse.SUPPRESS, []):
            assert f"default: {action.default}" in text or "default" in (action.help or ""), action.option_strings
    example = module_of(command).EXAMPLE
    assert f"example: langspec-lora {command} {example}" in text
    words = shlex.split(example)
    cut = next((words.index(word) for word in ("<", ">") if word in words), len(words))
    parser.parse(words[:cut])


def test_unknown_flag_is_named_with_the_nearest_which_is_then_not_called_missing(capsys) -> None:
    line = refusal_of(capsys, "evaluate", "data", "--chekpoint", "x", "--out", "y")
    assert line.startswith("langspec-lora evaluate: error: unknown flag --chekpoint; did you mean --checkpoint? ")


WRONG_LINES = [
    (
        "study --jobs x --gpsu 1",
        [
            "unknown flag --gpsu; did you mean --gpus? ",
            "--jobs: expected a whole number",
            "are required: --out; see",
        ],
    ),
    ("translate a.pt --beam x --lenpen 1_0 -s en -t fr", ["--beam: expected a whole number, got 'x'", "--lenpen: "]),
    (
        "translate a.pt --soruce-lang en --beam x",
        ["unknown flag --soruce-lang; did you mean --source-lang? ", "--beam: ", "are required: -t/--target-lang; see"],
    ),
    ("evaluate --out --beam x", ["--out: expected one argument", "--beam: ", "are required: DATA_BIN, --checkpoint;"]),
    ("report a --mteric chrf --namse x --samples=", ["mean --metric?", "mean --names?", "--samples: expected a whole"]),
    ("prepare --trian a --max-ratio x --out=", ["did you mean --train? ", "--max-ratio: expected a number", "--out: "]),
    ("prepare-flores --from= --no-such-thing 3", ["flag --no-such-thing; ", "--from: ", ": --languages, --out;"]),
    ("defaults --lang x --references=", ["--lang could match --langs, ", "--references: ", "--base --checkpoint"]),
    ("make-example one two --seed x", ["--seed: expected a whole number", "unrecognized arguments: two"]),
    ("add-language --langs= --high-rank x --low-rank y", ["--langs: ", "--high-rank: ", "--low-rank: ", "CK, --out;"]),
    ("remove-language a.pt --overwritte", ["mean --overwrite?", "are required: --langs, --out;"]),
    ("join a.pt --prefer C", ["--prefer: invalid choice: 'C'", "are required: B, --out; see"]),
    ("average --out=", ["--out: expected a path, got ''", "are required: CK; see langspec-lora average --help"]),
    ("export --format onnx", ["--format: invalid choice: 'onnx'", "are required: CK, --out;"]),
    ("import a --from onnx --langs=", ["--from: invalid choice: 'onnx'", "--langs: ", "are required: --out;"]),
    ("ablate --sentences x --otu a", ["mean --out?", "--sentences: "]),
    ("ranks --budgte 3 --arch huge --langs=", ["mean --budget?", "--arch: invalid choice: 'huge'", "--langs: "]),
    ("fix-directions --otu x --base-checkpoint=", ["mean --out?", "--base-checkpoint: "]),
    ("subspaces --keep x --budgte 3 --out=", ["mean --budget?", "--keep: ", "--out: expected a path, got ''"]),
    ("inspect --jsno --out=", ["unknown flag --jsno; did you mean --json?", "--out: expected a path, got ''"]),
    ("doctor a --require-tokenizer=", ["--require-tokenizer: ", "unrecognized arguments: a"]),
    ("bench --shape huge --threads x --cpuu", ["mean --cpu?", "--shape: invalid choice: 'huge'", "--threads: "]),
    ("completion tcsh --quite", ["unknown flag --quite; did you mean --quiet?", "shell: invalid choice: 'tcsh'"]),
]


@pytest.mark.parametrize(("line", "words"), WRONG_LINES, ids=lambda part: str(part).split()[0])
def test_all_mistakes_of_a_command_line_are_listed_together(capsys, line, words) -> None:
    with pytest.raises(SystemExit) as ended:
        main(line.split())
    assert ended.value.code == 2
    first, *mistakes = capsys.readouterr().err.splitlines()
    assert first == f"langspec-lora {line.split()[0]}: error: {len(words)} mistakes"
    for number, (mistake, part) in enumerate(zip(mistakes, words, strict=True), start=1):
        assert mistake.startswith(f"  {number}. ")
        assert part in mistake


def test_every_command_is_among_the_wrong_command_lines() -> None:
    assert {line.split()[0] for line, _ in WRONG_LINES} == set(COMMANDS)


def test_help_is_shown_whatever_else_is_wrong_and_names_what_is_required(capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["average", "--owt", "x", "--help"])
    assert not ended.value.code
    assert "usage: langspec-lora average [-h] --out FILE" in capsys.readouterr().out


@pytest.mark.parametrize("flag", ["--chekpoint=x", "--nothing-like-it", "-x", "-xy"])
def test_unknown_flags_of_all_forms_are_named(capsys, flag) -> None:
    assert f"unknown flag {flag.partition('=')[0]}; " in refusal_of(capsys, "inspect", "a.pt", flag)


def test_numbers_texts_and_abbreviated_flags_are_no_unknown_flags() -> None:
    words = ["a.pt", "-sen", "-t", "fr", "--lenpen", "-1"]
    args = parser_of("translate").parse([*words, "--max-len-b", "7", "--buf", "3", "--", "--this is text", "-x"])
    assert (args.source_lang, args.lenpen, args.buffer_size, args.lines) == ("en", -1, 3, ["--this is text", "-x"])


def test_unknown_command_is_named_with_the_nearest(capsys) -> None:
    line = refusal_of(capsys, "docter")
    assert line.startswith("langspec-lora: error: unknown command 'docter'; did you mean doctor? ")


@pytest.mark.parametrize(("words", "found"), [((), "no command given"), (("-v", "doctor"), "-v given before")])
def test_missing_command_is_said_in_one_line(capsys, words, found) -> None:
    assert found in refusal_of(capsys, *words)


def test_missing_arguments_are_said_in_one_line(capsys) -> None:
    assert "required: --out; see langspec-lora average --help" in refusal_of(capsys, "average", "a.pt", "b.pt")


def test_a_mistake_of_the_user_ends_a_command_with_one_line(monkeypatch) -> None:
    def fail(_: argparse.Namespace) -> int:
        raise UserError("no such folder; give another")

    monkeypatch.setattr(doctor, "run", fail)
    with pytest.raises(SystemExit, match=r"^langspec-lora: error: no such folder; give another$"):
        main(["doctor"])


def test_unexpected_error_is_one_line_that_names_its_place_and_a_traceback_with_v(monkeypatch) -> None:
    def fail(_: argparse.Namespace) -> int:
        raise KeyError("a\nb")

    monkeypatch.setattr(doctor, "run", fail)
    place = rf"\(test_main\.py, line {fail.__code__.co_firstlineno + 1}\)"
    with pytest.raises(SystemExit, match=rf"^langspec-lora: unexpected error: KeyError: 'a\\nb' {place}; .* -v .*$"):
        main(["doctor"])
    with pytest.raises(KeyError):
        main(["doctor", "-v"])


@pytest.mark.parametrize(
    ("flags", "shown"), [(["-q"], "error"), ([], "warning error"), (["--verbose"], "info warning error")]
)
def test_q_and_v_choose_what_is_logged(tmp_path, flags, shown) -> None:
    """In a program, with a command that logs in place of ``doctor``."""
    (tmp_path / "sitecustomize.py").write_text("""
import sys
class Command:
    EXAMPLE = ""
    def add_arguments(parser): pass
    def run(args):
        import logging
        for package in ("fairseq.tasks", "langspec_lora.data"):
            for level in ("info", "warning", "error"):
                getattr(logging.getLogger(package), level)(f"this is {level}")
        return 0
sys.modules["langspec_lora.cli.doctor"] = Command
""")
    done = run("doctor", *flags, path=tmp_path)
    lines = done.stderr.splitlines()
    assert (done.returncode, [line.split()[-1] for line in lines]) == (0, shown.split() * 2)
    assert all(line.startswith("langspec-lora: ") for line in lines) is (flags != ["--verbose"])


def test_quiet_shows_neither_notes_nor_progress(capsys) -> None:
    package = logging.getLogger("langspec_lora")
    before = package.level
    try:
        for level, shown in ((logging.WARNING, True), (logging.ERROR, False)):
            package.setLevel(level)
            note("hello")
            list(Progress(range(3)))
            list(Progress(range(5), disable=None))  # no terminal
            output = capsys.readouterr()
            assert not output.out
            assert ("langspec-lora: hello\n" in output.err) is ("3/3" in output.err) is shown
            assert "5/5" not in output.err
    finally:
        package.setLevel(before)


@pytest.mark.parametrize("statement", ["raise KeyboardInterrupt", "try: raise KeyboardInterrupt\nfinally: 1 / 0"])
def test_ctrl_c_while_a_command_imports_is_one_line(tmp_path, statement) -> None:
    (tmp_path / "torch.py").write_text(statement)
    done = run("inspect", "a.pt", path=tmp_path)
    assert (done.returncode, done.stderr.strip()) == (130, "langspec-lora: stopped")
