"""What a task does: call a function of a file, or run a command."""

from __future__ import annotations

import inspect
import json
import math
import os
import pickle
import re
import selectors
import shlex
import signal
import string
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from anyrank.errors import UsageError
from anyrank.farm.tasks import CURRENT, Task
from anyrank.runtime.children import die_with_parent
from anyrank.runtime.user_files import import_file, split_source

#: The variables in which job arrays give the index of a task; ours are the same with the prefix ANYRANK_TASK.
ARRAYS = ("SLURM_ARRAY_TASK_ID", "PBS_ARRAY_INDEX")
#: The files that are imported now, in this process: they must not start a farm.
_IMPORTING: list[str] = []
#: The sessions of the commands that run.
_RUNNING: set[int] = set()
#: The beginning of a command for a shell.
SHELL = ("/bin/sh", "-c")
#: The end of the output of a command that is kept for the message of its failure, in characters.
TAIL = 400
#: Seconds between two looks whether a command has ended whose pipes are open, and the largest size of a pipe in bytes.
LOOK, PIPE = 0.02, 1 << 20


class CommandError(Exception):
    """A command ended with a status other than 0."""


class CommandTimeoutError(CommandError):
    """A command took longer than --task-timeout and was ended."""


def load_function(source: str) -> Callable[..., Any]:
    """Return the function FILE.py:NAME. Raises UsageError if it is not there or cannot be called."""
    if source.endswith(".pickle"):  # as `farm.map` writes it
        return pickle.loads(Path(source).read_bytes())  # type: ignore[no-any-return]
    file, name = split_source(source)
    if not name:
        raise UsageError(f"{source!r} is not a function: write FILE.py:NAME, such as tasks.py:price.")
    with importing(file):
        module = import_file(Path(file))
    if not hasattr(module, name):
        functions = [key for key, value in vars(module).items() if inspect.isfunction(value)]
        raise UsageError(f"{file} has no function {name!r}. It has: {', '.join(functions) or 'none'}.")
    function = getattr(module, name)
    if not callable(function):
        raise UsageError(f"{source} is {function!r}, which cannot be called. Name a function.")
    return function  # type: ignore[no-any-return]


@contextmanager
def importing(file: str) -> Iterator[None]:
    """Note that a file is imported, for `check_not_importing`."""
    _IMPORTING.append(file)
    try:
        yield
    finally:
        _IMPORTING.pop()


def check_not_importing(what: str) -> None:
    """Raise UsageError if a file that is imported for its functions starts a farm itself, which would never end."""
    if _IMPORTING:
        raise UsageError(
            f"{what} was called while {_IMPORTING[-1]} is imported for its functions. Put the call under "
            "`if __name__ == '__main__':`."
        )


def check_columns(function: Callable[..., Any], columns: Sequence[str], shared: Iterable[str] = ()) -> None:
    """Raise UsageError if a parameter is not a column or a shared array, or a shared array is no parameter."""
    names, needed, takes_any = parameters_of(function)
    title = getattr(function, "__name__", "the function")
    if columns:  # arguments of `farm.map` have no names
        check_names(function)
    for name in shared:
        if name in columns:
            raise UsageError(f"--shared {name} is a column of the table, too. Rename one of them.")
        if name not in names and not takes_any:
            known = f"its parameters are {', '.join(sorted(names))}" if names else "it has no parameters"
            raise UsageError(f"--shared {name} is not a parameter of {title}: {known}. Correct the name.")
    missing = [name for name in needed if name not in columns and name not in shared]
    if missing and columns:
        raise UsageError(
            f"{title} needs {missing[0]!r}, which is not a column of the table: its columns are {', '.join(columns)}. "
            f"Add the column, or give the parameter a default value."
        )


def check_names(function: Callable[..., Any]) -> None:
    """Raise UsageError for a function that takes or needs arguments which cannot be given by name, as columns are."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # of compiled code
        return
    names, _, takes_any = parameters_of(function)
    for parameter in parameters:
        kind, by_name = parameter.kind, bool(names) or takes_any
        needed = parameter.default is parameter.empty
        if (kind is parameter.POSITIONAL_ONLY and (needed or not by_name)) or (
            kind is parameter.VAR_POSITIONAL and not by_name
        ):
            title = getattr(function, "__name__", "the function")
            raise UsageError(
                f"{title}{inspect.signature(function)} takes {parameter.name!r} by position only, and columns of the "
                "table are given by name. Call it in a function whose parameters have the names of the columns."
            )


def parameters_of(function: Callable[..., Any]) -> tuple[set[str], list[str], bool]:
    """Return the names of the parameters, of those without a default, and whether any name is taken."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # of compiled code
        return set(), [], True
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    named = [parameter for parameter in parameters if parameter.kind in kinds]
    needed = [parameter.name for parameter in named if parameter.default is inspect.Parameter.empty]
    return {p.name for p in named}, needed, any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)


