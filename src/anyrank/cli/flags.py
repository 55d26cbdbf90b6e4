"""Command-line flags, made from declarations: the options of tables and the parameters of a program."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

import click

from anyrank.batch.request import Request, SubmitOptions
from anyrank.declaration import Settings
from anyrank.errors import UsageError
from anyrank.program import Parameter, Program, flag_of, validate
from anyrank.runtime.branch import inherited
from anyrank.runtime.options import RUN, Options, OutOptions
from anyrank.scaling.options import ScaleOptions
from anyrank.toml import read_toml
from anyrank.values import NONE, choices, is_list, is_truth, metavar
from anyrank.verify.options import VerifyOptions

#: The options of every verb that takes a program. A parameter with the name of any of these options has no flag, so
#: that a flag has the same meaning for all verbs.
VERBS: dict[str, tuple[type[Settings], ...]] = {
    "run": (OutOptions, Options),
    "submit": (Request, SubmitOptions),
    "verify": (VerifyOptions,),
    "scale": (ScaleOptions,),
}
PARAMETERS = "Parameters"
_BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


class Flag(click.Option):
    """A flag and its group in `--help`. Its value is None unless it is given."""

    def __init__(self, spellings: Iterable[str], group: str, **attributes: Any):
        super().__init__(list(spellings), default=None, **attributes)
        self.group = group


def option_flags(table: type[Settings], contexts: Iterable[str] = (), only: Iterable[str] = ()) -> list[Flag]:
    """Return the flags of a table's options: those that `contexts` allow, or only those named in `only`."""
    flags = []
    for name, info in table.model_fields.items():
        metadata, (*spellings, last) = table.metadata(name), table.flags(name)
        if set(contexts) & set(metadata.not_in) or (only and name not in only):
            continue
        default: Any = metadata.default_text or info.default
        attributes: dict[str, Any] = {"metavar": metavar(info.annotation)}
        if isinstance(info.default, bool):
            default, attributes = "", {"is_flag": True}
            last += f"/--no-{last[2:]}" if info.default else ""
        elif is_list(info.annotation):
            default, attributes = "", {"multiple": True}
        text = (info.description or "") + ("" if default in ("", None) else f"  [default: {default}]")
        flags.append(Flag([name, *spellings, last], metadata.group, help=text, **attributes))
    return flags


def parameter_flags() -> list[Flag]:
    """Return the flags of every command that takes parameters."""
    return [
        Flag(
            ["file", "--parameters"],
            PARAMETERS,
            metavar="FILE",
            help="Read parameters from a TOML file; flags override it.",
        ),
        Flag(
            ["assigned", "--set"],
            PARAMETERS,
            metavar="NAME=VALUE",
            multiple=True,
            help="Set any parameter, even one with the name of an option; may be repeated.",
        ),
    ]


@cache
def reserved_flags() -> dict[str, str]:
    """Return the flags that parameters cannot have, and the verbs that have them."""
    common = (spelling for flag in parameter_flags() for spelling in flag.opts)
    owners = dict.fromkeys(["--help", *common], "every verb")
    for verb, tables in VERBS.items():
        for flag in (flag for table in tables for flag in option_flags(table)):
            for spelling in flag.opts + flag.secondary_opts:
                owners.setdefault(spelling, f"anyrank {verb}")
    return owners


