"""``{NAME}`` in the command lines of a recipe: folders of data, variables, and the recipe's own folder."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path

from langspec_lora.errors import UserError
from langspec_lora.naming import did_you_mean, some_of

_PLACE = re.compile(r"\{([A-Za-z0-9][A-Za-z0-9._+-]*)\}")


class Places:
    """What ``{NAME}`` stands for.

    Args:
        recipe: the file of the recipe, for messages; ``{recipe}`` is its folder.
        data: the folder of each set of data.
        variables: the values of the others, which may hold ``{NAME}`` too.
    """

    def __init__(self, recipe: Path, data: Mapping[str, Path], variables: Mapping[str, str]) -> None:
        self._recipe, self._data, self._variables = recipe, data, variables

    def words(self, words: Iterable[str]) -> list[str]:
        """Words with what they stand for; a variable that is a whole word may stand for none or several.

        Raises:
            UserError: a name stands for nothing, or for itself.
        """
        return self._words(words, ())

    def data_in(self, words: Iterable[str]) -> list[str]:
        """The sets of data that words name, each once; those that stand for nothing are left out."""
        found: dict[str, None] = {}
        seen: set[str] = set()
        following = list(words)
        while following:
            for name in _PLACE.findall(following.pop(0)):
                if name in self._variables and name not in seen:
                    seen.add(name)
                    following.append(self._variables[name])
                elif name in self._data:
                    found[name] = None
        return list(found)

    def _words(self, words: Iterable[str], within: tuple[str, ...]) -> list[str]:
        found: list[str] = []
        for word in words:
            whole = _PLACE.fullmatch(word)
            if whole and whole[1] in self._variables:
                own = (*within, self._checked(whole[1], within))
                found += self._words(self._split(whole[1]), own)
            else:
                found.append(_PLACE.sub(lambda match: self._value(match[1], within), word))
        return found

    def _value(self, name: str, within: tuple[str, ...]) -> str:
        if name in self._variables:
            own = (*within, self._checked(name, within))
            return _PLACE.sub(lambda match: self._value(match[1], own), self._variables[name])
        if name in self._data:
            return str(self._data[name])
        if name == "recipe":
            return str(self._recipe.parent)
        known = [*self._data, "recipe", *self._variables]
        raise UserError(
            f"recipe {self._recipe}: {{{name}}} is no data made before it and no variable; "
            f"{did_you_mean(name, known)}there are {some_of(known)}"
        )

    def _checked(self, name: str, within: tuple[str, ...]) -> str:
        if name in within:
            raise UserError(f"recipe {self._recipe}: variable {name} stands for itself; give it a value")
        return name

    def _split(self, name: str) -> list[str]:
        value = self._variables[name]
        try:
            return shlex.split(value)
        except ValueError as error:
            raise UserError(f"variable {name}: {str(error).lower()} in {value!r}; quote it as in a shell") from error
