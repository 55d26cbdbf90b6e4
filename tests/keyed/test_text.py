"""Text input: every byte of every file is read once, on one rank, for any split; words and lines stay complete."""

from __future__ import annotations

import os
from itertools import chain, pairwise, product

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ranks import check_collective

from anyrank.errors import AnyrankError, UsageError
from anyrank.keyed import ColumnSpec, TableFiles
from anyrank.keyed.files import COMPRESSED
from anyrank.keyed.text import MARGIN, SPACE, TextFiles
from anyrank.state import State
from anyrank.world import World

LINES = b"\n"


@pytest.fixture(scope="module")
def alone():
    world = World()
    yield world
    world.close()


def write_files(folder, contents):
    """A folder with one file for each content."""
    folder.mkdir(exist_ok=True)
    for number, content in enumerate(contents):
        (folder / f"{number:02d}.txt").write_bytes(content)
    return folder


def bytes_of(block):
    return block.buffer[block.start : block.stop].tobytes()


def on_root(world, action):
    if world.rank == 0:
        action()
    world.barrier()


HOSTILE = [b"", b"x", b"one two\nthree", b"\n\n \n", b"y" * 300, b"a\r\nb\r\n", b"", b"last line\n"]


@pytest.mark.ranks(1, 2, 3, 4, 7)
def test_text_blocks_of_all_ranks_are_the_files(world, tmp_path):
    on_root(world, lambda: write_files(tmp_path / "texts", HOSTILE))
    text = TextFiles(str(tmp_path / "texts"), world)
    text.block = 16
    assert (text.size, text.sizes) == (sum(map(len, HOSTILE)), [*map(len, HOSTILE)])
    for cut, whole, chunk in product((SPACE, LINES), (True, False), (1, 37, 1000)):
        check_blocks(world, text, cut, whole, chunk)


def check_blocks(world, text, cut, whole, chunk):
    mine = [
        (block.path.name, block.offset, bytes_of(block))
        for step in range(text.chunks(chunk))
        for block in text.blocks(*text.part(step, chunk), cut, whole=whole)
    ]
    read = {path.name: b"" for path in text.paths}
    for name, offset, data in sorted(chain(*world.comm.allgather(mine))):
        assert offset == len(read[name]), f"{name}: a block at {offset} after {len(read[name])}"
        read[name] += data
    assert [*read.values()] == HOSTILE
    size = {path.name: size for path, size in zip(text.paths, text.sizes, strict=True)}
    broken = [part for part in mine if part[1] + len(part[2]) < size[part[0]] and part[2][-1] not in cut]
    check_collective(world, not (whole and broken), f"{broken}")


CONTENTS = st.lists(st.text("ab \n\t", max_size=40).map(str.encode), min_size=1, max_size=4)


@settings(max_examples=150)
@given(CONTENTS, st.lists(st.integers(0, 160)), st.sampled_from([SPACE, LINES, b"b"]), st.booleans(), st.integers(1, 9))
def test_text_any_split_gives_every_byte_once_in_order(alone, tmp_path_factory, contents, cuts, cut, whole, n):
    text = TextFiles(str(write_files(tmp_path_factory.mktemp("texts"), contents)), alone)
    text.block = n
    cuts = sorted({0, text.size, *(c for c in cuts if c < text.size)})
    read = dict.fromkeys(text.paths, b"")
    for a, b in pairwise(cuts):
        data = dict.fromkeys(text.paths, b"")
        for block in text.blocks(a, b, cut, whole=whole):
            assert block.offset == len(read[block.path]) + len(data[block.path])
            data[block.path] += bytes_of(block)
        for path, size in zip(text.paths, text.sizes, strict=True):
            read[path] += data[path]
            assert not data[path] or len(read[path]) == size or read[path][-1] in cut
    assert [*read.values()] == contents


