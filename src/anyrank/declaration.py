"""Declarations of options: a pydantic model for each table of named values from flags or files."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import pydantic

from anyrank.errors import UsageError, at
from anyrank.values import refusal

T = TypeVar("T", bound="Settings")
#: Returns the text for a value with its name, and for the name alone, in messages.
Spelling = Callable[[str, Any], tuple[str, str]]


class Settings(pydantic.BaseModel):
    """Named values with their types, defaults and rules. An unknown name or an invalid value raises UsageError."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    def __init__(self, **values: Any):
        self._fill(values, self._as_flag)

    @classmethod
    def read(cls: type[T], values: Mapping[str, Any], where: str = "") -> T:
        """Validate the values of a file; messages begin with `where` and show the values in TOML."""
        table = cls.__new__(cls)
        with at(where):
            table._fill(values, lambda name, value: (f"{name} = {value!r}", f"{name} ="))
        return table

    def _fill(self, values: Mapping[str, Any], spell: Spelling) -> None:
        try:
            self.__pydantic_validator__.validate_python(dict(values), self_instance=self)
        except pydantic.ValidationError as invalid:
            raise UsageError("\n".join(self._sentence(error, spell) for error in invalid.errors())) from None

    def given(self) -> dict[str, Any]:
        """Return the values that were set, by name, without defaults."""
        return self.model_dump(exclude_unset=True)

    @classmethod
    def flags(cls, name: str) -> tuple[str, ...]:
        """Return the flags of an option; the first long flag is that of its name."""
        return cls.metadata(name).flags or (f"--{name.replace('_', '-')}",)

    @classmethod
    def metadata(cls, name: str) -> Metadata:
        """Return the metadata of an option."""
        extra: Any = cls.model_fields[name].json_schema_extra or {}
        return extra.get("metadata", Metadata(""))  # type: ignore[no-any-return]

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


class OptionSettings(Settings):
    """Options from flags or TOML, in which a text may be written as a number: checkpoint_every = 200."""

    model_config = pydantic.ConfigDict(coerce_numbers_to_str=True)


@dataclass(frozen=True)
class Metadata:
    """The metadata of an option: everything except its name, type, default, rule and help text.

    `group` is its section in `--help`; `flags` are its flags, if they differ from its name; `default_text` describes
    the default; `kept` means that the run folder stores it; `not_in` lists where it is refused: "jobs", "studies" or
    "strong".
    """

    group: str
    flags: tuple[str, ...] = ()
    default_text: str = ""
    kept: bool = False
    not_in: tuple[str, ...] = ()


def option(default: Any, text: str, group: str, *flags: str, **more: Any) -> Any:
    """Declare an option of a Settings: its default, its help text, and its `Metadata`."""
    return pydantic.Field(default, description=text, json_schema_extra={"metadata": Metadata(group, flags, **more)})  # type: ignore[dict-item]
