"""Expressions over the columns of a table: conditions (`--where`) and definitions of columns (`--let`).

Python's parser reads the text. The nodes of the tree that `evaluate` knows become calls of pyarrow.compute; any other
node is refused, and nothing is executed as Python.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

from anyrank.errors import UsageError

#: Strings, and names in backticks.
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\'|`(?:[^`]|``)*`')
_DEFINITION = re.compile(r'\s*(?:(`(?:[^`]|``)*`)|"([^"]+)"|([^\W\d]\w*))\s*=(?!=)(.*)', re.DOTALL)
WORDS = {"true": True, "false": False, "null": None, "True": True, "False": False, "None": None}
#: What an expression may have.
HINT = (
    "Use ==, !=, <, <=, >, >=, and, or, not, in [...], is None, +, -, *, /, //, % and functions; text is in quotes, "
    "and names with other characters than letters, digits and _ are in backticks."
)


class Literal(NamedTuple):
    """A constant and its text, from which a decimal is exact."""

    value: Any
    text: str


class Expression:
    """An expression over columns.

    `option` is where it was given, for messages. Raises UsageError if the text is not an expression.
    """

    def __init__(self, text: str, option: str):
        # A line end outside of text is a space; in text, it is not an expression of Python.
        self.option, self.source = option, _outside(text, lambda part: part.replace("\n", " ")).strip()
        quoted = [match for match in _QUOTED.finditer(self.source) if match[0][0] == "`"]
        self._quoted = {match.start(): match[0][1:-1].replace("``", "`") for match in quoted}
        #: The text with names in backticks as Python's names of the same length.
        self._code = _QUOTED.sub(lambda match: "_" * len(match[0]) if match[0][0] == "`" else match[0], self.source)
        comment = _QUOTED.sub(lambda match: "_" * len(match[0]), self.source).find("#")
        if comment >= 0:
            raise self._error(comment, len(self.source), "is not an expression", "Remove it: there are no comments.")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.tree = ast.parse(self._code, mode="eval").body
                nodes = [*ast.walk(self.tree)]
        except SyntaxError as error:
            # Python's own hints are about Python: "Perhaps you forgot a comma?"
            begin = min((error.offset or 1) - 1, len(self.source))
            raise self._error(begin, len(self.source), "is not an expression", HINT) from None
        except (ValueError, RecursionError, MemoryError) as error:
            raise self._error(0, len(self.source), f"cannot be read ({type(error).__name__})", "Shorten it.") from None
        called = {id(node.func) for node in nodes if isinstance(node, ast.Call)}
        names = [node for node in nodes if isinstance(node, ast.Name) and id(node) not in called]
        #: The columns that it uses, and where.
        self.names = {self.name_of(node): node for node in names if self.is_column(node)}

    def is_column(self, node: ast.Name) -> bool:
        """Return whether a name is that of a column, and not true, false or null."""
        return self._span(node)[0] in self._quoted or self.name_of(node) not in WORDS

    def constant(self, node: ast.expr) -> Literal | None:
        """Return the value of a constant, or None for the name of a column."""
        text = self.name_of(node)
        if isinstance(node, ast.Name):
            return None if self.is_column(node) else Literal(WORDS[text], text)
        value = getattr(node, "value", ...)
        if not isinstance(value, bool | int | float | str | None):
            raise self.error(node, "is not a constant of a known type", "Use numbers, text in quotes, true or false.")
        return Literal(value, text)

    def _span(self, node: ast.expr) -> tuple[int, int]:
        """Return where a node begins and ends, in characters; Python counts the bytes of UTF-8."""
        begin, end = node.col_offset, node.end_col_offset or 0
        if self.source.isascii():
            return begin, end
        data = self._code.encode()
        return len(data[:begin].decode()), len(data[:end].decode())

    def name_of(self, node: ast.expr) -> str:
        """Return the name that a node stands for, as it is written: Python would normalize letters."""
        begin, end = self._span(node)
        return self._quoted.get(begin, self.source[begin:end])

    def error(self, node: ast.expr, what: str, fix: str) -> UsageError:
        """Return the error of a part of the expression."""
        return self._error(*self._span(node), what, fix)

    def _error(self, begin: int, end: int, what: str, fix: str) -> UsageError:
        part = self.source[begin:end] or "its end"
        return UsageError(f"{self.option} {self.source!r}, character {begin + 1}: {part} {what}. {fix}")


def _outside(text: str, change: Callable[[str], str]) -> str:
    """Return a text in which the parts outside of quotes are changed."""
    parts, begin = [], 0
    for match in _QUOTED.finditer(text):
        parts += [change(text[begin : match.start()]), match[0]]
        begin = match.end()
    return "".join([*parts, change(text[begin:])])


def parse_definition(text: str) -> tuple[str, Expression]:
    """Parse `total = price * amount`. Raises UsageError if the text is not a definition."""
    match = _DEFINITION.fullmatch(text)
    name = match and (match[1][1:-1].replace("``", "`") if match[1] else match[2] or match[3])
    if not match or not name or (name in WORDS and not (match[1] or match[2])):
        raise UsageError(
            f"--let {text.strip()!r} must be NAME = EXPRESSION, such as 'total = price * amount'; a NAME with other "
            "characters than letters, digits and _ is in backticks."
        )
    return name, _with_columns(Expression(match[4], f"--let {name} ="))


def parse_condition(text: str) -> Expression:
    """Parse `price > 0`. Raises UsageError if the text is not an expression of columns."""
    return _with_columns(Expression(text, "--where"))


def _with_columns(expression: Expression) -> Expression:
    if not expression.names:
        fix = "Use a column of the table; text is in quotes, and names with other characters are in backticks."
        raise expression.error(expression.tree, "uses no column", fix)
    return expression


def split_definitions(text: str) -> list[str]:
    """Split a list of definitions at the commas outside of quotes, parentheses and brackets."""
    masked = _QUOTED.sub(lambda match: "_" * len(match[0]), text)
    parts, depth, begin = [], 0, 0
    for at, character in enumerate(masked):
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth <= 0:
            parts.append(text[begin:at])
            begin = at + 1
    return [part for part in (*parts, text[begin:]) if part.strip()]
