"""`anyrank list`: the programs that come with anyrank."""

from __future__ import annotations

import click

from anyrank.runtime.programs import available_programs, load


@click.command(name="list")
def command() -> None:
    """List the programs that come with anyrank."""
    names = available_programs()
    width = max(len(name) for name in names)
    for name in names:
        click.echo(f"{name:<{width}}  {load(name).summary()}")
    click.echo("\nanyrank run NAME --help shows the parameters of a program. Your own program: ./my_program.py")
