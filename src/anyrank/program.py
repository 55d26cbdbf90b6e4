"""Program: the parameters, the State and the steps that a user writes."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, get_type_hints

import pydantic

from anyrank.errors import UsageError
from anyrank.state import State
from anyrank.values import NONE, reader, refusal

#: A seed of random numbers is in [0, 2^64), as `Philox` says.
_SEED = {"ge": 0, "lt": 2**64}


@dataclass(frozen=True, eq=False)
class Parameter:
    """What `param` declares: a default, `...` if the value must be given; a description; bounds of numbers by name."""

    default: Any
    description: str
    bounds: Mapping[str, float]

    def over(self, inherited: Parameter | None) -> Parameter:
        """This declaration with the description and the bounds of an inherited one where it has none."""
        if inherited is None:
            return self
        return Parameter(self.default, self.description or inherited.description, {**inherited.bounds, **self.bounds})


def param(
    default: Any,
    description: str = "",
    *,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
) -> Any:
    """Declare a parameter of a Program: its flag, TOML key, checks and help come from it.

    The class's annotation gives the type: int, float, bool, str, Path, a Literal of texts or whole numbers, one of
    these `| None`, or a list of one. A subclass that declares an inherited parameter again, or only assigns a value
    (`steps = 500`), sets a new default; the type, the description and the bounds hold unless they are given again.

    Parameters
    ----------
    default
        The value if none is given, checked as every value is: infinities and NaN are refused. With `...` a value must
        be given.
    description
        What it is, with its unit, for `--help`.
    ge, gt, le, lt
        Bounds of a number, or of each number of a list: at least, greater than, at most, less than.

    Returns
    -------
    Any
        The declaration. On an instance of the program the attribute is the value.

    """
    bounds = {"ge": ge, "gt": gt, "le": le, "lt": lt}
    return Parameter(default, description, {name: bound for name, bound in bounds.items() if bound is not None})


class Program:
    """What a user writes: parameters, `declare`, `setup`, `step` and `result`.

    A subclass is a program; its name on the command line is the class's in lower case. All methods but
    `check` are called on all ranks together, so they may make collective calls.
    """

    name: ClassVar[str] = ""
    #: The number of steps: a parameter, or a property computed from parameters.
    steps: Any = 1
    #: Whether --halo-steps may be used: only `setup` and kernels write fields, and kernels write nothing but them.
    deep_halos: ClassVar[bool] = False
    #: Parameters that grow together with the ranks in a weak scaling study.
    grows: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        title, bases = cls.__name__.lower(), [base for base in cls.__mro__ if base is not Program]
        ours = [name for base in bases for name, value in vars(base).items() if isinstance(value, Parameter)]
        taken = [name for name in ours if name.startswith("_") or (name != "steps" and hasattr(Program, name))]
        if taken:
            what = "begins with _" if taken[0].startswith("_") else "is an attribute of every Program"
            raise TypeError(f"program {title}: parameter {taken[0]}: this name {what}. Please rename the parameter")
        cls.name = cls.__dict__.get("name", title)
        typed = {name for base in bases for name in inspect.get_annotations(base)}
        bare = [name for name in ours if name not in typed]
        if bare:
            raise TypeError(f"program {cls.name}: parameters {bare} need a type: {bare[0]}: int = param(…)")

    def __init__(self, **values: Any):
        for name, value in validate(type(self), values).items():
            setattr(self, name, value)
        self.check()

    @classmethod
    def declared(cls) -> dict[str, Parameter]:
        """The parameters by name, in the order of their declaration, base classes first."""
        found: dict[str, Parameter] = {}
        for base in reversed(cls.__mro__):
            for name, value in vars(base).items() if base is not Program else ():
                if isinstance(value, Parameter):
                    found[name] = value.over(found.get(name))
                elif name in found and (callable(value) or hasattr(value, "__get__")):
                    del found[name]  # a property or a method took its place
                elif name in found:
                    found[name] = replace(found[name], default=value)
        return found

    @property
    def parameters(self) -> dict[str, Any]:
        """Every parameter with its value as files keep it: with the seed among them, all that the result depends on."""
        return {name: _stored(getattr(self, name)) for name in self.declared()}

    def check(self) -> None:
        """Raise UsageError where parameters do not go together. Called before any work, on every rank."""

    def declare(self, state: State) -> None:
        """Declare the members of the state. Collective."""
        raise NotImplementedError(f"program {self.name} must declare its state")

    def setup(self, state: State) -> None:
        """Give the state its values at step 0, as functions of global indices. Collective."""

    def step(self, state: State) -> None:
        """Advance the state by one step; `state.step` counts the steps done before. Collective."""
        raise NotImplementedError(f"program {self.name} must define its step")

    def done(self, state: State) -> bool:
        """Whether the state is final; it must be the same on all ranks. Collective."""
        return bool(state.step >= self.steps)

    def result(self, state: State) -> Any:
        """What the run found, from the final state: values by name, one value, or None. Collective.

        Rank 0's are written as JSON. NumPy's numbers and arrays may be among them.
        """
        return {}

    def callbacks(self) -> Sequence[Any]:
        """Return the program's own callbacks, `anyrank.Callback` objects, the same kinds on all ranks. Collective."""
        return ()

    def work(self) -> tuple[float, str]:
        """How much one step does, and its unit in the plural, for the rate: one step, unless told."""
        return 1.0, "steps"

    def picture(self, state: State, folder: Path) -> Path | None:
        """Draw the final state into the folder; the file's path on rank 0, None without one. Collective."""
        return None

    @classmethod
    def summary(cls) -> str:
        """The first line of the docstring."""
        return (inspect.getdoc(cls) or cls.name).splitlines()[0]


