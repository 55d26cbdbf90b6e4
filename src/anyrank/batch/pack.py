"""One archive of the current environment and of the user's files, which works wherever it is unpacked.

`bin/` holds anyrank, python3 and mpiexec; `lib/` Python's library, the packages, and the shared libraries that they
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

#: The parts of Python's library that no run needs.
_UNUSED = re.compile(
    r"tests?|idlelib|tkinter|turtledemo|ensurepip|lib2to3|pydoc_data|config-.*|.*-packages|__pycache__"
    r"|(_tkinter|_test|_ctypes_test|_?xx).*\.so"
)
#: Libraries that belong to a machine and may not work on another: the C library, drivers, networks, the system's MPI.
_SYSTEM_LIBRARIES = re.compile(
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
_SCRIPTS = {
    "bin/python3": _SCRIPT,
    "bin/anyrank": _SCRIPT.replace('"$@"', '"$root/libexec/anyrank" "$@"'),
    "libexec/anyrank": "from anyrank.cli import main\n\nif __name__ == '__main__':\n    main()\n",
    f"{sys.platlibdir}/{PYTHON}/sitecustomize.py": _START,
}


def pack(programs: Iterable[Path], out: Path, packages: Iterable[Distribution]) -> int:
    """Make the archive `out`, compressed unless its name ends in .tar; return the number of files in it.

    Raises UsageError if the file cannot be opened, and AnyrankError if writing fails later; then no archive is left.
    """
    temporary = temporary_of(out, str(os.getpid()))
    try:
        stream = temporary.open("xb")
    except OSError as error:
        raise UsageError(f"--out {str(out)!r} cannot be written ({error.strerror}). Use another --out.") from None
    try:
        with stream, TemporaryDirectory(prefix="anyrank-pack-") as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # from compiling the sources of packages
            files = _library() | {name: path for package in packages for name, path in files_of(package).items()}
            files |= anyrank_files() | _user_files(programs, out)
            files |= _shared_libraries(files) | _start_scripts(Path(folder))
            files |= dict(_byte_code(files, Path(folder)))
            _write(files, stream, out.suffix != ".tar")
        publish(temporary, out)
    except OSError as error:
        raise AnyrankError(f"--out {str(out)!r} cannot be made: {error}. Fix that, or use another --out.") from None
    finally:
        temporary.unlink(missing_ok=True)
    return len(files)


def _library() -> Files:
    """Return the current interpreter and its library."""
    files = {"libexec/python": Path("/proc/self/exe").resolve()}
    compiled = sysconfig.get_path("platstdlib", vars={"installed_platbase": sys.base_exec_prefix})
    for folder in (sysconfig.get_path("stdlib"), compiled):
        files |= tree(Path(folder), f"{sys.platlibdir}/{PYTHON}", lambda path: bool(_UNUSED.fullmatch(path.name)))
    return files


def _user_files(programs: Iterable[Path], out: Path) -> Files:
    """Return the user's files, without hidden files, environments, runs, and the archive itself."""

    def skip(path: Path) -> bool:
        hidden = path.name.startswith(".") or path.name == "__pycache__" or path == out.absolute()
        return hidden or any((path / name).exists() for name in ("pyvenv.cfg", "run.toml"))

    files: Files = {}
    for path in (Path(os.path.normpath(program.absolute())) for program in programs):
        files |= tree(path, f"program/{path.name}", skip) if path.is_dir() else {f"program/{path.name}": path}
    return files


def _shared_libraries(files: Files) -> Files:
    """Return the shared libraries that these files need, without libraries among them and those of the machine."""
    programs = ("bin/", "libexec/")
    known = {path.resolve() for name, path in files.items() if ".so" in path.name or name.startswith(programs)}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        needed = {name: path for libraries in pool.map(_needed, sorted(known)) for name, path in libraries.items()}
    return {
        f"lib/{name}": path
        for name, path in needed.items()
        if not _SYSTEM_LIBRARIES.match(name) and path.resolve() not in known
    }


def _needed(binary: Path) -> Files:
    """Return the libraries that the loader finds for a binary, by name."""
    done = subprocess.run(["ldd", binary], capture_output=True, encoding="utf-8", errors="surrogateescape", check=False)
    return {name: Path(path) for name, path in re.findall(r"^\t(\S+) => (/.+) \(0x", done.stdout, re.MULTILINE)}


def _start_scripts(folder: Path) -> Files:
    """Return the start scripts, which find the other files relative to their own path."""
    scripts = {name: folder / str(number) for number, name in enumerate(_SCRIPTS)}
    for name, path in scripts.items():
        path.write_text(_SCRIPTS[name], encoding="utf-8")
        path.chmod(0o755)
        _copy_time(path, Path("/proc/self/exe"))
    return scripts


def _copy_time(file: Path, source: Path) -> None:
    """Give a file the modification time of its source, so that archives are reproducible."""
    mtime = source.stat().st_mtime
    os.utime(file, (mtime, mtime))


def _byte_code(files: Files, folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the byte code of every Python file that compiles, from __pycache__ or compiled now."""
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
                    _copy_time(ready, path)
            if ready.exists():
                yield f"{where}/{compiled}", ready


def _valid(ready: Path, source: Path) -> bool:
    status = source.stat()
    header = MAGIC_NUMBER + struct.pack("<III", 0, int(status.st_mtime) & 0xFFFFFFFF, status.st_size & 0xFFFFFFFF)
    with suppress(OSError), ready.open("rb") as file:
        return file.read(len(header)) == header
    return False


def _write(files: Files, stream: IO[bytes], compress: bool) -> None:
    """Write the archive of these files: sorted, without owners, with their modification times."""
    packed = gzip.GzipFile("", "wb", 1, stream, 0) if compress else nullcontext(stream)
    with packed as sink, tarfile.open(mode="w|", fileobj=cast(IO[bytes], sink), format=tarfile.GNU_FORMAT) as tar:
        for name, path in sorted(files.items()):
            with path.open("rb") as data:
                status = os.fstat(data.fileno())
                entry = tarfile.TarInfo(name)
                entry.size, entry.mtime = status.st_size, int(status.st_mtime)
                entry.mode = 0o755 if status.st_mode & 0o100 else 0o644
                tar.addfile(entry, data)
