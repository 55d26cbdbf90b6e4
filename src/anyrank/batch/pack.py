"""One archive of the environment that runs this and of the user's files, which works wherever it is unpacked.

`bin/` holds anyrank, python3 and mpiexec; `lib/` Python's library, the packages, and the shared libraries that these
need and a node may lack; `libexec/` the interpreter itself; `program/` the user's files.
"""

from __future__ import annotations

import gzip
import os
import py_compile
import re
import struct
import subprocess
import sys
import sysconfig
import tarfile
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from importlib.metadata import Distribution
from importlib.util import MAGIC_NUMBER
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, cast

from anyrank.batch.packages import PYTHON, SITE, Files, anyrank_files, files_of, tree
from anyrank.errors import AnyrankError, UsageError
from anyrank.storage.durable import publish, temporary_of

#: What of Python's library no run needs.
_SPARE = re.compile(
    r"tests?|idlelib|tkinter|turtledemo|ensurepip|lib2to3|pydoc_data|config-.*|.*-packages|__pycache__"
    r"|(_tkinter|_test|_ctypes_test|_?xx).*\.so"
)
#: Libraries that belong to a machine, and may not work on another: the C library, drivers, networks, the system's MPI.
_OF_THE_NODE = re.compile(
    r"(ld-linux.*|linux-vdso|lib(c|m|mvec|dl|pthread|rt|util|resolv|anl|nss_.*|cuda|nvidia-.*|ibverbs|rdmacm|nl-.*|mlx\d"
    r"|efa|psm2?|cxi|fabric|uc[mpst]|hwloc|munge|slurm.*|pmi\d?|pmix|mpi|mpich|mpi_.*|mpifort|open-...))\.so|libnsl\.so\.1"
)
_SCRIPT = """#!/bin/bash -p
# Made by `anyrank pack`: works wherever this folder lies.
here=$(readlink -f -- "$0") root=${here%/bin/*}
unset PYTHONHOME PYTHONPATH
export PYTHONNOUSERSITE=1 LD_LIBRARY_PATH="$root/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
exec -a "$root/bin/python3" "$root/libexec/python" "$@"
"""
_START = f'''"""Made by `anyrank pack`: what Python starts gets none of its libraries; Debian's finds the packages."""

import os
import site
import sys

own, _, theirs = os.environ.get("LD_LIBRARY_PATH", "").partition(":")
if own == sys.prefix + "/lib":
    del os.environ["LD_LIBRARY_PATH"]
    if theirs:
        os.environ["LD_LIBRARY_PATH"] = theirs
if sys.prefix + "/{SITE}" not in sys.path:
    site.addsitedir(sys.prefix + "/{SITE}")
'''
_MADE = {
    "bin/python3": _SCRIPT,
    "bin/anyrank": _SCRIPT.replace('"$@"', '"$root/libexec/anyrank" "$@"'),
    "libexec/anyrank": "from anyrank.cli import main\n\nif __name__ == '__main__':\n    main()\n",
    f"{sys.platlibdir}/{PYTHON}/sitecustomize.py": _START,
}


def pack(programs: Iterable[Path], out: Path, packages: Iterable[Distribution]) -> int:
    """Make the archive `out`, compressed unless its name ends in .tar; the number of files in it.

    Raises UsageError where it cannot be written, and AnyrankError where that turns out later; then there is none.
    """
    temporary = temporary_of(out, str(os.getpid()))
    try:
        stream = temporary.open("xb")
    except OSError as error:
        raise UsageError(f"--out {str(out)!r} cannot be written ({error.strerror}). Use another --out.") from None
    try:
        with stream, TemporaryDirectory(prefix="anyrank-pack-") as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that compiling has, of other people's sources
            files = _library() | {name: path for one in packages for name, path in files_of(one).items()}
            files |= anyrank_files() | _given(programs, out)
            files |= _shared(files) | _made(Path(folder))
            files |= dict(_compiled(files, Path(folder)))
            _write(files, stream, out.suffix != ".tar")
        publish(temporary, out)
    except OSError as error:
        raise AnyrankError(f"--out {str(out)!r} cannot be made: {error}. Mend that, or use another --out.") from None
    finally:
        temporary.unlink(missing_ok=True)
    return len(files)


