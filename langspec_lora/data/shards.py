"""Training data in several folders (``data1:data2``): which of them fairseq reads for a direction."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence

from fairseq.file_io import PathManager

from langspec_lora.errors import UserError

logger = logging.getLogger(__name__)


def held_directions(split: str, folders: Sequence[str]) -> list[set[str]]:
    """The directions that each folder holds of a split, as fairseq reads them off the names of its files.

    Raises:
        UserError: one of several folders is missing, or a folder holds a file whose name fairseq cannot read.
    """
    if len(folders) == 1 and not PathManager.exists(folders[0]):
        return [set()]  # so all directions are missing, which is said of them
    return [_directions(split, folder) for folder in folders]


def _directions(split: str, folder: str) -> set[str]:
    try:
        names = sorted(PathManager.ls(folder))
    except OSError as error:
        raise UserError(
            f"data folder {folder} cannot be read: {error.strerror}; binarise it, or leave it out"
        ) from error
    indices = [name for name in names if name.startswith(split) and name.endswith(".idx")]
    for name in indices:
        if name.count(".") < 2:
            raise UserError(
                f"{folder} holds {name}, a name that fairseq cannot read here; expected {split}.SRC-TGT.LANG.idx: move "
                "that file and its .bin elsewhere"
            )
    return {name.split(".")[-3] for name in indices}


def folders_read(
    split: str, folders: Sequence[str], held: Sequence[set[str]], pairs: Sequence[str]
) -> dict[str, list[str]]:
    """The folders from which fairseq reads each direction of the training data, epoch by epoch.

    fairseq counts the folders that hold a direction (``MultilingualDatasetManager._get_shard_num_dict``), and reads the
    first so many then, whether or not they are those. Folders whose data of a direction it never reads are warned of.

    Args:
        split: the training split.
        folders: all data folders.
        held: their directions, see :func:`held_directions`.
        pairs: the directions.

    Returns:
        The folders of each direction; the first one where none has data of it.

    Raises:
        UserError: a folder lacks a direction while one after it has it.
    """
    counts = Counter(direction for directions in held for direction in directions)
    read = {}
    for pair in pairs:
        other = "-".join(reversed(pair.split("-")))
        name = pair if pair in counts or other not in counts else other
        count = counts[name]
        read[pair] = list(folders[: max(count, 1)])
        for folder, directions in zip(folders[:count], held, strict=False):
            if not directions & {pair, other}:
                raise UserError(
                    f"there are no {split} data of {pair} in {folder}, where fairseq would read them: {count} of "
                    f"{len(folders)} data folders hold that direction, and it takes the first {count}; put the folders "
                    "that lack it last, or binarise it for all"
                )
        own = {pair, other} - (set(pairs) - {pair})  # data by the other name are that direction's, where it trains too
        unread = [folder for folder, has in zip(folders[count:], held[count:], strict=True) if own & has]
        if unread and count:
            logger.warning(
                f"{', '.join(unread)}: the {split} data of {pair} there are never read; {count} data folders name them "
                f"{name}, and fairseq takes the first {count} folders; binarise all of them as {pair}"
            )
    return read
