"""`anyrank plot`: pictures of fields and series, movies of frames, and refusals."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from ranks import run_anyrank

from anyrank.output.picture import Map, arrange, scale_of, write_movie
from anyrank.output.plot import plot_series

WAVES = """
import numpy as np
from anyrank import Program, param

class Waves(Program):
    n: int = param(12, "points")
    steps: int = param(4, "steps")

    def declare(self, state):
        grid = state.grid((self.n, self.n + 2, self.n + 4), dims=("z", "y", "x"))
        grid.field("T", unit="K", description="temperature")
        grid.field("u", components=2, unit="m/s")
        state.field("line", (self.n,), dims=("z",))

    def setup(self, state):
        z, y, x = state.T.indices
        state.T[...] = np.float64(z + 2 * y + 3 * x)

    def step(self, state):
        state.T[...] = state.T[...] + 1
"""


def colours_in(path: Path) -> int:
    """How many colours the picture has; the file must be a picture of some size."""
    from PIL import Image

    with Image.open(path) as image:
        assert min(image.size) > 100
        return len(image.convert("RGB").getcolors(1 << 24))


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("plot")
    (folder / "waves.py").write_text(WAVES)
    frames = ("--frames", "T[z=1],line", "--frames-every", 1)
    done = run_anyrank("run", folder / "waves.py", "--checkpoint-every", 2, *frames, "--out", folder / "w", ranks=2)
    assert done.returncode == 0, done.stderr
    return folder / "w"


def test_plot_draws_each_field_of_the_newest_checkpoint(run, in_process):
    done = in_process("plot", run)
    assert done.returncode == 0, done.stderr
    names = [Path(line).name for line in done.stdout.splitlines()]
    assert names == ["T.png", "line.png", "u.png"]
    assert colours_in(run / "plots" / "T.png") > 100


def test_plot_one_step_one_slice_in_a_folder_of_its_own(run, tmp_path, in_process):
    done = in_process("plot", run, "--fields", "T", "--step", 2, "--slice", "z=3", "--out", tmp_path / "new")
    assert done.returncode == 0 and [path.name for path in (tmp_path / "new").iterdir()] == ["T.png"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--fields", "Y"), "'Y' is not a field of"),
        (("--fields", "lines"), "Did you mean line?"),
        (("--step", 3), "has checkpoints of the steps 2, 4"),
        (("--slice", "z"), "--slice z must be an axis and an index, such as z=10"),
        (("--slice", "q=1"), "'q' is not an axis in"),
        (("--slice", "z=12"), "--slice z=12: T has 12 points along z: give 0 to 11"),
        (("--series", "mean"), "has no series.csv"),
        (("--movie", "--fields", "u"), "'u' is not a variable with axes of"),
        (("--format", "gif"), "Add --movie"),
        (("--fps", 0), "0 is not in the range"),
    ],
)
def test_plot_refusals_name_value_rule_and_fix(run, tmp_path, in_process, words, text):
    done = in_process("plot", run, *words, "--out", tmp_path / "out")
    assert done.returncode == 2 and text in done.stderr


def test_plot_refuses_what_is_no_run_and_a_file_as_folder(run, tmp_path, in_process):
    assert "holds no run" in in_process("plot", tmp_path).stderr
    (tmp_path / "file").touch()
    done = in_process("plot", run, "--out", tmp_path / "file")
    assert done.returncode == 2 and "cannot be plotted into" in done.stderr


def test_plot_movie_has_a_frame_for_each_step(run, tmp_path, in_process):
    done = in_process("plot", run, "--movie", "--format", "gif", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    paths = [Path(line) for line in done.stdout.splitlines()]
    assert [path.name for path in paths] == ["T_z_1.gif", "line.gif"]
    assert [len(frames_of(path)) for path in paths] == [5, 5]


def test_plot_movie_without_frames_names_the_option(run, tmp_path, in_process):
    shutil.copytree(run, tmp_path / "w")
    (tmp_path / "w" / "frames.nc").unlink()
    done = in_process("plot", tmp_path / "w", "--movie")
    assert done.returncode == 2 and "has no frames.nc. Run the program with --frames NAME" in done.stderr


def test_plot_of_a_series_without_columns_draws_the_fields(run, tmp_path, in_process):
    shutil.copytree(run, tmp_path / "w")
    (tmp_path / "w" / "series.csv").write_text("step\n0\n")
    done = in_process("plot", tmp_path / "w", "--fields", "T")
    assert done.returncode == 0 and in_process("plot", tmp_path / "w").returncode == 0
    refused = in_process("plot", tmp_path / "w", "--series", "mean")
    assert refused.returncode == 2 and "has no column besides step" in refused.stderr


def test_plot_series_draws_columns_over_steps(tmp_path):
    path = tmp_path / "series.csv"
    path.write_text("step,mean,hot\n" + "".join(f"{step},{step**0.5},True\n" for step in range(50)) + "50,nan,False\n")
    assert colours_in(plot_series(path, [], "heat", tmp_path)) > 10


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([-1.0, 0.5], (-1.0, 1.0, True)),
        ([-0.01, 1.0], (-0.01, 1.0, False)),
        ([3.0, 3.0, np.nan], (1.5, 4.5, False)),
        ([np.nan], (0.0, 1.0, False)),
        ([np.inf, 1.0, 2.0], (1.0, 2.0, False)),
    ],
)
def test_scale_has_zero_in_the_middle_for_both_signs(values, expected):
    assert scale_of(np.repeat(values, 1000)) == expected


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_movie_has_every_frame_in_its_order(tmp_path, suffix):
    """Each frame is brighter than the one before."""
    if suffix == ".mp4":
        pytest.importorskip("av", reason="PyAV is not installed")
    maps = [[Map("T", np.full((8, 8), float(step)), "K", "gray", limits=(0.0, 4.0))] for step in range(5)]
    path = write_movie(tmp_path / f"T{suffix}", [(f"step {step}", maps[step]) for step in range(5)], 10)
    means = [pixels[pixels.shape[0] // 2, pixels.shape[1] // 3].mean() for pixels in frames_of(path)]
    assert len(means) == 5 and np.all(np.diff(means) > 20)


def frames_of(path: Path) -> list[np.ndarray]:
    """The pixels of each frame of a movie, read by the library that belongs to its format."""
    if path.suffix == ".gif":
        from PIL import Image, ImageSequence

        with Image.open(path) as image:
            return [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(image)]
    import av

    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_arrange_has_three_maps_in_a_row():
    assert [len(row) for row in arrange([Map("", np.zeros((1, 1)), "")] * 7)] == [3, 3, 1]
