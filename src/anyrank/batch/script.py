"""Job scripts from templates; every value of the user is quoted."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

import anyrank.jobs
from anyrank.batch.request import Request
from anyrank.batch.site import Site, configuration
from anyrank.batch.study import StudyRun
from anyrank.errors import UsageError, as_ranges
from anyrank.runtime.options import option_words
from anyrank.runtime.user_files import split_source

#: The longest name of a job that all schedulers accept.
_LONGEST = 15


def render(template: str, site: Site, context: Mapping[str, Any]) -> str:
    """Render a template; UsageError if it cannot be read, or uses an undefined name.

    A template in the site's folder overrides one in the user's folder (~/.config/anyrank/jobs), which overrides ours.
    Both can extend ours as `anyrank/NAME`.
    """
    ours = jinja2.FileSystemLoader(list(anyrank.jobs.__path__))
    of_site = [str(Path(site.templates).expanduser())] if site.templates else []
    of_user = jinja2.FileSystemLoader([*of_site, str(configuration() / "jobs")])
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([of_user, ours, jinja2.PrefixLoader({"anyrank": ours})]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"sh": _quoted, "bound": _bound, "spans": as_ranges}
    environment.filters["words"] = lambda words: " ".join(map(_quoted, words))
    try:
        return environment.get_template(template).render(site=site, **context)
    except (jinja2.TemplateError, OSError) as error:
        where = getattr(error, "filename", None) or template
        raise UsageError(f"template {where} does not work: {error}. Fix it, or remove it to use ours.") from None


def _quoted(value: Any) -> str:
    """Quote a value as one word of bash on one line, because the lines of a script may be directives."""
    text = str(value)
    if text.isprintable():
        return shlex.quote(text)
    codes = "".join(
        f"\\x{byte:02x}" if not 32 <= byte < 127 or byte in b"\\'" else chr(byte) for byte in os.fsencode(text)
    )
    return f"$'{codes}'"


def _bound(path: Any) -> str:
    """Escape a path for Apptainer's --bind, in which a colon or a comma ends a path."""
    return re.sub("[:,]", r"\\\g<0>", str(path))


def context(
    member: StudyRun,
    requested: Request,
    folder: Path,
    cwd: Path,
    script: Path,
    points: Sequence[int],
    needs: Sequence[Path],
) -> dict[str, Any]:
    """Return the variables of the template of a run, or of an array of runs in `folder`; see jobs/README.md."""
    source = split_source(member.source or "")[0]
    return {
        "title": f"{'The runs of ' if points else ''}{job_name(folder.name)}",
        "job": requested.model_copy(update={"name": requested.name or job_name(folder.name)}),
        "cwd": cwd,
        "folder": folder,
        "points": list(points),
        "digits": len(member.name),
        "needs": list(needs),
        "script": script,
        "plain": re.fullmatch(r"[\w./+-]+", str(folder)) is not None,
        "python": Path(sys.executable),
        "program_file": Path(source).name if source.endswith(".py") else "",
        "launcher": _launcher(requested),
        "options": option_words(member.options),
        "command": list(member.command),
        "launches": member.command[:3] == ("anyrank", "scale", "resume"),
        "chained": requested.chain > 1,
    }


def job_name(text: str) -> str:
    """Convert a text to a job name: other characters become `_`."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", re.sub(r"^[^A-Za-z]+", "", text))[:_LONGEST] or "anyrank"


def _launcher(requested: Request) -> list[str]:
    """Return the words of the command that starts the ranks, with its placeholders replaced."""
    numbers = {"{ranks}": requested.size, "{ranks_per_node}": requested.slots, "{nodes}": requested.nodes}
    words = shlex.split(requested.launcher)
    for name, number in numbers.items():
        words = [word.replace(name, str(number)) for word in words]
    return words
