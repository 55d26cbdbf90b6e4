"""A site: what is the same for all jobs of a cluster, in ~/.config/anyrank/sites/NAME.toml."""

from __future__ import annotations

import os
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated

import pydantic

from anyrank.errors import UsageError
from anyrank.toml import tomllib

#: What may stand in a line that the scheduler reads: nothing that ends the line, or the word.
Plain = Annotated[str, pydantic.StringConstraints(pattern=r"^[\w.:@/+,=%-]*$")]
#: A line that stands in a script as it is.
Line = Annotated[str, pydantic.StringConstraints(pattern=r"^[^\n\r]*$")]
#: The name of a variable of the shell.
Variable = Annotated[str, pydantic.StringConstraints(pattern=r"^[A-Za-z_]\w*$")]


class Site(pydantic.BaseModel):
    """What a cluster is like; every job's own flags win over it."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    scheduler: Plain = ""
    #: The partition, or queue; who pays.
    partition: Plain = ""
    account: Plain = ""
    cores_per_node: pydantic.PositiveInt | None = None
    gpus_per_node: pydantic.NonNegativeInt | None = None
    #: What starts the ranks instead of anyrank: `srun --mpi=pmi2`, `mpiexec -n {ranks} -ppn {ranks_per_node}`.
    launcher: Line = ""
    #: Environment modules to load, lines of shell, and variables for every job.
    modules: list[Line] = []
    setup: list[Line] = []
    environment: dict[Variable, str] = {}
    #: More lines for the scheduler, as they are: `--constraint=rome`, `-l place=scatter`, `+ProjectName = "x"`.
    directives: list[Line] = []
    #: A folder of templates that win over ours.
    templates: str = ""
    #: Where nodes unpack environments: a folder on their own disks, as the shell reads it.
    scratch: Line = "${TMPDIR:-/tmp}"
    image: str = ""
    pack: str = ""
    #: How containers are started.
    container: Line = "apptainer exec"


def configuration() -> Path:
    """The folder of the user's configuration."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "anyrank"


def load_site(name: str) -> Site:
    """The site of that name; without one, that in default.toml if there is one. Raises UsageError."""
    folder = configuration() / "sites"
    file = folder / f"{name or 'default'}.toml"
    if not name and not file.exists():
        return Site()
    if not file.is_file() or Path(name).name != name:
        there = ", ".join(sorted(path.stem for path in folder.glob("*.toml"))) or "none"
        raise UsageError(f"--site {name!r} is unknown: {file} does not exist. There are: {there}.")
    try:
        return Site(**tomllib.loads(file.read_text()))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"--site {name or 'default'}: {file} cannot be read: {error}.") from None
    except pydantic.ValidationError as refusal:
        raise UsageError(explain(refusal, f"{file}: ", Site)) from None


def explain(refusal: pydantic.ValidationError, where: str, model: type[pydantic.BaseModel]) -> str:
    """Every bad value of a file or of flags, one to a line: where it stands, its name, value, and the rule."""
    lines = []
    for error in refusal.errors():
        name = ".".join(str(part) for part in error["loc"])
        if error["type"] == "extra_forbidden":
            close = get_close_matches(name, model.model_fields, 1)
            fix = f"Did you mean {close[0]}?" if close else f"There are: {', '.join(model.model_fields)}."
            rule = f"is not known here. {fix}"
        else:
            rule = f"is wrong: {error['msg'][0].lower()}{error['msg'][1:]}."
        lines.append(f"{where}{name} = {error['input']!r} {rule}")
    return "\n".join(lines)
