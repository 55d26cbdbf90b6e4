"""Commands: values are quoted for the shell, and templates that would undo this are refused."""

from __future__ import annotations

import pytest

from anyrank.errors import UsageError
from anyrank.farm.calls import command_of, fields_of


@pytest.mark.parametrize(
    ("command", "error"),
    [
        ("echo '{x}'", "inside of quotes"),
        ('echo "a {x}"', "inside of quotes"),
        ("echo `{x}`", "inside of quotes"),
        ("echo 'it' \"it's {x}\"", "inside of quotes"),
        ("echo {x:.3f}", "only the name of a column"),
        ("echo {x!r}", "only the name of a column"),
        ("echo {x[0]}", "only the name of a column"),
        ("echo {}", "only the name of a column"),
        ("awk 'BEGIN{print 1}'", "braces of the command itself"),
    ],
)
def test_command_templates_that_undo_quotes_are_refused(command, error):
    with pytest.raises(UsageError, match=error):
        fields_of(command)


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("echo {x} 'a'\"b\"{x}", "echo 'a; b' 'a'\"b\"'a; b'"),
        ("echo \\'{x}", "echo \\''a; b'"),
        ("awk 'BEGIN{{print 1}}' {x}", "awk 'BEGIN{print 1}' 'a; b'"),
    ],
)
def test_command_values_are_quoted(command, expected):
    assert "x" in fields_of(command) and command_of(command, {"x": "a; b"}) == expected
