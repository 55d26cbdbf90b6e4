"""The files that names stand for: files, folders and globs."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from pathlib import Path
from stat import S_ISREG
from typing import NoReturn

from anyrank.errors import UsageError, of_all_ranks

_FIX = "Name files, folders or globs, joined by commas."


def absolute(names: str) -> str:
    """The names from the root on, so that a run can be resumed from any folder; an empty text stays empty."""
    return ",".join(os.path.abspath(name) if name else name for name in names.split(","))  # noqa: PTH100 (globs, too)


def find(names: str | Sequence[str]) -> dict[Path, int]:
    """The files' paths with their sizes in bytes, in the order of the names, and then of the paths.

    `names` are files, folders (with all below them but what is hidden) and globs (`**` for folders at any depth),
    several in one text joined by commas. A file that is found twice counts once.
    Raises UsageError where a name has no file or a file cannot be read.
    """
    files: dict[Path, int] = {}
    real: set[Path] = set()
    for name in sorted({*(names.split(",") if isinstance(names, str) else names)}):
        for path in _expand(name):
            if (target := path.resolve()) not in real:
                real.add(target)
                files[path] = _size(path)
    if not files:
        raise UsageError(f"no file is named. {_FIX}")
    return files


def fingerprint(values: Iterable[object]) -> int:
    """64 bits, signed, of values that `repr` tells in full: text, numbers and tuples of them."""
    digest = blake2b(repr([*values]).encode(errors="surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def check_unchanged(what: str, now: int, then: int) -> None:
    """Raise UsageError, on all ranks, where the fingerprint of a run's input is not what it was."""
    if now != then:
        raise of_all_ranks(
            UsageError(
                f"the {what} are not those that the run began with: a run keeps its input. Bring them back, or use "
                "another --out for a run of its own."
            )
        )


def _expand(name: str) -> list[Path]:
    """The files of one name, sorted by path."""
    path = Path(name)
    if not name:
        _refuse("an empty name stands for no file")
    if path.is_dir():
        return _below(path) or _refuse(f"{name!r} is a folder without a file that is not hidden")
    if os.path.lexists(name) or not glob.has_magic(name):
        return [path]
    matches = map(Path, glob.glob(name, recursive=True))  # noqa: PTH207 (Path's own takes hidden files, too)
    files = {file for match in matches for file in (_below(match) if match.is_dir() else [match])}
    return sorted(files) or _refuse(f"{name!r} matches no file")


def _refuse(what: str) -> NoReturn:
    raise UsageError(f"{what}. {_FIX}")


def _below(folder: Path) -> list[Path]:
    """The files below a folder, without what is hidden and what is no file, sorted by path."""

    def refuse(error: OSError) -> None:
        _refuse(f"{error.filename!r} cannot be read ({error.strerror})")

    files = []
    for place, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = (Path(place, name) for name in names if not name.startswith("."))
        files += [path for path in paths if path.is_file()]
    return sorted(files)


def _size(path: Path) -> int:
    """The size of a file that can be read."""
    try:
        status = path.stat()
        if S_ISREG(status.st_mode):  # a pipe would wait for its other end
            path.open("rb").close()
            return status.st_size
    except OSError as error:
        _refuse(f"{str(path)!r} cannot be read ({error.strerror})")
    _refuse(f"{str(path)!r} is no file")
