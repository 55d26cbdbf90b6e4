"""Evaluation of expressions with pyarrow.compute: an array or a scalar for each node of the tree.

The types of all columns are known before the first row, so an expression is checked on columns without rows.

Nulls follow SQL: an operation on null is null, also `/`, `//` and `%` by zero; `and` and `or` have three values.
Integers and decimals are exact: a result that does not fit is an error. Those that meet a float64 are rounded to it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from datetime import time
from decimal import Decimal
from functools import reduce
from typing import Any

import numpy as np

from anyrank.keyed.cells import cells_of
from anyrank.keyed.expressions import HINT, Expression, Literal
from anyrank.keyed.tables.times import FUNCTIONS as TIMES
from anyrank.keyed.tables.times import component, is_time_like, times_of
from anyrank.keyed.types import arrow, canonical, is_number, is_text, is_time, name_of

#: The digits of decimal256, and of the decimals that operations take: a product of two has 2 · 37 + 1 digits.
_ALL_DIGITS, _DIGITS = 76, 37
_UNITS = ("s", "ms", "us", "ns")
_COMPARISONS = {
    ast.Eq: "equal",
    ast.NotEq: "not_equal",
    ast.Lt: "less",
    ast.LtE: "less_equal",
    ast.Gt: "greater",
    ast.GtE: "greater_equal",
}
_ARITHMETIC = {ast.Add: "add_checked", ast.Sub: "subtract_checked", ast.Mult: "multiply_checked"}
_DIVISIONS = {ast.Div: np.true_divide, ast.FloorDiv: np.floor_divide, ast.Mod: np.remainder}
_OF_NUMBERS = ("abs", "round", "floor", "ceil", "float")
_OF_TEXT = {"lower": "utf8_lower", "upper": "utf8_upper", "length": "utf8_length"}
FUNCTIONS = (*_OF_NUMBERS, *_OF_TEXT, *TIMES)


def evaluate(expression: Expression, columns: Mapping[str, Any], rows: int, zone: str = "") -> Any:
    """Return the values of an expression for columns with this number of rows, as an Arrow array.

    Raises ArrowInvalid or ValueError if the value of a row cannot be computed.
    """
    value = _typed(_Evaluation(expression, columns, zone).value(expression.tree), arrow().float64())
    return value if isinstance(value, arrow().Array) else arrow().repeat(value, rows)


def type_of(expression: Expression, columns: Mapping[str, Any], zone: str = "") -> Any:
    """Return the type of an expression, given columns without rows. Raises UsageError if the types do not fit."""
    pa = arrow()
    try:
        return evaluate(expression, columns, 0, zone).type
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError, RecursionError) as error:
        what = "is nested too deeply" if isinstance(error, RecursionError) else f"cannot be computed: {error}"
        raise expression.error(expression.tree, what, "Change it.") from None


class _Evaluation:
    """The evaluation of an expression for some rows: an array or a scalar of Arrow for each node."""

    def __init__(self, expression: Expression, columns: Mapping[str, Any], zone: str):
        self.expression, self.columns, self.zone = expression, columns, zone
        self.error, self.compute = expression.error, arrow("compute")

    def value(self, node: ast.expr) -> Any:
        """Return the value of a node."""
        value = self._operand(node)
        return self._scalar(node, value) if isinstance(value, Literal) else value

    def _operand(self, node: ast.expr) -> Any:
        """Return the value of a node; a constant remains a Literal, because its type depends on the other operand."""
        match node:
            case ast.Constant() | ast.Name():
                return self.expression.constant(node) or self.columns[self.expression.name_of(node)]
            case ast.UnaryOp(op=ast.Not()):
                return self.compute.invert(self._condition(node.operand))
            case ast.UnaryOp(op=ast.USub() | ast.UAdd()):
                return self._signed(node)
            case ast.BoolOp():
                call = self.compute.and_kleene if isinstance(node.op, ast.And) else self.compute.or_kleene
                return reduce(call, map(self._condition, node.values))
            case ast.Compare():
                return self._compare(node)
            case ast.BinOp() if type(node.op) in _ARITHMETIC:
                return self._arithmetic(node)
            case ast.BinOp() if type(node.op) in _DIVISIONS:
                return self._divide(node)
            case ast.Call(func=ast.Name(), args=[argument], keywords=[]):
                return self._call(node, self.expression.name_of(node.func), argument)
        raise self.error(node, "is not possible in an expression", HINT)

    def _signed(self, node: ast.UnaryOp) -> Any:
        value = self._operand(node.operand)
        minus = isinstance(node.op, ast.USub)
        if isinstance(value, Literal) and type(value.value) in (int, float):
            return Literal(-value.value, f"-{value.text}".removeprefix("--")) if minus else value
        number = self._number(node.operand, self.value(node.operand))
        if minus and arrow().types.is_uint64(number.type):
            number = number.cast(arrow().decimal128(38, 0))
        return self.compute.negate_checked(number) if minus else number

    def _scalar(self, node: ast.expr, literal: Literal, like: Any = None) -> Any:
        """Return a constant as a scalar, of a type that suits the type of the other operand."""
        pa, value = arrow(), literal.value
        if value is None:
            raise self.error(node, "has no type", "Use 'is None' and 'is not None'.")
        if isinstance(value, str):
            return self._text(node, value, like)
        if isinstance(value, bool) or (isinstance(value, float) and not pa.types.is_decimal(like or pa.null())):
            return pa.scalar(value)
        if like == pa.uint64() and 0 <= value < 2**64:
            return pa.scalar(value, like)
        if isinstance(value, int) and -(2**63) <= value < 2**63:
            return pa.scalar(value, pa.int64())
        number = Decimal(value) if isinstance(value, int) else Decimal(literal.text)
        _, digits, exponent = number.as_tuple()
        scale, zeros = max(-int(exponent), 0), max(int(exponent), 0)
        if (size := max(len(digits) + zeros, scale)) > _DIGITS:
            raise self.error(node, "has too many digits", f"At most {_DIGITS} are possible.")
        return pa.scalar(number if scale else Decimal(int(number)), pa.decimal256(size, scale))

    def _text(self, node: ast.expr, text: str, like: Any) -> Any:
        """Return text as a scalar; if the other operand is a time, as that time."""
        pa, t = arrow(), arrow().types
        try:
            if like is None or not (is_time(like) or t.is_time(like)):
                return pa.scalar(text.encode(), pa.large_binary())
            if t.is_time(like):
                return pa.scalar(time.fromisoformat(text), like)
            if t.is_date(like) and re.fullmatch(r"\d{4}-\d\d-\d\d", text):
                return pa.scalar(text).cast(pa.date32())
            unit = "ns" if re.search(r"\.\d{7}", text) else "us" if "." in text else "s"
            zone = "UTC" if re.search(r"[T ][0-9].*(Z|[+-][0-9]{2}(:?[0-9]{2})?)$", text) else None
            return pa.scalar(text).cast(pa.timestamp(unit, zone))
        except (pa.ArrowInvalid, ValueError):
            kind = "text in UTF-8" if like is None or is_text(like) else name_of(like)
            fix = "Write times as ISO 8601: '2024-01-31T10:00:00'."
            fix += " Times in ns are of the years 1678 to 2261." if re.search(r"\.\d{7}", text) else ""
            raise self.error(node, f"is not {kind}", fix) from None

    def _pair(self, left: ast.expr, right: ast.expr) -> tuple[Any, Any]:
        """Return the values of two operands; a constant has a type that suits the other operand."""
        first, second = self._operand(left), self._operand(right)
        if isinstance(first, Literal):
            first = self._scalar(left, first, None if isinstance(second, Literal) else second.type)
        if isinstance(second, Literal):
            second = self._scalar(right, second, first.type)
        return _typed(first, second.type), _typed(second, first.type)

    def _condition(self, node: ast.expr) -> Any:
        value = _typed(self.value(node), arrow().bool_())
        if not arrow().types.is_boolean(value.type):
            raise self.error(node, f"is {name_of(value.type)}, not a condition", "Compare it with a value.")
        return value

    def _number(self, node: ast.expr, value: Any) -> Any:
        value = _typed(value, arrow().float64())
        if not is_number(value.type) or arrow().types.is_boolean(value.type):
            raise self.error(node, f"is {name_of(value.type)}, not a number", "--types 'COLUMN=TYPE' sets that of CSV.")
        return value

    def _compare(self, node: ast.Compare) -> Any:
        """Return a comparison; a chain is true if all its parts are true."""
        operands = [node.left, *node.comparators]
        parts = zip(operands, node.ops, operands[1:], strict=False)
        return reduce(self.compute.and_kleene, [self._test(node, *part) for part in parts])

    def _test(self, node: ast.expr, left: ast.expr, operator: ast.cmpop, right: ast.expr) -> Any:
        if isinstance(operator, ast.Is | ast.IsNot):
            if self.expression.constant(right) != Literal(None, self.expression.name_of(right)):
                raise self.error(node, "compares by is", "Use 'is None' and 'is not None', and == for values.")
            value = self.value(left)
            return self.compute.is_null(value) if isinstance(operator, ast.Is) else self.compute.is_valid(value)
        if type(operator) not in _COMPARISONS:  # in, not in
            found = self._contained(node, left, right)
            return found if isinstance(operator, ast.In) else self.compute.invert(found)
        pair = self._common(node, *self._pair(left, right))
        return getattr(self.compute, _COMPARISONS[type(operator)])(*pair)

    def _contained(self, node: ast.expr, left: ast.expr, right: ast.expr) -> Any:
        """Return which values are in a list of constants; whether null is in it is not known."""
        pa, elements = arrow(), getattr(right, "elts", [])
        literals = [self._operand(element) for element in elements]
        if not literals or not all(isinstance(literal, Literal) for literal in literals):
            raise self.error(right, "is not a list of constants", "Write it as ['a', 'b'].")
        x = self.value(left)
        scalars = [self._scalar(element, y, x.type) for element, y in zip(elements, literals, strict=True)]
        x = _typed(x, scalars[0].type)
        if {scalar.type for scalar in scalars} == {x.type} <= {pa.int64(), pa.large_binary()} and isinstance(
            x, pa.Array
        ):
            found = self.compute.is_in(x, value_set=pa.array([scalar.as_py() for scalar in scalars], x.type))
            return self.compute.if_else(self.compute.is_null(x), pa.scalar(None, pa.bool_()), found)
        return reduce(self.compute.or_kleene, [self.compute.equal(*self._common(node, x, y)) for y in scalars])

    def _common(self, node: ast.expr, first: Any, second: Any) -> tuple[Any, Any]:
        """Return two values in a type that has the values of both."""
        pa, types = arrow(), (first.type, second.type)
        if types[0] == types[1]:
            return _typed(first, pa.bool_()), _typed(second, pa.bool_())
        if all(is_number(type_) and not pa.types.is_boolean(type_) for type_ in types):
            if any(pa.types.is_floating(type_) for type_ in types):
                return self._float(first), self._float(second)
            exact = pa.decimal256(_ALL_DIGITS, max(getattr(type_, "scale", 0) for type_ in types))
            return first.cast(exact), second.cast(exact)
        if all(map(is_time, types)):
            return _same_unit(*(x.cast(pa.timestamp(getattr(x.type, "unit", "s"))) for x in (first, second)))
        if all(map(pa.types.is_time, types)) or all(map(pa.types.is_duration, types)):
            return first, second
        names = " with ".join(map(name_of, types))
        raise self.error(node, f"compares {names}", "Use values of one type; --types 'COLUMN=TYPE' sets that of CSV.")

    def _float(self, number: Any) -> Any:
        """Return numbers as float64, rounded once; Arrow would round some decimals twice."""
        pa = arrow()
        number = number.cast(pa.large_string()) if pa.types.is_decimal(number.type) else number
        return self.compute.cast(number, pa.float64(), safe=False)

    def _numbers(self, node: ast.BinOp) -> tuple[Any, Any]:
        first, second = self._pair(node.left, node.right)
        return self._number(node.left, first), self._number(node.right, second)

    def _arithmetic(self, node: ast.BinOp) -> Any:
        pa, (first, second) = arrow(), self._numbers(node)
        call = getattr(self.compute, _ARITHMETIC[type(node.op)])
        if first.type == second.type == pa.int64():
            return call(first, second)
        if pa.types.is_floating(first.type) or pa.types.is_floating(second.type):
            return call(self._float(first), self._float(second))
        scales = [getattr(x.type, "scale", 0) for x in (first, second)]
        if (digits := sum(scales) if isinstance(node.op, ast.Mult) else max(scales)) > 38:
            raise self.error(node, f"has {digits} digits after the point", "At most 38 are possible. Use float(...).")
        result = call(*(x.cast(_decimal(x.type)) for x in (first, second)))
        return result.cast(canonical(pa.decimal128(min(result.type.precision, 38), result.type.scale)))

    def _divide(self, node: ast.BinOp) -> Any:
        """Return a quotient of floats, or a quotient or remainder rounded down, as in Python; by zero it is null."""
        pa, (first, second) = arrow(), self._numbers(node)
        types, operation = {first.type, second.type}, _DIVISIONS[type(node.op)]
        if isinstance(node.op, ast.Div) or pa.float64() in types:
            first, second = self._float(first), self._float(second)
        elif any(map(pa.types.is_decimal, types)):
            raise self.error(node, "divides decimals", "Use /, or float(...).")
        elif len(types) > 1:
            first, second = first.cast(pa.int64()), second.cast(pa.int64())
        rows = next((len(x) for x in (first, second) if isinstance(x, pa.Array)), None)
        arrays = [x if isinstance(x, pa.Array) else pa.repeat(x, 1 if rows is None else rows) for x in (first, second)]
        x, y = (array.fill_null(0).to_numpy() for array in arrays)  # a null divisor is 0, too
        nulls = arrays[0].is_null().to_numpy(zero_copy_only=False) | (y == 0)
        if x.dtype == np.int64 and ((x == -(2**63)) & (y == -1) & ~nulls).any():
            raise ValueError("overflow")
        with np.errstate(all="ignore"):
            result = pa.array(operation(x, np.where(nulls, np.ones(1, y.dtype), y)), mask=nulls)
        return result[0] if rows is None else result

    def _call(self, node: ast.Call, name: str, argument: ast.expr) -> Any:
        pa, value = arrow(), self.value(argument)
        if name in TIMES:
            if not is_time_like((value := _typed(value, pa.timestamp("s"))).type) or not isinstance(value, pa.Array):
                raise self.error(
                    argument, f"is {name_of(value.type)}, not a column of times", "Use ISO 8601 or Unix seconds."
                )
            times, wrong, hint = times_of(value, self.zone)
            if wrong.any():
                (text,) = cells_of(value[int(np.argmax(wrong)) :][:1]).to_pylist()
                raise ValueError(f"{text!r} is not a time. {hint}".rstrip(". "))
            return component(name, times, self.zone)
        if name in _OF_TEXT:
            if not is_text((value := _typed(value, pa.large_binary())).type):
                raise self.error(
                    argument, f"is {name_of(value.type)}, not text", "--types 'COLUMN=text' sets that of CSV."
                )
            result = getattr(self.compute, _OF_TEXT[name])(value.cast(pa.large_string()))
            return result.cast(pa.int64() if name == "length" else pa.large_binary())
        if name not in _OF_NUMBERS:
            raise self.error(node, "is not a known function", f"Use {', '.join(FUNCTIONS)} of one value.")
        number = self._number(argument, value)
        if name == "float":
            return self._float(number)
        if name == "abs":
            return self.compute.abs_checked(number)
        return number if pa.types.is_integer(number.type) else getattr(self.compute, name)(number)


def _typed(value: Any, type_: Any) -> Any:
    """Return a value in a type if it has none, because it is from a column without values."""
    return value.cast(type_) if arrow().types.is_null(value.type) else value


def _same_unit(first: Any, second: Any) -> tuple[Any, Any]:
    """Return timestamps in one unit; as decimals, if some of them have too many ticks of the unit for int64."""
    pa, unit = arrow(), max(first.type.unit, second.type.unit, key=_UNITS.index)
    try:
        return first.cast(pa.timestamp(unit)), second.cast(pa.timestamp(unit))
    except pa.ArrowInvalid:
        return _ticks(first, unit), _ticks(second, unit)


def _ticks(times: Any, unit: str) -> Any:
    """Return the numbers of a finer unit since 1970 as decimals."""
    pa = arrow()
    factor = pa.scalar(Decimal(10 ** (3 * (_UNITS.index(unit) - _UNITS.index(times.type.unit)))), pa.decimal128(10, 0))
    return arrow("compute").multiply(times.cast(pa.int64()).cast(pa.decimal128(19, 0)), factor)


def _decimal(type_: Any) -> Any:
    """Return the decimal type in which numbers of a type are added and multiplied."""
    pa = arrow()
    digits, scale = {pa.int64(): (19, 0), pa.uint64(): (20, 0)}.get(type_) or (type_.precision, type_.scale)
    return pa.decimal256(max(min(digits, _DIGITS), scale), scale)
