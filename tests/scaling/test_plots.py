"""The figure of a study says in words what must not be overlooked, and its files are PNG and SVG."""

from xml.etree import ElementTree

import pytest
from matplotlib.image import imread

from anyrank.scaling.laws import AMDAHL, USL, analyse
from anyrank.scaling.measured import PHASES
from anyrank.scaling.model import Prediction
from anyrank.scaling.plots import _ticks, draw


def slowing(p):
    return p / (1 + 0.05 * (p - 1) + 0.01 * p * (p - 1))


def drawn(study, folder, predicted=()):
    """All words of the SVG, and the styles of its lines; the PNG has been opened."""
    png, svg = draw(study, analyse(study), folder / "scaling", predicted)
    assert (png.name, svg.name) == ("scaling.png", "scaling.svg")
    height, width, _ = imread(png).shape
    assert width > 2 * height and imread(png)[..., :3].std() > 0.05
    found = list(ElementTree.parse(svg).iter())
    return [one.text for one in found if one.tag.endswith("}text")], [one.get("style", "") for one in found]


def test_laws_crowding_and_phases_are_named(invented, tmp_path):
    words, _ = drawn(invented(slowing, (1, 2, 4, 8, 16), noise=0.01, cores=8), tmp_path)
    assert "hollow: ranks share cores (8 cores)" in words and "ranks share cores" in words
    assert any(one.startswith(f"{AMDAHL}, s = ") and "fits best" not in one for one in words)
    assert any(one.startswith(f"{USL}, σ = ") and one.endswith("(fits best)") for one in words)
    assert {"Speed-up", "Efficiency", "ideal", "compute", "exchange", "idle", "reduce"} <= set(words)
    assert "heat, strong scaling: 10 M cell-steps a step" in words
    assert "A Processor, 4 cores · 2026-11-21" in words
    assert not any("predicted" in one or "checkpoint" in one for one in words)


@pytest.mark.parametrize(("cores", "dashed"), [(16, 0), (2, 3)])
def test_ranks_that_share_cores_are_joined_by_a_dashed_line_only(invented, tmp_path, cores, dashed):
    words, styles = drawn(invented(slowing, (1, 2, 4, 8, 16), repeat=1, cores=cores), tmp_path)
    grey = sum("stroke-dasharray" in one and "stroke: #8a8a8a" in one for one in styles)
    black = sum("stroke-dasharray" not in one and "stroke: #555555" in one for one in styles)
    hollow = sum("fill: #ffffff" in one and "stroke: #000000" in one for one in styles)
    assert (grey, black) == (2 * dashed + bool(dashed), 2 * (4 - dashed))  # two panels, and the legend
    assert hollow == 2 * dashed + bool(dashed)
    assert any(one.startswith("hollow: ranks share cores") for one in words) == bool(dashed)


def test_too_few_points_are_said_and_no_law_is_drawn(invented, tmp_path):
    words, _ = drawn(invented(slowing, (1, 2), repeat=2), tmp_path)
    assert (
        "Amdahl's law has 2 unknowns and needs at least 3 numbers of ranks that do not share cores; there are 2."
        in words
    )
    assert not any("s = " in one or "σ = " in one for one in words)
    assert not any("hollow" in one for one in words)


def test_predictions_widen_the_axis(invented, tmp_path):
    phases = dict.fromkeys(PHASES, 0.0) | {"compute": 10.0, "exchange": 10.0}
    predicted = [Prediction(p, 20.0, 16.0, 25.0, phases, p * 1e9) for p in (131072, 1024)]
    words, _ = drawn(invented(lambda p: 0.1 + 0.9 * p, (2, 4, 8), kind="weak", noise=0.01), tmp_path, predicted)
    assert {"predicted by the model", "pale: predicted", "131072", "1024"} <= set(words)
    assert {"Scaled speed-up relative to 2 ranks", "heat, weak scaling: 10 M cell-steps a step and rank"} <= set(words)
    assert "65536" in words  # a tick of the speed-up's axis


def test_one_point_is_drawn(invented, tmp_path):
    words, _ = drawn(invented(slowing, (1,), repeat=1), tmp_path)
    assert any(one.endswith("there is 1.") for one in words)


@pytest.mark.parametrize(
    ("ranks", "ticks"),
    [
        ([1, 2, 3, 4, 6, 8], [1, 2, 3, 4, 6, 8]),
        ([1, 2, 4, 1024, 131072], [1, 8, 64, 512, 4096, 32768]),
        ([3], [3]),
        ([12, 16, 20, 24, 28, 32, 36, 40, 44], [16, 32]),
        ([1, 8, 64, 512, 4096, 32768, 262144, 1048576], [1, 8, 64, 512, 4096, 32768, 262144]),
    ],
)
def test_ticks_are_whole_numbers_with_room(ranks, ticks):
    assert _ticks(ranks) == ticks
