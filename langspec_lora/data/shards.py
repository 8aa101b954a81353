"""Training data in several folders (``data1:data2``): which of them fairseq reads for each direction."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence

from fairseq.file_io import PathManager

from langspec_lora.errors import UserError
from langspec_lora.naming import some_of

logger = logging.getLogger(__name__)


def held_directions(split: str, folders: Sequence[str]) -> list[set[str]]:
    """The directions of a split in each folder, by file names, as fairseq finds them.

    Raises:
        UserError: one of several folders is missing, or fairseq cannot parse the name of a file.
    """
    if len(folders) == 1 and not PathManager.exists(folders[0]):
        return [set()]  # each direction is reported as missing later
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
                f"{folder} has a file {name}, a name that fairseq cannot parse; expected {split}.SRC-TGT.LANG.idx; "
                "move that file and its .bin elsewhere"
            )
    return {name.split(".")[-3] for name in indices}


def folders_read(
    split: str, folders: Sequence[str], held: Sequence[set[str]], pairs: Sequence[str]
) -> dict[str, list[str]]:
    """The folders from which fairseq reads each direction of the training data, epoch by epoch.

    fairseq counts the folders that have a direction (``MultilingualDatasetManager._get_shard_num_dict``), say N, and
    then reads the first N folders, whether they have the direction or not. A warning names folders that are never read.

    Args:
        split: the training split.
        folders: all data folders.
        held: the directions in each, see :func:`held_directions`.
        pairs: the directions.

    Returns:
        The folders of each direction; the first folder if no folder has it.

    Raises:
        UserError: a folder lacks a direction while one after it has it.
    """
    counts = Counter(direction for directions in held for direction in directions)
    read, trained = {}, set(pairs)
    for pair in pairs:
        other = "-".join(reversed(pair.split("-")))
        name = pair if pair in counts or other not in counts else other
        count = counts[name]
        read[pair] = list(folders[: max(count, 1)])
        for folder, directions in zip(folders[:count], held, strict=False):
            if not directions & {pair, other}:
                raise UserError(
                    f"no {split} data of {pair} in {folder}, where fairseq would read them: {count} of "
                    f"{len(folders)} data folders have that direction, and fairseq reads the first {count}; put the "
                    "folders without it last, or binarise it for all"
                )
        # If the reverse direction trains too, the files of that name are not read for this one.
        readable = {pair} if other in trained else {pair, other}
        unread = [folder for folder, has in zip(folders[count:], held[count:], strict=True) if readable & has]
        if unread and count:
            logger.warning(
                f"{some_of(unread)}: the {split} data of {pair} in this folder are never read; {count} data folders "
                f"have them as {name}, so fairseq reads the first {count} folders; binarise all of them as {pair}"
            )
    return read
