"""One log line for a loaded split; fairseq writes four for each direction."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager

from langspec_lora.naming import some_of

_LOGGERS = ("fairseq.data.multilingual.multilingual_data_manager", "fairseq.data.data_utils")
_LOGGERS_OF_LISTS = (
    "fairseq.data.multilingual.multilingual_data_manager",
    "fairseq.data.multilingual.sampled_multi_dataset",
    "fairseq_cli.train",
    "fairseq_cli.generate",
)
"""They list all directions, some of them ten times: of 200 languages, in lines of up to 1.9 MB."""

_SHORT = 10_000
# An item of a list or a mapping of directions: en-fr, 'main:en-fr': 1, ('main:en-fr', 0.5), 'main:en-fr': np.int64(1)
_DIRECTION = r"\(?'?(?:[^\s,:'()\[\]{}]+:)?[^\s,:'()\[\]{}]+-[^\s,:'()\[\]{}]+'?(?:[:,] [^\s,()]+(?:\([^()]*\))?)?\)?"
_DIRECTIONS = re.compile(rf"({_DIRECTION}, ?)((?:{_DIRECTION}, ?){{100,}})({_DIRECTION})")


def shorten_lists_of_directions() -> None:
    """Makes fairseq's messages show of a long list of directions only the first, the last and their number."""
    for logger in map(logging.getLogger, _LOGGERS_OF_LISTS):
        if _shorten not in logger.filters:
            logger.addFilter(_shorten)


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
    ids = some_of(f"{name} {token}" for name, token in tokens.items()) or "none"
    directions = f"{len(sizes)} direction{'s' * (len(sizes) != 1)}"
    return (
        f"[{split}] {directions} from {some_of(folders)}: {sum(sizes):,} examples, {each} each; language tokens: {ids}"
    )


def _lower(record: logging.LogRecord) -> bool:
    if record.levelno != logging.INFO:
        return True
    record.levelno, record.levelname = logging.DEBUG, "DEBUG"
    return logging.getLogger(record.name).isEnabledFor(logging.DEBUG)


def _shorten(record: logging.LogRecord) -> bool:
    if record.levelno >= logging.INFO and len(message := record.getMessage()) > _SHORT:
        record.msg, record.args = _DIRECTIONS.sub(_ends, message), ()
    return True


def _ends(found: re.Match[str]) -> str:
    first, between, last = found.groups()
    return f"{first}… {len(re.findall(_DIRECTION, between)):,} more …, {last}"
