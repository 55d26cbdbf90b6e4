"""What a rank may take of memory."""

import numpy as np
import pytest
from ranks import run_anyrank

from anyrank.errors import UsageError
from anyrank.memory import LEAST, budget, peak, resident
from anyrank.runtime.options import Options


def test_a_limit_leaves_what_the_process_has_not_taken():
    before = resident()
    block = np.ones(1 << 27, np.uint8)
    assert peak() >= resident() >= before + block.nbytes // 2
    assert 0 < budget(1 << 40, 1) <= (1 << 40) - before


def test_without_a_limit_processes_share_the_node():
    assert budget(None, 4) < budget(None, 2) < budget(None, 1)


def test_a_limit_that_leaves_nothing_is_refused_with_one_that_does():
    with pytest.raises(UsageError, match=f"must leave {LEAST}. Use --memory-limit [0-9]+MB or more") as refused:
        budget(1 << 20, 1)
    assert budget(int(str(refused.value).rpartition("MB")[0].rpartition(" ")[2]) * 1_000_000 + (1 << 22), 1) >= LEAST


@pytest.mark.parametrize(("text", "size"), [("", None), ("512MB", 512_000_000), ("2GiB", 2 << 30), ("1000", 1000)])
def test_sizes_are_read(text, size):
    assert Options(memory_limit=text).memory_bytes == size


def test_a_size_that_is_none_is_refused():
    done = run_anyrank("run", "pi", "--memory-limit", "much")
    assert done.returncode == 2 and "--memory-limit 'much' is not a size: write it as 512MB" in done.stderr
