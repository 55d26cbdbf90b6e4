"""A site: the common settings for all jobs of a cluster, in ~/.config/anyrank/sites/NAME.toml."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import Field

from anyrank.declaration import Settings
from anyrank.errors import UsageError
from anyrank.toml import read_toml
from anyrank.values import Count, Natural, matching

#: A word in a line that the scheduler reads: no white space and no special characters.
Plain = Annotated[str, matching(r"[\w.:@/+,=%-]*", "must be one word of letters, digits and .:@/+,=%-")]
#: A line that is written into a script unchanged.
Line = Annotated[str, matching(r"[^\n\r]*", "must be one line")]
#: The name of a shell variable.
Variable = Annotated[str, matching(r"[A-Za-z_]\w*", "must be the name of a variable")]


class Site(Settings):
    """The settings of a cluster; the flags of a job override them."""

    scheduler: Plain = ""
    #: The partition or queue, and the account to charge.
    partition: Plain = ""
    account: Plain = ""
    cores_per_node: Count | None = None
    gpus_per_node: Natural | None = None
    #: The command that starts the ranks instead of anyrank: `srun --mpi=pmi2`, `mpiexec -n {ranks}`.
    launcher: Line = ""
    #: Environment modules to load, lines of shell, and variables for every job.
    modules: list[Line] = Field(default_factory=list)
    setup: list[Line] = Field(default_factory=list)
    environment: dict[Variable, str] = Field(default_factory=dict)
    #: Additional lines for the scheduler, unchanged: `--constraint=rome`, `-l place=scatter`, `+ProjectName = "x"`.
    directives: list[Line] = Field(default_factory=list)
    #: A folder of templates that override ours.
    templates: str = ""
    #: The folder on the nodes' own disks for unpacked environments; the shell expands it.
    scratch: Line = "${TMPDIR:-/tmp}"
    image: str = ""
    pack: str = ""
    #: The command that starts containers.
    container: Line = "apptainer exec"


def configuration() -> Path:
    """Return the folder of the user's configuration."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "anyrank"


def load_site(name: str) -> Site:
    """Read the site with this name; without a name, default.toml if it exists. Raises UsageError."""
    folder = configuration() / "sites"
    file = folder / f"{name or 'default'}.toml"
    if not name and not file.exists():
        return Site()
    if not file.is_file() or Path(name).name != name:
        names = ", ".join(sorted(path.stem for path in folder.glob("*.toml"))) or "none"
        raise UsageError(f"--site {name!r} is unknown: {file} does not exist. Existing sites: {names}.")
    try:
        content = read_toml(file)
    except (OSError, ValueError) as error:
        raise UsageError(f"--site {name or 'default'}: {file} cannot be read: {error}.") from None
    return Site.read(content, str(file))
