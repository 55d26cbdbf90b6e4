"""Scaling studies as users run them: rounds, stored samples, resuming, growth, a known fraction, and refusals."""

import json
import shutil
from pathlib import Path

import pytest
from hosts import missing, start_hosts
from ranks import run_anyrank

from anyrank.batch.request import SubmitOptions
from anyrank.cli import scale as scale_module
from anyrank.cli.scale import _growing, _submit, command
from anyrank.errors import AnyrankError, UsageError
from anyrank.program import Program, param
from anyrank.runtime import child_run
from anyrank.runtime.folder import RunFolder
from anyrank.runtime.programs import load
from anyrank.scaling.options import ScaleOptions
from anyrank.scaling.study_folder import Plan, StudyFolder, grown

SERIAL = Path(__file__).with_name("serial.py")
QUICK = ("--milliseconds", 2, "--steps", 4)


def scale(*words, status=0, env=None, run=run_anyrank):
    done = run("scale", *words, env=env)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stderr if status else done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A study of one round on 1 and 2 ranks."""
    out = tmp_path_factory.mktemp("study") / "s"
    scale("strong", SERIAL, *QUICK, "--ranks", "1,2", "--repeat", 1, "--out", out)
    return out


def test_scale_study_leaves_samples_tables_plots_and_no_runs(folder):
    assert {path.name for path in folder.iterdir()} == {
        *("study.toml", "samples", "scaling.csv", "scaling.json", "scaling.png", "scaling.svg")
    }
    result = [json.loads(path.read_text()) for path in sorted((folder / "samples").iterdir())]
    assert [(row["ranks"], row["round"], row["steps"], row["work"]) for row in result] == [(1, 1, 3, 6), (2, 1, 3, 6)]
    assert result[0]["digest"] == result[1]["digest"]
    assert result[0]["phases"]["checkpoint"] == 0, "there was none, which a prediction multiplies"
    assert result[0]["seconds"] == pytest.approx(sum(result[0]["phases"].values()))
    assert result[0]["phases"]["compute"] > 0, "it sleeps, if less than told where it woke up late before"
    assert json.loads((folder / "scaling.json").read_text())
    assert (folder / "scaling.csv").read_text().count("\n") == 3


def test_scale_added_ranks_and_rounds_keep_the_samples(folder):
    before = {path.name: path.read_bytes() for path in (folder / "samples").iterdir()}
    words = scale("strong", SERIAL, *QUICK, "--ranks", "1,2", "--repeat", 2, "--out", folder)
    assert words.index("round 2 of 2: 2 rank(s)") < words.index("round 2 of 2: 1 rank(s)")
    assert "round 1" not in words
    assert before.items() <= {path.name: path.read_bytes() for path in (folder / "samples").iterdir()}.items()
    assert "round" not in scale("resume", folder)
    (folder / "scaling.png").unlink()
    assert "2" in scale("report", folder) and (folder / "scaling.png").exists()


def test_scale_report_of_too_few_ranks_says_so(folder):
    message = scale("report", folder)
    assert "at least 3" in message and "Amdahl" in message
    assert not json.loads((folder / "scaling.json").read_text())["analysis"]["fits"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("strong", SERIAL, "--ranks", "1,2,1"), "--ranks 1,2,1 has 1 twice. Remove one of them."),
        (("strong", SERIAL, "--ranks", "0,1"), "--ranks '0,1' must be whole numbers from 1, joined by commas"),
        (("strong", SERIAL, "--ranks", "1,4097"), "--ranks 1,4097: 4097 is more than the limit of"),
        (("strong", SERIAL, "--nodes", 3), "--nodes is for jobs. Add --on slurm, pbs or htcondor."),
        (("strong", SERIAL, "--hosts", "a:1,b:1", "--ranks", "1,3"), "more than the 2 slots of --hosts a:1,b:1"),
        (("strong", SERIAL, "--predict", "64,x"), "--predict '64,x' must be whole numbers from 1"),
        (("strong", SERIAL, "--network", "no.json", "--predict", 64), "no.json"),
        (("strong", SERIAL, "--body", "fast"), "--body 'fast' must be one of"),
        (("strong", SERIAL, "--on", "slurm", "--nodes", 2, "--ranks", "1,3"), "3 is more than the 2 ranks of a job"),
        (("strong", SERIAL, "--on", "slurm", "--nodes", 2, "--hosts", "a"), "jobs get their hosts from the scheduler"),
        (("weak", SERIAL, "--grow", "size"), "--grow 'size' is not a numeric parameter of serial."),
        (("weak", SERIAL, "--grow", "fraction"), "2 times --fraction does not give 2 times its work()."),
        (("weak", "weather", "--grow", "initial"), "Use some of: rows, columns, steps."),
        (("strong", SERIAL, "--steps", 1), "serial: 1 step(s) cannot be measured, because the first only warms up"),
        (("resume", "nowhere"), "holds no scaling study"),
        (("report", "."), "holds no scaling study"),
    ],
    ids=str,
)  # fmt: skip
def test_scale_bad_input_is_refused_before_any_run(tmp_path, monkeypatch, refused, words, message):
    monkeypatch.chdir(tmp_path)
    error = scale(*words, *(() if words[0] in ("resume", "report") else ("--out", "s")), status=2, run=refused)
    assert message in error and error.count("anyrank:") == 1
    assert not (tmp_path / "s").exists()


def test_scale_folder_of_another_study_is_refused_and_kept(folder, tmp_path, refused):
    words = ("--ranks", "1,2", "--out")
    study_folder = (folder / "study.toml").read_text()

    def message(*more):
        return scale(*more, status=2, run=refused)

    # One case through the command line as users call it.
    assert "study with another program (serial, not pi)" in scale("strong", "pi", *words, folder, status=2)
    assert "study with another kind (strong, not weak)" in message("weak", SERIAL, *QUICK, *words, folder)
    assert "study with another --steps (4, not 5)" in message(
        "strong", SERIAL, *QUICK[:2], "--steps", 5, *words, folder
    )
    assert (folder / "study.toml").read_text() == study_folder
    (tmp_path / "notes.txt").write_text("text")
    assert "holds files, but no study" in message("strong", SERIAL, *words, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_scale_failed_run_ends_the_study_and_keeps_samples(tmp_path):
    program = tmp_path / "failing.py"
    program.write_text(
        SERIAL.read_text().replace(
            "        share =", "        if state.world.size > 1:\n            {}['lost']\n        share ="
        )
    )
    out = tmp_path / "s"
    message = scale("strong", program, *QUICK, "--ranks", "1", "--repeat", 1, "--out", out)
    message = scale("strong", program, *QUICK, "--ranks", "1,2", "--repeat", 1, "--out", out, status=1)
    assert "on 2 ranks, the run failed with status 1" in message and "KeyError: 'lost'" in message
    assert [path.name for path in (out / "samples").iterdir()] == ["p000001-r001.json"]


def test_scale_refusal_of_a_run_is_bad_usage_of_the_study(tmp_path):
    message = scale("strong", SERIAL, *QUICK, "--halo-steps", 2, "--ranks", 1, "--out", tmp_path / "s", status=2)
    assert "--halo-steps 2 must be 1, because serial does not allow more" in message


def test_scale_results_that_differ_are_refused(tmp_path):
    words = (*QUICK, "--lie", "--ranks", "1,2", "--repeat", 1)
    message = scale("strong", SERIAL, *words, "--out", tmp_path / "s", status=1)
    assert "on 2 ranks the digest is" in message and "anyrank verify" in message
    assert len(list((tmp_path / "s" / "samples").iterdir())) == 1


def test_scale_run_beyond_its_timeout_is_ended(tmp_path):
    words = ("--milliseconds", 60_000, "--ranks", "1", "--repeat", 1, "--timeout", "3s")
    message = scale("strong", SERIAL, *words, "--out", tmp_path / "s", status=1)
    assert "did not end within 3 s (--timeout)" in message


@pytest.mark.parametrize(
    ("source", "given", "grow", "ranks", "expected"),
    [
        ("weather", {"rows": 10, "columns": 7}, ("rows",), 3, {"rows": 30, "columns": 7}),
        ("weather", {"rows": 10, "columns": 20}, ("rows", "columns"), 4, {"rows": 20, "columns": 40}),
        ("weather", {"rows": 100, "columns": 100}, ("rows", "columns"), 2, {"rows": 141, "columns": 141}),
        ("pi", {"points": 1000, "batch": 100}, ("points", "batch"), 5, {"points": 5000, "batch": 500}),
        ("pi", {"points": 1000}, ("points",), 1, {"points": 1000}),
        (str(SERIAL), {"milliseconds": 2.5}, ("milliseconds",), 6, {"milliseconds": 15.0}),
    ],
)
def test_grown_work_is_proportional_to_the_ranks(source, given, grow, ranks, expected):
    program = load(source)
    parameters = grown(program, program(**given).parameters, grow, ranks)
    assert {name: parameters[name] for name in expected} == pytest.approx(expected)
    assert all(type(parameters[name]) is type(value) for name, value in expected.items())


def test_grown_program_may_refuse_its_parameters():
    plan = Plan("weak", "pi", "pi", load("pi")(points=2**62).parameters, {}, ("points",), (1, 4), 1)
    with pytest.raises(UsageError, match="--points"):
        plan.program_for(4)


class Box(Program):
    n: int = param(..., "edge", le=100)

    def work(self):
        return self.n**2, "points"


@pytest.mark.parametrize(("edge", "grows"), [(60, 85), (80, None)])
def test_grown_limit_refuses_only_values_beyond_it(edge, grows):
    """Twice the edge would exceed the limit, and be four times the work."""
    if grows:
        assert grown(Box, {"n": edge}, ("n",), 2) == {"n": grows}
        assert _growing(Box(n=edge), "n") == ("n",), "a parameter without a default"
    else:
        with pytest.raises(UsageError, match=r"--n"):
            grown(Box, {"n": edge}, ("n",), 2)


def plan(ranks=(1, 2), repeat=2, hosts="", **parameters):
    parameters = {"milliseconds": 2.0, "fraction": 0.25, "steps": 4, "lie": False, **parameters}
    return Plan("strong", str(SERIAL), "serial", parameters, {}, (), ranks, repeat, hosts)


def make_summary(processor="A Processor, 2 cores for this process", digest="1", warm_up=0.1):
    timing = {"seconds": 1.0, "steps": 3, "phases": {}, "traffic": {}, "noise": 0.0, "warm_up": warm_up}
    facts = {"nodes": 1, "oversubscribed": False, "cores": 2, "digest": digest}
    return {"timing": timing, "provenance": {"processor": processor}, **facts}


def test_plan_program_without_work_is_refused(monkeypatch):
    monkeypatch.setattr(load(str(SERIAL)), "work", lambda program: (0.0, "ms"))
    with pytest.raises(UsageError, match=r"work\(\) is 0.0 per step"):
        plan().program_for(1)


def test_study_folder_reads_samples_with_the_former_key(tmp_path):
    folder = StudyFolder(tmp_path / "s")
    folder.create(plan())
    folder._keep(plan(), 1, 1, make_summary())
    (sample,) = folder.samples.iterdir()
    sample.write_text(sample.read_text().replace('"oversubscribed": false', '"oversubscribed": true'))
    assert folder.read().samples[0].oversubscribed


def test_study_folder_create_keeps_ranks_rounds_and_hosts(tmp_path):
    folder = StudyFolder(tmp_path / "s")
    folder.create(plan((3,), 7, steps=5))
    folder.create(plan((1, 4), 3, "a:4"))  # the one before has no sample yet
    folder._keep(plan(), 1, 1, make_summary())
    assert folder.create(plan((2, 4), 2, "b:4")) == folder.plan() == plan((1, 2, 4), 3, "b:4")


def test_study_folder_in_use_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("ANYRANK_LOCK_PATIENCE", "0")
    folder, other = StudyFolder(tmp_path / "s"), RunFolder(tmp_path / "s" / "runs")
    other.lock()
    with pytest.raises(UsageError, match="in use by a live run"):
        folder.measure(plan(), [1], 1.0, "", print)
    other.unlock()


def test_study_folder_incomparable_samples_are_not_kept(tmp_path):
    folder = StudyFolder(tmp_path / "s")
    folder.create(plan())
    folder._keep(plan(), 1, 1, make_summary())
    folder._keep(plan(), 2, 1, make_summary("A Processor, 1 cores for this process"))
    with pytest.raises(AnyrankError, match="round 1 was begun on A Processor, but this is Another"):
        folder._keep(plan(), 4, 1, make_summary("Another, 2 cores for this process"))
    with pytest.raises(AnyrankError, match="on 4 ranks the digest is 2, but 1 in p00000"):
        folder._keep(plan(), 4, 1, make_summary(digest="2"))
    with pytest.raises(AnyrankError, match="cannot be measured"):
        folder._keep(plan(), 4, 1, make_summary(warm_up=0.0))
    assert len(list(folder.samples.iterdir())) == 2


def test_study_folder_status_0_of_an_unfinished_run_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(child_run, "status_within", lambda *_, **streams: streams["stderr"].write(b"killed") * 0)
    folder = StudyFolder(tmp_path / "s")
    folder.create(plan())
    with pytest.raises(AnyrankError, match=r"on 2 ranks, the run failed with status 0; .*\nkilled"):
        folder.measure(plan(), [1], 1.0, "", print)


def scale_here(*words):
    return command.main([*map(str, words)], "scale", standalone_mode=False)


def test_scale_interrupted_study_says_how_to_resume(folder, tmp_path, monkeypatch):
    study_folder = shutil.copytree(folder, tmp_path / "s")
    (study_folder / "scaling.csv").unlink()
    (study_folder / "scaling.csv").mkdir()
    with pytest.raises(AnyrankError, match=rf"scaling.csv: Is a directory. .* anyrank scale resume {study_folder}"):
        scale_here("report", study_folder)

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(StudyFolder, "measure", interrupted)
    with pytest.raises(AnyrankError, match=f"^interrupted. .* continue with anyrank scale resume {study_folder}$"):
        scale_here("resume", study_folder)


def test_scale_resume_uses_the_former_hosts_and_not_jobs(tmp_path, monkeypatch):
    folder, seen = StudyFolder(tmp_path / "s"), []
    monkeypatch.setattr(
        StudyFolder, "measure", lambda self, plan, rounds, timeout, hosts, say: seen.append(hosts) or 75
    )
    folder.create(plan(hosts="a:1,b:1"))
    assert scale_here("resume", folder.path) == scale_here("resume", folder.path, "--hosts", "c:2") == 75
    folder.create(plan())
    (folder.path / "jobs").mkdir()
    with pytest.raises(UsageError, match=r"is measured in jobs\. Repeat its command with --on"):
        scale_here("resume", folder.path)
    assert scale_here("resume", folder.path, "--round", 1) == 75
    assert seen == ["a:1,b:1", "c:2", ""]


def test_scale_rounds_get_new_jobs_for_new_ranks(tmp_path, monkeypatch):
    folder, seen = StudyFolder(tmp_path / "s"), []
    folder.create(plan((1,)))
    for number in (1, 2):
        folder._keep(plan((1,)), 1, number, make_summary())
        (folder.path / f"jobs/round-{number:03}/job").mkdir(parents=True)
        (folder.path / f"jobs/round-{number:03}/job/attempts").write_text("1 started 7 a now\n1 ended 0 \n")
    monkeypatch.setattr(scale_module, "submit_members", lambda kind, path, members, *_: seen.append(members) or 0)
    how, asked = SubmitOptions(), ScaleOptions()
    assert _submit(folder, plan((1,)), {}, how, asked) == 0
    assert len(list(folder.path.rglob("attempts"))) == 2
    assert _submit(folder, plan((2,), 1), {}, how, asked) == 0
    assert not list(folder.path.rglob("attempts"))
    assert [member.name for member in seen[1]] == ["round-001", "round-002", "report"]


def test_plan_rounds_alternate_the_order_of_ranks():
    plan = Plan("strong", "pi", "pi", {}, {}, (), (4, 1, 2), 2)
    assert [plan.order(1), plan.order(2)] == [[1, 2, 4], [4, 2, 1]]


@pytest.mark.skipif(bool(missing()), reason=missing() or "there can be hosts")
def test_scale_fit_finds_the_programs_serial_fraction(tmp_path):
    with start_hosts(4, tmp_path) as hosts:
        where = ",".join(f"{address}:1" for address in hosts.addresses)
        words = ("--milliseconds", 150, "--steps", 5, "--ranks", "1,2,4", "--repeat", 3, "--hosts", where)
        words = (*words, "--out", tmp_path / "s")
        scale("strong", SERIAL, *words, env=hosts.environment)
    result = json.loads((tmp_path / "s" / "scaling.json").read_text())
    assert not any(sample["oversubscribed"] for sample in result["study"]["samples"])
    fit = next(fit for fit in result["analysis"]["fits"] if fit["law"] == "Amdahl's law")
    serial = fit["parameters"]["s"]
    clock = 0.02  # ranks that wait also sleep here, and wake up late
    assert serial["interval"][0] - clock <= 0.25 <= serial["interval"][1] + clock
    assert 0.2 < serial["value"] < 0.4
