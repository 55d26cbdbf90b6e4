"""Text files are UTF-8 for reading and writing, in any locale."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from ranks import run_anyrank

ROOT = Path(__file__).parents[1]
#: A locale without UTF-8, and without Python's coercion to UTF-8.
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
SOURCES = [path for folder in ("src", "kernels") for path in sorted((ROOT / folder).rglob("*.py"))]


def by_locale(tree: ast.AST) -> Iterator[int]:
    """The lines of calls that read or write text without naming an encoding."""
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        method = isinstance(call.func, ast.Attribute)
        name = call.func.attr if method else getattr(call.func, "id", "")
        owner = getattr(call.func.value, "id", "") if method else ""
        named = {word.arg: word.value for word in call.keywords}
        place = {"read_text": 0, "write_text": 1, "open": 0 if method else 1, "TemporaryFile": 0}.get(name)
        inherited = (
            method and isinstance(call.func.value, ast.Call) and getattr(call.func.value.func, "id", "") == "super"
        )
        if "encoding" in named or owner in ("os", "tarfile") or inherited:
            continue
        if name in ("run", "Popen", "check_output"):
            bad = "text" in named or "universal_newlines" in named
        elif name in ("read_text", "write_text"):
            bad = len(call.args) <= place and owner != "distribution"  # the text of a distribution is always UTF-8
        elif place is not None:
            mode = call.args[place] if len(call.args) > place else named.get("mode")
            bad = "b" not in getattr(mode, "value", "b" if name == "TemporaryFile" else "r")
        else:
            bad = name == "LogFile"
        if bad:
            yield call.lineno


def test_encoding_every_text_file_is_opened_as_utf8():
    assert len(SOURCES) > 100
    result = [f"{path}:{line}" for path in SOURCES for line in by_locale(ast.parse(path.read_text("utf-8")))]
    assert not result


@pytest.mark.parametrize(
    "line",
    [
        *("open('a')", "path.open('w')", "path.read_text()", "path.write_text('x')", "open('a', mode='a')"),
        *("subprocess.run(x, text=True)", "TemporaryFile('w+')"),
    ],
)
def test_by_locale_call_without_encoding_is_found(line):
    assert [*by_locale(ast.parse(line))] == [1]


def test_run_in_a_locale_without_utf8_writes_utf8(tmp_path):
    (tmp_path / "heat.py").write_text(
        "from anyrank import Program, param\n\n\nclass Heat(Program):\n"
        '    """Wärme."""\n\n    name_of: str = param("é", "κ Δt/Δx²")\n    steps: int = param(2)\n\n'
        "    def declare(self, state): state.field('T', (4,))\n\n    def step(self, state): state.T[...] = 1.0\n",
        encoding="utf-8",
    )
    (tmp_path / "p.toml").write_text('name_of = "Straße"\n', encoding="utf-8")
    words = ("run", "heat.py", "--parameters", "p.toml", "--out", "r", "--stop-at", 1)
    done = run_anyrank(*words, cwd=tmp_path, env=ASCII)
    assert done.returncode == 75, done.stderr
    assert 'name_of = "Straße"' in (tmp_path / "r" / "run.toml").read_text("utf-8")
    assert run_anyrank("resume", "r", cwd=tmp_path, env=ASCII).returncode == 0
    shown = run_anyrank("run", "heat.py", "--help", cwd=tmp_path, env=ASCII)
    assert shown.returncode == 0 and "--name-of" in shown.stdout


def test_run_argument_that_is_not_utf8_is_refused(tmp_path, refused):
    done = refused("run", "wordcount", "--files", "caf\udce9.txt", cwd=tmp_path)
    assert done.returncode == 2 and r"'caf\udce9.txt' is not text in UTF-8. Rename" in done.stderr
    assert not list(tmp_path.iterdir())
