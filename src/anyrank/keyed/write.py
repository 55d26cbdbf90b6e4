"""Write columns to one file in the order of the ranks; the bytes do not depend on the number of ranks."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import h5py
import numpy as np

from anyrank.errors import AnyrankError, UsageError, of_all_ranks
from anyrank.keyed.cells import cells_of, join
from anyrank.keyed.hdf5_layout import Hdf5Layout
from anyrank.keyed.rows import Column, Text
from anyrank.keyed.schema import unify_arrays
from anyrank.keyed.types import array_of, arrow, is_text, text_of
from anyrank.storage.durable import Piece, open_collectively, publish, temporary_of
from anyrank.storage.hdf5 import contiguous
from anyrank.world import World

#: Columns of rows, or what returns an iterator over blocks of them.
Blocks: TypeAlias = Mapping[str, Any] | Callable[[], Iterator[Mapping[str, Any]]]
#: Rows converted to text at a time.
_ROWS = 1 << 16
#: Text with one of these characters is in quotes.
_SPECIAL = r'[",\r\n]'
#: Rows of a row group of Parquet.
GROUP_ROWS = 1 << 16


def write_csv(world: World, path: Path, columns: Blocks) -> Path:
    """Write the rows of all ranks as CSV (RFC 4180, UTF-8) with a header line. Collective.

    Floating-point numbers are written with all digits needed to read back the same bits, and bytes that are not valid
    UTF-8 as escapes. Masked values and nulls are empty fields; an empty text is `""`. In a file of one column both are
    `""`, because an empty line is not a row.

    Parameters
    ----------
    world : World
        The ranks that hold the rows. The file has the rows of rank 0 first.
    path : Path
        The file to write.
    columns : mapping of str to array or Text, or callable
        This rank's rows; all ranks must have the same names and types. Or what returns an iterator over such rows: the
        rows of all ranks in the first block are the first in the file. The iterator may make collective calls.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    AnyrankError
        On all ranks, if the file cannot be written; an existing file is then unchanged.

    Examples
    --------
    >>> keyed.write_csv(World(), Path("rows.csv"), {"x": np.array([1, 2])}).read_text().split()
    ['x', '1', '2']
    """
    blocks = _blocks(columns)
    start = 0
    with open_collectively(world, path, lambda temporary: temporary.write_bytes(b"")) as (_, put):
        for block in blocks():
            arrays = to_arrow(world, block)
            names = [lines_of([arrays])] if world.rank == start == 0 else []
            parts = [*names, *_lines(arrays)]
            sizes = world.comm.allgather(sum(map(len, parts)))
            put(_consecutive(start + sum(sizes[: world.rank]), parts))
            start += sum(sizes)
    return path


def _blocks(columns: Blocks) -> Callable[[], Iterator[Mapping[str, Any]]]:
    """Return what yields blocks of columns: one if the argument has columns."""
    return columns if callable(columns) else lambda: iter([columns])


def _consecutive(offset: int, parts: Iterable[Any]) -> Iterator[Piece]:
    """Yield parts that follow each other in a file."""
    for part in parts:
        yield offset, memoryview(part)
        offset += len(part)


def to_arrow(world: World, columns: Mapping[str, Any]) -> dict[str, Any]:
    """Return columns as Arrow arrays, with the same type on all ranks. Collective."""
    unified = unify_arrays(world, columns)
    return {name: x if isinstance(x, arrow().Array) else _arrow_of(x) for name, x in unified.items()}


def _arrow_of(column: Column) -> Any:
    if isinstance(column, Text):
        return array_of(column, None, arrow().large_binary())
    nulls = np.ma.getmaskarray(column) if isinstance(column, np.ma.MaskedArray) else None
    values = np.asarray(column) if column.dtype.kind != "S" else np.asarray(column).astype(object)
    return arrow().array(values, mask=nulls)


def _lines(columns: Mapping[str, Any]) -> Iterator[bytes]:
    """Yield the rows as lines of CSV."""
    pa, compute = arrow(), arrow("compute")
    for first in range(0, len(next(iter(columns.values()), ())), _ROWS):
        cells = [cells_of(column.slice(first, _ROWS)) for column in columns.values()]
        quoted = [compute.match_substring_regex(text, _SPECIAL) for text in cells]
        cells = [_quote(text, needed) for text, needed in zip(cells, quoted, strict=True)]
        for k, column in enumerate(columns.values()):
            if len(cells) == 1 or is_text(column.type):  # an empty text is quoted, a null is nothing
                empty = compute.equal(cells[k], "")
                if len(cells) > 1:  # but an empty line is not a row
                    empty = compute.and_(empty, column.slice(first, _ROWS).is_valid())
                cells[k] = compute.if_else(empty, pa.scalar('""', cells[k].type), cells[k])
        lines = join(join(*cells, between=","), "", between="\n")
        text = text_of(lines)
        yield text.data.tobytes()


def _quote(text: Any, needed: Any) -> Any:
    compute = arrow("compute")
    if not compute.any(needed).as_py():
        return text
    doubled = compute.replace_substring(text, '"', '""')
    return compute.if_else(needed, join('"', doubled, '"'), text)


def lines_of(rows: Iterable[Iterable[Any]]) -> bytes:
    """Return rows as lines of CSV in UTF-8. Not collective."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def write_hdf5(world: World, path: Path, columns: Blocks, **attributes: Any) -> Path:
    r"""Write the rows of all ranks as HDF5, one dataset per column. Collective.

    Text becomes fixed-length strings padded with zeros if no element has more than PADDED bytes; otherwise dataset NAME
    has the concatenated bytes and NAME_size the sizes. Zero bytes at the end of text become escapes: \x00. Masked
    numbers are written as NaN.

    Parameters
    ----------
    world, path, columns
        See `write_csv`, also for the result and the errors.
    **attributes
        The attributes of the file.

    Returns
    -------
    Path
        `path`.

    Examples
    --------
    >>> keyed.write_hdf5(World(), Path("rows.h5"), {"x": np.array([1, 2])}, unit="m").name
    'rows.h5'
    """
    blocks = _blocks(columns)
    layout = Hdf5Layout(world, blocks)

    def lay_out(temporary: Path) -> dict[str, int]:
        with h5py.File(temporary, "w", locking=False) as file:
            file.attrs.update(attributes)
            datasets = {name: contiguous(file, name, *kind) for name, kind in layout.datasets().items()}
            return {name: dataset.id.get_offset() or 0 for name, dataset in datasets.items()}

    with open_collectively(world, path, lay_out) as (offsets, put):
        at = dict(offsets)
        for arrays in layout.arrays():
            pieces: list[Piece] = []
            for name, array in arrays.items():
                data: Any = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
                sizes = world.comm.allgather(len(data))
                pieces.append((at[name] + sum(sizes[: world.rank]), memoryview(data)))
                at[name] += sum(sizes)
            put(pieces)
    return path


