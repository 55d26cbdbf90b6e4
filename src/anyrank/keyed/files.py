"""Find the input files that a list of files, folders and globs names."""

from __future__ import annotations

import codecs
import glob
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from hashlib import blake2b
from pathlib import Path
from stat import S_ISREG
from tempfile import TemporaryDirectory
from typing import NoReturn

from anyrank import launcher
from anyrank.errors import AnyrankError, UsageError, of_all_ranks
from anyrank.keyed.types import arrow

#: The suffixes of compressed files, and Arrow's names of their compression. Such a file is read by one rank.
COMPRESSED = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".lz4": "lz4"}

#: The first bytes of compressed data, and the suffixes of such files.
_MAGIC = {b"\x1f\x8b": ".gz", b"BZh": ".bz2", b"\x28\xb5\x2f\xfd": ".zst", b"\x04\x22\x4d\x18": ".lz4"}

#: Names of standard input, and the folders of its copies.
STDIN = "-", "/dev/stdin"
_copies: list[TemporaryDirectory[str]] = []
_FIX = "Name files, folders or globs, separated by commas."


def absolute(names: str) -> str:
    """Return the names as absolute paths, so that a run can be resumed from any folder; an empty name stays empty."""
    return ",".join(name if name in ("", *STDIN) else os.path.abspath(name) for name in names.split(","))  # noqa: PTH100


def with_stdin(names: str, folder: Path | None, suffix: str) -> str:
    """Return the names with a file in place of `-` or /dev/stdin, to which this process copies its standard input.

    The file is beside the run folder, where all ranks can read it, and is removed when the process ends. The first
    bytes tell whether the input is compressed.
    Raises UsageError if standard input is empty, or if the run is resumed.
    """
    if not {*STDIN} & {*names.split(",")}:
        return names
    if folder is None or (folder / "run.toml").exists():
        raise UsageError("a run that reads standard input cannot be resumed. Save the input to a file, and name it.")
    parent = next(parent for parent in folder.absolute().parents if parent.is_dir())
    _copies.append(TemporaryDirectory(prefix=".anyrank-stdin-", dir=parent))
    pipe = os.environ.get(launcher.STDIN)
    with Path(pipe).open("rb") if pipe else nullcontext(sys.stdin.buffer) as source:
        begin = source.read(max(map(len, _MAGIC)))
        packed = next((_MAGIC[magic] for magic in _MAGIC if begin.startswith(magic)), "")
        copy = Path(_copies[-1].name, f"stdin{suffix}{packed}")
        with copy.open("wb") as file:
            file.write(begin)
            shutil.copyfileobj(source, file)
    if not copy.stat().st_size:
        raise UsageError("standard input is empty. Use a pipe or < FILE, and give the name on the command line.")
    return ",".join(str(copy) if name in STDIN else name for name in names.split(","))


def find_files(names: str | Sequence[str], hidden: tuple[str, ...] = (".",)) -> dict[Path, int]:
    """Return the path and the size in bytes of each file, ordered by name and then by path.

    `names` are files, folders (searched recursively, without names that begin with one of `hidden`) and globs
    (`**` matches folders at any depth); a text may hold several names separated by commas. A file found more than once
    is listed once.
    Raises UsageError if a name matches no file or a file cannot be read.
    """
    files: dict[Path, int] = {}
    real: set[Path] = set()
    for name in sorted({*(names.split(",") if isinstance(names, str) else names)}):
        for path in _expand(name, hidden):
            if (target := path.resolve()) not in real:
                real.add(target)
                files[path] = _size(path)
    if not files:
        raise UsageError(f"no file is named. {_FIX}")
    return files


def is_compressed(path: Path) -> bool:
    """Return whether the suffix of a file is that of compressed files."""
    return path.suffix.lower() in COMPRESSED


def is_stream(path: Path) -> bool:
    """Return whether a file of text is read from its begin, by one rank: it is compressed, or begins as UTF-16."""
    with path.open("rb") as file:
        return is_compressed(path) or _encoding_of(file.read(2)) != ""


def read_stream(path: Path, size: int, encoding: str = "", errors: str = "strict") -> Iterator[bytes]:
    """Yield the text of a file, decompressed and in UTF-8, about `size` bytes at a time.

    Parameters
    ----------
    path : Path
        The file.
    size : int
        Bytes, before text in UTF-16 is converted to UTF-8.
    encoding : str
        The encoding; empty: UTF-16 if the file begins with its byte order mark, and otherwise the bytes as they are.
    errors : str
        What to do with text that is not in the encoding: as for `bytes.decode`.

    Raises
    ------
    AnyrankError
        If the file is damaged, or not written in the encoding.
    """
    decoder = None
    try:
        with arrow().input_stream(path, compression=COMPRESSED.get(path.suffix.lower())) as stream:
            data = stream.read(size)
            if encoding := encoding or _encoding_of(data[:2]):
                decoder = codecs.getincrementaldecoder(encoding)(errors)
            while data:
                yield data if decoder is None else decoder.decode(data).encode(errors="replace")
                data = stream.read(size)
            if decoder is not None:
                yield decoder.decode(b"", final=True).encode(errors="replace")
    except UnicodeError as error:
        raise UsageError(f"{path} is not written in {encoding} ({error}). Name its --encoding.") from None
    except OSError as error:
        raise AnyrankError(f"{path} cannot be decompressed ({error}). Replace the file.") from None


def _encoding_of(begin: bytes) -> str:
    return "utf-16" if begin in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else ""


def fingerprint(values: Iterable[object]) -> int:
    """Return a signed 64-bit hash of values with a complete `repr`: text, numbers and tuples of them."""
    digest = blake2b(repr([*values]).encode(errors="surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def check_unchanged(what: str, now: int, then: int) -> None:
    """Raise UsageError on all ranks if the fingerprint of a run's input has changed."""
    if now != then:
        raise of_all_ranks(
            UsageError(
                f"the {what} are not those that the run began with; a run must keep its input. Restore them, or use "
                "another --out for a new run."
            )
        )


def _expand(name: str, hidden: tuple[str, ...]) -> list[Path]:
    """Return the files of one name, sorted by path."""
    path = Path(name)
    if not name:
        _refuse("a file name is empty")
    if path.is_dir():
        return _below(path, hidden) or _refuse(f"folder {name!r} has no files, or only hidden ones")
    if os.path.lexists(name) or not glob.has_magic(name):
        return [path]
    matches = map(Path, glob.glob(name, recursive=True))  # noqa: PTH207 (Path.glob also matches hidden files)
    files = {file for match in matches for file in (_below(match, hidden) if match.is_dir() else [match])}
    return sorted(files) or _refuse(f"{name!r} matches no file")


def _refuse(what: str) -> NoReturn:
    raise UsageError(f"{what}. {_FIX}")


def _below(folder: Path, hidden: tuple[str, ...]) -> list[Path]:
    """Return the regular, not hidden files below a folder, sorted by path."""

    def refuse(error: OSError) -> None:
        _refuse(f"{error.filename!r} cannot be read ({error.strerror})")

    files = []
    for parent, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(hidden)]
        paths = (Path(parent, name) for name in names if not name.startswith(hidden))
        files += [path for path in paths if path.is_file()]
    return sorted(files)


def _size(path: Path) -> int:
    """Return the size of a file after a check that it can be read."""
    try:
        status = path.stat()
        if S_ISREG(status.st_mode):  # opening a pipe would block
            path.open("rb").close()
            return status.st_size
    except OSError as error:
        _refuse(f"{str(path)!r} cannot be read ({error.strerror})")
    _refuse(f"{str(path)!r} is not a regular file")
