"""Pictures of fields: maps side by side in one PNG."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from anyrank.world import World


#: Seconds that a rank whose drawing failed waits for the others: those that are not there then wait for it.
PATIENCE = 10.0


def drawn(world: World, draw: Callable[[], Path | None]) -> tuple[Path | None, str]:
    """What `draw` returns on this rank, and why there is no picture, empty where there is one. Collective.

    An error of any rank is no error of the run where all ranks come to the end of `draw`. A rank that fails while
    others wait for it, in a collective call of `draw`, raises its error, and must end the run: nothing else ends
    their wait.
    """
    comm = world.comm.Dup()  # what is left of the calls of `draw` must not meet ours
    path, error = None, None
    try:
        path = draw()
    except Exception as caught:
        error = caught
    all_there, until = comm.Ibarrier(), time.monotonic() + PATIENCE
    while not all_there.Test():
        if error is not None and time.monotonic() > until:
            raise error
        time.sleep(0.001)
    comm.Free()
    problems = world.comm.allgather("" if error is None else f"{type(error).__name__}: {error}")
    return path, next(filter(None, problems), "")


@dataclass(frozen=True)
class Map:
    """One map of a 2-D array: rows upwards, columns to the right."""

    title: str
    values: np.ndarray
    unit: str
    colours: str = "viridis"
    centred: bool = False


def draw_maps(path: Path, title: str, rows: Sequence[Sequence[Map]]) -> Path:
    """Draw rows of maps into a PNG file and return its path. `centred` maps have zero in the middle."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    height, width = rows[0][0].values.shape
    tall = min(max(height / width, 0.25), 4.0)
    figure = Figure(figsize=(6.0 * len(rows[0]), (5.0 * tall + 0.5) * len(rows) + 0.3), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    grid = figure.subplots(len(rows), len(rows[0]), squeeze=False)
    for axes_row, map_row in zip(grid, rows, strict=True):
        for axes, drawn in zip(axes_row, map_row, strict=True):
            # A few extreme cells must not wash the colours out.
            bound = float(np.quantile(np.abs(drawn.values), 0.998)) or 1.0
            limits = {"vmin": -bound, "vmax": bound} if drawn.centred else {}
            image = axes.imshow(drawn.values, origin="lower", cmap=drawn.colours, **limits)
            axes.set_title(drawn.title)
            axes.set_xticks([])
            axes.set_yticks([])
            figure.colorbar(image, ax=axes, label=drawn.unit)
    figure.savefig(path, dpi=110)
    return path
