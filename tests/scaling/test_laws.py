"""Analysis of samples: ratios within rounds, confidence intervals, and laws that are recovered or refused."""

from dataclasses import replace

import numpy as np
import pytest

from anyrank.scaling.laws import AMDAHL, GUSTAFSON, USL, _aicc, analyse


def amdahl(s):
    return lambda p: 1 / (s + (1 - s) / p)


def gustafson(s):
    return lambda p: s + (1 - s) * p


def usl(σ, κ):
    return lambda p: p / (1 + σ * (p - 1) + κ * p * (p - 1))


def parameters(study, law):
    analysis = next(fit for fit in analyse(study).fits if fit.law == law)
    return {name: parameter.value for name, parameter in analysis.parameters.items()}


@pytest.mark.parametrize("ranks", [(1, 2, 4, 8, 16), (2, 3, 4, 6, 8)])
@pytest.mark.parametrize(
    ("kind", "rate", "law", "known"),
    [
        ("strong", amdahl(0.05), AMDAHL, {"s": 0.05}),
        ("strong", usl(0.05, 0.002), USL, {"σ": 0.05, "κ": 0.002}),
        ("weak", gustafson(0.1), GUSTAFSON, {"s": 0.1}),
        ("weak", usl(0.02, 0.001), USL, {"σ": 0.02, "κ": 0.001}),
    ],
)
def test_analyse_known_law_is_recovered_and_fits_best(make_study, kind, rate, law, known, ranks):
    study = make_study(rate, ranks, kind=kind)
    analysis = analyse(study)
    fit = next(fit for fit in analysis.fits if fit.law == law)
    assert {name: parameter.value for name, parameter in fit.parameters.items()} == pytest.approx(known)
    assert analysis.best == law and analysis.verdict.startswith(f"{law} fits best")
    assert fit.misfit < 1e-9
    np.testing.assert_allclose(fit.speedup(ranks), [point.speedup.value for point in analysis.points])
    np.testing.assert_allclose(fit.speedup([64]), ranks[0] * rate(64.0) / rate(ranks[0]))


@pytest.mark.parametrize(
    ("rate", "noise", "kind", "known"),
    [
        (amdahl(0.05), 0.05, "strong", (0.05,)),
        (usl(0.05, 0.003), 0.01, "strong", (0.05, 0.003)),
        (gustafson(0.1), 0.03, "weak", (0.1,)),
    ],
)
def test_analyse_intervals_cover_in_nine_of_ten_studies(make_study, rate, noise, kind, known):
    ranks, covered, narrow = (1, 2, 4, 8, 16), [], []
    for seed in range(200):
        analysis = analyse(make_study(rate, ranks, kind=kind, noise=noise, seed=seed))
        fit = next(fit for fit in analysis.fits if len(fit.parameters) == len(known))
        pairs = list(zip(fit.parameters.values(), known, strict=True))
        pairs += [(point.speedup, rate(point.ranks)) for point in analysis.points[1:]]
        covered.append([ratio.interval[0] - 1e-12 <= value <= ratio.interval[1] + 1e-12 for ratio, value in pairs])
        narrow.append([ratio.interval[1] - ratio.interval[0] for ratio, _ in pairs])
    assert (np.mean(covered, axis=0) >= 0.9).all(), np.mean(covered, axis=0)
    # The intervals are not too wide: for a speed-up, √2 noise 2 t(4)/√5 = 3.5 noise, as a fraction.
    assert (np.median(narrow, axis=0)[-4:] < 4.5 * noise * np.array([rate(p) for p in ranks[1:]])).all()


def test_analyse_karp_flatt_equals_a_hand_calculation(make_study):
    # 10 s become 3.25 s on 4 ranks: S = 3.0769, e = (0.325 − 0.25)/0.75 = 0.1.
    study = make_study(amdahl(0.1), (1, 4), drift=0)
    assert [point.seconds.value for point in analyse(study).points] == pytest.approx([10, 3.25])
    first, last = analyse(study).points
    assert first.serial is None and last.serial.value == pytest.approx(0.1)
    assert last.speedup.value == pytest.approx(10 / 3.25) and last.efficiency.value == pytest.approx(10 / 13)
    assert analyse(make_study(amdahl(0.1), (2, 4))).points[1].serial is None


