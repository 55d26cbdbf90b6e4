"""Pictures of fields: maps side by side in one PNG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np


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
        for axes, one_map in zip(axes_row, map_row, strict=True):
            # A few extreme cells must not determine the colour scale.
            bound = float(np.quantile(np.abs(one_map.values), 0.998)) or 1.0
            limits = {"vmin": -bound, "vmax": bound} if one_map.centred else {}
            image = axes.imshow(one_map.values, origin="lower", cmap=one_map.colours, **limits)
            axes.set_title(one_map.title)
            axes.set_xticks([])
            axes.set_yticks([])
            figure.colorbar(image, ax=axes, label=one_map.unit)
    figure.savefig(path, dpi=110)
    return path
