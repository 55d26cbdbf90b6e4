"""Word count: count the words of text files."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import numpy as np

from anyrank.kernel import Kernel
from anyrank.keyed.files import absolute, with_stdin
from anyrank.keyed.order import head, ordered
from anyrank.keyed.table import Table
from anyrank.keyed.text import TextFiles
from anyrank.keyed.words import Words
from anyrank.keyed.write import write_csv, write_hdf5
from anyrank.program import Program, param
from anyrank.state import State

BROKEN = Kernel("patterns", "broken")
#: In each round a rank reads text of at most its memory budget divided by SHARE, and then checks its memory.
SHARE = 32


class WordCount(Program):
    """Count the words of text files.

    Words are separated by white space; with --rule unicode they are sequences of letters, digits, marks and _. --fold
    folds their case. Bytes that are not valid UTF-8 remain in their words; invalid sequences are counted. Ranks share
    the bytes of the files evenly, and words are distributed over the ranks by hash. A step counts a chunk of the bytes;
    a run can stop and resume after each step. All words are written to words.csv and words.h5 in the run folder, the
    most frequent first; words with equal counts are sorted by their bytes.

        anyrank run wordcount -n 4 --files 'books/*.txt'          about 0.3 GB a second and rank
    """

    files: str = param(..., "files, folders and globs, separated by commas; - is standard input")
    rule: Literal["space", "unicode"] = param("space", "what separates words: white space, or all but word characters")
    fold: bool = param(False, "fold the case of words")
    chunk: int = param(1 << 30, "bytes of text read in a step; a run can stop after each step", ge=1)
    top: int = param(10, "number of words in the result, the most frequent ones", ge=0)

    def check(self) -> None:
        """Make paths absolute, so that the run can be resumed in any folder."""
        self.files = absolute(self.files)

    def declare(self, state: State) -> None:
        """Declare the table of words, the number of words and invalid sequences, and a hash of the input."""
        names = state.world.on_root(partial(with_stdin, self.files, state.folder, ".txt"))
        self.text = TextFiles(names, state.world)
        self.steps = self.text.chunks(self.chunk)
        description = "words and their counts"
        state.add(Table("words", state.world, {"word": "text"}, description=description))
        state.scalar("total", 0, description="words counted so far")
        state.scalar("broken", 0, description="byte sequences so far that are not valid UTF-8")
        state.scalar("input", self.text.fingerprint, description="hash of the files' names and sizes")

    def done(self, state: State) -> bool:
        """Return whether all chunks are counted. Raises UsageError if the files have changed."""
        self.text.check(state.input)
        return bool(state.step >= self.steps)

    def step(self, state: State) -> None:
        """Count the words of this rank's part of the chunk, in rounds that fit into the memory budget."""
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
        """Return the number of words and the most frequent ones; write all words to words.csv and words.h5."""
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
        """Return the mean bytes per step, because the last chunk may be shorter; the chunk size without files."""
        return self.text.size / max(1, self.steps) if hasattr(self, "text") else float(self.chunk), "bytes"
