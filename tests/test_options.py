"""Options and durations as users write them."""

from __future__ import annotations

import pytest

from anyrank.errors import UsageError
from anyrank.runtime.duration import duration
from anyrank.runtime.options import Interval, Options


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90), ("90s", 90), ("1.5min", 90), ("10min", 600), ("10 m", 600), ("2h", 7200), ("1d", 86400),
        ("1:30:00", 5400), ("02:30", 150), ("1-02:30", 95400), ("1-00:00:01", 86401),
    ],
)  # fmt: skip
def test_duration_forms_give_seconds(text, seconds):
    assert duration(text, "--walltime") == seconds


@pytest.mark.parametrize("text", ["", "0", "-5", "ten", "5 weeks", "1:2:3:4", "1e9z", "nan", "1..5"])
def test_duration_bad_text_is_refused(text):
    with pytest.raises(UsageError, match=r"--walltime .* is not a duration: write it as 90s"):
        duration(text, "--walltime")


def test_interval_parse_reads_steps_time_auto_and_off():
    assert Interval.parse("200") == Interval(steps=200)
    assert Interval.parse("10min") == Interval(seconds=600)
    assert Interval.parse("auto").young
    assert Interval.parse("off") == Interval()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"ranks": 0}, r"-n 0 must be at least 1"),
        ({"threads": 0}, r"--threads 0 must be at least 1"),
        ({"bind": "socket"}, r"--bind 'socket' must be one of auto, core, none"),
        ({"keep": 0}, r"--keep 0 must be at least 1"),
        ({"body": "fortran"}, r"--body 'fortran' must be one of auto, reference, numba, cython, cupy, shim"),
        ({"checkpoint_io": "tape"}, r"--checkpoint-io 'tape' must be one of pwrite, mpio, gather"),
        ({"checkpoint_every": "0"}, r"--checkpoint-every 0 must be at least 1 step"),
        ({"checkpoint_every": "often"}, r"--checkpoint-every 'often' must be steps"),
        ({"mtbf": "x"}, r"--mtbf 'x' is not a duration"),
    ],
)
def test_options_bad_value_names_flag_value_and_rule(values, message):
    with pytest.raises(UsageError, match=message):
        Options(**values)


def test_options_number_for_a_text_in_toml_is_accepted():
    assert Options.read({"checkpoint_every": 200, "ranks": "2"}).given() == {"checkpoint_every": "200", "ranks": 2}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"keep": 1.5}, "run.toml: keep = 1.5 must be a whole number"),
        ({"keep": True}, "run.toml: keep = True must be a whole number"),
        ({"body": 1}, "'1' must be one of auto"),
        ({"mtbf": "x"}, "run.toml: mtbf = 'x' is not a duration"),
        ({"bind": []}, "run.toml: bind = [] must be one of auto, core, none"),
        ({"kep": 3}, "run.toml: kep = 3 is not known here. Did you mean keep?"),
    ],
    ids=str,
)
def test_options_bad_value_of_a_file_is_named_with_its_key(values, message):
    with pytest.raises(UsageError) as refused:
        Options.read(values, "run.toml")
    assert message in str(refused.value)


def test_options_all_bad_values_are_named_at_once():
    with pytest.raises(UsageError, match=r"-n 0 (.|\n)*--keep 'x'"):
        Options(ranks=0, keep="x")


def test_options_kept_leaves_out_those_of_one_invocation():
    kept = Options(ranks=3, walltime="1h", as_json=True).kept()
    assert kept["ranks"] == 3 and not {"walltime", "as_json", "quiet", "threads"} & set(kept)
    assert Options(threads=2).kept()["threads"] == 2


@pytest.mark.parametrize("name", ["hang_timeout", "checkpoint_every"])
def test_options_empty_value_is_refused(name):
    with pytest.raises(UsageError, match=f"--{name.replace('_', '-')} ''"):
        Options(**{name: ""})
