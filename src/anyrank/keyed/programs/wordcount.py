"""Word count: count the words of text files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from anyrank.kernel import Kernel
from anyrank.keyed.files import absolute, with_stdin
from anyrank.keyed.order import head, ordered, ordered_on_disk
from anyrank.keyed.rows import Columns
from anyrank.keyed.spill import table_budgets
from anyrank.keyed.table import Table
from anyrank.keyed.text import TextFiles
from anyrank.keyed.types import arrow
from anyrank.keyed.words import Words
from anyrank.keyed.write import write_csv, write_hdf5
from anyrank.program import Program, param
from anyrank.state import State

BROKEN = Kernel("patterns", "broken")
#: In each round a rank reads text of at most its memory budget divided by SHARE, and then checks its memory.
SHARE = 64
#: Words on disk are sorted in parts of about 1/PARTS of the memory.
PARTS = 16
#: The most frequent words first; words with equal counts are sorted by their bytes.
ORDER = ("-count", "word")


class WordCount(Program):
    """Count the words of text files.

    Words are separated by white space; with --rule unicode they are sequences of letters, digits, marks and _. --fold
    folds their case. Bytes that are not valid UTF-8 remain in their words; invalid sequences are counted. Ranks share
    the bytes of the files evenly, and words are distributed over the ranks by hash. A step counts a chunk of the bytes;
    a run can stop and resume after each step. Words that do not fit into --memory-limit are written to temporary files
    in --scratch, which are removed when the run ends in any way. All words are written to words.csv and words.h5 in the
    run folder, the most frequent first; words with equal counts are sorted by their bytes.

        anyrank run wordcount -n 4 --files 'books/*.txt'          about 0.3 GB a second and rank
    """

    branchable = False

    files: str = param(..., "files, folders and globs, separated by commas; - is standard input")
    rule: Literal["space", "unicode"] = param("space", "what separates words: white space, or all but word characters")
    fold: bool = param(False, "fold the case of words")
    chunk: int = param(1 << 30, "bytes of text read in a step; a run can stop after each step", ge=1)
    top: int = param(10, "number of words in the result, the most frequent ones", ge=0)
    scratch: str = param("", "folder on a local disk for words that do not fit into memory; default: the run folder")

    def check(self) -> None:
        """Make paths absolute, so that the run can be resumed in any folder."""
        self.files, self.scratch = absolute(self.files), absolute(self.scratch)

    def declare(self, state: State) -> None:
        """Declare the table of words, the number of words and invalid sequences, and a hash of the input."""
        names = state.world.on_root(partial(with_stdin, self.files, state.folder, ".txt"))
        self.text = TextFiles(names, state.world)
        self.steps = self.text.chunks(self.chunk)
        description = "words and their counts"
        state.add(Table("words", state.world, {"word": "text"}, description=description))
        arrow("compute")  # for words.csv; its code takes memory
        self.budget, self.table_budget = table_budgets(state.budget(), state.memory_limit is not None)
        self.spill_folder = Path(self.scratch or state.folder or ".")
        state.words.keep_within(self.table_budget, self.spill_folder)
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
        words, counts = Words(state.words, self.rule, self.fold), np.zeros(2, np.int64)
        for low, high in self.text.rounds(begin, end, self.budget // SHARE):
            for block in self.text.blocks(low, high):
                counts += words.read([block]), BROKEN(block.buffer, block.start, block.stop)
            state.words.keep_within(self.table_budget, self.spill_folder)
        total, broken = state.world.allreduce(counts).tolist()
        state.total += total
        state.broken += broken

    def result(self, state: State) -> dict[str, Any]:
        """Return the number of words and the most frequent ones; write all words to words.csv and words.h5."""
        blocks = self._blocks(state.words)
        if state.folder is not None:
            write_csv(state.world, state.folder / "words.csv", blocks)
            write_hdf5(state.world, state.folder / "words.h5", blocks)
        first = head(state.world, blocks, self.top)
        return {
            "words": state.total,
            "distinct": state.words.rows,
            "bytes": self.text.size,
            "broken": state.broken,
            "top": dict(zip(first["word"], first["count"], strict=True)),
        }

    def _blocks(self, table: Table) -> Callable[[], Iterator[Columns]]:
        """Return what yields the words in their order. Collective."""
        table.settle()
        if not table.on_disk:
            words = ordered(table.world, table.columns, ORDER)
            return lambda: iter([words])
        number = max(1, table.bytes_on_disk * PARTS // self.budget)
        parts = (table.part(k, number).columns for k in range(number))
        return ordered_on_disk(table.world, lambda: parts, ORDER, len(table), self.budget, self.spill_folder)

    def work(self) -> tuple[float, str]:
        """Return the mean bytes per step, because the last chunk may be shorter; the chunk size without files."""
        return self.text.size / max(1, self.steps) if hasattr(self, "text") else float(self.chunk), "bytes"
