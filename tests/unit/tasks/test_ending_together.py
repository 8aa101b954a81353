"""What the process that started the others says when one of them has ended; see also ``test_processes.py``."""

from __future__ import annotations

import signal

import pytest
from torch.multiprocessing import ProcessExitedException

from langspec_lora.tasks.ending_together import without_traceback

ERROR = "langspec-lora: error: "


@pytest.mark.parametrize("code", [143, -signal.SIGKILL])
def test_process_that_started_the_others_ends_as_they_did_and_in_no_traceback(code) -> None:
    def call_main() -> None:
        raise ProcessExitedException("process 1 terminated", 1, 7, code)

    with pytest.raises(SystemExit) as end:
        without_traceback(call_main)()
    expected = f"{ERROR}SIGKILL ended process 1 of this training; the system does that if the memory is full; run"
    assert end.value.code == 143 if code > 0 else str(end.value.code).startswith(expected)
