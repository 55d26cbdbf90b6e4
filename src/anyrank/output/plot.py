"""Plots of the files of a run: the fields of a checkpoint, the series, and movies of frames."""

from __future__ import annotations

import csv
import difflib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from anyrank.errors import UsageError
from anyrank.output.picture import Line, Map, arrange, draw_lines, draw_maps, scale_of, write_movie

#: Larger arrays are read with a stride, so that no side of a map has more points.
MOST_POINTS = 1200
#: The largest number of components, planes or frames that are drawn or looked at for the scale.
_MOST_MAPS, _MOST_SCALED = 6, 16
#: Names of the axis of frames.
_TIME = ("time", "step")


def plot_fields(checkpoint: Path, names: Sequence[str], slices: Mapping[str, int], folder: Path) -> list[Path]:
    """Draw fields of a checkpoint, one PNG file each, and return the paths.

    Parameters
    ----------
    checkpoint : Path
        The file of the checkpoint.
    names : sequence of str
        The names of the fields; all fields if it is empty.
    slices : mapping
        The index along an axis, by the name of the axis. Other axes beyond two are cut in the middle.
    folder : Path
        The folder for the files.

    Returns
    -------
    list of Path
        The files, in the order of the fields.

    Raises
    ------
    UsageError
        If there is no field or axis of a name, or an index is out of range.
    """
    with h5py.File(checkpoint, "r", locking=False) as file:
        fields = file["fields"]
        title = f"{file.attrs['program']}, step {file.attrs['step']}"
        chosen = _chosen(names, fields, f"a field of {checkpoint}")
        _check_axes(slices, {dim for name in chosen for dim in _dims(fields[name])}, checkpoint)
        paths = []
        for name in chosen:
            maps = _maps(name, fields[name], (), slices)
            paths.append(draw_maps(folder / f"{name}.png", f"{title}{_about(fields[name])}", arrange(maps)))
    return paths


def plot_series(path: Path, names: Sequence[str], title: str, folder: Path) -> Path:
    """Draw columns of a series file over the steps into series.png, and return its path.

    Raises UsageError if there is no column of a name, or the file has no rows.
    """
    with path.open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    columns = [name for name in header if name != "step"]
    if not rows:
        raise UsageError(f"{path} has no rows yet.")
    if not columns:
        raise UsageError(f"{path} has no column besides step: observe returned no values.")
    table = dict(zip(header, np.array([[_number(value) for value in row] for row in rows]).T, strict=True))
    chosen = _chosen(names, columns, f"a column of {path}")
    lines = [Line(name, table["step"], table[name], x_label="step") for name in chosen]
    return draw_lines(folder / "series.png", title, lines)


def plot_movies(
    frames: Path, names: Sequence[str], slices: Mapping[str, int], folder: Path, suffix: str, rate: float, title: str
) -> list[Path]:
    """Draw each variable of a file of frames as a movie, and return the paths.

    Parameters
    ----------
    frames : Path
        The netCDF-4 file, whose variables have time as their first axis.
    names : sequence of str
        The names of the variables; all with a time axis if it is empty.
    slices : mapping
        As for `plot_fields`.
    folder : Path
        The folder for the files.
    suffix : str
        `.mp4` or `.gif`.
    rate : float
        Frames per second.
    title : str
        The title of the movie, to which the time is added.

    Returns
    -------
    list of Path
        The files, in the order of the variables.

    Raises
    ------
    UsageError
        If there is no variable or axis of a name, an index is out of range, or MP4 files cannot be written here.
    """
    with h5py.File(frames, "r", locking=False) as file:
        variables = [name for name, item in file.items() if isinstance(item, h5py.Dataset) and _is_frame(item)]
        if not variables:
            raise UsageError(f"{frames} has only single numbers at each step, which are no movie. See --frames.")
        chosen = _chosen(names, variables, f"a variable with axes of {frames}")
        _check_axes(slices, {dim for name in chosen for dim in _dims(file[name])}, frames)
        axis = next(name for name in _TIME if name in file)
        times = _complete(file[axis])
        if not len(times):
            raise UsageError(f"{frames} has no complete frame yet.")
        unit = "" if axis == "step" else _text(file[axis].attrs.get("units", ""))
        labels = [f"{title}, {axis} {time:g} {unit}".rstrip() for time in times]
        return [
            write_movie(folder / f"{name}{suffix}", _pictures(name, file[name], slices, labels), rate)
            for name in chosen
        ]


def _pictures(
    name: str, dataset: h5py.Dataset, slices: Mapping[str, int], labels: Sequence[str]
) -> Iterator[tuple[str, list[Map]]]:
    """Yield the title and the maps of each frame; all frames have one scale."""
    sample = np.unique(np.linspace(0, len(labels) - 1, _MOST_SCALED).astype(int))
    drawn = [np.concatenate([one.values.ravel() for one in _maps(name, dataset, (index,), slices)]) for index in sample]
    low, high, _ = scale_of(np.concatenate(drawn))
    for index, label in enumerate(labels):
        yield label, _maps(name, dataset, (index,), slices, (low, high))


