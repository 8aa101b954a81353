"""One log line for a loaded split; fairseq writes four for each direction."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager

_LOGGERS = ("fairseq.data.multilingual.multilingual_data_manager", "fairseq.data.data_utils")


@contextmanager
def details_at_debug() -> Iterator[None]:
    """Lowers fairseq's messages about a direction from INFO to DEBUG; ``LOGLEVEL=DEBUG`` shows them."""
    with ExitStack() as filters:
        for logger in map(logging.getLogger, _LOGGERS):
            logger.addFilter(_lower)
            filters.callback(logger.removeFilter, _lower)
        yield


def summary(split: str, folders: Collection[str], sizes: Collection[int], tokens: Mapping[str, int]) -> str:
    """The log line about a split.

    Args:
        split: the split.
        folders: the folders of its data.
        sizes: number of examples of each direction.
        tokens: id of each language's language token; empty without language tokens.
    """
    largest, smallest = max(sizes, default=0), min(sizes, default=0)
    each = f"{largest:,}" if smallest == largest else f"{smallest:,} to {largest:,}"
    ids = ", ".join(f"{name} {token}" for name, token in tokens.items()) or "none"
    directions = f"{len(sizes)} direction{'s' * (len(sizes) != 1)}"
    return (
        f"[{split}] {directions} from {', '.join(folders)}: {sum(sizes):,} examples, {each} each; "
        f"language tokens: {ids}"
    )


def _lower(record: logging.LogRecord) -> bool:
    if record.levelno != logging.INFO:
        return True
    record.levelno, record.levelname = logging.DEBUG, "DEBUG"
    return logging.getLogger(record.name).isEnabledFor(logging.DEBUG)
