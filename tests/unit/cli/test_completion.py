"""``langspec-lora completion``: what a shell offers after its script was read."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from langspec_lora.cli.commands import COMMANDS
from langspec_lora.cli.main import main


def test_missing_library_is_one_line(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    with pytest.raises(SystemExit, match="pip install shtab"):
        main(["completion", "bash"])


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_script_knows_every_command(capsys, shell) -> None:
    pytest.importorskip("shtab")
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(command in script for command in COMMANDS)


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["rep"], {"report"}),
        (["evaluate", "--chec"], {"--checkpoint"}),
        (["export", "a.pt", "--format", "pe"], {"peft"}),
        (["average", "ch"], {"checkpoint.pt"}),
        (["doctor", "--q"], {"--quiet"}),
    ],
)
def test_bash_completes_commands_flags_choices_and_files(tmp_path, capsys, words, offered) -> None:
    pytest.importorskip("shtab")
    main(["completion", "bash"])
    (tmp_path / "script").write_text(capsys.readouterr().out)
    (tmp_path / "checkpoint.pt").touch()
    code = """
source ./script
COMP_WORDS=(langspec-lora "$@") COMP_CWORD=$#
function=$(complete -p langspec-lora | sed 's/.*-F \\([^ ]*\\).*/\\1/')
$function langspec-lora "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}" 2>/dev/null
printf '%s\\n' "${COMPREPLY[@]}"
"""
    done = subprocess.run(
        ["bash", "-c", code, "bash", *words], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert {word.strip() for word in done.stdout.split("\n")} - {""} == offered
