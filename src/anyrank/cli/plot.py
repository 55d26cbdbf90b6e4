"""`anyrank plot RUN`: pictures and movies of a run, from its files."""

from __future__ import annotations

from pathlib import Path

import click

from anyrank.errors import UsageError
from anyrank.runtime.folder import RunFolder
from anyrank.storage.checkpoint_folder import checkpoint_files, path_of, step_of


@click.command(name="plot")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--fields", default="", help="The fields, or the variables of a movie: T,u. The default is all.")
@click.option("--series", default="", help="The columns of the series: mean,energy. The default is all.")
@click.option("--step", type=click.IntRange(min=0), help="The step of the checkpoint. The default is the newest.")
@click.option("--slice", "cuts", multiple=True, metavar="AXIS=INDEX", help="Cut fields here. The default: the middle.")
@click.option("--movie", is_flag=True, help="Draw the frames as movies, and nothing else.")
@click.option("--format", "kind", type=click.Choice(["mp4", "gif"]), help="The format of movies. The default is mp4.")
@click.option("--fps", default=12.0, type=click.FloatRange(1, 120), show_default=True, help="Frames per second.")
@click.option("--out", type=click.Path(path_type=Path), help="The folder for the files. The default: plots in RUN.")
def command(
    run: Path,
    fields: str,
    series: str,
    step: int | None,
    cuts: tuple[str, ...],
    movie: bool,
    kind: str | None,
    fps: float,
    out: Path | None,
) -> None:
    """Draw the fields of the newest checkpoint and the series of the run in the folder RUN; or its frames as movies.

    The run may still be running. The files are RUN/plots/NAME.png, series.png and NAME.mp4.
    """
    from anyrank.output import plot
    from anyrank.output.picture import can_write_mp4
    from anyrank.output.series import has_columns

    folder, slices = RunFolder(run), dict(map(_cut, cuts))
    description = folder.describe()
    if description is None:
        raise UsageError(f"{run} holds no run. Give the folder of a run, as in --out.")
    if kind is not None and not movie:
        raise UsageError(f"--format {kind} is for movies. Add --movie.")
    names = [name for name in fields.split(",") if name]
    columns = [name for name in series.split(",") if name]
    target = out or run / "plots"
    try:
        target.mkdir(parents=True, exist_ok=True)
        if movie:
            frames = run / "frames.nc"
            if not frames.is_file():
                raise UsageError(f"{run} has no frames.nc. Run the program with --frames NAME.")
            suffix = f".{kind}" if kind else ".mp4" if can_write_mp4() else ".gif"
            paths = plot.plot_movies(frames, names, slices, target, suffix, fps, description.program)
        else:
            paths = []
            if names or not columns:
                paths += plot.plot_fields(_checkpoint(folder, step), names, slices, target)
            if columns or (not names and has_columns(run / "series.csv")):
                paths.append(_series(run, columns, description.program, target))
    except OSError as error:
        raise UsageError(f"{run} cannot be plotted into {target}: {error}. Fix that, or use another --out.") from None
    for path in paths:
        click.echo(path)
    if not paths:
        raise UsageError(f"{run} has no fields and no series to plot.")


def _cut(text: str) -> tuple[str, int]:
    axis, _, index = text.partition("=")
    try:
        return axis, int(index)
    except ValueError:
        raise UsageError(f"--slice {text} must be an axis and an index, such as z=10.") from None


def _checkpoint(folder: RunFolder, step: int | None) -> Path:
    """Return the checkpoint at a step, or the newest; UsageError if there is none."""
    files = checkpoint_files(folder.checkpoints)
    if not files:
        raise UsageError(f"{folder.path} has no checkpoint yet. Wait for one, or stop the run: it then writes one.")
    if step is None:
        return files[0]
    if path_of(folder.checkpoints, step) not in files:
        known = ", ".join(str(step_of(path)) for path in reversed(files))
        raise UsageError(f"--step {step}: {folder.path} has checkpoints of the steps {known}. Give one of these.")
    return path_of(folder.checkpoints, step)


def _series(run: Path, columns: list[str], program: str, target: Path) -> Path:
    from anyrank.output.plot import plot_series

    path = run / "series.csv"
    if not path.is_file():
        raise UsageError(f"{run} has no series.csv: the program {program} has no observe.")
    return plot_series(path, columns, program, target)
