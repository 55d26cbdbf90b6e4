"""The files with the code of tasks: a resumed farm warns if one was edited after tasks were done."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterable
from pathlib import Path

from anyrank.provenance import file_hash
from anyrank.runtime.user_files import is_file, split_source
from anyrank.storage.durable import write_atomically
from anyrank.world import World

#: The file with the SHA-256 of each file, one for each version with which tasks were done.
KEPT = "code.json"


def note_code(sources: Iterable[str], folder: Path, done: int, world: World) -> None:
    """Note the files of functions and programs, and warn of those that have changed since tasks were done. Collective.

    Parameters
    ----------
    sources : iterable of str
        Functions and programs, FILE.py:NAME or FILE.py; all others are left out.
    folder : Path
        The folder for the file that keeps the hashes.
    done : int
        The number of tasks that are done.
    world : World
        The ranks.
    """
    files = dict.fromkeys(split_source(source)[0] for source in sources if is_file(source))
    world.on_root(lambda: _note(files, folder / KEPT, done))


def _note(files: Iterable[str], path: Path, done: int) -> None:
    known: dict[str, list[str]] = json.loads(path.read_text(encoding="utf-8")) if done and path.exists() else {}
    for file in files:
        now, versions = file_hash(Path(file)), known.setdefault(file, [])
        if others := [version for version in versions if version != now]:
            warning = (
                f"{file} has changed (SHA-256 {others[-1][:12]}, now {now[:12]}): {done} tasks that are done keep "
                "their values. If these would be others now, begin anew with another --out"
            )
            logging.getLogger("anyrank.rank0").warning("%s", warning)
            print(f"farm: warning: {warning}", file=sys.stderr, flush=True)
        if now not in versions:
            versions.append(now)
    write_atomically(path, json.dumps(known))