def of_rows(function: Callable[..., Any]) -> Callable[[Mapping[str, Any]], Any]:
    """Return a function of a row of the table: the columns are the parameters, and others are left out."""
    names, _, takes_any = parameters_of(function)
    if takes_any:
        return lambda row: function(**row)

    def call(row: Mapping[str, Any]) -> Any:
        if row.keys() <= names:
            return function(**row)
        return function(**{name: value for name, value in row.items() if name in names})

    return call


def check_command(command: str, columns: Iterable[str]) -> None:
    """Raise UsageError if a command cannot be parsed, is not found, or names a column that is not there."""
    columns = [*columns]
    for name in fields_of(command):
        if name not in columns:
            raise UsageError(
                f"--command {command!r}: {{{name}}} is not a column of the table: its columns are "
                f"{', '.join(columns)}. Correct the name, or write {{{{ and }}}} for braces."
            )
    if not needs_shell(command):
        first = shlex.split(command)[0]
        from shutil import which

        if "{" not in first and which(first) is None:
            raise UsageError(f"--command {command!r}: {first} is not found. Give its path, or correct the name.")


def fields_of(command: str) -> list[str]:
    """Return the names in braces. Raises UsageError for what cannot be parsed, or would not be quoted rightly."""
    fields: list[str] = []
    try:
        shlex.split(command)
        quote = ""
        for text, field, spec, conversion in string.Formatter().parse(command):
            quote = _open_quote(text, quote)
            if field is None:
                continue
            fields.append(field)
            if spec or conversion or not field or not re.fullmatch(r"\w[^.\[]*", field):
                raise UsageError(
                    f"--command {command!r}: in {{{field}{spec and ':' + spec}}} only the name of a column can stand. "
                    "Write {{ and }} for braces, and format values in the table."
                )
            if quote:
                raise UsageError(
                    f"--command {command!r}: {{{field}}} is inside of quotes. Values are quoted already: write it "
                    "without quotes around it, or {{ and }} for braces of the command itself."
                )
    except ValueError as error:
        raise UsageError(
            f"--command {command!r} cannot be parsed: {error}. Close quotes and braces, and write {{{{ and }}}} for "
            "braces of the command itself."
        ) from None
    if not command.strip():
        raise UsageError("--command is empty. Write a command with {column} for the values of a row.")
    return fields


def _open_quote(text: str, quote: str) -> str:
    """Return the quote that is open behind a part of a command for the shell; `quote` is the one before it."""
    escaped = False
    for character in text:
        if escaped:
            escaped = False
        elif character == "\\" and quote != "'":
            escaped = True
        elif character == quote:
            quote = ""
        elif not quote and character in "'\"`":
            quote = character
    return quote


def command_of(command: str, row: Mapping[str, Any]) -> str:
    """Return the command for a row: its values, quoted for the shell, in place of {column}."""
    try:
        return command.format_map({name: shlex.quote(_plain(value)) for name, value in row.items()})
    except KeyError as error:  # rows of JSON may lack a column
        raise CommandError(f"the row has no {error.args[0]!r}, which the command needs: {command}") from None


def needs_shell(command: str) -> bool:
    """Return whether a command has a pipe, a redirection or another part that only a shell understands."""
    return bool(re.search(r"[|&;<>()$`*?\[\]#~]|^\s*\w+=", re.sub(r"'[^']*'|\{\w*\}", "", command)))


