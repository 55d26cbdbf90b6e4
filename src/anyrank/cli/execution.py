"""From a checked command line to ranks that run: start mpiexec, or be one of its ranks."""

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
from anyrank.errors import AnyrankError, UsageError, spans
from anyrank.program import Program
from anyrank.runtime.options import Options
from anyrank.runtime.python import new_folder


@contextmanager
def watched(options: Options | None = None) -> Iterator[None]:
    """Watch this process while code of the user's runs that no step counts: its import and its `check`.

    Before the command line is read, without `options`, the words of it tell how long that may take.
    """
    from anyrank.runtime.watchdog import Watchdog

    watchdog = Watchdog((options or _early_options(click.get_current_context().find_root().obj or [])).hang_seconds)
    try:
        yield
    finally:
        watchdog.close()


def _early_options(words: list[str]) -> Options:
    """Options with the limit that the words give, if they give one that can be; what is wrong is told later."""
    text = "\n".join(words)
    given = re.search(r"^--hang-timeout[=\n](.*)$", text, re.MULTILINE)
    with suppress(UsageError):
        return Options.read({"hang_timeout": given[1]} if given else {}, "")
    return Options()


def carry_out(source: str, program: Program, options: Options, out: Path | None, asked: int | None) -> int:
    """Run the program: in this process if it is a rank or the only one, else under mpiexec. The exit code.

    `asked` is the number of ranks that the user gave; under a launcher of several it must be the launcher's. What a
    launcher started alone is a rank unless more are asked for: it may be a shell on a compute node.
    """
    if launcher.tasks() > 1:
        for flag, value in (("--max-restarts", options.max_restarts), ("--hosts", options.hosts)):
            if value:
                raise UsageError(
                    f"{flag} {value} is for the process that starts mpiexec, and here mpiexec has started this one. "
                    f"Leave it out, or use `anyrank run … -n {launcher.tasks()} {flag} {value}` without mpiexec."
                )
        return _be_a_rank(source, program, options, out, asked)
    out = out or new_folder(program.name)
    ranks = (asked or 1) if launcher.tasks() else options.ranks
    if ranks == 1 and not options.max_restarts and not options.hosts:
        return _be_a_rank(source, program, options, out, None)
    return _launch(options, out)


def _launch(options: Options, out: Path) -> int:
    from anyrank.runtime.supervisor import Supervisor

    words = list(click.get_current_context().find_root().obj)
    if not _given(words, "--out") and words[0] == "run":
        words += ["--out", str(out)]
    return Supervisor(options, out, words).run()


def _given(arguments: list[str], flag: str) -> bool:
    return any(argument == flag or argument.startswith(flag + "=") for argument in arguments)


def _be_a_rank(source: str, program: Program, options: Options, out: Path | None, asked: int | None) -> int:
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
        """Failing ranks meet in the run folder, which they share, as soon as it is theirs."""
        end_children()
        if session is not None and session.begun:
            report_and_abort(world, error, session.folder.path / f".failure-{token}", session.note_failure)
        else:
            report_and_abort(world, error, Path(tempfile.gettempdir()) / f"anyrank-failure-{token}")

    try:
        with world.raise_on_all_ranks():
            if asked is not None and asked != world.size:
                raise UsageError(f"-n {asked} but the launcher started {world.size} ranks. Leave -n out.")
        folder = world.bcast(out or new_folder(program.name))
        session = Session(program, source, world, folder, options, _command())
        return session.execute()
    except AnyrankError as error:
        told = not error.collective and world.size > 1
        if told:
            report(error)
        elif session is not None and session.begun and world.rank == 0:
            session.note_failure(spans(range(world.size)), str(error).splitlines()[0])
        error.silent = told or world.rank > 0
        raise
    except BaseException as error:
        report(error)
        return 1


def _command() -> str:
    return shlex.join(["anyrank", *click.get_current_context().find_root().obj])


def rank_list(text: str, allow: int | None, flag: str = "--ranks") -> tuple[int, ...]:
    """Numbers of ranks such as `1,2,4`, none twice and none above what is allowed here; else UsageError."""
    if not re.fullmatch(r"[1-9]\d*(,[1-9]\d*)*", text):
        raise UsageError(f"{flag} {text!r} must be whole numbers from 1, joined by commas. Use {flag} 1,2,4.")
    found = tuple(map(int, text.split(",")))
    twice = next((ranks for ranks in found if found.count(ranks) > 1), None)
    if twice is not None:
        raise UsageError(f"{flag} {text} has {twice} twice. Leave one out.")
    cores = len(os.sched_getaffinity(0))
    allowed, here = allow or max(4, 2 * cores), f"this machine's {cores} cores allow"
    if max(found) > allowed:
        raise UsageError(
            f"{flag} {text}: {max(found)} are more than the {allowed} that {'--allow names' if allow else here}. "
            f"Use at most {allowed}, or --allow {max(found)}."
        )
    return found