def _stored(value: Any) -> Any:
    """The value as TOML and JSON have it: a path as text, None as a word."""
    if isinstance(value, list):
        return [_stored(one) for one in value]
    return NONE if value is None else str(value) if isinstance(value, Path) else value


def flag_of(name: str) -> str:
    """The command line's spelling of a parameter."""
    return "--" + name.replace("_", "-")


def validate(
    program: type[Program], values: Mapping[str, Any], spell: Callable[[str], str] = flag_of
) -> dict[str, Any]:
    """Every parameter's checked value, defaults filled in; raises UsageError that names each bad one.

    `spell` is how messages write a parameter's name before its value.
    """
    declared = program.declared()
    given = {name: values.get(name, info.default) for name, info in declared.items()}
    found, lines = _read(program, {name: value for name, value in given.items() if value is not ...}, spell)
    for name in (name for name, value in given.items() if value is ...):
        about = declared[name].description
        lines.append(f"{spell(name)} is required{about and f': {about}'}. Give it a value.")
    lines += [_unknown(program, name, value) for name, value in values.items() if name not in declared]
    if lines:
        raise UsageError(f"{program.name}: " + "\n".join(lines))
    return found


def check_declaration(program: type[Program]) -> None:
    """Raise UsageError where a parameter cannot be declared so, or may not have its own default."""
    try:
        defaults = {name: info.default for name, info in program.declared().items() if info.default is not ...}
        _, lines = _read(program, defaults, lambda name: f"default of {name} =")
    except TypeError as error:
        lines = [str(error)]
    if lines:
        raise UsageError(f"program {program.name}: " + "\n".join(lines))


def _read(
    program: type[Program], values: Mapping[str, Any], spell: Callable[[str], str]
) -> tuple[dict[str, Any], list[str]]:
    """The checked values, and a line for each that is refused."""
    readers, found, lines = _readers(program), {}, []  # type: ignore[arg-type]
    for name, value in values.items():
        try:
            found[name] = readers[name].validate_python(value)
        except pydantic.ValidationError as refused:
            error, info = refused.errors()[0], program.declared()[name]
            about = info.description and f" ({info.description})"
            example = info.default if isinstance(info.default, int | float) and value is not info.default else 1
            lines.append(refusal(error, f"{spell(name)} {error['input']}", spell(name), example, about))
    return found, lines


@cache  # type: ignore[arg-type]
def _readers(program: type[Program]) -> dict[str, pydantic.TypeAdapter[Any]]:
    """What reads each parameter's value. TypeError for a declaration that cannot be."""
    if dataclasses.is_dataclass(program):
        raise TypeError("it is a dataclass, which would replace what param() declares. Remove @dataclass.")
    try:
        hints = get_type_hints(program)
    except NameError as error:
        raise TypeError(f"the type of a parameter is unknown: {error}. Import it.") from None
    found = {}
    for name, info in program.declared().items():
        try:
            if name == "seed" and hints.get(name) is not int:
                raise TypeError("it is the seed of state.random and must be an int")
            bounds = {**(_SEED if name == "seed" else {}), **info.bounds}
            found[name] = pydantic.TypeAdapter(reader(hints.get(name), bounds))
        except TypeError as error:
            raise TypeError(f"parameter {name}: {error}.") from None
    return found


def _unknown(program: type[Program], name: str, value: Any) -> str:
    close = difflib.get_close_matches(name, program.declared(), 1)
    fix = f"Did you mean {flag_of(close[0])}?" if close else "They are " + ", ".join(program.declared()) + "."
    return f"{name} = {value!r} is not a parameter of {program.name}. {fix}"
