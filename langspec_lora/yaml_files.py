"""YAML files that a person writes: values read as text, repeated keys refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from langspec_lora.errors import UserError


class _TextLoader(yaml.BaseLoader):
    """Reads values as text, so that Norwegian's ``no`` is a name; refuses repeated keys, where YAML keeps the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [key.value for key, _ in node.value]
        repeated = [key for key in keys if keys.count(key) > 1]
        if repeated:
            raise UserError(f"the key {repeated[0]!r} is given twice; give each key once")
        return super().construct_mapping(node, deep)


def read_yaml(path: Path, label: str, content: str) -> Any:
    """Reads a YAML file; every value in it is a text, a list or a mapping.

    Args:
        path: the file.
        label: how to call it in a message.
        content: what such a file holds, likewise.

    Raises:
        UserError: the file is missing or is not YAML, or repeats a key.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_TextLoader)
    except OSError as error:
        raise UserError(f"{label}: {error.strerror}; give a YAML file of {content}") from error
    except UserError as error:
        raise UserError(f"{label}: {error}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{label} is not valid YAML: {' '.join(str(error).split())}") from error
