"""Read the values of parameters and options from flags, files and defaults, and refuse invalid ones."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, NewType, Union, get_args, get_origin

import numpy as np
import pydantic
from pydantic import AfterValidator, AllowInfNan, BeforeValidator
from pydantic_core import PydanticCustomError

#: The text for None in flags and files, for types that include None.
NONE = "none"
#: The type of a parameter in seconds, which may be given as a duration such as 10min.
Seconds = NewType("Seconds", float)
_KINDS = "int, float, bool, str, Path, a Literal of texts or whole numbers, one of these | None, or a list of one"


_UNITS = {"s": 1.0, "sec": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def seconds_of(text: str) -> float:
    """Convert `90`, `90s`, `10min`, `2h`, `1d` or `[days-]hours:minutes:seconds` to seconds; else ValueError."""
    clock = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d{1,2})(?::(\d{1,2}))?", text)
    plain = re.fullmatch(r"(\d+\.?\d*|\.\d+)\s*([a-z]*)", text.strip().lower())
    seconds = 0.0
    if clock:
        days, first, second, third = (int(part or 0) for part in clock.groups())
        # Schedulers read 1-02:30 as days, hours and minutes, and 02:30 as minutes and seconds.
        has_hours = clock[4] is not None or clock[1] is not None
        seconds = days * 86400 + (first * 3600 + second * 60 + third if has_hours else first * 60 + second)
    elif plain and (plain[2] or "s") in _UNITS:
        seconds = float(plain[1]) * _UNITS[plain[2] or "s"]
    if 0 < seconds < 1e10:
        return float(seconds)
    raise ValueError("is not a duration: write it as 90s, 10min, 2h, 1d or 1:30:00")


def _seconds(value: Any) -> Any:
    """Read a number, or a text such as 10min, as seconds."""
    if not isinstance(value, str):
        return _number(value)
    try:
        float(value)
    except ValueError:
        return seconds_of(value)
    return value


def _number(value: Any, error: str = "float_type") -> Any:
    """Convert NumPy numbers to Python numbers, and refuse a bool, which is a number in Python."""
    if isinstance(value, bool | np.bool_):
        raise PydanticCustomError(error, "a truth value is no number")  # type: ignore[arg-type]
    return value.item() if isinstance(value, np.generic) else value


def _whole(value: Any) -> Any:
    """Read a text such as 1e12 as a whole number."""
    if isinstance(value, str) and "e" in value.lower():
        try:
            number = Decimal(value)
        except InvalidOperation:
            return value
        # A number of a million digits is a typing error, and would use all memory.
        if number.is_finite() and number.adjusted() < 309 and number == number.to_integral_value():
            return int(number)
    return _number(value, "int_type")


def _unicode(text: str) -> str:
    """Refuse text that cannot be written as UTF-8: a file name that is not UTF-8 has lone surrogates in Python."""
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ValueError("must be text in UTF-8", "Rename what has this name.")
    return text


def _absolute(path: Path) -> Path:
    if path == Path():
        raise ValueError("must be a path of something, not empty")
    return Path(_unicode(str(path.absolute())))


def _split(value: Any) -> Any:
    """Read a list from text with commas between the elements."""
    return (value.split(",") if value else []) if isinstance(value, str) else value


def matching(pattern: str, rule: str) -> AfterValidator:
    """Return a validator that a text matches a pattern; `rule` describes the pattern in words."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(rule)
        return text

    return AfterValidator(check)


def _or_none(kind: Any) -> tuple[Any, bool]:
    """Return the type without None, and whether it included None."""
    inner = [member for member in get_args(kind) if member is not type(None)]
    if get_origin(kind) in (Union, UnionType) and len(inner) == 1:
        return (get_args(inner[0])[0] if get_origin(inner[0]) is Annotated else inner[0]), True
    return kind, False


def has_grown(old: Any, new: Any) -> bool:
    """Return whether both values are numbers, and the new one is not smaller."""
    return isinstance(old, int | float) and isinstance(new, int | float) and old <= new


def is_list(kind: Any) -> bool:
    """Return whether the type is a list, or a list or None."""
    return get_origin(_or_none(kind)[0]) is list


def is_truth(kind: Any) -> bool:
    """Return whether the type is bool, or bool or None."""
    return _or_none(kind)[0] is bool


def choices(kind: Any) -> tuple[str, ...]:
    """Return the values of a Literal or of a list of a Literal; an empty tuple for another type."""
    kind = _or_none(kind)[0]
    if is_list(kind):
        return choices(get_args(kind)[0])
    return tuple(map(str, get_args(kind))) if get_origin(kind) is Literal else ()


