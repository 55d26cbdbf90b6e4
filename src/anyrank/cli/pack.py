"""`anyrank pack`: write one archive with this environment and programs, for nodes that have neither."""

from __future__ import annotations

import os
import time
from pathlib import Path

import click

from anyrank.errors import UsageError


@click.command(name="pack")
@click.argument("programs", metavar="[PROGRAM]...", nargs=-1, type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The archive to write: .tar.gz or .tar.")
@click.option(
    "--only",
    default="",
    help="Pack only these packages, their requirements and MPI, such as anyrank,scipy.  [default: all]",
)
@click.option("--without", default="", help="Leave out these packages, such as cupy-cuda13x,pytest.")
@click.option("--force", is_flag=True, help="Replace an existing archive.")
def command(programs: tuple[Path, ...], out: Path, only: str, without: str, force: bool) -> None:
    """Write one archive with Python, MPI, the packages of this environment, and PROGRAM files or folders.

    The archive works in any folder: FOLDER/bin/anyrank resume RUN --program FOLDER/program/heat.py
    """
    from anyrank.batch.pack import pack
    from anyrank.batch.packages import select_packages
    from anyrank.observe.progress import si

    start = time.monotonic()
    _check_programs(programs)
    _check_out(out, force)
    files = pack(programs, out, select_packages(_names(only), _names(without)))
    click.echo(f"{out}: {si(out.stat().st_size)}B, {files} files, {time.monotonic() - start:.1f} s")


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _check_programs(programs: tuple[Path, ...]) -> None:
    names: dict[str, Path] = {}
    for path in programs:
        if not os.access(path, os.R_OK) or not (path.is_file() or path.is_dir()):
            raise UsageError(f"PROGRAM {str(path)!r} cannot be read. Give a file or a folder that exists.")
        name = path.absolute().name
        if name in names:
            raise UsageError(f"PROGRAM {str(path)!r} and {str(names[name])!r} have the same name. Rename one of them.")
        names[name] = path


def _check_out(out: Path, force: bool) -> None:
    if not out.name.endswith((".tar.gz", ".tar")):
        raise UsageError(f"--out {str(out)!r} must end in .tar.gz or .tar. Use --out env.tar.gz.")
    if out.is_dir() or (out.exists() and not force):
        raise UsageError(f"--out {str(out)!r} exists. Use another name, or --force to replace a file.")
