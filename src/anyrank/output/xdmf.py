"""The file that ParaView and VTK open: XDMF, which names the datasets of frames.nc and copies none of their values."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from xml.sax.saxutils import quoteattr

from anyrank.output.frames_file import Plan
from anyrank.output.variables import Axis, Variable
from anyrank.storage.durable import write_atomically

#: The largest number of axes of a grid in XDMF.
_MOST_AXES = 3


def write_xdmf(path: Path, plan: Plan, steps: Sequence[int], capacity: int) -> None:
    """Write the file beside frames.nc: one grid for all variables with the same points. Raises OSError.

    `steps` are those of the complete frames, and `capacity` is the number of frames for which frames.nc has space.
    Variables without axes, or with more than three, are not in it. Each component of a field is an array of its own.
    """
    blocks: dict[tuple[Axis, ...], list[Variable]] = {}
    for variable in plan.variables:
        axes = tuple(axis for axis in variable.axes if axis.kept and axis.spacing)
        if 0 < len(axes) <= _MOST_AXES:
            blocks.setdefault(axes, []).append(variable)
    lines = ['<?xml version="1.0"?>', '<Xdmf Version="2.0">', "<Domain>"]
    lines.append('<Grid Name="frames" GridType="Collection" CollectionType="Temporal">')
    for slot, step in enumerate(steps):
        lines += [
            f'<Grid Name="step {step}" GridType="Collection" CollectionType="Spatial">',
            f'<Time Value="{step}"/>',
        ]
        for axes, variables in blocks.items():
            lines += _grid(path.name, axes, variables, slot, capacity)
        lines.append("</Grid>")
    write_atomically(path.with_suffix(".xdmf"), "\n".join([*lines, "</Grid>", "</Domain>", "</Xdmf>", ""]))


def _grid(file: str, axes: Sequence[Axis], variables: Sequence[Variable], slot: int, frames: int) -> list[str]:
    """Return the grid whose nodes are the points of the variables."""
    flat = max(2, len(axes))  # there is no grid of one axis
    sizes = [1] * (flat - len(axes)) + [axis.count for axis in axes]
    origin = [0.0] * (flat - len(axes)) + [float(axis.values[0]) for axis in axes]
    spacing = [1.0] * (flat - len(axes)) + [axis.spacing * axis.step for axis in axes]
    dims, name = " ".join(map(str, sizes)), " ".join(axis.dim for axis in axes)
    corner, distance = ("Origin", "DxDyDz") if flat == _MOST_AXES else ("Origin", "DxDy")
    lines = [f"<Grid Name={quoteattr(name)}>", f'<Topology TopologyType="{flat}DCoRectMesh" Dimensions="{dims}"/>']
    lines.append(f'<Geometry GeometryType="{corner.upper()}_{distance.upper()}">')
    for values in (origin, spacing):
        numbers = " ".join(map(repr, values))
        lines.append(f'<DataItem Dimensions="{flat}" NumberType="Float" Precision="8">{numbers}</DataItem>')
    lines.append("</Geometry>")
    for variable in variables:
        lines += _attributes(file, variable, slot, frames, dims)
    return [*lines, "</Grid>"]


def _attributes(file: str, variable: Variable, slot: int, frames: int, dims: str) -> list[str]:
    """Return one array for each component."""
    kind = {"f": "Float", "i": "Int", "u": "UInt"}[variable.dtype.kind]
    numbers = f'NumberType="{kind}" Precision="{variable.dtype.itemsize}"'
    whole = (frames, *variable.shape)
    lines = []
    kept = [axis for axis in variable.axes if axis.kept]
    for index in product(*(range(axis.count) for axis in kept if not axis.spacing)):
        others = iter(index)
        start = [slot, *(0 if axis.spacing else next(others) for axis in kept)]
        count = [1, *(axis.count if axis.spacing else 1 for axis in kept)]
        name = "_".join([variable.name, *(str(axis.indices[i]) for axis, i in zip(kept, index, strict=False))])
        slab = "\n".join(" ".join(map(str, row)) for row in (start, [1] * len(start), count))
        shape = " ".join(map(str, whole))
        lines += [
            f'<Attribute Name={quoteattr(name)} AttributeType="Scalar" Center="Node">',
            f'<DataItem ItemType="HyperSlab" Dimensions="{dims}">',
            f'<DataItem Dimensions="3 {len(start)}" NumberType="Int" Format="XML">\n{slab}\n</DataItem>',
            f'<DataItem Dimensions="{shape}" {numbers} Format="HDF">{file}:/{variable.name}</DataItem>',
            "</DataItem>",
            "</Attribute>",
        ]
    return lines