class Command(click.Command):
    """A command with the options of tables: its function gets each table, checked, by name."""

    def __init__(
        self,
        *arguments: Any,
        tables: Mapping[str, type[Settings]],
        contexts: Iterable[str] = (),
        only: Iterable[str] = (),
        **attributes: Any,
    ):
        super().__init__(*arguments, **attributes)
        self.tables = tables
        self.params += [flag for table in tables.values() for flag in option_flags(table, contexts, only)]

    def invoke(self, ctx: click.Context) -> Any:
        """Call the function with the tables."""
        for name, table in self.tables.items():
            given = {field: ctx.params.pop(field) for field in table.model_fields if field in ctx.params}
            given = {field: value for field, value in given.items() if value not in (None, ())}
            ctx.params[name] = self.table(table, given)
        return super().invoke(ctx)

    def table(self, table: type[Settings], values: dict[str, Any]) -> Settings:
        """Check the given values of a table."""
        return table(**values)

    def rows(self, ctx: click.Context) -> Iterator[tuple[str, tuple[str, str]]]:
        """Yield the rows of the help, each with its group."""
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record and record[1]:  # an argument has no text of its own
                yield getattr(param, "group", ""), record

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the flags in their groups; a flag without a group belongs to the last one."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for group, record in self.rows(ctx):
            groups.setdefault(group or [RUN, *groups][-1], []).append(record)
        for title, records in groups.items():
            with formatter.section(title):
                formatter.write_dl(records)


