"""Write columns to one file in the order of the ranks; the bytes do not depend on the number of ranks."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from anyrank.errors import AnyrankError, of_all_ranks
from anyrank.keyed.rows import BROKEN, Column, Columns, Text
from anyrank.keyed.schema import unify_columns
from anyrank.keyed.types import NARROW, array_of, arrow, is_text, text_of, values_of
from anyrank.storage.durable import Piece, publish, temporary_of, write_collectively
from anyrank.storage.hdf5 import contiguous
from anyrank.world import World

#: Rows converted to text at a time.
_ROWS = 1 << 16
#: Text with one of these characters is in quotes.
_SPECIAL = r'[",\r\n]'
#: Rows of a row group of Parquet.
GROUP_ROWS = 1 << 20
#: In HDF5, text is padded to its longest element if that has at most this number of bytes.
PADDED = 256


def write_csv(world: World, path: Path, columns: Mapping[str, Column]) -> Path:
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
    columns : mapping of str to array or Text
        This rank's rows; all ranks must have the same names and types.

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
    columns = to_arrow(world, columns)
    names = lines_of([columns])
    parts = [*_lines(columns)] if world.rank else [names, *_lines(columns)]
    sizes = world.comm.allgather(sum(map(len, parts)))
    start = sum(sizes[: world.rank])

    def pieces() -> Iterator[Piece]:
        offset = start
        for part in parts:
            yield offset, memoryview(part)
            offset += len(part)

    return write_collectively(world, path, lambda temporary: temporary.write_bytes(b""), lambda _: pieces())


def to_arrow(world: World, columns: Mapping[str, Any]) -> dict[str, Any]:
    """Return columns as Arrow arrays, with the same type on all ranks. Collective."""
    pa = arrow()
    unified = unify_columns(world, {name: x for name, x in columns.items() if not isinstance(x, pa.Array)})
    return {name: x if isinstance(x, pa.Array) else _arrow_of(unified[name]) for name, x in columns.items()}


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
        lines = _join(_join(*cells, between=","), "", between="\n")
        text = text_of(lines)
        yield text.data.tobytes()


def _quote(text: Any, needed: Any) -> Any:
    compute = arrow("compute")
    if not compute.any(needed).as_py():
        return text
    doubled = compute.replace_substring(text, '"', '""')
    return compute.if_else(needed, _join('"', doubled, '"'), text)


def _join(*texts: Any, between: str = "") -> Any:
    """Return the concatenated elements of arrays of text, and of constant text."""
    large = arrow().large_string()
    scalars = [arrow().scalar(text, large) if isinstance(text, str) else text for text in (*texts, between)]
    return arrow("compute").binary_join_element_wise(*scalars)


def cells_of(array: Any) -> Any:
    """Return the elements of an array as text for people and for CSV: nulls are empty, times are ISO 8601.

    Floating-point numbers have the fewest digits that give the same number. Bytes that are not UTF-8 become escapes.
    """
    pa, compute = arrow(), arrow("compute")
    string, type_ = pa.large_string(), array.type
    if is_text(type_):
        try:
            text = array.cast(string)
        except pa.ArrowInvalid:
            text = pa.array([x and x.decode(errors=BROKEN) for x in array.to_pylist()], string)
    elif pa.types.is_timestamp(type_):
        text = compute.replace_substring(array.cast(pa.timestamp(type_.unit)).cast(string), " ", "T")
        text = _join(text, "Z") if type_.tz else text
    elif pa.types.is_decimal(type_):
        text = array.cast(string)
        if compute.any(compute.match_substring(text, "E")).as_py():  # Arrow writes 0.0000001 as 1E-7
            text = pa.array([x and f"{Decimal(x):f}" for x in text.to_pylist()], string)
    else:
        text = array.cast(string)
    if pa.types.is_floating(type_):
        whole = compute.match_substring_regex(text, "^-?[0-9]+$")
        text = compute.if_else(whole, _join(text, "0", between="."), text)
    return text.fill_null("")


def lines_of(rows: Iterable[Iterable[Any]]) -> bytes:
    """Return rows as lines of CSV in UTF-8. Not collective."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def write_hdf5(world: World, path: Path, columns: Mapping[str, Column], **attributes: Any) -> Path:
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
    arrays: dict[str, np.ndarray] = {}
    for name, column in unify_columns(world, _without_arrow(world, columns)).items():
        arrays |= _array(world, name, column)
    counts = {name: world.comm.allgather(len(array)) for name, array in arrays.items()}

    def lay_out(temporary: Path) -> dict[str, int]:
        with h5py.File(temporary, "w", locking=False) as file:
            file.attrs.update(attributes)
            datasets = {
                name: contiguous(file, name, (sum(counts[name]), *array.shape[1:]), _kind(array.dtype))
                for name, array in arrays.items()
            }
            return {name: dataset.id.get_offset() or 0 for name, dataset in datasets.items()}

    def pieces(offsets: dict[str, int]) -> Iterator[Piece]:
        for name, array in arrays.items():
            row = array.dtype.itemsize * int(np.prod(array.shape[1:], dtype=np.int64))
            data = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
            yield offsets[name] + sum(counts[name][: world.rank]) * row, data

    return write_collectively(world, path, lay_out, pieces)


