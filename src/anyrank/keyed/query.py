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
        #: Rows read so far by this rank that the condition removed.
        self.removed = 0
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
            types[name] = self._type_of(expression, columns)
        if self.where and (type_ := self._type_of(self.where, columns)) != pa.bool_():
            raise self.where.error(self.where.tree, f"is {name_of(type_)}, not a condition", "Compare it with a value.")
        return {spec.label: spec.type(types[spec.column]) for spec in self.wanted}

    def _type_of(self, expression: Expression, columns: Mapping[str, Any]) -> Any:
        """Return the type of an expression. The UsageError says if numbers have another decimal mark."""
        try:
            return type_of(expression, columns, self.zone)
        except UsageError as error:
            marks = {name: self._decimal_mark(name) for name in expression.names if name not in self.derived}
            fixes = [f" Use {mark} if this is the decimal mark of {name}." for name, mark in marks.items() if mark]
            raise UsageError(f"{error}{''.join(fixes)}") from None

    def _requested(self, rows: Rows) -> dict[str, Values]:
        if self.where:
            kept = _Columns(self, rows).compute(self.where).fill_null(False).to_numpy(zero_copy_only=False)
            wrong = np.zeros(len(kept), bool) if rows.wrong is None else rows.wrong
            self.removed += int(np.count_nonzero(~kept & ~wrong))
            kept = kept & ~wrong
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
        """Return the values of an expression. A row whose value cannot be computed is bad: it raises UsageError."""
        try:
            return evaluate(expression, self, self._count, self._query.zone)
        except (arrow().ArrowInvalid, ValueError) as error:
            row, why = self._failing_row(expression, error)
        what = f"{self._rows.where(row)}: {expression.option} {expression.source!r} cannot be computed: {why}"
        if not self._query.bad.skip:
            raise UsageError(
                f"{what}. Correct the row, or use float(...) for numbers that do not fit, or --on-bad skip to skip and "
                "count such rows."
            )
        values, wrong = self._computable(expression, 0, self._count)
        self._rows.drop(wrong, self._query.bad, lambda: what)
        return values

    def _evaluate_part(self, expression: Expression, first: int, count: int) -> Any:
        part = {name: self[name][first : first + count] for name in expression.names}
        return evaluate(expression, part, count, self._query.zone)

    def _computable(self, expression: Expression, first: int, count: int) -> tuple[Any, np.ndarray]:
        """Return the values of some rows, null where they cannot be computed, and a mask of these."""
        try:
            return self._evaluate_part(expression, first, count), np.zeros(count, bool)
        except (arrow().ArrowInvalid, ValueError):
            if count == 1:
                return arrow().nulls(1, self._evaluate_part(expression, 0, 0).type), np.ones(1, bool)
        parts = [self._computable(expression, first, count // 2)]
        parts.append(self._computable(expression, first + count // 2, count - count // 2))
        return arrow().concat_arrays([values for values, _ in parts]), np.concatenate([wrong for _, wrong in parts])

    def _failing_row(self, expression: Expression, error: Exception) -> tuple[int, Exception]:
        """Return the first row whose value cannot be computed, and its error."""
        first, count = 0, self._count
        while count > 1:
            half = count // 2
            try:
                self._evaluate_part(expression, first, half)
                first, count = first + half, count - half
            except (arrow().ArrowInvalid, ValueError) as earlier:
                error, count = earlier, half
        return first, error