def metavar(kind: Any) -> str:
    """Return the word for a value of the type in `--help`."""
    kind = _or_none(kind)[0]
    if is_list(kind):
        return f"{metavar(get_args(kind)[0])},…"
    return {int: "INTEGER", float: "NUMBER", Seconds: "DURATION", Path: "PATH", bool: "true|false"}.get(kind, "TEXT")


def reader(kind: Any, bounds: Mapping[str, Any]) -> Any:
    """Return the pydantic type that reads values of a type, from Python, TOML or text, within the bounds.

    Raises TypeError for a type that parameters cannot have, and for bounds of a type other than int and float.
    """
    inner, optional = _or_none(kind)
    if optional:
        if NONE in choices(inner):
            raise TypeError(f"the text {NONE!r} stands for None: choose another word for the Literal")
        none = BeforeValidator(lambda value: None if isinstance(value, str) and value == NONE else value)
        return Annotated[Union[reader(inner, bounds), None], none]  # noqa: UP007
    if get_origin(kind) is list and not is_list(_element(kind)):
        return Annotated[list[reader(_element(kind), bounds)], BeforeValidator(_split)]  # type: ignore[misc]
    if bounds and kind not in (int, float, Seconds):
        raise TypeError(f"bounds ({', '.join(bounds)}) are for numbers")
    if kind is int:
        return Annotated[int, pydantic.Field(**bounds), BeforeValidator(_whole)]
    if kind is float:
        return Annotated[float, pydantic.Field(**bounds), AllowInfNan(False), BeforeValidator(_number)]
    if kind is Seconds:
        return Annotated[float, pydantic.Field(**bounds), AllowInfNan(False), BeforeValidator(_seconds)]
    if kind is Path:
        return Annotated[Path, AfterValidator(_absolute)]
    if get_origin(kind) is Literal and all(type(choice) in (str, int) for choice in get_args(kind)):
        by_text = {str(choice): choice for choice in get_args(kind)}
        return Annotated[kind, BeforeValidator(lambda text: by_text.get(text, text) if isinstance(text, str) else text)]
    if kind is str:
        return Annotated[str, AfterValidator(_unicode)]
    if kind is bool:
        return bool
    raise TypeError(f"{getattr(kind, '__name__', kind)} is no type of a parameter. Use {_KINDS}")


def _element(kind: Any) -> Any:
    return (get_args(kind) or (str,))[0]


#: Types of options: a whole number, a positive one, and one that is not negative.
Whole = Annotated[int, BeforeValidator(_whole)]
Count = Annotated[int, pydantic.Field(ge=1, lt=2**63), BeforeValidator(_whole)]
Natural = Annotated[int, pydantic.Field(ge=0), BeforeValidator(_whole)]

#: The rule that an invalid value breaks, and the fix, by pydantic's name of the error, or the first word of the name.
_RULES = {
    "greater_than_equal": ("must be at least {ge}", "Use {name} {ge} or more."),
    "greater_than": ("must be greater than {gt}", "Use a number above {gt}."),
    "less_than_equal": ("must be at most {le}", "Use {name} {le} or less."),
    "less_than": ("must be less than {lt}", "Use a number below {lt}."),
    "int": ("must be a whole number", "Write it in digits, such as {name} {example}."),
    "float": ("must be a number", "Write it in digits, such as {name} {example}."),
    "finite_number": ("must be finite", "Use an ordinary number, such as {name} {example}."),
    "bool": ("must be true or false", "Use one of these."),
    "literal_error": ("must be one of {choices}", "Use one of these."),
    "string": ("must be text", "Put it in quotes."),
    "path": ("must be a path", "Put it in quotes."),
    "list": ("must be a list", "Write it as [a, b]."),
    "dict": ("must be a table", "Write name = value in it."),
    "missing": ("is missing", "Add it."),
}


def refusal(error: Any, subject: str, name: str, example: Any = 1, about: str = "") -> str:
    """Return the message for an error of pydantic: the subject (a name with its value), the rule, and a fix."""
    context = {key: _digits(value) for key, value in error.get("ctx", {}).items()}
    if error["type"] == "value_error":
        rule, *fix = error["ctx"]["error"].args
        return " ".join([f"{subject} {rule}{about}.", *fix])
    if error["type"] == "literal_error":
        context["choices"] = ", ".join(
            part.strip("'") for part in context["expected"].replace(" or ", ", ").split(", ")
        )
    plain = f"is wrong: {error['msg'][0].lower()}{error['msg'][1:]}".replace("{", "{{").replace("}", "}}")
    rule, fix = _RULES.get(error["type"]) or _RULES.get(error["type"].split("_")[0], (plain, ""))
    words = {"name": name, "example": example, **context}
    return f"{subject} {rule.format(**words)}{about}. {fix.format(**words)}".rstrip()


def _digits(value: Any) -> Any:
    """Return a bound with all its digits: 1 and not 1.0, 1234567 and not 1.23457e+06."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value
