"""The report of a study: the table, the laws in words, CSV, and JSON that can be read back."""

import csv
import json
from dataclasses import asdict, replace

import pytest

from anyrank.scaling.laws import analyse
from anyrank.scaling.measured import PHASES, Sample, ScalingStudy
from anyrank.scaling.model import Prediction
from anyrank.scaling.report import as_json, as_text, quantity, write_csv


def slowing(p):
    return p / (1 + 0.05 * (p - 1) + 0.01 * p * (p - 1))


def report_text(study, predicted=()):
    return as_text(analyse(study), study, predicted)


def test_report_table_marks_oversubscribed_ranks(make_study):
    lines = report_text(make_study(slowing, (1, 2, 4, 8, 16), noise=0.01, cores=8)).splitlines()
    assert lines[0].split() == [
        *("ranks", "seconds", "(95%)", "speed-up", "efficiency", "Karp–Flatt", "compute", "exchange", "reduce", "idle")
    ]
    assert [line.split()[0] for line in lines[1:6]] == ["1", "2", "4", "8", "16*"]
    assert lines[1].split()[3:] == ["1", "100.0%", "-", "100.0%", "0.0%", "0.0%", "0.0%"]
    assert lines[6].startswith("* ranks share cores (8 cores)")
    assert lines[7] == "Time lost at 8 ranks: 29% exchange, 14% idle (imbalance), 5% reductions."
    assert lines[8].startswith("Time lost at 16 ranks: 46% exchange")


def test_report_laws_have_uncertainty_and_their_limits(make_study):
    words = report_text(make_study(slowing, (1, 2, 4, 8, 16)))
    assert (
        "Universal Scalability Law: σ = 0.05 (0.05–0.05), κ = 0.01 (0.01–0.01); deviates from the points by 0.0%"
        in words
    )
    assert "; fastest on 10 ranks.\n" in words  # √(0.95/0.01) = 9.7
    assert words.splitlines()[-1].startswith("Universal Scalability Law fits best")
    assert "at most 20 times as fast as one rank" in report_text(
        make_study(lambda p: 1 / (0.05 + 0.95 / p), (1, 2, 4, 8))
    )
    assert "no limit visible" in report_text(make_study(lambda p: p, (1, 2, 4)))
    assert "each additional rank adds 90.0% of a rank's speed" in report_text(
        make_study(lambda p: 0.1 + 0.9 * p, (1, 2, 4), kind="weak")
    )
    assert "but a maximum is not certain" in report_text(
        make_study(lambda p: 1 / (0.05 + 0.95 / p), (1, 2, 4, 8), noise=0.02)
    )


def test_report_slower_computing_and_another_base_are_stated(make_study):
    study = make_study(lambda p: p, (2, 4))
    slow = [replace(sample, seconds=1.5 * sample.seconds, phases={**sample.phases, "compute": 1.5 * sample.seconds})
            for sample in study.at(4)]  # fmt: skip
    words = report_text(replace(study, samples=(*study.at(2), *slow)))
    assert "almost none; computing the same work takes a rank 1.50 (1.50–1.50) times as long as at 2." in words
    assert "Speed-ups are relative to 2 ranks, whose speed-up is defined as 2." in words
    assert words.splitlines()[-1].startswith("Universal Scalability Law has 3 unknowns")


def test_report_slower_computing_is_stated_for_uneven_rounds(make_study):
    study, factors = make_study(lambda p: p, (1, 2), drift=0), (0.9, 0.95, 1.9, 2.0, 2.1)
    slow = [
        replace(sample, seconds=factor * sample.seconds, phases={**sample.phases, "compute": factor * sample.seconds})
        for sample, factor in zip(study.at(2), factors, strict=True)
    ]
    words = report_text(replace(study, samples=(*study.at(1), *slow)))
    assert "computing the same work takes a rank 1.90 (0.87–2.49) times as long as at 1." in words


def test_report_predictions_are_rows_with_a_mark(make_study):
    study = make_study(lambda p: p, (1, 2), kind="weak", drift=0)
    phases = dict.fromkeys(PHASES, 0.0) | {"compute": 10.0, "exchange": 10.0}
    row = report_text(study, [Prediction(64, 20.0, 16.0, 25.0, phases, 64e9)]).splitlines()[3]
    assert row.split() == ["64~", "20", "(16–25)", "32", "(25.6–40)", "50.0%", "-", "50.0%", "50.0%"]


@pytest.mark.parametrize(("rate", "short"), [(1.0, False), (1000.0, True)])
def test_report_short_runs_give_a_warning(make_study, rate, short):
    assert ("Runs of less than 0.1 s are unreliable" in report_text(make_study(lambda p: rate * p, (1, 2)))) is short


def test_report_csv_has_all_values_of_every_sample(make_study, tmp_path):
    study = make_study(slowing, (1, 2, 4), noise=0.02, cores=2)
    with write_csv(tmp_path / "scaling.csv", study).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 15
    for row, sample in zip(rows, study.samples, strict=True):
        plain = {name: value for name, value in asdict(sample).items() if name not in ("phases", "traffic")}
        assert {name: row.pop(name) for name in plain} == {name: str(value) for name, value in plain.items()}
        assert float(row.pop("rate")) == sample.rate
        assert {name: float(row.pop(f"{name}_seconds")) for name in PHASES} == sample.phases
        assert {name: float(row.pop(f"{name}_per_step")) for name in sample.traffic} == sample.traffic
        assert not row


def test_report_json_can_be_read_back(make_study):
    study = make_study(slowing, (1, 2, 4, 8), noise=0.02, kind="weak")
    prediction = Prediction(64, 20.0, 16.0, 25.0, dict.fromkeys(PHASES, 0.0), 64e9)
    text = json.dumps(as_json(study, analyse(study), [prediction]), allow_nan=False)
    result = json.loads(text)
    samples = tuple(Sample(**sample) for sample in result["study"].pop("samples"))
    assert ScalingStudy(**{**result["study"], "grow": tuple(result["study"]["grow"]), "samples": samples}) == study
    assert result["analysis"]["points"][3]["efficiency"]["value"] == analyse(study).points[3].efficiency.value
    assert result["analysis"]["fits"][1]["parameters"]["κ"]["interval"]
    assert result["predicted"][0]["ranks"] == 64


def test_quantity_has_units():
    assert [quantity(value) for value in (4194304, 12.5, 1e13, 2048)] == ["4.19 M", "12.5", "10 T", "2.05 k"]
