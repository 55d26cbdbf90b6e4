"""Shuffles: every row reaches its rank, for any number and type of rows, and for small messages."""

import numpy as np
import pytest
from ranks import check_collective

from anyrank.exchange import shuffle as module
from anyrank.exchange.shuffle import Shuffle
from anyrank.keyed.row_batch import shuffle_column
from anyrank.keyed.rows import Text


def owners(world, rank, n=23):
    """The destinations of a rank's rows, in the order of the ranks; some ranks get none."""
    return np.sort(np.random.default_rng(rank).integers(0, world.size, (rank + 1) * n) // 2 * 2 % world.size)


@pytest.mark.ranks(1, 2, 3, 4)
@pytest.mark.parametrize("message", [1 << 28, 7])
def test_shuffle_rows_of_every_type_arrive_by_source(world, monkeypatch, message):
    monkeypatch.setattr(module, "MESSAGE", message)
    to = [owners(world, rank) for rank in range(world.size)]
    ids = [1000 * rank + np.arange(len(destinations)) for rank, destinations in enumerate(to)]
    mine = ids[world.rank]
    shuffle = Shuffle(world, np.bincount(to[world.rank], minlength=world.size))
    expected = np.concatenate([i[t == world.rank] for i, t in zip(ids, to, strict=True)])
    check_collective(world, np.array_equal(shuffle(mine), expected), "int64")
    pairs = np.stack([mine, -mine], axis=1).astype(np.float32)
    check_collective(world, np.array_equal(shuffle(pairs), np.stack([expected, -expected], 1).astype("f4")), "pairs")
    words = shuffle(mine.astype("S7"))
    check_collective(world, np.array_equal(words, expected.astype("S7")), "bytes")
    texts = shuffle_column(shuffle, Text.of(b"x" * (n % 5) + b"%d" % n for n in mine.tolist()))
    check_collective(world, texts.tolist() == [b"x" * (n % 5) + b"%d" % n for n in expected.tolist()], "text")


@pytest.mark.ranks(2, 3)
def test_shuffle_of_no_rows_is_empty(world):
    shuffle = Shuffle(world, np.zeros(world.size, np.int64))
    check_collective(world, shuffle(np.empty((0, 2))).shape == (0, 2))
    check_collective(world, shuffle_column(shuffle, Text.of([])).tolist() == [])
