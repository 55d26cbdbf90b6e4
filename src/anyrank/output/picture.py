"""Pictures: maps, lines and movies of arrays, drawn by Matplotlib without a display."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from anyrank.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: A few extreme cells must not determine the colour scale: the share of the cells inside it.
_INSIDE = 0.998
#: Values of both signs get a scale with zero in the middle, if the smaller side has this share of the larger one.
_BOTH_SIGNS = 0.1
#: Pixels per inch, and the largest number of panels side by side.
_DPI, _MOST_COLUMNS = 110, 3


@dataclass(frozen=True)
class Map:
    """One map of a 2-D array, rows upwards and columns to the right, or the line of a 1-D array.

    `axes` are the names of the axes of the array. Without `colours`, the values decide; `centred` maps have zero in the
    middle. `limits` are the ends of the scale; without them, the values decide.
    """

    title: str
    values: np.ndarray
    unit: str
    colours: str = ""
    centred: bool = False
    axes: Sequence[str] = ()
    limits: tuple[float, float] | None = None


@dataclass(frozen=True)
class Line:
    """A line plot of one quantity: `y` at the values `x`."""

    title: str
    x: np.ndarray
    y: np.ndarray
    unit: str = ""
    x_label: str = ""
    style: dict[str, Any] = field(default_factory=dict)


def scale_of(values: np.ndarray) -> tuple[float, float, bool]:
    """Return the ends of a colour scale for these values, and whether zero is in the middle; NaNs do not count."""
    finite = values[np.isfinite(values)].astype(float)
    if not finite.size:
        return 0.0, 1.0, False
    low, high = (float(end) for end in np.quantile(finite, [(1 - _INSIDE) / 2, (1 + _INSIDE) / 2]))
    bound = max(-low, high)
    if low < 0 < high and min(-low, high) >= _BOTH_SIGNS * bound:
        return -bound, bound, True
    if low == high:
        pad = abs(low) / 2 or 0.5
        return low - pad, high + pad, False
    return low, high, False


def draw_maps(path: Path, title: str, rows: Sequence[Sequence[Map]]) -> Path:
    """Draw rows of maps into a PNG file and return its path."""
    figure = _figure_of_maps(title, rows)[0]
    figure.savefig(path, dpi=_DPI)
    return path


def draw_lines(path: Path, title: str, lines: Sequence[Line]) -> Path:
    """Draw line plots, two side by side, into a PNG file and return its path."""
    columns = 1 if len(lines) == 1 else 2
    figure = _figure((6.0 * columns, 2.8 * math.ceil(len(lines) / columns) + 0.5), title)
    grid = figure.subplots(math.ceil(len(lines) / columns), columns, squeeze=False).ravel()
    for axes, line in zip(grid, lines, strict=False):
        axes.plot(line.x, line.y, linewidth=1.3, **({"marker": "."} if len(line.x) < 20 else {}), **line.style)
        axes.set_title(line.title, fontsize=10)
        axes.set_xlabel(line.x_label)
        axes.set_ylabel(line.unit)
        axes.grid(alpha=0.3)
        axes.margins(x=0)
    for axes in grid[len(lines) :]:
        axes.set_visible(False)
    figure.savefig(path, dpi=_DPI)
    return path


def arrange(maps: Sequence[Map]) -> list[list[Map]]:
    """Return the maps in rows of at most three."""
    return [[*maps[start : start + _MOST_COLUMNS]] for start in range(0, len(maps), _MOST_COLUMNS)]


def write_movie(path: Path, frames: Iterable[tuple[str, Sequence[Map]]], rate: float) -> Path:
    """Draw frames, each a title and its maps, into an MP4 or GIF file, which the suffix selects; return its path.

    The maps of all frames have the same shapes and titles, and should have the same limits. Raises UsageError if MP4
    files cannot be written here.
    """
    write = {".mp4": _write_mp4, ".gif": _write_gif}[path.suffix]
    write(path, _pixels(frames), rate)
    return path


def can_write_mp4() -> bool:
    """Return whether PyAV is installed, which writes MP4 files."""
    try:
        import av  # noqa: F401
    except ImportError:
        return False
    return True


def _pixels(frames: Iterable[tuple[str, Sequence[Map]]]) -> Iterable[np.ndarray]:
    """Yield the pixels of each frame, uint8 (height, width, 3); height and width are even, as video codecs need it."""
    figure, images, lines = None, [], []  # type: ignore[var-annotated]
    for title, maps in frames:
        if figure is None:
            figure, images, lines = _figure_of_maps(title, arrange(maps))
            figure.set_dpi(_DPI)
        figure.suptitle(title)
        for drawn, one_map in zip([*images, *lines], _images_first(maps), strict=True):
            if one_map.values.ndim == 2:
                drawn.set_data(one_map.values)
            else:
                drawn.set_ydata(one_map.values)
        figure.canvas.draw()
        pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3]  # type: ignore[attr-defined]
        yield np.ascontiguousarray(pixels[: pixels.shape[0] // 2 * 2, : pixels.shape[1] // 2 * 2])


def _images_first(maps: Sequence[Map]) -> list[Map]:
    return sorted(maps, key=lambda one_map: one_map.values.ndim != 2)


def _write_mp4(path: Path, pictures: Iterable[np.ndarray], rate: float) -> None:
    if not can_write_mp4():
        raise UsageError("an MP4 movie needs PyAV: pip install 'anyrank[movie]', or use --format gif.")
    import av
    from av import open as open_container

    with open_container(str(path), "w") as container:
        stream: Any = None
        for pixels in pictures:
            if stream is None:
                stream = container.add_stream("libx264", rate=round(rate))
                stream.height, stream.width = pixels.shape[:2]
                stream.pix_fmt, stream.options = "yuv420p", {"crf": "18"}
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode() if stream is not None else ():
            container.mux(packet)


def _write_gif(path: Path, pictures: Iterable[np.ndarray], rate: float) -> None:
    from PIL import Image

    # One palette for the movie: a palette for each frame makes colours flicker.
    images = [Image.fromarray(pixels) for pixels in pictures]
    palette = images[-1].quantize(256)
    first, *others = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    first.save(path, save_all=True, append_images=others, duration=round(1000 / rate), loop=0)


def _figure(size: tuple[float, float], title: str) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    return figure


def _figure_of_maps(title: str, rows: Sequence[Sequence[Map]]) -> tuple[Figure, list[Any], list[Any]]:
    """Return the figure, its images, and its lines."""
    heights = [max(_relative_height(one_map) for one_map in row) for row in rows]
    columns = max(map(len, rows))
    figure = _figure((6.0 * columns, sum(5.0 * tall + 0.5 for tall in heights) + 0.3), title)
    grid = figure.subplots(len(rows), columns, squeeze=False, gridspec_kw={"height_ratios": heights})
    images: list[Any] = []
    lines: list[Any] = []
    for axes_row, map_row in zip(grid, rows, strict=True):
        for axes in axes_row[len(map_row) :]:
            axes.set_visible(False)
        for axes, one_map in zip(axes_row, map_row, strict=False):
            axes.set_title(one_map.title)
            if one_map.values.ndim == 2:
                images.append(_draw_map(figure, axes, one_map))
            else:
                lines.append(_draw_line(axes, one_map))
    return figure, images, lines


def _relative_height(one_map: Map) -> float:
    if one_map.values.ndim != 2:
        return 0.6
    height, width = one_map.values.shape
    return float(min(max(height / max(width, 1), 0.25), 4.0))


def _draw_map(figure: Figure, axes: Axes, one_map: Map) -> Any:
    low, high, both = scale_of(one_map.values)
    if one_map.limits is not None:
        low, high = one_map.limits
        both = low == -high
    if one_map.centred:
        low, high, both = min(low, -high), max(high, -low), True
    colours = one_map.colours or ("RdBu_r" if both else "viridis")
    height, width = one_map.values.shape
    stretched: Literal["equal", "auto"] = "equal" if 0.25 <= height / max(width, 1) <= 4 else "auto"
    image = axes.imshow(
        one_map.values, origin="lower", cmap=colours, vmin=low, vmax=high, aspect=stretched, interpolation="nearest"
    )
    axes.set_xticks([])
    axes.set_yticks([])
    if one_map.axes:
        axes.set_ylabel(one_map.axes[0])
        axes.set_xlabel(one_map.axes[1])
    figure.colorbar(image, ax=axes, label=one_map.unit)
    return image


def _draw_line(axes: Axes, one_map: Map) -> Any:
    (line,) = axes.plot(np.arange(one_map.values.size), one_map.values, linewidth=1.3)
    if one_map.limits is not None:
        low, high = one_map.limits
        axes.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    axes.set_xlabel(one_map.axes[0] if one_map.axes else "")
    axes.set_ylabel(one_map.unit)
    axes.grid(alpha=0.3)
    return line
