"""`anyrank new FILE`: write an example program."""

from __future__ import annotations

from pathlib import Path

import click

from anyrank.errors import UsageError

TEMPLATES = {path.stem: path for path in sorted(Path(__file__).with_name("templates").glob("*.template"))}


@click.command(name="new")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--like", default="heat", metavar="NAME", help=f"The program: {', '.join(TEMPLATES)}.  [default: heat]")
def command(file: Path, like: str) -> None:
    """Write a small, complete program to FILE, which you can change into your own."""
    if like not in TEMPLATES:
        raise UsageError(f"--like {like!r} must be one of {', '.join(TEMPLATES)}.")
    if file.suffix != ".py" or not file.stem.isidentifier():
        raise UsageError(f"FILE {str(file)!r} must be a Python name ending in .py, such as heat.py.")
    if file.exists():
        raise UsageError(f"FILE {str(file)!r} exists and is not overwritten. Choose another name.")
    if not file.parent.is_dir():
        raise UsageError(f"FILE {str(file)!r}: the folder {str(file.parent)!r} does not exist. Make it first.")
    name = "".join(part.capitalize() for part in file.stem.split("_"))
    file.write_text(
        TEMPLATES[like].read_text(encoding="utf-8").replace("NAME", name).replace("FILE", str(file)), encoding="utf-8"
    )
    click.echo(f"wrote {file}: run it with: anyrank run ./{file} -n 2" if not file.is_absolute() else f"wrote {file}")