class ProgramRun:
    """A run of a program with the values of a row as parameters; its value is the result of the run, and its digest.

    The run folder is `folder`/ID. A run that was killed continues from its last checkpoint.
    """

    def __init__(self, program: str, ranks: int, folder: str, timeout: float):
        self._words = [sys.executable, "-m", "anyrank", "run", program, "-n", str(ranks), "--quiet"]
        self._folder, self._timeout = Path(folder), timeout or None

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Run the program for a row."""
        task = Task(*CURRENT.get())
        out = self._folder / task.id
        values = [f"--set={name}={_plain(value)}" for name, value in row.items() if value is not None]
        run_words([*self._words, *values, "--out", str(out)], {}, self._timeout)
        summary, result = (json.loads((out / f"{name}.json").read_text("utf-8")) for name in ("summary", "result"))
        return {**result, "digest": summary["digest"]}


def end_with_commands() -> None:
    """Let this worker end its commands, and then itself, when its rank ends.

    A signal that the system sends to each command instead would need a function between fork and exec, which takes
    three times as long as the start of a command without one.
    """

    def end(number: int, frame: object) -> None:
        for session in [*_RUNNING]:
            with suppress(OSError):
                os.killpg(session, signal.SIGKILL)
        os._exit(128 + number)

    signal.signal(signal.SIGTERM, end)
    die_with_parent(signal.SIGTERM)


def run_words(words: Sequence[str], variables: Mapping[str, str], timeout: float | None) -> tuple[str, str]:
    """Run a command in a session of its own and return its output and errors.

    Raises CommandError if its status is not 0, and CommandTimeoutError after `timeout` seconds.
    """
    child = subprocess.Popen(
        words,
        env={**os.environ, **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    _RUNNING.add(child.pid)
    text = words[-1] if words[0] == SHELL[0] else shlex.join(words)
    try:
        output, errors = _read_until_end(child, timeout)
    except subprocess.TimeoutExpired:
        raise CommandTimeoutError(f"took longer than --task-timeout {timeout:g}: {text}") from None
    finally:
        with suppress(ProcessLookupError):  # what the command started and left running
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        _RUNNING.discard(child.pid)
        for pipe in (child.stdout, child.stderr):
            pipe.close()  # type: ignore[union-attr]
    if child.returncode:
        how = f"status {child.returncode}" if child.returncode > 0 else f"signal {-child.returncode}"
        raise CommandError(f"{how}: {text}\n{(errors or output)[-TAIL:]}".rstrip())
    return output, errors


def _read_until_end(child: subprocess.Popen[bytes], timeout: float | None) -> list[str]:
    """Return the output and the errors of a command when it has ended, also if what it has started holds its pipes.

    Raises subprocess.TimeoutExpired after `timeout` seconds.
    """
    parts: dict[Any, bytearray] = {child.stdout: bytearray(), child.stderr: bytearray()}
    deadline = math.inf if timeout is None else time.monotonic() + timeout
    with selectors.PollSelector() as selector:
        for pipe in parts:
            os.set_blocking(pipe.fileno(), False)
            selector.register(pipe, selectors.EVENT_READ)
        look = time.monotonic() + LOOK
        while selector.get_map():
            for key, _ in selector.select(max(0.0, min(look, deadline) - time.monotonic())):
                if data := os.read(key.fd, PIPE):
                    parts[key.fileobj] += data
                else:
                    selector.unregister(key.fileobj)
            if (now := time.monotonic()) >= deadline:
                raise subprocess.TimeoutExpired(child.args, timeout or 0.0)
            if now >= look and os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                for key in selector.get_map().values():  # what it has written is there, and fits into one read
                    with suppress(BlockingIOError):
                        parts[key.fileobj] += os.read(key.fd, PIPE)
                break
            look = now + LOOK if now >= look else look
    child.wait(None if timeout is None else max(0.0, deadline - time.monotonic()))
    texts = [part.decode("utf-8", "backslashreplace") for part in parts.values()]
    return [text.replace("\r\n", "\n").replace("\r", "\n") for text in texts]


class Command:
    """A command with the values of a row in place of {column}; its value is its output without the last line end.

    Values are quoted for the shell. A command without pipes, redirections, variables and the like runs without a shell.
    """

    def __init__(self, command: str, timeout: float, key: str):
        self._command, self._timeout, self._key = command, timeout or None, key
        self._shell = needs_shell(command)

    def __call__(self, row: Mapping[str, Any]) -> str:
        """Run the command for a row."""
        task = Task(*CURRENT.get())
        text = command_of(self._command, row)
        words = [*SHELL, text] if self._shell else shlex.split(text)
        variables = {
            "ANYRANK_TASK": str(task.index),
            "ANYRANK_TASK_ID": task.id,
            "ANYRANK_TASK_ATTEMPT": str(task.attempt),
            "ANYRANK_TASK_KEY": f"{self._key}-{task.index}",
            "ANYRANK_TASK_SEED": str(task.seed),
            **{name: str(task.index) for name in ARRAYS},
        }
        output, errors = run_words(words, variables, self._timeout)
        sys.stdout.write(errors)
        return output.removesuffix("\n")


def _plain(value: Any) -> str:
    """Return a value of a row as text for a command: what is no number and no text as JSON."""
    if isinstance(value, bool | list | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return "" if value is None else str(value)
