"""Progress bars; ``--quiet`` hides them."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

from langspec_lora.notes import is_quiet


class Progress(tqdm):
    """A progress bar on a terminal; in a log file, a line every twenty seconds.

    Args:
        iterable: the items to iterate over; None for a bar that is updated by hand.
        disable: hides the bar; None hides it everywhere but on a terminal. ``--quiet`` always hides it.
        **settings: see tqdm.
    """

    def __init__(self, iterable: Iterable[Any] | None = None, *, disable: bool | None = False, **settings: Any) -> None:
        interval = 0.5 if sys.stderr.isatty() else 20.0
        pace = {"mininterval": interval, "maxinterval": interval}
        super().__init__(iterable, disable=True if is_quiet() else disable, **{**pace, **settings})
