"""Program: the parameters, the State and the steps that a user writes."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, get_args, get_type_hints

import pydantic
from pydantic.fields import FieldInfo

from anyrank.errors import UsageError
from anyrank.state import State

#: Names that the command line keeps for the run itself; a parameter may not take them.
RESERVED = frozenset(
    {"ranks", "threads", "bind", "out", "body", "split", "checkpoint_every", "checkpoint_io", "keep", "mtbf"}
    | {"stop_at", "hang_timeout", "check", "digests", "max_restarts", "min_ranks", "hosts", "chaos", "i_mean_it"}
    | {"halo_steps", "memory_limit"}
    | {"on", "site", "nodes", "ranks_per_node", "gpus_per_node", "memory", "warning", "partition", "account", "pack"}
    | {"image", "launcher", "max_attempts", "chain", "at_a_time", "dry_run", "directives"}
    | {"walltime", "json", "quiet", "picture", "parameters", "help", "quick", "junit", "timeout", "allow"}
    | {"repeat", "grow", "predict", "network"}
)


def param(
    default: Any,
    description: str,
    *,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
) -> Any:
    """A parameter of a Program, declared once: flag, TOML key, check and help come from it.

    The class's annotation gives its type: int, float, bool, str or a Literal of strings. `...` as the
    default makes it required. Numbers are checked against the bounds; infinities and NaN are refused.
    """
    return pydantic.Field(default, description=description, ge=ge, gt=gt, le=le, lt=lt)


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
        cls.name = cls.__dict__.get("name", cls.__name__.lower())
        typed = inspect.get_annotations(cls)
        bare = [name for name, value in vars(cls).items() if _is_param(value) and name not in typed]
        if bare:
            raise TypeError(f"program {cls.name}: parameters {bare} need a type: {bare[0]}: int = param(…)")
        taken = RESERVED & set(cls.declared())
        if taken:
            raise TypeError(f"program {cls.name}: {sorted(taken)} are options of every run; rename these parameters")

    def __init__(self, **values: Any):
        for name, value in validate(type(self), values).items():
            setattr(self, name, value)
        self.check()

    @classmethod
    def declared(cls) -> dict[str, FieldInfo]:
        """The parameters by name, in the order of their declaration, base classes first."""
        found: dict[str, FieldInfo] = {}
        for base in reversed(cls.__mro__):
            found |= {k: v for k, v in vars(base).items() if _is_param(v)}
        return found

    @property
    def parameters(self) -> dict[str, Any]:
        """Every parameter with its value: with the seed among them, all that the result depends on."""
        return {name: getattr(self, name) for name in self.declared()}

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

    def result(self, state: State) -> dict[str, Any]:
        """What the run found, as JSON types, from the final state. Collective."""
        return {}

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


def _is_param(value: Any) -> bool:
    return isinstance(value, FieldInfo)


def _number(value: Any) -> Any:
    """A truth value is no number, whatever Python says: as text, it is refused as one."""
    return str(value) if isinstance(value, bool) else value


def _whole(value: Any) -> Any:
    """Take 1e12 and 1_000_000 for whole numbers, as people write them."""
    if isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            return value
        if "e" in value.lower() and number.is_integer():
            return int(number)
    return _number(value)


_READERS = {int: _whole, float: _number}


@cache  # type: ignore[arg-type]
def _model(program: type[Program]) -> type[pydantic.BaseModel]:
    hints = get_type_hints(program)
    fields: dict[str, Any] = {}
    for name, info in program.declared().items():
        kind = hints.get(name, str)
        reader = _READERS.get(kind)
        fields[name] = (Annotated[kind, pydantic.BeforeValidator(reader)] if reader else kind, info)
    config = pydantic.ConfigDict(extra="forbid", allow_inf_nan=False)
    return pydantic.create_model(program.__name__, __config__=config, **fields)


def validate(program: type[Program], values: Mapping[str, Any]) -> dict[str, Any]:
    """Every parameter's checked value, defaults filled in; raises UsageError that names each bad one."""
    try:
        model = _model(program)(**values)  # type: ignore[arg-type]
    except pydantic.ValidationError as refusal:
        lines = [_explain(program, error) for error in refusal.errors()]
        raise UsageError(f"{program.name}: " + "\n".join(lines)) from None
    return {name: getattr(model, name) for name in program.declared()}


_RULES = {
    "greater_than_equal": ("must be at least {ge:g}", "Use {flag} {ge:g} or more."),
    "greater_than": ("must be greater than {gt:g}", "Use a number above {gt:g}."),
    "less_than_equal": ("must be at most {le:g}", "Use {flag} {le:g} or less."),
    "less_than": ("must be less than {lt:g}", "Use a number below {lt:g}."),
    "int": ("must be a whole number", "Write it in digits, such as {flag} {example}."),
    "float": ("must be a number", "Write it in digits, such as {flag} {example}."),
    "finite_number": ("must be finite", "Use an ordinary number, such as {flag} {example}."),
    "bool": ("must be true or false", "Use {flag} or its --no- form."),
    "literal_error": ("must be {expected}", "Use one of these."),
    "string": ("must be text", "Put it in quotes."),
}


def _explain(program: type[Program], error: Any) -> str:
    """One bad value: the name, the value, the rule, and a fix."""
    name = str(error["loc"][0])
    if error["type"] == "extra_forbidden":
        close = difflib.get_close_matches(name, program.declared(), 1)
        fix = f"Did you mean {flag_of(close[0])}?" if close else "They are " + ", ".join(program.declared()) + "."
        return f"{name} = {error['input']!r} is not a parameter of {program.name}. {fix}"
    info = program.declared()[name]
    if error["type"] == "missing":
        return f"{flag_of(name)} is required: {info.description}. Give it a value."
    rule, fix = _RULES.get(error["type"]) or _RULES.get(error["type"].split("_")[0], (error["msg"], "See --help."))
    words = {"flag": flag_of(name), "example": info.default, **error.get("ctx", {})}
    return f"{flag_of(name)} {error['input']} {rule.format(**words)} ({info.description}). {fix.format(**words)}"


def flag_of(name: str) -> str:
    """The command line's spelling of a parameter."""
    return "--" + name.replace("_", "-")


def choices(kind: Any) -> tuple[str, ...]:
    """The values of a Literal type, none for another."""
    return tuple(str(value) for value in get_args(kind))