class ProgramCommand(Command):
    """A command with a program's parameters: its function gets all of them, checked, as `parameters`.

    A parameter has a flag, unless an option of any verb or another parameter has the same one; `--set` takes any.
    `recorded` are the values of a run: parameters that are not given keep them.
    """

    def __init__(
        self,
        *arguments: Any,
        program: type[Program],
        recorded: Mapping[str, Any] | None = None,
        **attributes: Any,
    ):
        super().__init__(*arguments, **attributes)
        self.program, self.kinds, self.recorded = program, get_type_hints(program), dict(recorded or {})
        #: For each parameter without a flag: the verb or parameter that has the flag.
        self.owners: dict[str, str] = {}
        own = (spelling for option in self.params for spelling in option.opts)
        seen, flags = dict.fromkeys(own, f"anyrank {self.name}") | reserved_flags(), []
        for name in program.declared():
            flag = self._flag(name)
            spellings = flag.opts + flag.secondary_opts
            if owner := next((seen[spelling] for spelling in spellings if spelling in seen), ""):
                self.owners[name] = owner
                flags += self._refused_flags(name) if flag_of(name) in reserved_flags() else []
            else:
                seen |= dict.fromkeys(spellings, f"parameter {name}")
                flags.append(flag)
        self.params = [*flags, *parameter_flags(), *self.params]
        if (argument := program._argument) and recorded is None:  # the argument of resume is the run
            self.params.insert(0, click.Argument(["argument"], required=False, metavar=f"[{argument.upper()}]"))

    def _flag(self, name: str, both: bool = True) -> Flag:
        """Return the flag of a parameter, which `rows` describes. `both` adds the --no- form of a boolean."""
        kind, flag = self.kinds[name], flag_of(name)
        if is_truth(kind):
            return Flag(
                [f"parameter_{name}", f"{flag}/--no-{flag[2:]}" if both else flag],
                PARAMETERS,
                hidden=True,
                is_flag=True,
            )
        return Flag([f"parameter_{name}", flag], PARAMETERS, hidden=True, multiple=is_list(kind))

    def _refused_flags(self, name: str) -> list[Flag]:
        """Return a flag to refuse, because an option and a parameter share it; none if this verb needs it."""
        flag = flag_of(name)
        for option in self.params:
            if flag in option.opts + option.secondary_opts:
                long_flags = [spelling for spelling in option.opts if spelling.startswith("--")]
                if flag not in option.opts or flag == long_flags[0]:
                    return []
                option.opts.remove(flag)
        return [self._flag(name, both=False)]

    def invoke(self, ctx: click.Context) -> Any:
        """Call the function with the tables and the parameters."""
        flags = {name: ctx.params.pop(f"parameter_{name}", None) for name in self.program.declared()}
        if (argument := ctx.params.pop("argument", None)) is not None:
            name = self.program._argument
            if flags.get(name) is not None:
                raise UsageError(f"{argument!r} and {flag_of(name)} {flags[name]} exclude each other. Omit one.")
            flags[name] = argument
        flags = {name: value for name, value in flags.items() if value not in (None, ())}
        if conflict := next((name for name in flags if name in self.owners), None):
            raise UsageError(f"{flag_of(conflict)} is not the parameter. {self._hint(conflict)}")
        origin = ctx.params.get("branch_from")
        values = self.recorded | (inherited(self.program, origin) if origin else {})
        values |= _from_file(ctx.params.pop("file")) | self._merge(flags, ctx.params.pop("assigned"))
        ctx.params["parameters"] = validate(self.program, values, self._spell)
        return super().invoke(ctx)

    def _merge(self, flags: Mapping[str, Any], assigned: Iterable[str]) -> dict[str, Any]:
        """Merge the values of flags and of `--set`; repeated values of a list are joined into one text."""
        given = {name: list(value) if isinstance(value, tuple) else [value] for name, value in flags.items()}
        for word in assigned:
            name, equals, value = word.partition("=")
            name = name.replace("-", "_")
            if not name or not equals:
                raise UsageError(
                    f"--set {word!r} must be NAME=VALUE. The names are: {', '.join(self.program.declared())}."
                )
            if name in flags:
                raise UsageError(f"--set {word}: {flag_of(name)} is given, too. Remove one of them.")
            given.setdefault(name, []).append(value)
        lists = {name for name in given if is_list(self.kinds.get(name))}
        return {name: ",".join(values) if name in lists else values[-1] for name, values in given.items()}

    def table(self, table: type[Settings], values: dict[str, Any]) -> Settings:
        """Check a table; if an option with the name of a parameter is refused, the error mentions both."""
        try:
            return super().table(table, values)
        except UsageError as error:
            hints = [self._hint(name) for name in self.owners if f"{flag_of(name)} " in str(error)]
            raise UsageError(" ".join([str(error), *hints])) from None

    def _hint(self, name: str) -> str:
        return (
            f"{flag_of(name)} belongs to {self.owners[name]}, and {self.program.name} has a parameter {name}: "
            f"use --set {name}=VALUE for that, or rename it."
        )

    def _spell(self, name: str) -> str:
        return f"{name} =" if name in self.owners else flag_of(name)

    def rows(self, ctx: click.Context) -> Iterator[tuple[str, tuple[str, str]]]:
        """Yield the rows of the help: first the parameters, in the order of their declaration."""
        for name, info in self.program.declared().items():
            kind, flag = self.kinds[name], flag_of(name)
            word = metavar(kind)
            usage = f"{flag} / --no-{flag[2:]}" if is_truth(kind) else f"{flag} {word}"
            yield PARAMETERS, (f"--set {name}={word}" if name in self.owners else usage, self._text(name, info))
        yield from super().rows(ctx)

    def _text(self, name: str, info: Parameter) -> str:
        allowed = choices(self.kinds[name])
        notes = [
            info.description,
            f"one of {', '.join(allowed)}" if allowed else "",
            ", ".join(f"{_BOUNDS[bound]} {value}" for bound, value in info.bounds.items()),
            f"{flag_of(name)} belongs to {self.owners[name]}" if name in self.owners else "",
        ]
        default = NONE if info.default is None else info.default
        if isinstance(default, list | tuple):
            default = ",".join(map(str, default))
        end = "" if default == "" else "  [required]" if default is ... else f"  [default: {default}]"
        return "; ".join(note for note in notes if note) + end


def _from_file(file: str | None) -> dict[str, Any]:
    """Read the parameters from a TOML file, or from its table `parameters`; UsageError if it cannot be read."""
    if file is None:
        return {}
    try:
        given = read_toml(Path(file))
    except (OSError, ValueError) as error:
        raise UsageError(f"--parameters {file!r} cannot be read: {error}. Give a TOML file of name = value.") from None
    nested = given.get("parameters")
    return nested if isinstance(nested, dict) else given
