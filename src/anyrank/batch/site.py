"""A site: what is the same for all jobs of a cluster, in ~/.config/anyrank/sites/NAME.toml."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import Field

from anyrank.declaration import Table
from anyrank.errors import UsageError
from anyrank.toml import read_toml
from anyrank.values import Count, Natural, matching

#: What may stand in a line that the scheduler reads: nothing that ends the line, or the word.
Plain = Annotated[str, matching(r"[\w.:@/+,=%-]*", "must be one word of letters, digits and .:@/+,=%-")]
#: A line that stands in a script as it is.
Line = Annotated[str, matching(r"[^\n\r]*", "must be one line")]
#: The name of a variable of the shell.
Variable = Annotated[str, matching(r"[A-Za-z_]\w*", "must be the name of a variable")]


class Site(Table):
    """What a cluster is like; every job's own flags win over it."""

    scheduler: Plain = ""
    #: The partition, or queue; who pays.
    partition: Plain = ""
    account: Plain = ""
    cores_per_node: Count | None = None
    gpus_per_node: Natural | None = None
    #: What starts the ranks instead of anyrank: `srun --mpi=pmi2`, `mpiexec -n {ranks} -ppn {ranks_per_node}`.
    launcher: Line = ""
    #: Environment modules to load, lines of shell, and variables for every job.
    modules: list[Line] = Field(default_factory=list)
    setup: list[Line] = Field(default_factory=list)
    environment: dict[Variable, str] = Field(default_factory=dict)
    #: More lines for the scheduler, as they are: `--constraint=rome`, `-l place=scatter`, `+ProjectName = "x"`.
    directives: list[Line] = Field(default_factory=list)
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
        found = read_toml(file)
    except (OSError, ValueError) as error:
        raise UsageError(f"--site {name or 'default'}: {file} cannot be read: {error}.") from None
    return Site.read(found, str(file))