def _is_frame(dataset: h5py.Dataset) -> bool:
    dims = _dims(dataset)
    return len(dims) > 1 and dims[0] in _TIME


def _complete(axis: h5py.Dataset) -> np.ndarray:
    """Return the coordinates of the frames that are complete: those of others are NaN or negative."""
    values = axis[()]
    complete: np.ndarray = values[np.isfinite(values)] if values.dtype.kind == "f" else values[values >= 0]
    return complete


def _maps(
    name: str,
    dataset: h5py.Dataset,
    where: tuple[int, ...],
    slices: Mapping[str, int],
    limits: tuple[float, float] | None = None,
) -> list[Map]:
    """Return the maps of a dataset at the first indices `where`: each component, and the middle planes of a volume."""
    dims, shape = _dims(dataset)[len(where) :], dataset.shape[len(where) :]
    for dim, index in slices.items():
        if dim in dims and not -shape[dims.index(dim)] <= index < shape[dims.index(dim)]:
            size = shape[dims.index(dim)]
            raise UsageError(f"--slice {dim}={index}: {name} has {size} points along {dim}: give 0 to {size - 1}.")
    fixed = {axis: slices[dim] % shape[axis] for axis, dim in enumerate(dims) if dim in slices}
    unit, maps = _text(dataset.attrs.get("units", "")), []
    for cut in _cuts(dims, shape, fixed)[:_MOST_MAPS]:
        open_axes = [axis for axis in range(len(shape)) if axis not in cut]
        strides = {axis: max(1, -(-shape[axis] // MOST_POINTS)) for axis in open_axes}
        selection = tuple(cut[axis] if axis in cut else slice(None, None, strides[axis]) for axis in range(len(shape)))
        values = np.atleast_1d(np.asarray(dataset[where + selection]))
        values = np.abs(values) if values.dtype.kind == "c" else values.astype(float)
        title = ", ".join([name, *(f"{_plain(dims[axis], name)} {index}" for axis, index in cut.items())])
        axes = [f"{_plain(dims[axis], name)}{f' / {strides[axis]}' * (strides[axis] > 1)}" for axis in open_axes]
        maps.append(Map(title, values, unit, axes=axes, limits=limits))
    if limits is None and len(maps) > 1 and not _has_components(dims, fixed):  # the planes of one volume
        low, high, _ = scale_of(np.concatenate([one_map.values.ravel() for one_map in maps]))
        maps = [replace(one_map, limits=(low, high)) for one_map in maps]
    return maps


def _has_components(dims: Sequence[str], fixed: Collection[int]) -> bool:
    return bool(dims) and dims[0].endswith("_component") and 0 not in fixed


def _cuts(dims: Sequence[str], shape: Sequence[int], fixed: Mapping[int, int]) -> list[dict[int, int]]:
    """Return the indices of each map by axis: at most two axes remain."""
    cuts: list[dict[int, int]] = [dict(fixed)]
    if _has_components(dims, fixed):
        cuts = [{0: index, **fixed} for index in range(shape[0])]
    free = [axis for axis in range(len(shape)) if axis not in cuts[0]]
    if len(free) == 3:  # the three middle planes
        return [{**cut, axis: shape[axis] // 2} for cut in cuts for axis in free]
    return [{**cut, **{axis: shape[axis] // 2 for axis in free[:-2]}} for cut in cuts]


def _plain(dim: str, name: str) -> str:
    """Return the name of an axis for a reader: without the field's name, or the size in a name that was made up."""
    return "component" if dim == f"{name}_component" else re.sub(r"^axis(\d+)_\d+$", r"axis \1", dim)


def _dims(dataset: h5py.Dataset) -> tuple[str, ...]:
    """Return the names of the axes, from the dimension scales."""
    return tuple(
        scales[0].name.rpartition("/")[2] if (scales := list(axis.values())) else f"axis{number}"
        for number, axis in enumerate(dataset.dims)
    )


def _about(dataset: h5py.Dataset) -> str:
    meaning = _text(dataset.attrs.get("long_name", ""))
    return f": {meaning}" if meaning else ""


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _number(text: str) -> float:
    return float({"True": "1", "False": "0", "true": "1", "false": "0", "": "nan"}.get(text, text))


def _chosen(names: Sequence[str], known: Collection[str], what: str) -> list[str]:
    """Return the names, or all known ones if there are none; UsageError for one that is unknown."""
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            fix = f"Did you mean {close[0]}?" if close else f"They are {', '.join(known)}." if known else "It has none."
            raise UsageError(f"{name!r} is not {what}. {fix}")
    return [*(names or known)]


def _check_axes(slices: Mapping[str, int], dims: Collection[str], path: Path) -> None:
    _chosen([*slices], sorted(dims), f"an axis in {path}")
