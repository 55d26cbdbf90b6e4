"""Tools for tests under MPI: collective assertions, and functions that start mpiexec and anyrank.

Every process started here has a tag in its environment. Whatever has the tag is killed when its time is over or the
test ends: mpiexec puts each rank into a session of its own, so killing a process group or following parents would miss
ranks whose parent has ended.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

TAG = "ANYRANK_TEST_TAG"
#: Without these, Open MPI refuses root and more ranks than cores; other MPIs ignore them.
OPEN_MPI = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
}


def check_collective(world: Any, condition: Any, message: str = "") -> None:
    """Fail on all ranks of `world` if the condition is false on any rank, and name these ranks. Collective."""
    verdicts = world.comm.allgather(bool(condition))
    wrong = [rank for rank, holds in enumerate(verdicts) if not holds]
    assert not wrong, f"false on {name_ranks(wrong)} of {world.size}{message and f': {message}'}"


def name_ranks(ranks: list[int]) -> str:
    """`rank 3`, or `ranks 0, 3`."""
    return f"rank{'s' * (len(ranks) > 1)} {', '.join(map(str, ranks))}"


def mpiexec_path() -> str:
    """The mpiexec of this Python's environment: another MPI's mpiexec would start N worlds of one rank."""
    beside = Path(sys.executable).parent / "mpiexec"
    result = str(beside) if beside.exists() else shutil.which("mpiexec")
    if result is None:
        raise FileNotFoundError(f"no mpiexec beside {sys.executable} or on the PATH: pip install mpich")
    return result


def mpiexec(
    n: int,
    *command: Any,
    timeout: float = 120,
    env: Mapping[str, str] | None = None,
    cwd: Path | str | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run `command` on `n` ranks; see `run_command`."""
    return run_command(mpiexec_path(), "-n", n, *command, timeout=timeout, env=env, cwd=cwd)


def run_anyrank(
    *arguments: Any,
    ranks: int | None = None,
    timeout: float = 120,
    env: Mapping[str, str] | None = None,
    cwd: Path | str | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run `anyrank ARGUMENTS`, with `-n RANKS` if ranks are given; see `run_command`."""
    return run_command(*anyrank_command(*arguments, ranks=ranks), timeout=timeout, env=env, cwd=cwd)


def anyrank_command(*arguments: Any, ranks: int | None = None) -> list[str]:
    """The command line of `anyrank ARGUMENTS`, for `run_command` and `start_process`."""
    command = [sys.executable, "-m", "anyrank", *map(str, arguments)]
    return command if ranks is None else [*command, "-n", str(ranks)]


def run_command(
    *command: Any,
    timeout: float = 120,
    env: Mapping[str, str] | None = None,
    cwd: Path | str | None = None,
) -> subprocess.CompletedProcess[str]:
    """The return code, standard output and standard error of a command that ends within `timeout` seconds.

    A command that does not end is killed with all its processes, and the test fails with its output until then.
    """
    with TemporaryFile("w+", errors="replace") as out, TemporaryFile("w+", errors="replace") as err:
        with start_process(*command, env=env, cwd=cwd, stdout=out, stderr=err) as process:
            hung = False
            try:
                process.wait(timeout)
            except subprocess.TimeoutExpired:
                hung = True
        texts = [_whole(out), _whole(err)]
    shown = f"{' '.join(process.args)}\n{texts[0]}\n{texts[1]}"
    assert not hung, f"hung: not finished after {timeout} s: {shown}"
    return subprocess.CompletedProcess(process.args, process.returncode, *texts)


def _whole(file: IO[str]) -> str:
    file.seek(0)
    return file.read()


@contextmanager
def start_process(
    *command: Any,
    env: Mapping[str, str] | None = None,
    cwd: Path | str | None = None,
    stdin: int | IO[str] = subprocess.DEVNULL,
    stdout: int | IO[str] = subprocess.PIPE,
    stderr: int | IO[str] = subprocess.PIPE,
) -> Iterator[subprocess.Popen[str]]:
    """Start a command, for tests that send signals or kill ranks; all its processes are killed when the block ends.

    Its ranks are among `processes_of(process)`, each with its command line.
    """
    tag = uuid.uuid4().hex  # added to the tags of the parent process, which ends these processes too
    process = subprocess.Popen(
        [str(word) for word in command],
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        text=True,
        cwd=cwd,
        env={**os.environ, **OPEN_MPI, **(env or {}), TAG: f"{os.environ.get(TAG, '')} {tag}"},
        start_new_session=True,
    )
    process.tag = tag  # type: ignore[attr-defined]
    try:
        yield process
    finally:
        _end(tag)
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def processes_of(process: subprocess.Popen[str]) -> dict[int, list[str]]:
    """The living processes of `process`, including itself: command lines by process id."""
    return _tagged(process.tag)  # type: ignore[attr-defined]


def _tagged(tag: str) -> dict[int, list[str]]:
    result = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if tag.encode() in (folder / "environ").read_bytes():  # empty for a zombie
                words = (folder / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
                result[int(folder.name)] = [word.decode(errors="replace") for word in words]
    return result


def _end(tag: str, patience: float = 10) -> None:
    """Kill everything that has the tag until nothing is left: a killed process may just have started another."""
    deadline = time.monotonic() + patience
    while left := _tagged(tag):
        if time.monotonic() > deadline:
            raise TimeoutError(f"these processes survive SIGKILL: {left}")
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def sweep_shared_memory(since: float) -> None:
    """Remove the shared memory that killed jobs of MPICH have left since that time (time.time())."""
    mapped = set()
    for maps in Path("/proc").glob("[0-9]*/maps"):
        with suppress(OSError):
            mapped |= {line.split()[5] for line in maps.read_text().splitlines() if "/mpich_shm_" in line}
    for segment in Path("/dev/shm").glob("mpich_shm_*"):
        with suppress(FileNotFoundError):
            status = segment.stat()
            just_starting = status.st_mtime > time.time() - 2  # a job of another session that is not mapped yet
            ours = status.st_uid == os.getuid() and status.st_mtime >= since and str(segment) not in mapped
            if ours and not just_starting:
                segment.unlink()