def test_analyse_karp_flatt_interval_is_that_of_the_speed_up(make_study):
    point = analyse(make_study(amdahl(0.1), (1, 4), noise=0.03)).points[1]
    assert point.serial.interval[0] < point.serial.value < point.serial.interval[1]
    assert point.serial.interval[0] == pytest.approx((1 / point.speedup.interval[1] - 0.25) / 0.75)


def test_analyse_drift_cancels_in_ratios_but_not_in_seconds(make_study):
    point = analyse(make_study(amdahl(0.1), (1, 4))).points[1]
    assert point.speedup.interval == pytest.approx((10 / 3.25,) * 2)
    assert point.seconds.interval[1] > 1.1 * point.seconds.interval[0]


def test_analyse_rounded_size_of_a_weak_study_changes_nothing(make_study):
    """A size that was rounded when it grew changes no speed-up."""
    study = make_study(gustafson(0.1), (1, 2, 4), kind="weak")
    more = [replace(sample, work=1.07 * sample.work, seconds=1.07 * sample.seconds) for sample in study.at(4)]
    other = replace(study, samples=(*study.at(1), *study.at(2), *more))
    assert analyse(other).points[2].speedup.value == pytest.approx(analyse(study).points[2].speedup.value)


def test_analyse_separates_slower_computing_from_lost_time(make_study):
    study = make_study(amdahl(0.0), (1, 2))
    slow = [replace(sample, seconds=1.5 * sample.seconds, phases={**sample.phases, "compute": 1.5 * sample.seconds})
            for sample in study.at(2)]  # fmt: skip
    point = analyse(replace(study, samples=(*study.at(1), *slow))).points[1]
    assert point.slowdown.value == pytest.approx(1.5) and point.phases["compute"] == pytest.approx(1)


@pytest.mark.parametrize("repeat", [1, 2, 3, 5, 6, 8, 10])
def test_analyse_interval_of_a_median(make_study, repeat):
    point = analyse(make_study(amdahl(0.1), (1,), repeat=repeat)).points[0]
    ordered = np.sort([sample.seconds for sample in make_study(amdahl(0.1), (1,), repeat=repeat).samples])
    assert point.seconds.value == np.median(ordered)
    if repeat < 3:
        assert point.seconds.interval == ()
    elif repeat < 6:
        t = {3: 4.302653, 5: 2.776445}[repeat]
        logs = np.log(ordered)
        ends = logs.mean() + np.array([-1, 1]) * t * logs.std(ddof=1) / np.sqrt(repeat)
        assert point.seconds.interval == pytest.approx(np.exp(ends))
    else:  # from tables for 95 %: 1 and 6 of 6, 1 and 8 of 8, 2 and 9 of 10
        assert point.seconds.interval == tuple(ordered[[1, -2] if repeat == 10 else [0, -1]])


@pytest.mark.parametrize(("ranks", "count_text"), [((1,), "there is 1"), ((1, 2), "there are 2")])
def test_analyse_too_few_points_give_no_fit_and_a_reason(make_study, ranks, count_text):
    analysis = analyse(make_study(amdahl(0.1), ranks))
    assert not analysis.fits and analysis.best is None
    assert analysis.missing == (
        f"Amdahl's law has 2 unknowns and needs at least 3 numbers of ranks that do not share cores; {count_text}.",
        "Universal Scalability Law has 3 unknowns and needs at least 4 numbers of ranks that do not share cores; "
        f"{count_text}.",
    )


def test_analyse_similar_numbers_of_ranks_give_no_fit(make_study):
    """Noise would appear as a fraction: the speed-ups differ by little else."""
    analysis = analyse(make_study(lambda p: 1 / (0.01 + 0.99 / p), (1000, 1001, 1002, 1003), noise=0.02))
    assert not analysis.fits
    assert "at least a factor of 2; they are 1000 to 1003." in analysis.missing[0]


