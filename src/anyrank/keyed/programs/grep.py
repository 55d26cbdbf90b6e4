"""Grep: count the occurrences of patterns in text files."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from anyrank.errors import UsageError
from anyrank.keyed.files import absolute, check_unchanged, fingerprint, with_stdin
from anyrank.keyed.patterns import Patterns
from anyrank.keyed.text import TextFiles
from anyrank.keyed.write import lines_of
from anyrank.program import Program, param
from anyrank.state import Field, State
from anyrank.storage.durable import write_atomically

LINES = b"\n"


class Grep(Program):
    """Count the occurrences of many patterns in text files, in one pass (Aho and Corasick 1975).

    Each count is equal to `grep -o PATTERN | wc -l` for that pattern alone: occurrences within lines that do not
    overlap, from left to right. Patterns are fixed text, not regular expressions. --words counts only whole words, as
    `grep -w`: no letter, digit, mark or `_` before or after. --ignore-case ignores case, as `grep -i`. Bytes that are
    not valid UTF-8 match nothing; invalid sequences are counted. The result is written to `counts.csv` in the run
    folder. A step counts one chunk; a rank counts the lines that begin in its part of the chunk.

        anyrank run grep -n 2 --files 'books/*.txt' --patterns love,war        about 1 s for 3 GB on 2 cores
    """

    branchable = False

    files: str = param(..., "files, folders and globs, separated by commas; - is standard input")
    patterns: str = param("", "patterns, separated by commas")
    patterns_file: str = param("", "a file with one pattern per line, instead of --patterns")
    words: bool = param(False, "count whole words only")
    ignore_case: bool = param(False, "ignore case")
    chunk: int = param(1 << 28, "bytes read in a step; a run can stop after each step", ge=1, lt=2**62)

    def check(self) -> None:
        """Make paths absolute, so that the run can be resumed in any folder; require one source of patterns."""
        self.files, self.patterns_file = absolute(self.files), absolute(self.patterns_file)
        if bool(self.patterns) == bool(self.patterns_file):
            raise UsageError("grep: give either --patterns or --patterns-file, not both and not neither.")

    def declare(self, state: State) -> None:
        """Declare the counts by pattern, the lines and invalid sequences so far, and hashes of the input."""
        names = state.world.on_root(partial(with_stdin, self.files, state.folder, ".txt"))
        self.text = TextFiles(names, state.world)
        self.names = state.world.on_root(self._names)
        self.matcher = Patterns(self.names, words=self.words, ignore_case=self.ignore_case)
        self.steps = self.text.chunks(self.chunk)
        state.field("counts", (len(self.names),), np.int64, description="occurrences by pattern", dims=("pattern",))
        state.scalar("lines", 0, description="lines so far")
        state.scalar("broken", 0, description="byte sequences so far that are not valid UTF-8")
        state.scalar("files", self.text.fingerprint, description="hash of the files' names and sizes")
        self.known = fingerprint(self.names)
        state.scalar("patterns", self.known, description="hash of the patterns")

    def _names(self) -> list[str]:
        if self.patterns:
            return self.patterns.split(",")
        try:
            return Path(self.patterns_file).read_text("utf-8-sig").removesuffix("\n").split("\n")
        except OSError as error:
            why = error.strerror
        except UnicodeDecodeError as error:
            why = f"byte {error.start} is not valid UTF-8"
        raise UsageError(
            f"--patterns-file {self.patterns_file} cannot be read ({why}). Name a UTF-8 file, one pattern per line."
        )

    def done(self, state: State) -> bool:
        """Return whether all chunks are counted. Raises UsageError if the input has changed."""
        self.text.check(state.files)
        check_unchanged("patterns", self.known, state.patterns)
        return bool(state.step >= self.steps)

    def step(self, state: State) -> None:
        """Count the patterns in this rank's lines of the chunk. Counts are integers, so their sum is exact."""
        field: Field = state.counts
        matcher, part = self.matcher, self.text.part(state.step, self.chunk)
        matcher.clear()
        for block in self.text.blocks(*part, LINES, whole=False, behind=matcher.behind, ahead=matcher.ahead):
            matcher.read(block)
        *counts, lines, broken = state.world.allreduce(
            np.array([*matcher.counts, matcher.lines, matcher.broken], np.int64)
        )
        field[...] += state.device.from_host(np.array(counts, np.int64)[field.layout.slices])
        state.lines += lines
        state.broken += broken

    def result(self, state: State) -> dict[str, Any]:
        """Return the counts by pattern in descending order, and the size of the input."""
        field: Field = state.counts
        counts = state.world.bcast(field.gather())
        assert counts is not None, "rank 0 gathers the whole field"
        order = sorted(zip(self.names, counts.tolist(), strict=True), key=lambda row: (-row[1], row[0]))
        table = lines_of([("pattern", "count"), *order])
        if (folder := state.folder) is not None:
            state.world.on_root(lambda: write_atomically(folder / "counts.csv", table))
        return {"counts": dict(order), "lines": state.lines, "bytes": self.text.size, "broken": state.broken}

    def work(self) -> tuple[float, str]:
        """Return the mean bytes per step, because the last chunk may be shorter; the chunk size without files."""
        return self.text.size / max(1, self.steps) if hasattr(self, "text") else float(self.chunk), "bytes"
