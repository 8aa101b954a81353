"""Settings as dataclasses with a flag for each field; parsers, tables and defaults are made from them."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_args, get_type_hints

from langspec_lora.errors import UserError, collect_errors
from langspec_lora.values import number, true_or_false, whole_number

Settings = TypeVar("Settings")


@dataclass(frozen=True)
class Flag:
    """The command-line flag of a setting.

    Attributes:
        help: what the setting does, without its default.
        metavar: the name of the value in the help; a truth value without a name is a switch, which takes no value.
        names: the flag and its aliases; by default the field's name.
        default_text: the default in the help, if the value itself does not explain it.
        choices: the words that may be given.
        convert: converts the given text to the setting.
        switches: flags without a value, each with the setting that it selects and its help; only one of them may be
            given.
        valid: tells whether a number is in its range.
        expected: how messages describe a valid number.
    """

    help: str
    metavar: str | None = None
    names: Sequence[str] = ()
    default_text: str | None = None
    choices: Sequence[str] | None = None
    convert: Callable[[str], Any] | None = None
    switches: Mapping[str, tuple[Any, str]] | None = None
    valid: Callable[[float], bool] | None = None
    expected: str = "a number"


def flag(default: Any, help: str, metavar: str | None = None, **more: Any) -> Any:
    """Declares a field of a dataclass with its flag.

    Args:
        default: the setting's default.
        help: see :class:`Flag`.
        metavar: likewise.
        **more: the other attributes of a :class:`Flag`.
    """
    return field(default=default, metadata={"flag": Flag(help, metavar, **more)})


class FlagRow(NamedTuple):
    """A row in a table of flags, as text."""

    flag: str
    metavar: str
    default: str
    help: str


def flag_rows(*settings: type) -> list[FlagRow]:
    """The flags of some settings, in the order of their fields."""
    rows = []
    for setting in (setting for group in settings for setting in _flagged(group)):
        shown = _flag(setting)
        if shown.switches:
            rows += [FlagRow(name, "", "", text) for name, (_, text) in shown.switches.items()]
        else:
            metavar = shown.metavar or "|".join(shown.choices or ())
            rows.append(FlagRow(_names(setting)[0], metavar, _default_text(setting), shown.help))
    return rows


def add_flags(parser: Any, settings: type, *, without: Collection[str] = (), in_fairseq: bool = False) -> None:
    """Declares the flags of settings.

    Args:
        parser: an argparse parser or group.
        settings: a dataclass; its fields without a flag are left out.
        without: names of fields to leave out.
        in_fairseq: whether it is fairseq's parser, which reads numbers less strictly than ours (see
            :func:`~langspec_lora.values.read_strictly`) and prints a page of usage above an error.
    """
    hints = get_type_hints(settings)
    for setting in _flagged(settings):
        if setting.name in without:
            continue
        if switches := _flag(setting).switches:
            group = parser.add_mutually_exclusive_group()
            for name, (value, text) in switches.items():
                group.add_argument(
                    name, dest=setting.name, action="store_const", const=value, default=setting.default, help=text
                )
        else:
            parser.add_argument(
                *_names(setting), dest=setting.name, **_argument(setting, hints[setting.name], in_fairseq)
            )


def read_flags(args: Namespace, settings: type[Settings], **values: Any) -> Settings:
    """Reads settings from the attributes of their names; those that are missing keep their defaults.

    Args:
        args: what a parser has read, ours or fairseq's.
        settings: a dataclass.
        **values: settings that replace those in ``args``.

    Raises:
        UserError: a value is wrong.
    """
    with collect_errors() as errors:
        for setting in _flagged(settings):
            if setting.name in values or not hasattr(args, setting.name):
                continue
            value, convert = getattr(args, setting.name), _flag(setting).convert
            with errors.check():
                values[setting.name] = value if convert is None or value == setting.default else convert(value)
    return settings(**values)


def split_settings(values: Mapping[str, Any], *settings: type) -> list[dict[str, Any]]:
    """Divides keyword arguments between dataclasses.

    Args:
        values: settings by name.
        *settings: the dataclasses; each takes the fields that it has.

    Raises:
        TypeError: a setting belongs to none of them.
    """
    names = [{setting.name for setting in fields(group)} for group in settings]
    if unknown := values.keys() - set().union(*names):
        raise TypeError(f"unknown setting {min(unknown)!r}")
    return [{name: value for name, value in values.items() if name in group} for group in names]


def check_numbers(settings: type, values: object) -> None:
    """Checks that numbers have the right type and are in range.

    Args:
        settings: the dataclass that declares the ranges.
        values: an object of it, or a namespace with attributes of the same names.

    Raises:
        UserError: one is not.
    """
    hints = get_type_hints(settings)
    with collect_errors() as errors:
        for setting in _flagged(settings):
            value, allowed = getattr(values, setting.name, setting.default), _flag(setting)
            if allowed.valid is None or (value is None and setting.default is None):
                continue
            types = int if _type(hints[setting.name]) is int else (int, float)
            with errors.check():
                if not isinstance(value, types) or isinstance(value, bool) or not allowed.valid(value):
                    raise UserError(f"{_names(setting)[0]} {value}: expected {allowed.expected}")


def given_flags(settings: object) -> list[str]:
    """The command-line flags that give these settings."""
    words = []
    for setting in _flagged(type(settings)):
        value = getattr(settings, setting.name)
        if value is not False:
            words += [_names(setting)[0], *([] if value is True else [str(value)])]
    return words


def _flagged(settings: type) -> Iterable[Field]:
    return (setting for setting in fields(settings) if "flag" in setting.metadata)


def _flag(setting: Field) -> Flag:
    return setting.metadata["flag"]


def _names(setting: Field) -> Sequence[str]:
    return _flag(setting).names or (f"--{setting.name.replace('_', '-')}",)


def _type(hint: Any) -> type | None:
    """The type of a field that may be None; None if the command line gives it as text."""
    types = [part for part in get_args(hint) or (hint,) if part is not type(None)]
    return types[0] if types in ([bool], [int], [float], [Path]) else None


def _default_text(setting: Field) -> str:
    text, default = _flag(setting).default_text, setting.default
    if text is not None:
        return text
    if default is None or default == () or (default is False and _flag(setting).metavar is None):
        return ""
    return f"{default:g}" if isinstance(default, float) else str(default)


def _argument(setting: Field, hint: Any, in_fairseq: bool) -> dict[str, Any]:
    """The keyword arguments for argparse's ``add_argument``."""
    declared, default = _flag(setting), _default_text(setting)
    value_type = None if declared.convert else _type(hint)
    text = f"{declared.help} (default: {default})" if default else declared.help
    if value_type is bool and declared.metavar is None:
        return {"action": "store_true", "help": text}
    argument = {"default": setting.default, "metavar": declared.metavar, "choices": declared.choices, "help": text}
    if value_type in _READERS and in_fairseq:
        argument["type"] = _Reader(_names(setting)[0], value_type, setting.default)
    elif value_type is not None:
        argument["type"] = value_type
    return argument


