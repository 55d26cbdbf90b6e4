"""anyrank: the program `anyrank run wordcount` without its output files, on one or two ranks."""

from peer import Peer
from tasks import TEXT, word_answer


class Anyrank(Peer):
    name = "anyrank"
    packages = ("anyrank", "numpy", "mpi4py")
    cores = (1, 2)
    ranks = True

    def __init__(self, size, cores, comm, folder):
        super().__init__(size, cores, comm, folder)
        from mpi4py import MPI

        from anyrank.keyed.programs.wordcount import WordCount
        from anyrank.state import State
        from anyrank.world import World

        self.program = WordCount(files=str(folder.parent / TEXT))
        self.state = State(World(comm or MPI.COMM_SELF))
        self.program.declare(self.state)

    def run(self):
        self.state.words.clear()
        self.state.total = self.state.broken = self.state.step = 0
        while not self.program.done(self.state):
            self.program.step(self.state)
            self.state.step += 1
        self.output = self.program.result(self.state)

    def answer(self):
        from anyrank.keyed.order import head, ordered

        words = ordered(self.state.world, self.state.words.columns, ["-count", "word"])
        every = head(self.state.world, words, self.output["distinct"])
        assert self.output["top"] == dict(zip(every["word"][:10], every["count"][:10], strict=True))
        return word_answer([word.encode() for word in every["word"]], every["count"])
