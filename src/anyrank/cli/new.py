"""`anyrank new FILE`: write an example program."""

from __future__ import annotations

from pathlib import Path

import click

from anyrank.errors import UsageError

TEMPLATE = Path(__file__).with_name("program.template")


@click.command(name="new")
@click.argument("file", type=click.Path(path_type=Path))
def command(file: Path) -> None:
    """Write a small, complete program to FILE, which you can change into your own."""
    if file.suffix != ".py" or not file.stem.isidentifier():
        raise UsageError(f"FILE {str(file)!r} must be a Python name ending in .py, such as heat.py.")
    if file.exists():
        raise UsageError(f"FILE {str(file)!r} exists and is not overwritten. Choose another name.")
    if not file.parent.is_dir():
        raise UsageError(f"FILE {str(file)!r}: the folder {str(file.parent)!r} does not exist. Make it first.")
    name = "".join(part.capitalize() for part in file.stem.split("_"))
    file.write_text(
        TEMPLATE.read_text(encoding="utf-8").replace("NAME", name).replace("FILE", str(file)), encoding="utf-8"
    )
    click.echo(f"wrote {file}: run it with: anyrank run ./{file} -n 2" if not file.is_absolute() else f"wrote {file}")
