"""Input files: a run continues only with the content of the files that its parameters of type Path name."""

from __future__ import annotations

import json
from pathlib import Path

from anyrank.errors import UsageError
from anyrank.program import Program, flag_of
from anyrank.provenance import file_hash
from anyrank.runtime.folder import RunFolder
from anyrank.storage.durable import write_atomically


def record_inputs(program: Program, folder: RunFolder) -> None:
    """Write the SHA-256 of each input file into the run folder at the first start of the run. Not collective.

    The file lists regular files; folders, and files that do not exist yet, are never checked. Raises UsageError if an
    input file cannot be read, OSError if the run folder cannot be written.
    """
    inputs = _paths(program)
    if inputs and not folder.inputs.exists():
        hashes = {str(path): _hash(name, path) for path, name in inputs.items()}
        known = {path: digest for path, digest in hashes.items() if digest}
        write_atomically(folder.inputs, json.dumps(known, indent=2) + "\n")


def check_inputs(program: Program, folder: RunFolder) -> None:
    """Raise UsageError if an input file of a run that is not finished has changed or is gone. Not collective."""
    inputs = _paths(program)
    if not inputs or (folder.finished() is not None and not folder.extends(program.parameters)):
        return
    try:
        recorded = json.loads(folder.inputs.read_text(encoding="utf-8"))
        expected = {path: (name, recorded[str(path)]) for path, name in inputs.items() if str(path) in recorded}
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"{folder.inputs} cannot be read ({error}). Repair it, or use another --out.") from None
    for path, (name, old) in expected.items():
        new = _hash(name, path)
        if new != old:
            raise UsageError(
                f"{flag_of(name)} {path} {'has changed' if new else 'is gone'} since the run began: its SHA-256 was "
                f"{old} and is {new or 'missing'}. Give the original file, or start a new run with another --out."
            )


def _paths(program: Program) -> dict[Path, str]:
    """Return the paths among the values of the parameters, with the name of the parameter."""
    values = {name: getattr(program, name) for name in program.declared()}
    lists = {name: value if isinstance(value, list) else [value] for name, value in values.items()}
    return {path: name for name, paths in lists.items() for path in paths if isinstance(path, Path)}


def _hash(name: str, path: Path) -> str:
    """Return the hash of a regular file, an empty text for anything else."""
    try:
        return file_hash(path) if path.is_file() else ""
    except OSError as error:
        raise UsageError(f"{flag_of(name)} {path} cannot be read ({error.strerror}). Give a readable file.") from None