def test_analyse_three_points_allow_one_law(make_study):
    analysis = analyse(make_study(amdahl(0.1), (1, 2, 4)))
    assert [fit.law for fit in analysis.fits] == [AMDAHL] and analysis.best is None and len(analysis.missing) == 1
    assert analysis.verdict == "Amdahl's law is the only law that these points determine."


def test_analyse_oversubscribed_samples_enter_no_fit(make_study):
    oversubscribed = analyse(make_study(usl(0.1, 0.1), (1, 2, 3, 4, 8, 16), cores=4))
    alone = analyse(make_study(usl(0.1, 0.1), (1, 2, 3, 4)))
    wild = make_study(usl(0.1, 0.1), (1, 2, 3, 4, 8, 16), cores=4)
    wild = replace(wild, samples=tuple(replace(sample, seconds=(9.0 if sample.oversubscribed else 1) * sample.seconds)
                                       for sample in wild.samples))  # fmt: skip
    assert [point.oversubscribed for point in oversubscribed.points] == [False] * 4 + [True] * 2
    for other in (alone, analyse(wild)):
        for fit, same in zip(oversubscribed.fits, other.fits, strict=True):
            assert fit.speedup([2, 16]) == pytest.approx(same.speedup([2, 16]))
    few = analyse(make_study(amdahl(0.1), (1, 2, 4, 8), cores=2))
    assert not few.fits and "there are 2." in few.missing[0]


def test_analyse_laws_that_fit_equally_well_have_no_best(make_study):
    analysis = analyse(make_study(usl(0.05, 0.002), (1, 2, 4, 8), noise=0.02, seed=2))
    assert analysis.best is None and " fit equally well: " in analysis.verdict and AMDAHL in analysis.verdict
    once = analyse(make_study(usl(0.05, 0.002), (1, 2, 4, 8), repeat=1))
    assert once.best is None and once.verdict == "Too few samples to decide which law fits best."
    assert [fit.aicc for fit in once.fits] == [None, None]
    assert all(parameter.interval == () for fit in once.fits for parameter in fit.parameters.values())


def test_aicc_equals_a_hand_calculation():
    # Two rounds of four, less their two scales: n = 6, k = 2; 6 ln(0.04/6) + 2·2 + 2·2·3/3.
    assert _aicc(np.array([[1.1, 0.9, 1, 1], [0, 0, 0.1, -0.1]]), 1) == pytest.approx(-22.063812)


def test_analyse_superlinear_speed_up_gives_no_negative_value(make_study):
    analysis = analyse(make_study(lambda p: p**1.1, (1, 2, 4, 8), noise=0.01))
    assert analysis.points[-1].efficiency.value > 1
    assert analysis.fits[0].parameters["s"].value == 0 and analysis.fits[0].parameters["s"].interval == (0, 0)
    assert all(
        0 <= parameter.value <= parameter.interval[1] for fit in analysis.fits for parameter in fit.parameters.values()
    )


def test_analyse_slowdown_only_has_no_universal_law(make_study):
    analysis = analyse(make_study(lambda p: 1 / (p - 1), (2, 3, 5, 9)))
    assert [fit.law for fit in analysis.fits] == [AMDAHL]
    assert analysis.missing[0].startswith("Universal Scalability Law cannot be fitted")


def test_analyse_incomplete_study_uses_the_complete_rounds(make_study):
    study = make_study(amdahl(0.05), (1, 2, 4))
    lacking = replace(study, samples=tuple(sample for sample in study.samples if sample.ranks < 4 or sample.round > 3))
    assert len(analyse(lacking).points[2].rounds) == 2
    assert parameters(lacking, AMDAHL) == pytest.approx({"s": 0.05})
    apart = replace(
        study, samples=tuple(sample for sample in study.samples if (sample.ranks == 4) == (sample.round == 5))
    )
    assert "there is none" in analyse(apart).missing[0]
    base = np.median([sample.rate for sample in apart.at(1)])
    assert analyse(apart).points[2].speedup.value == pytest.approx(apart.at(4)[0].rate / base)
