"""The checks of submit files and DAG files find errors, and accept what HTCondor itself writes."""

from __future__ import annotations

import pytest
from batch.condor import check_dag, check_submit, htcondor2, leaves_queue, split_arguments

GOOD = """
executable = script.sh
arguments = "$(ClusterId).$(ProcId) 'a b' $(where:here)"
where = there
log = condor.log
request_cpus = 2
request_memory = 4G
on_exit_remove = ExitCode =!= 75 || NumJobStarts >= 3
+Partition = "long"
queue 20
"""


def test_check_submit_stopped_job_stays_in_the_queue():
    submit = check_submit(GOOD)
    assert [leaves_queue(submit, code) for code in (0, 1, 75, None)] == [True, True, False, True]
    assert leaves_queue(submit, 75, starts=3)


@pytest.mark.parametrize(
    "old, new, why",
    [
        ("request_cpus = 2", "request_cpu = 2", "request_cpu is no submit command"),
        ("request_cpus = 2", "request_cpus = two", "is no number"),
        ("=!= 75", "!= 75", "is not true or false"),
        ("log = condor.log", "periodic_remove = NumJobStart > 3", "is not true or false"),
        ("'a b'", "'a b", "is not closed"),
        ("queue 20", "", "nothing is queued"),
        ("executable = script.sh", "", "there is no executable"),
    ],
)
def test_check_submit_bad_file_is_refused(old, new, why):
    with pytest.raises(AssertionError, match=why):
        check_submit(GOOD.replace(old, new))


def test_check_submit_bad_expression_is_refused():
    with pytest.raises(Exception, match="Unable to parse"):
        check_submit(GOOD.replace(">= 3", ">= (3"))


def test_words_arguments_are_split_as_in_the_manual():
    # The example of condor_submit's manual page.
    assert split_arguments('''"one ""two"" 'spacey ''quoted'' argument'"''') == [
        "one",
        '"two"',
        "spacey 'quoted' argument",
    ]


DIAMOND = """
# a diamond
JOB a script.sub DIR runs/a
JOB b script.sub DIR runs/b
JOB c script.sub DIR runs/c NOOP
JOB d script.sub DIR runs/d
RETRY a 3 UNLESS-EXIT 1
VARS b rows="512" where="x y"
PARENT a CHILD b c
PARENT b c CHILD d
"""


def test_check_dag_diamond_gives_its_needs(tmp_path, monkeypatch):
    needs = check_dag(DIAMOND, tmp_path, monkeypatch)
    assert needs == {"a": set(), "b": {"a"}, "c": {"a"}, "d": {"b", "c"}}


@pytest.mark.parametrize(
    "old, new, why",
    [
        ("DIR runs/b", "DIR runs/my b", "not the grammar of JOB"),
        ("CHILD d", "CHILD e", "unknown node"),
        ("PARENT a CHILD b c", "PARENT a d CHILD b c", "wait for each other"),
        ("JOB c", "JOB b", "is there twice"),
        ("RETRY a 3", "RETRY a many", "not the grammar of RETRY"),
        ("RETRY a 3", "RETRIES a 3", "is not a valid DAG command"),
    ],
)
def test_check_dag_bad_file_is_refused(old, new, why, tmp_path, monkeypatch):
    with pytest.raises(Exception, match=why):
        check_dag(DIAMOND.replace(old, new), tmp_path, monkeypatch)


def test_check_dag_of_htcondors_own_writer_gives_its_needs(tmp_path, monkeypatch):
    from htcondor2 import dags

    dag, job = dags.DAG(), htcondor2.Submit("executable = /bin/true\nqueue")
    first = dag.layer(name="a", submit_description=job, retries=3, retry_unless_exit=1)
    last = first.child_layer(name="b", submit_description=job, vars=[{"x": "1"}]).child_layer(
        name="c", submit_description=job
    )
    last.script = dags.Script("/bin/true", ["done"])
    text = dags.write_dag(dag, tmp_path / "dag").read_text()
    assert check_dag(text, tmp_path, monkeypatch) == {"a:0": set(), "b:0": {"a:0"}, "c:0": {"b:0"}}
