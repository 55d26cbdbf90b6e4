"""The figure of a study: it states its caveats in words, and its files are PNG and SVG."""

from xml.etree import ElementTree

import pytest
from matplotlib.image import imread

from anyrank.scaling.laws import AMDAHL, USL, analyse
from anyrank.scaling.measured import PHASES
from anyrank.scaling.model import Prediction
from anyrank.scaling.plots import _ticks, draw


def slowing(p):
    return p / (1 + 0.05 * (p - 1) + 0.01 * p * (p - 1))


def draw_study(study, folder, predicted=()):
    """All words of the SVG, and the styles of its lines; also checks that the PNG can be opened."""
    png, svg = draw(study, analyse(study), folder / "scaling", predicted)
    assert (png.name, svg.name) == ("scaling.png", "scaling.svg")
    height, width, _ = imread(png).shape
    assert width > 2 * height and imread(png)[..., :3].std() > 0.05
    result = list(ElementTree.parse(svg).iter())
    return [element.text for element in result if element.tag.endswith("}text")], [
        element.get("style", "") for element in result
    ]


def test_plot_names_laws_oversubscription_and_phases(make_study, tmp_path):
    words, _ = draw_study(make_study(slowing, (1, 2, 4, 8, 16), noise=0.01, cores=8), tmp_path)
    assert "hollow: ranks share cores (8 cores)" in words and "ranks share cores" in words
    assert any(word.startswith(f"{AMDAHL}, s = ") and "fits best" not in word for word in words)
    assert any(word.startswith(f"{USL}, σ = ") and word.endswith("(fits best)") for word in words)
    assert {"Speed-up", "Efficiency", "ideal", "compute", "exchange", "idle", "reduce"} <= set(words)
    assert "heat, strong scaling: 10 M cell-steps a step" in words
    assert "A Processor, 4 cores · 2026-11-21" in words
    assert not any("predicted" in word or "checkpoint" in word for word in words)


@pytest.mark.parametrize(("cores", "dashed"), [(16, 0), (2, 3)])
def test_plot_oversubscribed_points_are_joined_by_dashes(make_study, tmp_path, cores, dashed):
    words, styles = draw_study(make_study(slowing, (1, 2, 4, 8, 16), repeat=1, cores=cores), tmp_path)
    grey = sum("stroke-dasharray" in style and "stroke: #8a8a8a" in style for style in styles)
    black = sum("stroke-dasharray" not in style and "stroke: #555555" in style for style in styles)
    hollow = sum("fill: #ffffff" in style and "stroke: #000000" in style for style in styles)
    assert (grey, black) == (2 * dashed + bool(dashed), 2 * (4 - dashed))  # two panels, and the legend
    assert hollow == 2 * dashed + bool(dashed)
    assert any(word.startswith("hollow: ranks share cores") for word in words) == bool(dashed)


def test_plot_of_too_few_points_says_so_and_draws_no_law(make_study, tmp_path):
    words, _ = draw_study(make_study(slowing, (1, 2), repeat=2), tmp_path)
    assert (
        "Amdahl's law has 2 unknowns and needs at least 3 numbers of ranks that do not share cores; there are 2."
        in words
    )
    assert not any("s = " in word or "σ = " in word for word in words)
    assert not any("hollow" in word for word in words)


def test_plot_predictions_widen_the_axis(make_study, tmp_path):
    phases = dict.fromkeys(PHASES, 0.0) | {"compute": 10.0, "exchange": 10.0}
    predicted = [Prediction(p, 20.0, 16.0, 25.0, phases, p * 1e9) for p in (131072, 1024)]
    words, _ = draw_study(make_study(lambda p: 0.1 + 0.9 * p, (2, 4, 8), kind="weak", noise=0.01), tmp_path, predicted)
    assert {"predicted by the model", "pale: predicted", "131072", "1024"} <= set(words)
    assert {"Scaled speed-up relative to 2 ranks", "heat, weak scaling: 10 M cell-steps a step and rank"} <= set(words)
    assert "65536" in words  # a tick of the speed-up's axis


def test_plot_of_one_point_is_drawn(make_study, tmp_path):
    words, _ = draw_study(make_study(slowing, (1,), repeat=1), tmp_path)
    assert any(word.endswith("there is 1.") for word in words)


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
def test_ticks_are_whole_numbers_with_space_between(ranks, ticks):
    assert _ticks(ranks) == ticks
