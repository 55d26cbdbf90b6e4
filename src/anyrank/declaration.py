"""Declarations: tables of named values that flags or files give, one pydantic model each; all else follows from it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import pydantic

from anyrank.errors import UsageError, at
from anyrank.values import refusal

T = TypeVar("T", bound="Table")
#: How messages write a value with its name, and the name alone.
Spelling = Callable[[str, Any], tuple[str, str]]


class Table(pydantic.BaseModel):
    """Named values with their types, defaults and rules. Any other name, and every bad value, is a UsageError."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    def __init__(self, **values: Any):
        self._fill(values, self._as_flag)

    @classmethod
    def read(cls: type[T], values: Mapping[str, Any], where: str = "") -> T:
        """Take the values of a file; messages begin with `where` and write them as TOML does."""
        made = cls.__new__(cls)
        with at(where):
            made._fill(values, lambda name, value: (f"{name} = {value!r}", f"{name} ="))
        return made

    def _fill(self, values: Mapping[str, Any], spell: Spelling) -> None:
        try:
            self.__pydantic_validator__.validate_python(dict(values), self_instance=self)
        except pydantic.ValidationError as refused:
            raise UsageError("\n".join(self._sentence(error, spell) for error in refused.errors())) from None

    def given(self) -> dict[str, Any]:
        """The values that were given, by name: no defaults."""
        return self.model_dump(exclude_unset=True)

    @classmethod
    def flags(cls, name: str) -> tuple[str, ...]:
        """The spellings of an option on the command line, its own name's first of the long ones."""
        return cls.facts(name).flags or (f"--{name.replace('_', '-')}",)

    @classmethod
    def facts(cls, name: str) -> Facts:
        """What was declared of a name with `option`."""
        extra: Any = cls.model_fields[name].json_schema_extra or {}
        return extra.get("facts", Facts(""))  # type: ignore[no-any-return]

    @classmethod
    def _as_flag(cls, name: str, value: Any) -> tuple[str, str]:
        flag = cls.flags(name)[0] if name in cls.model_fields else name
        plain = not isinstance(value, str) or re.fullmatch(r"[-\d.]+", value)
        return f"{flag} {value if plain else repr(value)}", flag

    @classmethod
    def _sentence(cls, error: Any, spell: Spelling) -> str:
        name = ".".join(map(str, error["loc"]))
        subject, short = spell(name, error["input"])
        if error["type"] == "missing":
            return refusal(error, subject.partition(" = ")[0], short)
        if error["type"] != "extra_forbidden":
            return refusal(error, subject, short)
        close = difflib.get_close_matches(name, cls.model_fields, 1)
        fix = f"Did you mean {close[0]}?" if close else f"There are: {', '.join(cls.model_fields)}."
        return f"{subject} is not known here. {fix}"


class OptionTable(Table):
    """Options, from flags or TOML, where a number may stand for text: checkpoint_every = 200."""

    model_config = pydantic.ConfigDict(coerce_numbers_to_str=True)


@dataclass(frozen=True)
class Facts:
    """What is known of an option beside its name, type, default, rule and help text.

    `group` is where `--help` shows it; `flags` are its spellings, if not its name's; `shown` is the default in words;
    `kept` says that the run folder keeps it; `not_in` names what refuses it: "jobs", "studies" or "strong".
    """

    group: str
    flags: tuple[str, ...] = ()
    shown: str = ""
    kept: bool = False
    not_in: tuple[str, ...] = ()


def option(default: Any, text: str, group: str, *flags: str, **facts: Any) -> Any:
    """Declare an option of a Table: its default, its help text, and its `Facts`."""
    return pydantic.Field(default, description=text, json_schema_extra={"facts": Facts(group, flags, **facts)})  # type: ignore[dict-item]
