"""How often patterns occur in text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from anyrank.errors import UsageError
from anyrank.keyed.files import absolute, check_unchanged, fingerprint
from anyrank.keyed.patterns import Patterns
from anyrank.keyed.text import TextFiles
from anyrank.keyed.write import lines_of
from anyrank.program import Program, param
from anyrank.state import Field, State
from anyrank.storage.durable import write_atomically

LINES = b"\n"


class Grep(Program):
    """How often each of many patterns occurs in text, in one pass (Aho and Corasick 1975).

    For each pattern alone it is what `grep -o PATTERN | wc -l` gives: the occurrences in lines of UTF-8 that do not
    overlap, from left to right. Patterns are text, not expressions. With --words, as `grep -w`, they count where no
    letter, digit, mark or `_` touches them, with --ignore-case, as `grep -i`, in upper and lower case. Text that is
    no UTF-8 is passed over, and its broken sequences are counted. The run folder gets `counts.csv`. A step counts one
    chunk; the lines that begin in a rank's part of it are that rank's.

        anyrank run grep -n 2 --files 'books/*.txt' --patterns love,war        about 1 s for 3 GB on 2 cores
    """

    files: str = param(..., "files, folders and globs, joined by commas")
    patterns: str = param("", "what to count, joined by commas")
    patterns_file: str = param("", "a file with a pattern in each line, instead of --patterns")
    words: bool = param(False, "count whole words only")
    ignore_case: bool = param(False, "take upper and lower case for the same")
    chunk: int = param(1 << 28, "bytes read between two chances to stop", ge=1, lt=2**62)

    def check(self) -> None:
        """One of both ways to give patterns; files are found from wherever the run is resumed."""
        self.files, self.patterns_file = absolute(self.files), absolute(self.patterns_file)
        if bool(self.patterns) == bool(self.patterns_file):
            raise UsageError("grep: give either --patterns or --patterns-file: patterns in one text, or one in a line.")

    def declare(self, state: State) -> None:
        """The counts by pattern, and what was seen of the text so far."""
        self.text = TextFiles(self.files, state.world)
        self.names = state.world.on_root(self._names)
        self.matcher = Patterns(self.names, words=self.words, ignore_case=self.ignore_case)
        self.steps = self.text.chunks(self.chunk)
        state.field("counts", (len(self.names),), np.int64, description="occurrences by pattern", dims=("pattern",))
        state.scalar("lines", 0, description="lines so far")
        state.scalar("broken", 0, description="byte sequences that are no UTF-8 so far")
        state.scalar("files", self.text.fingerprint, description="tells other files")
        self.known = fingerprint(self.names)
        state.scalar("patterns", self.known, description="tells other patterns")

    def _names(self) -> list[str]:
        if self.patterns:
            return self.patterns.split(",")
        try:
            return Path(self.patterns_file).read_text("utf-8-sig").removesuffix("\n").split("\n")
        except OSError as error:
            why = error.strerror
        except UnicodeDecodeError as error:
            why = f"byte {error.start} is no UTF-8"
        raise UsageError(
            f"--patterns-file {self.patterns_file} cannot be read ({why}). Name a text, a pattern in a line."
        )

    def done(self, state: State) -> bool:
        """Whether all chunks are counted. Raises UsageError where the input is not what it was."""
        self.text.check(state.files)
        check_unchanged("patterns", self.known, state.patterns)
        return bool(state.step >= self.steps)

    def step(self, state: State) -> None:
        """Count this rank's lines of the chunk; all ranks' counts are whole numbers, so they add exactly."""
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
        """The patterns with their counts, most first, and what was read."""
        field: Field = state.counts
        counts = state.world.bcast(field.gather())
        assert counts is not None, "rank 0 has the whole of it"
        order = sorted(zip(self.names, counts.tolist(), strict=True), key=lambda row: (-row[1], row[0]))
        table = lines_of([("pattern", "count"), *order])
        if (folder := state.folder) is not None:
            state.world.on_root(lambda: write_atomically(folder / "counts.csv", table))
        return {"counts": dict(order), "lines": state.lines, "bytes": self.text.size, "broken": state.broken}

    def work(self) -> tuple[float, str]:
        """A chunk; on average, as the last one may be shorter, once the files are known."""
        return self.text.size / max(1, self.steps) if hasattr(self, "text") else float(self.chunk), "bytes"