@given(
    st.binary(max_size=60), st.integers(0, 5), st.integers(0, 5), st.integers(1, 9), st.integers(0, 60), st.booleans()
)
def test_text_block_is_surrounded_by_context_and_zeros(alone, tmp_path_factory, data, behind, ahead, n, cut, whole):
    text = TextFiles(str(write_files(tmp_path_factory.mktemp("texts"), [data])), alone)
    text.block = n
    cut = min(cut, len(data))
    low = data.find(LINES, max(cut - 1, 0)) + 1 or len(data)
    low = 0 if cut == 0 else low
    for block in text.blocks(cut, len(data), LINES, whole=whole, behind=behind, ahead=ahead):
        end = block.offset + block.stop - block.start
        before, after = block.start - behind, block.stop + ahead
        left, right = data[max(low, block.offset - behind) : block.offset], data[end : end + ahead]
        assert block.buffer[before : block.start].tobytes() == left.rjust(behind, b"\0")
        assert block.buffer[block.stop : after].tobytes().startswith(right)
        assert not block.buffer[before - MARGIN : before].any()
        if end == len(data):
            assert not block.buffer[block.stop : block.stop + MARGIN].any()


def test_text_long_word_is_one_block_only_if_whole(alone, tmp_path):
    word = b"w" * 5_000_000
    text = TextFiles(str(write_files(tmp_path / "texts", [b"short " + word + b" tail"])), alone)
    assert [bytes_of(block) for block in text.blocks(0, 10)] == [b"short ", word + b" "]
    assert [bytes_of(block) for block in text.blocks(7, 9)] == []
    assert [bytes_of(block) for block in text.blocks(9, text.size)] == [b"tail"]
    sizes = [block.stop - block.start for block in text.blocks(0, text.size, LINES, whole=False)]
    assert (sum(sizes), max(sizes)) == (text.size, text.block)


@pytest.fixture
def library(tmp_path, monkeypatch):
    for name in ("b.txt", "a.txt", "shelf/c.txt", "shelf/deep/d.md", "shelf/.hidden", "shelf/.git/e.txt", "[1].txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "empty/.git").mkdir(parents=True)
    (tmp_path / "link.txt").symlink_to("a.txt")
    os.mkfifo(tmp_path / "shelf/pipe")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("a.txt", ["a.txt"]),
        ("b.txt,a.txt", ["a.txt", "b.txt"]),
        (["shelf", "b.txt"], ["b.txt", "shelf/c.txt", "shelf/deep/d.md"]),
        ("shelf/../a.txt,a.txt,link.txt", ["a.txt"]),
        ("?.txt", ["a.txt", "b.txt"]),
        ("[1].txt", ["[1].txt"]),
        ("s*", ["shelf/c.txt", "shelf/deep/d.md"]),
        ("**/*.md,shelf/*.txt", ["shelf/deep/d.md", "shelf/c.txt"]),
        (".", ["[1].txt", "a.txt", "b.txt", "link.txt", "shelf/c.txt", "shelf/deep/d.md"]),
    ],
)
def test_text_names_are_files_folders_and_globs(alone, library, names, expected):
    if names == ".":
        expected.remove("link.txt")
    assert [*map(str, TextFiles(names, alone).paths)] == expected


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("a.txt,none.txt", "'none.txt' cannot be read (No such file or directory)"),
        ("*.rst", "'*.rst' matches no file"),
        ("empt*", "'empt*' matches no file"),
        ("empty", "folder 'empty' has no files, or only hidden ones"),
        ("a.txt,", "a file name is empty"),
        ("shelf/pipe", "'shelf/pipe' is not a regular file"),
        ([], "no file is named"),
    ],
)
def test_text_name_without_files_is_refused(alone, library, names, message):
    with pytest.raises(UsageError) as refusal:
        TextFiles(names, alone)
    assert str(refusal.value) == f"{message}. Name files, folders or globs, separated by commas."


@pytest.mark.parametrize("name", ["shelf", "shelf/c.txt"])
def test_text_unreadable_file_is_refused(alone, library, monkeypatch, name):
    def denied(path, *_, **__):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("anyrank.keyed.files.os.scandir" if name == "shelf" else "pathlib.Path.open", denied)
    with pytest.raises(UsageError, match=rf"'{name}' cannot be read \(Permission denied\)"):
        TextFiles(name, alone)


