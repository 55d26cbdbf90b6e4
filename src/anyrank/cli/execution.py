"""Execute a checked command line: start mpiexec, or run as one of its ranks."""

from __future__ import annotations

import os
import re
import shlex
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import click

from anyrank import launcher
from anyrank.errors import AnyrankError, UsageError, as_ranges
from anyrank.program import Program
from anyrank.runtime.options import Options
from anyrank.runtime.python import new_folder


@contextmanager
def under_watchdog(options: Options | None = None) -> Iterator[None]:
    """Run the watchdog around the user's code outside of steps: its import and its `check`.

    Before the options are parsed (`options` is None), the limit comes from the words of the command line.
    """
    from anyrank.runtime.watchdog import Watchdog

    watchdog = Watchdog((options or _early_options(click.get_current_context().find_root().obj or [])).hang_seconds)
    try:
        yield
    finally:
        watchdog.close()


def _early_options(words: list[str]) -> Options:
    """Return options with the --hang-timeout of the words, if it is valid; other errors are reported later."""
    text = "\n".join(words)
    given = re.search(r"^--hang-timeout[=\n](.*)$", text, re.MULTILINE)
    with suppress(UsageError):
        return Options.read({"hang_timeout": given[1]} if given else {}, "")
    return Options()


def execute(
    source: str,
    program: Program,
    options: Options,
    out: Path | None,
    requested: int | None,
    extend: bool = False,
) -> int:
    """Run the program in this process if it is a rank or the only one, else under mpiexec; return the exit code.

    `extend` allows the parameters of the run in the folder `out` to grow. `requested` is the user's number of ranks;
    under a launcher of several tasks it must be their number. A single task of a launcher is a rank unless more are
    requested: it may be a shell on a compute node.
    """
    if launcher.tasks() > 1:
        for flag, value in (("--max-restarts", options.max_restarts), ("--hosts", options.hosts)):
            if value:
                raise UsageError(
                    f"{flag} {value} is for the process that starts mpiexec, but mpiexec has started this process. "
                    f"Omit it, or use `anyrank run … -n {launcher.tasks()} {flag} {value}` without mpiexec."
                )
        return _run_as_rank(source, program, options, out, requested, extend)
    out = out or new_folder(program.name)
    ranks = (requested or 1) if launcher.tasks() else options.ranks
    if ranks == 1 and not options.max_restarts and not options.hosts:
        return _run_as_rank(source, program, options, out, None, extend)
    return _launch(options, out)


def _launch(options: Options, out: Path) -> int:
    from anyrank.runtime.supervisor import Supervisor

    words = list(click.get_current_context().find_root().obj)
    if words[0] in ("run", "farm"):  # the last one counts, and the first one may be empty
        words += ["--out", str(out)]
    return Supervisor(options, out, words).run()


def _run_as_rank(
    source: str, program: Program, options: Options, out: Path | None, requested: int | None, extend: bool
) -> int:
    from anyrank.runtime.children import end_children
    from anyrank.runtime.failure import report_and_abort
    from anyrank.runtime.session import Session
    from anyrank.world import World, agree_to_begin, check_launch

    if launcher.tasks() > 1:
        agree_to_begin(None)
    world = World(check=options.check)
    check_launch(world)
    token = world.bcast(f"{os.getpid()}-{time.time_ns()}")
    session: Session | None = None

    def report(error: BaseException) -> None:
        """Report an error with those of other ranks, in the shared run folder once it belongs to this run."""
        end_children()
        if session is not None and session.begun:
            report_and_abort(world, error, session.folder.path / f".failure-{token}", session.note_failure)
        else:
            report_and_abort(world, error, Path(tempfile.gettempdir()) / f"anyrank-failure-{token}")

    try:
        with world.raise_on_all_ranks():
            if requested is not None and requested != world.size:
                raise UsageError(f"-n {requested} but the launcher started {world.size} ranks. Omit -n.")
        folder = world.bcast(out or new_folder(program.name))
        session = Session(program, source, world, folder, options, _command(), extend)
        return session.execute()
    except AnyrankError as error:
        reported = not error.collective and world.size > 1
        if reported:
            report(error)
        elif session is not None and session.begun and world.rank == 0:
            session.note_failure(as_ranges(range(world.size)), str(error).splitlines()[0])
        error.silent = reported or world.rank > 0
        raise
    except BaseException as error:
        report(error)
        return 1


def _command() -> str:
    return shlex.join(["anyrank", *click.get_current_context().find_root().obj])


def rank_list(text: str, allow: int | None, flag: str = "--ranks") -> tuple[int, ...]:
    """Parse numbers of ranks such as `1,2,4`, without duplicates and none above the limit; else UsageError."""
    if not re.fullmatch(r"[1-9]\d*(,[1-9]\d*)*", text):
        raise UsageError(f"{flag} {text!r} must be whole numbers from 1, joined by commas. Use {flag} 1,2,4.")
    numbers = tuple(map(int, text.split(",")))
    duplicate = next((ranks for ranks in numbers if numbers.count(ranks) > 1), None)
    if duplicate is not None:
        raise UsageError(f"{flag} {text} has {duplicate} twice. Remove one of them.")
    cores = len(os.sched_getaffinity(0))
    allowed, reason = allow or max(4, 2 * cores), f"for this machine's {cores} cores"
    if max(numbers) > allowed:
        raise UsageError(
            f"{flag} {text}: {max(numbers)} is more than the limit of {allowed} {'of --allow' if allow else reason}. "
            f"Use at most {allowed}, or --allow {max(numbers)}."
        )
    return numbers
