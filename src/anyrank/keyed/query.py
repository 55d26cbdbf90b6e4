"""Tables with a condition for their rows, and derived columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from anyrank.errors import UsageError
from anyrank.keyed.evaluate import evaluate, type_of
from anyrank.keyed.expressions import Expression
from anyrank.keyed.tables import TableFiles
from anyrank.keyed.tables.columns import ColumnSpec, similar
from anyrank.keyed.tables.source import Rows
from anyrank.keyed.types import arrow, is_text, name_of
from anyrank.keyed.values import Values
from anyrank.world import World


class Query(TableFiles):
    """Columns of the rows of table files that satisfy a condition. The constructor is collective.

    Parameters
    ----------
    names, wanted, world, **options
        See `TableFiles`. A wanted column may be one of those in `derived`.
    where : Expression or None
        The condition: rows for which it is false or null are left out.
    derived : mapping of str to Expression
        The derived columns by name. An expression may use those before it.

    Raises
    ------
    UsageError
        On all ranks, if a file or column cannot be read, or the types of an expression do not fit.
    """

    def __init__(
        self,
        names: str,
        wanted: Sequence[ColumnSpec],
        world: World,
        where: Expression | None,
        derived: Mapping[str, Expression],
        **options: Any,
    ):
        self.where, self.derived = where, derived
        # The last use of a column decides how its type is inferred; `any`, for which text will do, is the first.
        read = [*(ColumnSpec(name, role="operand") for _, name in self._operands()), *wanted]
        read = sorted([spec for spec in read if spec.column not in derived], key=lambda spec: spec.role != "any")
        super().__init__(names, read, world, **options)
        self.wanted = [*{(spec.label, spec.role): spec for spec in wanted}.values()]
        null = arrow().types.is_null
        #: The columns without a value in any file: they have no type of their own.
        self.valueless = {name for name in self.columns if all(null(file.types[name]) for file in self.files)}
        self.types = world.on_root(self._check_types)

    def nullable(self, label: str) -> bool:
        """See `TableFiles`."""
        return self._is_derived(label) or super().nullable(label)

    def empty_is_null(self, label: str) -> bool:
        """See `TableFiles`."""
        return not self._is_derived(label) and super().empty_is_null(label)

    def _is_derived(self, label: str) -> bool:
        return next(spec.column for spec in self.wanted if spec.label == label) in self.derived

    def _operands(self) -> list[tuple[Expression, str]]:
        """Return the columns of the files that expressions use, which are not derived before them."""
        expressions = [*self.derived.values(), *([self.where] if self.where else [])]
        return [(e, name) for k, e in enumerate(expressions) for name in e.names if name not in [*self.derived][:k]]

    def _check_names(self, given: Mapping[str, Any]) -> None:
        for file in self.files:
            for name in self.derived:
                if name in file.types:
                    raise UsageError(f"--let {name}: {file.path} has a column of this name. Use another name.")
            for expression, name in self._operands():
                if name not in file.types:
                    what, fix = f"is not a column of {file.path}", similar(name, file.types)
                    raise expression.error(expression.names[name], what, fix)
        super()._check_names(given)

    def _check_types(self) -> dict[str, Any]:
        """Return the types of the wanted columns. Raises UsageError if the types of an expression do not fit."""
        pa = arrow()
        columns = _Columns(self, Rows(self.paths[0], {n: pa.array([], type_) for n, type_ in self.columns.items()}))
        types = dict(self.columns)
        for name, expression in self.derived.items():
            types[name] = type_of(expression, columns, self.zone)
        if self.where and (type_ := type_of(self.where, columns, self.zone)) != pa.bool_():
            raise self.where.error(self.where.tree, f"is {name_of(type_)}, not a condition", "Compare it with a value.")
        return {spec.label: spec.type(types[spec.column]) for spec in self.wanted}

    def _requested(self, rows: Rows) -> dict[str, Values]:
        if self.where:
            kept = _Columns(self, rows).compute(self.where).fill_null(False).to_numpy(zero_copy_only=False)
            kept = kept if rows.wrong is None else kept & ~rows.wrong
            rows = rows if kept.all() else _Selection(rows, kept)
        columns = _Columns(self, rows)
        rows.columns |= {spec.column: columns[spec.column] for spec in self.wanted if spec.column in self.derived}
        return super()._requested(rows)


class _Selection(Rows):
    """Some of the rows of a file."""

    def __init__(self, rows: Rows, kept: np.ndarray):
        mask = arrow().array(kept)
        super().__init__(rows.path, {name: column.filter(mask) for name, column in rows.columns.items()})
        self._rows, self._numbers, self.empty_is_null = rows, np.flatnonzero(kept), rows.empty_is_null

    def where(self, row: int) -> str:
        """See `Rows`."""
        return self._rows.where(int(self._numbers[row]))


class _Columns(dict[str, Any]):
    """The columns of rows for expressions, by name; derived columns are computed on first use."""

    def __init__(self, query: Query, rows: Rows):
        super().__init__()
        self._query, self._rows, self._count = query, rows, len(next(iter(rows.columns.values())))

    def __missing__(self, name: str) -> Any:
        if name in self._query.derived:
            column = self.compute(self._query.derived[name])
        elif name in self._query.valueless:
            column = arrow().nulls(self._count)
        else:
            column = self._rows.columns[name]
            if is_text(column.type) and self._rows.empty_is_null:
                empty = arrow("compute").equal(column, b"")
                column = arrow("compute").if_else(empty, arrow().scalar(None, column.type), column)
        self[name] = column
        return column

    def compute(self, expression: Expression) -> Any:
        """Return the values of an expression. Raises UsageError for a row whose value cannot be computed."""
        try:
            return evaluate(expression, self, self._count, self._query.zone)
        except (arrow().ArrowInvalid, ValueError) as error:
            row, why = self._failing_row(expression, error)
            raise UsageError(
                f"{self._rows.where(row)}: {expression.option} {expression.source!r} cannot be computed: {why}. "
                "Correct the row, or use float(...) for numbers that do not fit."
            ) from None

    def _failing_row(self, expression: Expression, error: Exception) -> tuple[int, Exception]:
        """Return the first row whose value cannot be computed, and its error."""
        first, count = 0, self._count
        while count > 1:
            half = count // 2
            part = {name: self[name][first : first + half] for name in expression.names}
            try:
                evaluate(expression, part, half, self._query.zone)
                first, count = first + half, count - half
            except (arrow().ArrowInvalid, ValueError) as earlier:
                error, count = earlier, half
        return first, error
