"""collections.Counter of the words of all lines."""

from collections import Counter
from itertools import chain

from peer import Peer
from tasks import TEXT, word_answer


class PlainCounter(Peer):
    name = "collections.Counter"
    packages = ()

    def run(self):
        with (self.folder.parent / TEXT).open("rb") as lines:
            counts = Counter(chain.from_iterable(map(bytes.split, lines)))
        self.output = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))

    def answer(self):
        return word_answer(*zip(*self.output, strict=True))
