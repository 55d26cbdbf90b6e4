"""The signatures of the functions of a CUDA C source, and a check of the arguments of a launch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from anyrank.errors import UsageError

#: The NumPy dtype of each C type that a parameter may have or point to.
TYPES: dict[str, np.dtype[Any]] = {
    "bool": np.dtype(np.bool_),
    "char": np.dtype(np.int8),
    "signed char": np.dtype(np.int8),
    "unsigned char": np.dtype(np.uint8),
    "short": np.dtype(np.int16),
    "unsigned short": np.dtype(np.uint16),
    "int": np.dtype(np.int32),
    "unsigned int": np.dtype(np.uint32),
    "unsigned": np.dtype(np.uint32),
    "long long": np.dtype(np.int64),
    "unsigned long long": np.dtype(np.uint64),
    "float": np.dtype(np.float32),
    "double": np.dtype(np.float64),
}
_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_FUNCTION = re.compile(
    r'extern\s+"C"\s+__global__\s+(?:__launch_bounds__\s*\([^)]*\)\s*)?void\s+'
    r"(?:__launch_bounds__\s*\([^)]*\)\s*)?(\w+)\s*\(([^)]*)\)"
)
_PARAMETER = re.compile(r"(?P<type>[\w ]+?)\s*(?P<star>\*?)\s*(?:__restrict__\s*)?\b(?P<name>\w+)")


@dataclass(frozen=True)
class Parameter:
    """One parameter of a CUDA function: `c` is its C type, or the type that it points to."""

    name: str
    c: str
    pointer: bool
    const: bool

    @property
    def dtype(self) -> np.dtype[Any]:
        """The NumPy dtype of a scalar argument, or of the elements of an array."""
        return TYPES[self.c]

    def mismatch(self, argument: Any) -> str:
        """Return a description of the required argument if this one does not match it, else an empty string."""
        dtype = getattr(argument, "dtype", None)
        scalar = isinstance(argument, np.generic)
        if self.pointer and (scalar or dtype != self.dtype or not hasattr(argument, "strides")):
            return f"an array of {self.dtype}"
        if self.pointer and not self.const and isinstance(argument, np.ndarray) and not argument.flags.writeable:
            return f"an array of {self.dtype} that may be written to"
        if not self.pointer and not (scalar and dtype == self.dtype):
            return f"a NumPy scalar of type {self.dtype}"
        return ""

    def __str__(self) -> str:
        return f"{'const ' * self.const}{self.c}{'*' * self.pointer} {self.name}"


@dataclass(frozen=True)
class Signature:
    """One `extern "C" __global__` function."""

    name: str
    parameters: tuple[Parameter, ...]

    def check(self, arguments: tuple[Any, ...]) -> None:
        """Raise TypeError unless the number and types of the arguments are those that the function declares.

        CUDA does not check types: a wrong argument would give wrong results instead of an error.
        """
        if len(arguments) != len(self.parameters):
            declared = ", ".join(map(str, self.parameters))
            raise TypeError(f"{self.name}({declared}) takes {len(self.parameters)} arguments, not {len(arguments)}")
        for number, (parameter, argument) in enumerate(zip(self.parameters, arguments, strict=True), 1):
            if required := parameter.mismatch(argument):
                raise TypeError(
                    f"{self.name}: argument {number}, `{parameter}`, must be {required}, not {_describe(argument)}"
                )


def _describe(argument: Any) -> str:
    if isinstance(argument, np.ndarray):
        return f"{'a' if argument.flags.writeable else 'a read-only'} NumPy array of {argument.dtype}"
    if isinstance(argument, np.generic):
        return f"{argument.dtype} {argument!s}"
    return f"{type(argument).__name__} {argument!r}"


def signatures(source: Path) -> dict[str, Signature]:
    """Return the `__global__` functions of a CUDA C source by name; raises UsageError for an unsupported type."""
    return signatures_in(source.read_text(encoding="utf-8"), str(source))


def signatures_in(code: str, source: str) -> dict[str, Signature]:
    """Return the `__global__` functions of CUDA C code by name; `source` is the name of the code in messages."""
    functions = {}
    for name, parameters in _FUNCTION.findall(_COMMENT.sub(" ", code)):
        words = [text.strip() for text in parameters.split(",") if text.strip()]
        functions[name] = Signature(name, tuple(_parameter(source, name, text) for text in words))
    return functions


def _parameter(source: str, function: str, text: str) -> Parameter:
    match = _PARAMETER.fullmatch(" ".join(text.split()))
    words = match["type"].split() if match else []
    c = " ".join(word for word in words if word != "const")
    if match is None or c not in TYPES:
        raise UsageError(
            f"{source}: {function}: parameter `{text}` has a type that cannot be passed. Use "
            f"{', '.join(TYPES)}, or a pointer to one of them, and a name."
        )
    return Parameter(match["name"], c, bool(match["star"]), "const" in words)


def signature_of(functions: dict[str, Signature], name: str, source: Path) -> Signature:
    """Return the signature of the function; raises UsageError, which lists all functions, if there is none."""
    if name not in functions:
        raise UsageError(f'{source}: no extern "C" __global__ function {name}; there are {sorted(functions)}.')
    return functions[name]
