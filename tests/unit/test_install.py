"""scripts/install.sh with an interpreter whose environments and pip only note what they were asked for."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT

# Answers as Python does where it is asked about itself, and as pip and venv would where it is told to install.
INTERPRETER = r"""#!/usr/bin/env bash
case "$1 ${2:-}" in
"-m venv")
    mkdir -p "$3/bin"
    cp "$0" "$3/bin/python"
    touch "$3/pyvenv.cfg"
    printf '#!/usr/bin/env bash\necho "doctor: $*"\n[[ ! -e "$HOME/unwell" ]]\n' >"$3/bin/langspec-lora"
    chmod +x "$3/bin/langspec-lora"
    ;;
"-m pip")
    if [[ $3 == --version ]]; then exit 0; fi
    printf '%s|' "${@:3}" >>"$HOME/calls"
    echo >>"$HOME/calls"
    if [[ -e $HOME/trouble && $* == *"$(head -n 1 "$HOME/trouble")"* ]]; then
        tail -n +2 "$HOME/trouble"
        exit 1
    fi
    ;;
*)
    if [[ $* == *packages_distributions* ]]; then
        grep -q no-deps "$HOME/calls" 2>/dev/null && echo fairseq
    elif [[ $* == *"import pip"* ]]; then
        [[ -e $HOME/old-pip ]]
    elif [[ $* == *get_path* ]]; then
        echo "$HOME"
    elif [[ $1 == - && $# == 2 ]]; then
        cat >/dev/null
        echo "scikit-learn<2"
    elif [[ $1 == - ]]; then
        script=$(cat)
        if [[ $script != *Python.h* ]]; then
            echo "numpy>=1.23"
        elif [[ -e $HOME/no-compiler ]]; then
            echo "no C++ compiler" >&2
            exit 1
        fi
    else
        exec PYTHON "$@"
    fi
    ;;
esac
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with such an interpreter, and a space in its name."""
    home = tmp_path / "a home"
    home.mkdir()
    (home / "python").write_text(INTERPRETER.replace("PYTHON", f'"{sys.executable}" -I -S'))
    (home / "python").chmod(0o755)
    (home / "bin").mkdir()
    (home / "bin" / "sleep").write_text("#!/bin/sh\n")  # between two looks at a step's progress
    (home / "bin" / "sleep").chmod(0o755)
    return home


def install(home: Path, **variables: str) -> subprocess.CompletedProcess:
    """Runs the script, its environment in ``env`` below that folder."""
    names = ("VENV", "PYTHON", "TORCH", "NUMPY", "FAIRSEQ")
    inherited = {name: value for name, value in os.environ.items() if name not in names}
    own = {"HOME": str(home), "VENV": str(home / "env"), "PYTHON": str(home / "python")}
    own["PATH"] = f"{home / 'bin'}:{os.environ['PATH']}"
    return subprocess.run(
        ["bash", ROOT / "scripts" / "install.sh"],
        cwd=home,
        env={**inherited, **own, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def calls(home: Path) -> list[list[str]]:
    """What pip was asked for since the last time."""
    path = home / "calls"
    lines = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return [line.split("|")[:-1] for line in lines]


def refusal(done: subprocess.CompletedProcess) -> str:
    assert done.returncode == 1
    assert re.fullmatch(r"install\.sh: error: [^\n]+\n", done.stderr), done.stderr
    return done.stderr


PROJECT = ["install", "numpy>=1.23", "-e", f"{ROOT}[test,lint,hf]"]


def test_installs_torch_the_project_and_then_fairseq_without_its_requirements(home) -> None:
    done = install(home)
    assert done.returncode == 0, done.stderr
    assert calls(home) == [
        ["install", "torch==2.13.0"],
        PROJECT,
        ["install", "--no-deps", "fairseq==0.12.2"],
        ["install", "scikit-learn<2"],
    ]
    assert "doctor: doctor" in done.stdout
    assert done.stdout.splitlines()[-1].startswith(f"installed in {home / 'env'} in ")


def test_takes_what_it_is_told_and_keeps_it(home) -> None:
    torch = "torch==2.0.1 --index-url https://example.org/a"
    chosen = {"TORCH": torch, "NUMPY": "numpy==1.23.5", "FAIRSEQ": "git+https://example.org/fairseq"}
    assert install(home, **chosen).returncode == 0
    asked = calls(home)
    assert asked[0] == ["install", *torch.split()]
    assert asked[1][1] == "numpy==1.23.5"
    assert asked[2] == ["install", "--no-deps", "git+https://example.org/fairseq"]
    done = install(home)
    assert done.stdout.startswith(f"everything is installed in {home / 'env'} (Python ")
    assert f"{torch}, git+https://example.org/fairseq)" in done.stdout
    assert calls(home) == []


def test_run_again_it_installs_nothing_and_with_other_versions_it_does(home) -> None:
    assert install(home).returncode == 0
    calls(home)
    done = install(home)
    assert done.returncode == 0
    assert done.stdout.startswith("everything is installed")
    assert calls(home) == []
    (home / "old-pip").touch()
    assert install(home, TORCH="torch==2.12.0").returncode == 0
    assert calls(home)[:2] == [["install", "--upgrade", "pip"], ["install", "torch==2.12.0"]]


@pytest.mark.parametrize("step", ["torch==", "-e", "fairseq=="])
def test_an_installation_that_ends_half_way_is_taken_up(home, step) -> None:
    (home / "trouble").write_text(f"{step}\nERROR: something broke\n")
    assert "failed: ERROR: something broke (the whole output is in " in refusal(install(home, TORCH="torch==2.12.0"))
    (home / "trouble").unlink()
    calls(home)
    done = install(home)
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1].startswith("installed in")
    asked = calls(home)
    assert ["install", "--no-deps", "fairseq==0.12.2"] in asked
    if step != "torch==":  # what is installed stays what it is
        assert asked[0] == ["install", "torch==2.12.0"]


def test_an_installation_that_the_doctor_finds_unwell_does_not_count_as_done(home) -> None:
    (home / "unwell").touch()
    assert install(home).returncode != 0
    calls(home)
    (home / "unwell").unlink()
    assert "everything is installed" not in install(home).stdout
    assert calls(home)


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("OSError: [Errno 28] No space left on device", "the disk is full: .* make room"),
        ("NewConnectionError('…'): Temporary failure in name resolution\nERROR: No matching distribution found for x\n",
         "the package index cannot be reached; check the network"),
        ("ERROR: Could not find a version that satisfies the requirement x (from versions: none)",
         "the package index has no version of it for Python 3"),
        ("ERROR: No matching distribution found for torch==9", "distribution found for torch==9 on Python 3"),
        ("warning: one\nerror: command 'gcc' failed\nmore", "error: command 'gcc' failed"),
        ("nothing that helps", "see the end of its output"),
    ],
)  # fmt: skip
def test_what_pip_says_becomes_one_sentence(home, output, words) -> None:
    (home / "trouble").write_text(f"torch==\n{output}\n")
    message = refusal(install(home))
    assert re.search(words, message)
    assert f"(the whole output is in {home / 'env' / 'langspec_lora.log'})" in message
    assert output.splitlines()[0] in (home / "env" / "langspec_lora.log").read_text()


def test_without_a_compiler_fairseq_is_not_tried(home) -> None:
    (home / "no-compiler").touch()
    done = install(home)
    assert done.returncode == 1
    assert done.stderr == "no C++ compiler\n"
    assert not [call for call in calls(home) if "--no-deps" in call]


def test_an_interpreter_that_cannot_be_is_named_and_nothing_is_made(home) -> None:
    assert "PYTHON=nowhere not found" in refusal(install(home, PYTHON="nowhere"))
    (home / "old").write_text('#!/usr/bin/env bash\n[[ $1 != --version ]] || echo "Python 3.8.1"\nexit 1\n')
    (home / "old").chmod(0o755)
    assert "is Python 3.8.1; give Python 3.10, 3.11, 3.12 or 3.13" in refusal(install(home, PYTHON=str(home / "old")))
    assert not (home / "env").exists()


def test_a_folder_of_other_files_is_kept(home) -> None:
    (home / "env").mkdir()
    (home / "env" / "thesis.txt").write_text("mine")
    assert "is not a Python environment, but contains files" in refusal(install(home))
    assert [path.name for path in (home / "env").iterdir()] == ["thesis.txt"]


def test_an_environment_that_was_moved_is_named(home) -> None:
    assert install(home).returncode == 0
    (home / "env").rename(home / "elsewhere")
    message = refusal(install(home, VENV="elsewhere"))  # a relative path is one from here
    assert f"{home / 'elsewhere'} was moved from {home / 'env'}" in message


def test_packages_whose_installation_was_killed_are_removed_before_pip_looks(home) -> None:
    for name in ("half", "whole"):
        (home / f"{name}.dist-info").mkdir()
    (home / "whole.dist-info" / "RECORD").touch()
    assert install(home).returncode == 0
    assert [path.name for path in home.glob("*.dist-info")] == ["whole.dist-info"]
