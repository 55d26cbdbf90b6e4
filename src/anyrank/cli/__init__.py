"""The command line: one file per verb."""

from __future__ import annotations

import atexit
import importlib
import io
import os
import sys
import threading
import traceback
from contextlib import suppress
from pathlib import Path

import click
import mpi4py

from anyrank import launcher
from anyrank.child import begin_children_here
from anyrank.errors import AnyrankError, UsageError
from anyrank.runtime.children import end_children, end_forked_child

VERBS = (
    "run",
    "resume",
    "farm",
    "verify",
    "scale",
    "submit",
    "status",
    "cancel",
    "pack",
    "plot",
    "table",
    "list",
    "new",
    "doctor",
)

#: The verbs that run on a single process.
SINGLE_PROCESS = ("submit", "status", "cancel", "pack", "plot", "table", "list", "new", "doctor")


class Verbs(click.Group):
    """Imports the file of a verb only when the verb is used, so that each starts fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs in the order in which a new user needs them."""
        return [*VERBS]  # not list(), because `list` may be the module of that verb

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of a verb."""
        if cmd_name not in VERBS:
            return None
        command: click.Command = importlib.import_module(f"anyrank.cli.{cmd_name}").command
        return command


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="anyrank")
def anyrank() -> None:
    """Run scientific programs on any number of ranks, with the same bits, stopped and resumed or not."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code: 0 finished, 75 stopped, 2 bad usage, 1 any other error."""
    process = os.getpid()
    if launcher.tasks() <= 1:
        # A process that only starts mpiexec, or prints help, must not initialize MPI.
        mpi4py.rc.initialize = False
        mpi4py.rc.finalize = True
    if arguments is None:
        begin_children_here()
        atexit.register(end_children)  # registered first, so it runs last: multiprocessing joins its children before
        arguments = sys.argv[1:] = launcher.words_of(sys.argv[1:])
    words = arguments
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Escape characters that the terminal lacks, as Python does on stderr.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        _check_names(words)
        # The words are the object of the context, because the ranks are started with them.
        try:
            code = anyrank.main(args=[*words], prog_name="anyrank", standalone_mode=False, obj=words)
        except BaseException as error:
            end_forked_child(process, error)
            raise
        end_forked_child(process, None)
    except click.ClickException as error:
        code = _print_error(_agree_on(UsageError(_one_line(error)), words))
    except AnyrankError as error:
        code = _print_error(_agree_on(error, words))
    except click.Abort:
        code = 1
    except (Exception, SystemExit) as error:
        if launcher.tasks() <= 1 and isinstance(error, Exception):
            raise
        code = _print_error(_agree_on(_early_end(error), words))
    sys.stdout.flush()
    if code == 1 and threading.active_count() > 1:
        _exit_without_threads()
    sys.exit(code if isinstance(code, int) else 0)


def _check_names(words: list[str]) -> None:
    """Refuse names that cannot be written to our files or messages."""
    with suppress(FileNotFoundError):  # the current folder was removed; help still works
        words = [*words, str(Path.cwd())]
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError:
            raise UsageError(f"{word!r} is not text in UTF-8. Rename the file or the folder.") from None


def _exit_without_threads() -> None:
    """Exit with status 1 without waiting for threads.

    A thread that writes a checkpoint holds HDF5's lock: the end of Python would wait for the lock, and the thread for
    Python.
    """
    mpi = sys.modules.get("mpi4py.MPI")
    if mpi is not None and mpi.Is_initialized() and not mpi.Is_finalized():
        mpi.Finalize()
    end_children()
    sys.stderr.flush()
    os._exit(1)


def _early_end(error: BaseException) -> AnyrankError:
    """Return the error for a process that ends before the ranks communicate, for instance in a program's `check`."""
    if isinstance(error, SystemExit):
        what = f"sys.exit({error.code!r}) ends a run before it begins. Raise UsageError with the reason instead"
    else:
        what = "".join(traceback.format_exception(type(error), error, error.__traceback__)).rstrip()
    where = f"rank {launcher.task()} of {launcher.tasks()}: " if launcher.tasks() > 1 else ""
    return AnyrankError(where + what)


def _one_line(error: click.ClickException) -> str:
    where = getattr(error, "ctx", None)
    hint = f" Try: {where.command_path} --help" if where is not None else ""
    return f"{error.format_message()}{hint}"


def _agree_on(error: AnyrankError, words: list[str]) -> AnyrankError:
    """Agree on the error with which all ranks exit, so that ranks without an error do not wait for this one."""
    single = words[:1] and words[0] in SINGLE_PROCESS
    if launcher.tasks() > 1 and not single and not error.collective and not error.silent:
        from anyrank.world import agree_to_begin

        try:
            agree_to_begin(error)
        except AnyrankError as agreed:
            return agreed
    return error


def _print_error(error: AnyrankError) -> int:
    """Print the error on the first task only, because every task has the same error; return its status."""
    if not error.silent and launcher.task() == 0:
        print("anyrank: " + str(error).replace("\n", "\n         "), file=sys.stderr, flush=True)
    return error.status
