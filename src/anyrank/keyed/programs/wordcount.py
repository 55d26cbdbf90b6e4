"""Word count: how often each word of texts comes."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from anyrank.kernel import Kernel
from anyrank.keyed.files import absolute
from anyrank.keyed.order import head, ordered
from anyrank.keyed.table import Table
from anyrank.keyed.text import TextFiles
from anyrank.keyed.words import Words
from anyrank.keyed.write import write_csv, write_hdf5
from anyrank.program import Program, param
from anyrank.state import State

BROKEN = Kernel("patterns", "broken")
#: The bytes of text that a rank reads between two looks at its memory, as a part of its budget: one in so many.
SHARE = 32


class WordCount(Program):
    """How often each word of texts comes: the files' bytes are split between the ranks, the words by their hashes.

    Words are what white space separates, or, by --rule unicode, runs of letters, digits, marks and _; with --fold
    their case is folded. Bytes that are no UTF-8 stay as they are in their words, and are counted. A step counts a
    chunk of the files' bytes; a run that was stopped goes on at the next chunk. words.csv and words.h5 in the run
    folder have all words by their count, the most frequent first, and by their bytes where they come equally often.

        anyrank run wordcount -n 4 --files 'books/*.txt'          about 0.3 GB a second and rank
    """

    files: str = param(..., "files, folders and globs, joined by commas")
    rule: Literal["space", "unicode"] = param("space", "what is a word: between white space, or Unicode's characters")
    fold: bool = param(False, "fold the case of words")
    chunk: int = param(1 << 30, "bytes of text between two chances to stop", ge=1)
    top: int = param(10, "words that the result shows, the most frequent ones", ge=0)

    def check(self) -> None:
        """Files are counts from wherever the run is resumed."""
        self.files = absolute(self.files)

    def declare(self, state: State) -> None:
        """The table of words, and how many words and bytes that are no UTF-8 there were."""
        self.text = TextFiles(self.files, state.world)
        self.steps = self.text.chunks(self.chunk)
        description = "words and how often they came"
        state.add(Table("words", state.world, {"word": "text"}, description=description))
        state.scalar("total", 0, description="words counted so far")
        state.scalar("broken", 0, description="sequences of bytes that are no UTF-8")
        state.scalar("input", self.text.fingerprint, description="hash of the files' names and sizes")

    def done(self, state: State) -> bool:
        """Whether all chunks are counted. Raises UsageError where the files are not what they were."""
        self.text.check(state.input)
        return bool(state.step >= self.steps)

    def step(self, state: State) -> None:
        """Count this rank's part of the chunk, some bytes at a time where there is little memory."""
        begin, end = self.text.part(state.step, self.chunk)
        budget, words, counts = state.budget(), Words(state.words, self.rule, self.fold), np.zeros(2, np.int64)
        for low, high in self.text.rounds(begin, end, budget // SHARE):
            for block in self.text.blocks(low, high):
                counts += words.read([block]), BROKEN(block.buffer, block.start, block.stop)
            state.words.keep_within(budget)
        total, broken = state.world.allreduce(counts).tolist()
        state.total += total
        state.broken += broken

    def result(self, state: State) -> dict[str, Any]:
        """The numbers of words, and the most frequent ones; all of them go into words.csv and words.h5."""
        words = ordered(state.world, state.words.columns, ["-count", "word"])
        if state.folder is not None:
            write_csv(state.world, state.folder / "words.csv", words)
            write_hdf5(state.world, state.folder / "words.h5", words)
        first = head(state.world, words, self.top)
        return {
            "words": state.total,
            "distinct": state.words.rows,
            "bytes": self.text.size,
            "broken": state.broken,
            "top": dict(zip(first["word"], first["count"], strict=True)),
        }

    def work(self) -> tuple[float, str]:
        """A chunk; on average, as the last one may be shorter, once the files are known."""
        return self.text.size / max(1, self.steps) if hasattr(self, "text") else float(self.chunk), "bytes"