@pytest.mark.ranks(1, 3)
def test_text_refusal_is_collective(world, tmp_path):
    with pytest.raises(UsageError, match="none") as refusal:
        TextFiles(str(tmp_path / "none"), world)
    assert refusal.value.collective


def test_text_other_files_have_another_fingerprint(alone, tmp_path):
    fingerprints = set()
    for name, content in [("a", b"1"), ("a", b"22"), ("b", b"22")]:
        (tmp_path / name).write_bytes(content)
        text = TextFiles(str(tmp_path / name), alone)
        text.check(text.fingerprint)
        fingerprints.add(text.fingerprint)
    assert len(fingerprints) == 3
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "b").rename(tmp_path / "elsewhere/b")
    assert TextFiles(str(tmp_path / "elsewhere"), alone).fingerprint == text.fingerprint
    with pytest.raises(UsageError, match="not those that the run began with") as refusal:
        text.check(text.fingerprint + 1)
    assert refusal.value.collective


@pytest.mark.parametrize("begin", [0, 90])
def test_text_file_that_became_shorter_is_an_error(alone, tmp_path, begin):
    (tmp_path / "a").write_bytes(b"w" * 100)
    text = TextFiles(str(tmp_path / "a"), alone)
    (tmp_path / "a").write_bytes(b"w" * 60)
    with pytest.raises(AnyrankError, match=r"a became shorter while it was read: it now ends at byte \d+"):
        [*text.blocks(begin, 100)]
    (tmp_path / "a").unlink()
    with pytest.raises(AnyrankError, match=r"a can no longer be read on this rank \(No such file"):
        [*text.blocks(begin, 100)]


@pytest.mark.parametrize("suffix", COMPRESSED)
@pytest.mark.parametrize("cut", [SPACE, LINES])
def test_text_that_is_compressed_is_read_once(alone, tmp_path, suffix, cut):
    content = b"to be\nor not  to be " * 50
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, COMPRESSED[suffix]) as stream:
        stream.write(content)
    folder = write_files(tmp_path / "texts", [b"first\n", b"", b"last"])
    (folder / f"01.txt{suffix}").write_bytes(sink.getvalue().to_pybytes())
    files = TextFiles(str(folder), alone)
    for chunk in (1, 5, 40, files.size):
        for block in (3, 64, 1 << 20):
            files.block = block
            read = []
            for step in range(files.chunks(chunk)):
                for text in files.blocks(*files.part(step, chunk), cut):
                    read.append(bytes_of(text))
                    ends = text.offset + len(read[-1]) == text.size
                    assert ends or read[-1][-1] in cut, (chunk, block)
            assert b"".join(read) == b"first\n" + content + b"last", (chunk, block)


def test_text_of_another_compression_is_an_error(alone, tmp_path):
    folder = write_files(tmp_path / "texts", [b"first"])
    (folder / "00.txt").rename(folder / "00.txt.gz")
    files = TextFiles(str(folder), alone)
    with pytest.raises(AnyrankError, match=r"00.txt.gz cannot be decompressed .*Replace the file"):
        [*files.blocks(0, files.size)]


@pytest.mark.ranks(1, 2)
def test_files_with_a_state_refuse_another_input(world, tmp_path):
    """The Scalars of two readers are checked without a call by the program."""
    on_root(world, lambda: (tmp_path / "a.csv").write_text("x\n1\n"))
    state = State(world)
    text, table = TextFiles(str(tmp_path), state), TableFiles(str(tmp_path), [ColumnSpec("x")], state)
    check_collective(world, [scalar.name for scalar in state.scalars()] == ["input", "input2"])
    check_collective(world, text.part(0, 9) == table.part(0, 9))
    state.input2 = state.input2 + 1  # as a checkpoint of a run with other files
    text.part(0, 9)
    with pytest.raises(UsageError, match="the files are not those that the run began with") as refusal:
        table.part(0, 9)
    check_collective(world, refusal.value.collective)
