"""Program: the parameters, the State and the steps that a user writes."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, get_args, get_origin, get_type_hints

import pydantic

from anyrank.errors import UsageError
from anyrank.parameter import Parameter, param
from anyrank.state import State
from anyrank.values import NONE, reader, refusal

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    S = TypeVar("S", bound=State, default=State)
else:
    from typing import TypeVar

    S = TypeVar("S")

__all__ = ["Parameter", "Program", "check_declaration", "flag_of", "param", "validate"]

#: A seed of random numbers is in [0, 2^64), as `Philox` says.
_SEED = {"ge": 0, "lt": 2**64}


class Program(Generic[S]):
    """The base class of programs: parameters, `declare`, `setup`, `step`, `observe` and `result`.

    A subclass is a program. Its name on the command line is the name of the class in lower case. All methods except
    `check` are called on all ranks, so that they may make collective calls. For a type checker, a subclass of
    `Program[Plate]` may name the members in `class Plate(State)`, such as `T: Field`; the run then creates a Plate.

    Parameters
    ----------
    **values
        The values of parameters by name. Defaults are used for the others.

    Raises
    ------
    UsageError
        If a value has the wrong type or is out of range, or there is no such parameter.

    Examples
    --------
    >>> class Decay(Program):
    ...     n: int = param(4, "number of cells", ge=1)
    ...     steps: int = param(3, "number of steps", ge=0)
    ...     def declare(self, state):
    ...         state.field("u", (self.n,))
    ...     def setup(self, state):
    ...         state.u[...] = 1.0
    ...     def step(self, state):
    ...         state.u[...] = state.u[...] / 2
    ...     def result(self, state):
    ...         return {"mean": exact.mean(state.u)}
    >>> run(Decay(n=8), out="runs/decay").result
    {'mean': 0.125}
    """

    name: ClassVar[str] = ""
    #: The number of steps: a parameter, or a property computed from parameters.
    steps: Any = 1
    #: Whether --halo-steps may be used: only `setup` and kernels write fields, and kernels write only fields.
    deep_halos: ClassVar[bool] = False
    #: Whether a run ends with an error when a Field has NaN or an infinity after a step, before a checkpoint has it.
    finite: ClassVar[bool] = False
    #: Whether a run may begin with the State of another one (--from): not if its steps write files, or are positions in
    #: an input.
    branchable: ClassVar[bool] = True
    #: Parameters that grow together with the ranks in a weak scaling study.
    grows: ClassVar[tuple[str, ...]] = ()
    #: The parameter that may be given on the command line without its flag, as an argument; empty: none.
    _argument: ClassVar[str] = ""
    #: The class of the State, from `Program[…]`.
    state_type: ClassVar[type[State]] = State

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        title, bases = cls.__name__.lower(), [base for base in cls.__mro__ if base is not Program]
        names = [name for base in bases for name, value in vars(base).items() if isinstance(value, Parameter)]
        invalid = [name for name in names if name.startswith("_") or (name != "steps" and hasattr(Program, name))]
        if invalid:
            reason = "begins with _" if invalid[0].startswith("_") else "is an attribute of every Program"
            raise TypeError(f"program {title}: parameter {invalid[0]}: this name {reason}. Please rename the parameter")
        cls.name = cls.__dict__.get("name", title)
        for base in cls.__dict__.get("__orig_bases__", ()):
            if get_origin(base) is Program and isinstance(get_args(base)[0], type):
                cls.state_type = get_args(base)[0]
        typed = {name for base in bases for name in inspect.get_annotations(base)}
        untyped = [name for name in names if name not in typed]
        if untyped:
            raise TypeError(f"program {cls.name}: parameters {untyped} need a type: {untyped[0]}: int = param(…)")

    def __init__(self, **values: Any):
        self._given = frozenset(values)
        for name, value in validate(type(self), values).items():
            setattr(self, name, value)
        self.check()

    @classmethod
    def declared(cls) -> dict[str, Parameter]:
        """Return the declarations of the parameters by name, in their order, base classes first."""
        parameters: dict[str, Parameter] = {}
        for base in reversed(cls.__mro__):
            for name, value in vars(base).items() if base is not Program else ():
                if isinstance(value, Parameter):
                    parameters[name] = value.over(parameters.get(name))
                elif name in parameters and (callable(value) or hasattr(value, "__get__")):
                    del parameters[name]  # a property or a method of a subclass replaces the parameter
                elif name in parameters:
                    parameters[name] = replace(parameters[name], default=value)
        return parameters

    @classmethod
    def extendable_parameters(cls) -> tuple[str, ...]:
        """Return the names of the parameters that `anyrank resume` may increase: see `param`."""
        kinds = get_type_hints(cls)
        return tuple(
            name
            for name, info in cls.declared().items()
            if (info.extendable if info.extendable is not None else name == "steps" and kinds[name] is int)
        )

    @property
    def parameters(self) -> dict[str, Any]:
        """The values of all parameters as in files; with the seed, the result depends only on them."""
        return {name: _stored(getattr(self, name)) for name in self.declared()}

    @property
    def given_parameters(self) -> dict[str, Any]:
        """The parameters that were given a value, by name (for the runtime)."""
        return {name: getattr(self, name) for name in self._given}

    def check(self) -> None:
        """Raise UsageError if parameters are inconsistent. Called on every rank before any work; not collective."""

    def _before_submission(self) -> None:
        """Raise UsageError for inputs that the run would refuse. Called once when a new run is submitted."""

    def declare(self, state: S) -> None:
        """Declare the members of the state. Collective.

        Parameters
        ----------
        state : State
            The new State, without members.
        """
        raise NotImplementedError(f"program {self.name} must declare its state")

    def setup(self, state: S) -> None:
        """Set the values of the state at step 0, as functions of global indices. Collective.

        Parameters
        ----------
        state : State
            The declared State, whose fields are zero.
        """

    def constants(self, state: S) -> None:
        """Set the values of the constants (`State.constant`), before `setup` and again at a resume. Collective.

        Parameters
        ----------
        state : State
            The declared State. At a resume its other members are restored.
        """

    def step(self, state: S) -> None:
        """Advance the state by one step. Collective.

        Parameters
        ----------
        state : State
            The State; `state.step` is the number of earlier steps.
        """
        raise NotImplementedError(f"program {self.name} must define its step")

    def observe(self, state: S) -> Mapping[str, Any]:
        """Return numbers that describe the state: one row of the run's time series. Collective.

        It is called at step 0, every `--observe-every` steps and after the last step. It reads the state and does not
        write to it.

        Parameters
        ----------
        state : State
            The State, after `setup` or a step.

        Returns
        -------
        mapping
            The columns of the row by name: a bool, int or float, or a short vector of them, of 64 bits at most. All
            ranks must return the same values, and every row the same names and types.
        """
        return {}

    def done(self, state: S) -> bool:
        """Return whether the state is final, the same on all ranks. Collective.

        Parameters
        ----------
        state : State
            The State, after `setup` or a step.
        """
        return bool(state.step >= self.steps)

    def result(self, state: S) -> Any:
        """Return the result of the run: values by name, one value, or None. Collective.

        The result of rank 0 is written as JSON. NumPy numbers and arrays are allowed.

        Parameters
        ----------
        state : State
            The final State.
        """
        return {}

    def callbacks(self) -> Sequence[Any]:
        """Return the program's callbacks, `anyrank.Callback` objects of the same types on all ranks. Collective."""
        return ()

    def work(self) -> tuple[float, str]:
        """Return the work of one step and its unit in the plural, for the rate; the default is one step."""
        return 1.0, "steps"

    def progress(self, state: S) -> tuple[int, int, str]:
        """Return what is done, the total or 0 if it is unknown, and the unit, for the display. Not collective.

        Parameters
        ----------
        state : State
            The State, after `setup` or a step.
        """
        return state.step, self.steps if isinstance(self.steps, int) else 0, "step"

    def picture(self, state: S, folder: Path) -> Path | None:
        """Return the path of a picture of the final state on rank 0, or None. Collective.

        Parameters
        ----------
        state : State
            The final State.
        folder : Path
            The folder for the file.
        """
        return None

    @classmethod
    def summary(cls) -> str:
        """Return the first line of the docstring."""
        return (inspect.getdoc(cls) or cls.name).splitlines()[0]