def _library() -> Files:
    """The interpreter that runs this, and its library."""
    found = {"libexec/python": Path("/proc/self/exe").resolve()}
    compiled = sysconfig.get_path("platstdlib", vars={"installed_platbase": sys.base_exec_prefix})
    for folder in (sysconfig.get_path("stdlib"), compiled):
        found |= tree(Path(folder), f"{sys.platlibdir}/{PYTHON}", lambda path: bool(_SPARE.fullmatch(path.name)))
    return found


def _given(programs: Iterable[Path], out: Path) -> Files:
    """The user's files, without hidden ones, environments, runs, and the archive itself."""

    def skip(path: Path) -> bool:
        hidden = path.name.startswith(".") or path.name == "__pycache__" or path == out.absolute()
        return hidden or any((path / name).exists() for name in ("pyvenv.cfg", "run.toml"))

    found: Files = {}
    for path in (Path(os.path.normpath(program.absolute())) for program in programs):
        found |= tree(path, f"program/{path.name}", skip) if path.is_dir() else {f"program/{path.name}": path}
    return found


def _shared(files: Files) -> Files:
    """The shared libraries that these files need, that are not among them, and that do not belong to the machine."""
    places = ("bin/", "libexec/")
    known = {path.resolve() for name, path in files.items() if ".so" in path.name or name.startswith(places)}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        needed = {name: path for found in pool.map(_needed, sorted(known)) for name, path in found.items()}
    return {
        f"lib/{name}": path
        for name, path in needed.items()
        if not _OF_THE_NODE.match(name) and path.resolve() not in known
    }


def _needed(binary: Path) -> Files:
    """The libraries that the loader finds for a binary, by the names it asks for."""
    done = subprocess.run(["ldd", binary], capture_output=True, encoding="utf-8", errors="surrogateescape", check=False)
    return {name: Path(path) for name, path in re.findall(r"^\t(\S+) => (/.+) \(0x", done.stdout, re.MULTILINE)}


def _made(folder: Path) -> Files:
    """The scripts, which find the rest from where they lie."""
    found = {name: folder / str(number) for number, name in enumerate(_MADE)}
    for name, path in found.items():
        path.write_text(_MADE[name], encoding="utf-8")
        path.chmod(0o755)
        _date(path, Path("/proc/self/exe"))
    return found


def _date(made: Path, source: Path) -> None:
    """Let a file be as old as what it was made from, so that it is always the same."""
    then = source.stat().st_mtime
    os.utime(made, (then, then))


def _compiled(files: Files, folder: Path) -> Iterator[tuple[str, Path]]:
    """The byte code of every Python file: what lies beside it, or is made now; none for those of other Pythons."""
    mode = py_compile.PycInvalidationMode.TIMESTAMP
    for number, (name, path) in enumerate(files.items()):
        if name.endswith(".py"):
            where, _, stem = name.removesuffix(".py").rpartition("/")
            compiled = f"__pycache__/{stem}.{sys.implementation.cache_tag}.pyc"
            ready = path.parent / compiled
            if not _valid(ready, path):
                ready = folder / f"{number}.pyc"
                with suppress(py_compile.PyCompileError):
                    py_compile.compile(str(path), str(ready), name, doraise=True, invalidation_mode=mode)
                    _date(ready, path)
            if ready.exists():
                yield f"{where}/{compiled}", ready


def _valid(ready: Path, source: Path) -> bool:
    found = source.stat()
    header = MAGIC_NUMBER + struct.pack("<III", 0, int(found.st_mtime) & 0xFFFFFFFF, found.st_size & 0xFFFFFFFF)
    with suppress(OSError), ready.open("rb") as file:
        return file.read(len(header)) == header
    return False


def _write(files: Files, stream: IO[bytes], compress: bool) -> None:
    """The archive of these files: sorted, nobody's, with their times."""
    packed = gzip.GzipFile("", "wb", 1, stream, 0) if compress else nullcontext(stream)
    with packed as sink, tarfile.open(mode="w|", fileobj=cast(IO[bytes], sink), format=tarfile.GNU_FORMAT) as tar:
        for name, path in sorted(files.items()):
            with path.open("rb") as data:
                found = os.fstat(data.fileno())
                entry = tarfile.TarInfo(name)
                entry.size, entry.mtime = found.st_size, int(found.st_mtime)
                entry.mode = 0o755 if found.st_mode & 0o100 else 0o644
                tar.addfile(entry, data)