def write_parquet(world: World, path: Path, columns: Blocks) -> Path:
    """Write the rows of all ranks as Parquet. Collective.

    Rank 0 writes row groups of GROUP_ROWS rows, one after the other. Text is `string` if all of it is UTF-8, and
    otherwise `binary`. Nulls, decimals and times keep their types.

    Parameters
    ----------
    world, path, columns
        See `write_csv`, also for the result and the errors.

    Returns
    -------
    Path
        `path`.

    Examples
    --------
    >>> keyed.write_parquet(World(), Path("rows.parquet"), {"x": np.array([1, 2])}).name
    'rows.parquet'
    """
    blocks, temporary = _blocks(columns), temporary_of(path)
    strings = _strings(world, blocks)
    writer: Any = None
    pending: list[Any] = []
    rows = 0
    try:
        for block in blocks():
            table = arrow().table(_as_strings(to_arrow(world, block), strings))
            if writer is None:
                with world.raise_on_all_ranks(Exception):
                    new = arrow("parquet").ParquetWriter(temporary, table.schema) if world.rank == 0 else True
                writer = new
            ends = np.cumsum(world.comm.allgather(len(table))).tolist()
            before = ends[world.rank] - len(table)
            cuts = [0, *range(GROUP_ROWS - rows % GROUP_ROWS, ends[-1], GROUP_ROWS), ends[-1]]
            for first, last in pairwise(cuts):
                begin, end = (min(max(row - before, 0), len(table)) for row in (first, last))
                pending += world.gather(_stream_of(table.slice(begin, end - begin))) or []
                if (rows + last) % GROUP_ROWS == 0:
                    _write_group(world, writer, pending)
            rows += ends[-1]
        if rows % GROUP_ROWS:
            _write_group(world, writer, pending)
        with world.raise_on_all_ranks(Exception):
            if world.rank == 0:
                writer.close()
                publish(temporary, path)
    except AnyrankError as refusal:
        if world.rank == 0:
            with suppress(Exception):
                writer.close()
            temporary.unlink(missing_ok=True)
        if isinstance(refusal, UsageError):
            raise
        raise of_all_ranks(AnyrankError(f"{path} was not written: {refusal}")) from None
    return path


def _write_group(world: World, writer: Any, pending: list[Any]) -> None:
    """Write the rows that rank 0 has received as a row group. Collective."""
    with world.raise_on_all_ranks(Exception):
        if world.rank == 0:
            tables = [arrow("ipc").open_stream(part).read_all() for part in pending]
            pending.clear()
            writer.write_table(arrow().concat_tables(tables).combine_chunks(), GROUP_ROWS)


def _strings(world: World, blocks: Callable[[], Iterator[Mapping[str, Any]]]) -> set[str]:
    """Return the columns of text that are UTF-8 in all blocks on all ranks. Collective."""
    broken: set[str] = set()
    texts: set[str] = set()
    for block in blocks():
        for name, column in to_arrow(world, block).items():
            if is_text(column.type):
                texts.add(name)
                try:
                    column.cast(arrow().large_string())
                except arrow().ArrowInvalid:
                    broken.add(name)
        if not texts:
            break
    return texts.difference(*world.comm.allgather(broken))


def _as_strings(columns: Mapping[str, Any], strings: set[str]) -> dict[str, Any]:
    large = arrow().large_string()
    return {name: column.cast(large) if name in strings else column for name, column in columns.items()}


def _stream_of(table: Any) -> Any:
    """Return the rows of a table as bytes; a pickled slice would have all rows."""
    sink = arrow().BufferOutputStream()
    with arrow("ipc").new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return sink.getvalue()
