"""Progress bars, which ``--quiet`` leaves out."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

from langspec_lora.notes import is_quiet


class Progress(tqdm):
    """A progress bar; where the standard error is no terminal, one line in twenty seconds.

    Args:
        iterable: what to iterate over, None for a bar that is updated by hand.
        disable: do not show it; None shows it on a terminal only. With ``--quiet`` it is never shown.
        **settings: as tqdm's.
    """

    def __init__(self, iterable: Iterable[Any] | None = None, *, disable: bool | None = False, **settings: Any) -> None:
        interval = 0.5 if sys.stderr.isatty() else 20.0
        pace = {"mininterval": interval, "maxinterval": interval}
        super().__init__(iterable, disable=True if is_quiet() else disable, **{**pace, **settings})