def write_parquet(world: World, path: Path, columns: Mapping[str, Column]) -> Path:
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
    table, temporary = arrow().table(_with_strings(world, to_arrow(world, columns))), temporary_of(path)
    ends = np.cumsum(world.comm.allgather(len(table))).tolist()
    before = ends[world.rank] - len(table)
    writer: Any = None
    try:
        with world.raise_on_all_ranks(Exception):
            writer = arrow("parquet").ParquetWriter(temporary, table.schema) if world.rank == 0 else None
        for first in range(0, ends[-1], GROUP_ROWS):
            begin, end = (min(max(row - before, 0), len(table)) for row in (first, first + GROUP_ROWS))
            parts = world.gather(_stream_of(table.slice(begin, end - begin)))
            with world.raise_on_all_ranks(Exception):
                if parts is not None:
                    group = arrow().concat_tables([arrow("ipc").open_stream(part).read_all() for part in parts])
                    writer.write_table(group.combine_chunks(), GROUP_ROWS)
        with world.raise_on_all_ranks(Exception):
            if world.rank == 0:
                writer.close()
                publish(temporary, path)
    except AnyrankError as refusal:
        with suppress(Exception):
            writer.close()
        if world.rank == 0:
            temporary.unlink(missing_ok=True)
        raise of_all_ranks(AnyrankError(f"{path} was not written: {refusal}")) from None
    return path


def _with_strings(world: World, columns: Mapping[str, Any]) -> dict[str, Any]:
    """Return columns with text as strings, where it is UTF-8 on all ranks. Collective."""
    pa, result = arrow(), dict(columns)
    for name, column in columns.items():
        if is_text(column.type):
            text = None
            with suppress(pa.ArrowInvalid):
                text = column.cast(pa.large_string())
            result[name] = text if world.all(text is not None) else column
    return result


def _stream_of(table: Any) -> Any:
    """Return the rows of a table as bytes; a pickled slice would have all rows."""
    sink = arrow().BufferOutputStream()
    with arrow("ipc").new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return sink.getvalue()


def _without_arrow(world: World, columns: Mapping[str, Any]) -> Columns:
    """Return columns for HDF5, with NAME_null beside columns with nulls that have no NaN. Collective.

    Times and decimals are text. Integers of 128 bits are int64 if all of them fit, and otherwise text.
    """
    pa = arrow()
    result = Columns()
    for name, column in columns.items():
        if not isinstance(column, pa.Array):
            result[name] = column
            continue
        type_ = column.type
        if pa.types.is_decimal(type_) and type_.scale == 0:
            words = np.asarray(values_of(column, type_).values)
            words = words[:, None] if words.ndim == 1 else words
            small = type_.precision <= NARROW or bool((words[:, -1] == words[:, 0] >> 63).all())
            type_ = pa.int64() if world.all(small) else pa.large_binary()
            column = column.cast(type_) if type_ == pa.int64() else cells_of(column).cast(type_)
        elif not (
            is_text(type_) or pa.types.is_floating(type_) or pa.types.is_integer(type_) or pa.types.is_boolean(type_)
        ):
            column = cells_of(column).cast(pa.large_binary())
        values = values_of(column, column.type)
        nulls = np.zeros(len(column), bool) if values.nulls is None else values.nulls
        floats = pa.types.is_floating(column.type)
        result[name] = np.where(nulls, np.nan, np.asarray(values.values)) if floats else values.values
        if not floats and not world.all(not nulls.any()):
            result[f"{name}_null"] = nulls
    return result


def _kind(dtype: np.dtype[Any]) -> Any:
    return h5py.string_dtype("utf-8", dtype.itemsize) if dtype.kind == "S" else dtype


def _array(world: World, name: str, column: Column) -> dict[str, np.ndarray]:
    if isinstance(column, np.ma.MaskedArray):
        return {name: np.ma.filled(column.astype(np.float64), np.nan)}
    if not isinstance(column, Text):
        return {name: column.astype(np.int64) if column.dtype.kind == "M" else column}
    ends = column.offsets[1:][column.sizes > 0] - 1
    if (column.data[ends] == 0).any():  # padding with zeros would remove them
        column = Text.of([_escape_zeros(text) for text in column.tolist()])
    longest = int(world.allreduce(np.array([column.sizes.max(initial=1)]), "max")[0])
    if longest > PADDED:
        return {name: column.data, f"{name}_size": column.sizes}
    rows = np.zeros((len(column), longest), np.uint8)
    rows[np.arange(longest) < column.sizes[:, None]] = column.data
    return {name: rows.view(f"S{longest}").reshape(-1)}


def _escape_zeros(text: bytes) -> bytes:
    kept = text.rstrip(b"\0")
    return kept + rb"\x00" * (len(text) - len(kept))