def _stored(value: Any) -> Any:
    """Return the value for TOML and JSON: a path as text, None as a word."""
    if isinstance(value, list):
        return [_stored(element) for element in value]
    return NONE if value is None else str(value) if isinstance(value, Path) else value


def flag_of(name: str) -> str:
    """Return the flag of a parameter on the command line."""
    return "--" + name.replace("_", "-")


def validate(
    program: type[Program[Any]], values: Mapping[str, Any], spell: Callable[[str], str] = flag_of
) -> dict[str, Any]:
    """Return the checked values of all parameters, with defaults; the UsageError names each invalid one.

    `spell` returns the text for the name of a parameter in messages, before its value.
    """
    declared = program.declared()
    given = {name: values.get(name, info.default) for name, info in declared.items()}
    checked, lines = _read(program, {name: value for name, value in given.items() if value is not ...}, spell)
    for name in (name for name, value in given.items() if value is ...):
        about = declared[name].description
        lines.append(f"{spell(name)} is required{about and f': {about}'}. Give it a value.")
    lines += [_unknown(program, name, value) for name, value in values.items() if name not in declared]
    if lines:
        raise UsageError(f"{program.name}: " + "\n".join(lines))
    return checked


def check_declaration(program: type[Program]) -> None:
    """Raise UsageError if the declaration of a parameter, or its default, is invalid."""
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
    """Return the checked values, and a line of the message for each invalid one."""
    readers, checked, lines = _readers(program), {}, []  # type: ignore[arg-type]
    for name, value in values.items():
        try:
            checked[name] = readers[name].validate_python(value)
        except pydantic.ValidationError as invalid:
            error, info = invalid.errors()[0], program.declared()[name]
            about = info.description and f" ({info.description})"
            example = info.default if isinstance(info.default, int | float) and value is not info.default else 1
            lines.append(refusal(error, f"{spell(name)} {error['input']}", spell(name), example, about))
    return checked, lines


