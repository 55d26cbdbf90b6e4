"""Count the words of text files, as a program to change: read, map, combine by key, sort, write.

    anyrank run examples/wordcount.py -n 2 --files README.md

`anyrank run wordcount` does the same faster: compiled code counts the words without making Python objects of them.
"""

from anyrank import Program, State, Table, param
from anyrank.keyed import TextFiles, head, ordered, write_csv


class Count(Program):
    """Count the words of text files, ignoring case and the punctuation around them."""

    files: str = param(..., "files, folders and globs, separated by commas")
    chunk: int = param(1 << 26, "bytes of text read in a step; a run can stop after each step", ge=1)

    def declare(self, state: State) -> None:
        self.text = TextFiles(self.files, state)
        self.steps = self.text.chunks(self.chunk)
        state.add(Table("words", state.world, {"word": "text"}, {"longest": ("int64", "max")}))

    def step(self, state: State) -> None:
        for block in self.text.blocks(*self.text.part(state.step, self.chunk)):  # read this rank's part of the chunk
            words = [word.strip(b".,;:!?()'\"").lower() for word in bytes(block).split()]  # map
            state.words.add(words, longest=[len(word) for word in words])  # combine by key

    def result(self, state: State) -> dict:
        words = ordered(state.world, state.words.columns, ["-count", "word"])  # sort
        write_csv(state.world, state.folder / "words.csv", words)  # write
        return head(state.world, words, 5)