_READERS: Mapping[type | None, tuple[Callable[[str], Any], str]] = {
    bool: (true_or_false, "True or False"),
    int: (whole_number, "a whole number"),
    float: (number, "a number"),
}


class WrongValue(str):
    """The text of a flag that fairseq's parser could not read.

    It stands in the arguments for the value, since fairseq's parser ends at the first mistake, with a page of usage;
    :func:`check_values` tells all of them.

    Attributes:
        message: what is wrong.
        default: the flag's default.
    """

    message: str
    default: Any


def check_values(args: Namespace) -> None:
    """Makes sure that fairseq's parser could read all values of our flags; puts defaults in place of the others.

    Args:
        args: what fairseq's parser has read; changed in place.

    Raises:
        UserError: a value is wrong; all of them are listed.
    """
    with collect_errors() as errors:
        for name, value in vars(args).items():
            if isinstance(value, WrongValue):
                setattr(args, name, value.default)
                with errors.check():
                    raise UserError(value.message)


class _Reader:
    """Reads a flag's value for fairseq's parser.

    Args:
        flag: the flag.
        value_type: the type of its value.
        default: its default.
    """

    def __init__(self, flag: str, value_type: type | None, default: Any) -> None:
        self._flag, (self._read, self._expected), self._default = flag, _READERS[value_type], default

    def __call__(self, text: str) -> Any:
        try:
            return self._read(text)
        except ValueError:
            wrong = WrongValue(text)
            wrong.message, wrong.default = f"{self._flag} {text}: expected {self._expected}", self._default
            return wrong