@cache  # type: ignore[arg-type]
def _readers(program: type[Program]) -> dict[str, pydantic.TypeAdapter[Any]]:
    """Return the pydantic type of each parameter. Raises TypeError for an invalid declaration."""
    if dataclasses.is_dataclass(program):
        raise TypeError("it is a dataclass, which would replace what param() declares. Remove @dataclass.")
    try:
        hints = get_type_hints(program)
    except NameError as error:
        raise TypeError(f"the type of a parameter is unknown: {error}. Import it.") from None
    readers = {}
    for name, info in program.declared().items():
        try:
            if name == "seed" and hints.get(name) is not int:
                raise TypeError("it is the seed of state.random and must be an int")
            if info.extendable and hints.get(name) not in (int, float):
                raise TypeError("extendable=True is for a number, int or float")
            bounds = {**(_SEED if name == "seed" else {}), **info.bounds}
            readers[name] = pydantic.TypeAdapter(reader(hints.get(name), bounds))
        except TypeError as error:
            raise TypeError(f"parameter {name}: {error}.") from None
    return readers


def _unknown(program: type[Program], name: str, value: Any) -> str:
    close = difflib.get_close_matches(name, program.declared(), 1)
    fix = f"Did you mean {flag_of(close[0])}?" if close else "They are " + ", ".join(program.declared()) + "."
    return f"{name} = {value!r} is not a parameter of {program.name}. {fix}"
