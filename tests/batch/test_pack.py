"""An archive of this environment works in another folder and uses no file of this one."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path

import pytest
from ranks import TAG, anyrank_command, run_anyrank, run_command

from anyrank.batch.pack import _SYSTEM_LIBRARIES
from anyrank.batch.packages import files_of, select_packages
from anyrank.cli.pack import command
from anyrank.errors import UsageError

ROOT = Path(__file__).parents[2]
HEAT = ROOT / "examples" / "heat.py"
SIZE = ("--n", 64, "--steps", 40)
#: Large packages that the tests do not need: without them packing takes half the time.
LARGE = "numba,llvmlite,matplotlib,fonttools,pillow"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A user's folder, with more files in it than are packed."""
    folder = tmp_path_factory.mktemp("work") / "project"
    excluded = (".git/config", "env/pyvenv.cfg", "env/lib/big.py", "runs/1/run.toml", "runs/1/big.h5")
    for name in ("data/grid.txt", *excluded):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")
    shutil.copy(HEAT, folder / "heat.py")
    (folder / "of_another_python.py").write_text("print 'hello'\n")
    return folder


@pytest.fixture(scope="module")
def archive(project):
    out = project / "env.tar.gz"
    words = ("pack", "heat.py", ".", "--only", "anyrank", "--without", LARGE, "--out")
    done = run_anyrank(*words, out, cwd=project)
    assert done.returncode == 0, done.stderr
    assert not done.stderr and done.stdout.startswith(f"{out}: ") and " files, " in done.stdout
    assert {path.name for path in project.glob("*.tar.gz")} == {"env.tar.gz"} and not list(project.glob(".*.tmp"))
    return out


@pytest.fixture(scope="module")
def unpacked(archive, tmp_path_factory):
    """The folder into which the archive is unpacked: its path has a space and a quote."""
    folder = tmp_path_factory.mktemp("node") / "job 7's"
    folder.mkdir()
    subprocess.run(["tar", "-xf", archive, "-C", folder], check=True)
    return folder


@pytest.fixture(scope="module")
def half_run(tmp_path_factory):
    """A run that is half done, and the digest that it has at the end on this machine."""
    folder = tmp_path_factory.mktemp("runs")
    half = run_anyrank("run", HEAT, *SIZE, "--stop-at", 20, "--out", folder / "half", ranks=2)
    assert half.returncode == 75, half.stderr
    whole = run_anyrank("run", HEAT, *SIZE, "--out", folder / "whole", "--json")
    return folder / "half", digest(whole)


def digest(done):
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])["digest"]


def run_clean(*command, hide=(), cwd=None, **more):
    """Run a command with an almost empty environment; `hide` lists folders to hide, in a mount namespace."""
    variables = {"PATH": "/usr/bin:/bin", "HOME": "/tmp", **more}
    clean = f'exec env -i {shlex.join(f"{k}={v}" for k, v in variables.items())} {TAG}="${TAG}" "$@"'
    mounts = [f"mount -t tmpfs none {shlex.quote(str(path))} && " for path in hide]
    words = ("bash", "-c", "".join(mounts) + clean, "bash", *command)
    return run_command(*(("unshare", "-m") if hide else ()), *words, cwd=cwd)


def environment_folders():
    """All folders of this environment."""
    base = [sysconfig.get_path("stdlib"), "/usr/lib/python3"] if sys.base_prefix == "/usr" else [sys.base_prefix]
    sources = [ROOT / name for name in ("src", "kernels", "jobs", "examples")]
    return [path for path in {Path(name).resolve() for name in (sys.prefix, *base, *sources)} if path.is_dir()]


def no_mounts():
    return subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode != 0


@pytest.mark.slow
@pytest.mark.parametrize("hidden", [False, True])
def test_pack_run_resumed_from_the_archive_has_the_same_bits(unpacked, half_run, tmp_path, hidden):
    if hidden and no_mounts():
        pytest.skip("hiding folders needs root")
    half, expected = half_run
    hide = environment_folders() if hidden else []
    before = modification_times(unpacked)
    program = ("--program", unpacked / "program" / "heat.py")
    shutil.copytree(half, tmp_path / "half")
    resumed = run_clean(unpacked / "bin/anyrank", "resume", tmp_path / "half", "-n", 2, *program, "--json", hide=hide)
    words = (unpacked / "bin/anyrank", "run", program[1], *SIZE, "--out", tmp_path / "new", "--json")
    (tmp_path / "anyrank.py").write_text("raise SystemExit('imported from the working folder')")
    new = run_clean(unpacked / "bin/mpiexec", "-n", 2, *words, hide=hide, cwd=tmp_path)
    assert digest(resumed) == digest(new) == expected
    assert "another anyrank" not in resumed.stderr
    assert modification_times(unpacked) == before, "nothing was compiled or written"


def modification_times(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


LOADED = """
import sys, ctypes, curses, sqlite3, ssl, h5py, numpy, mpi4py.MPI, anyrank.cli.run, anyrank.kernels.philox.cpu_cython
print(*sys.path[1:], *(m.__file__ for m in sys.modules.values() if getattr(m, "__file__", None)), sep="\\n")
print(*(line.split(None, 5)[5].strip() for line in open("/proc/self/maps") if ".so" in line), sep="\\n")
"""


@pytest.mark.slow
def test_pack_python_of_the_archive_loads_only_its_own_files(unpacked):
    done = run_clean(unpacked / "bin/python3", "-c", LOADED, PYTHONPATH=ROOT / "src", PYTHONHOME="/nowhere")
    assert done.returncode == 0, done.stderr
    result = set(done.stdout.splitlines())
    ours = {path for path in result if path.startswith(f"{unpacked}/")}
    assert len(ours) > 300 and not [path for path in result - ours if not _SYSTEM_LIBRARIES.match(Path(path).name)]


@pytest.mark.slow
@pytest.mark.parametrize("theirs", [None, "/of/a/module:/and another"])
def test_pack_child_processes_get_no_library_of_the_archive(unpacked, theirs):
    more = {"LD_LIBRARY_PATH": theirs} if theirs else {}
    code = "import os; print(os.environ.get('LD_LIBRARY_PATH')); os.system('echo $LD_LIBRARY_PATH')"
    done = run_clean(unpacked / "bin/python3", "-c", code, **more)
    assert sorted(done.stdout.splitlines()) == sorted([str(theirs), theirs or ""])


@pytest.mark.slow
def test_pack_archive_holds_the_expected_files(archive):
    with tarfile.open(archive) as file:
        entries = file.getmembers()
    names = [entry.name for entry in entries]
    assert names == sorted(names) and {(entry.uid, entry.gid, entry.uname) for entry in entries} == {(0, 0, "")}
    cache = f"program/__pycache__/heat.{sys.implementation.cache_tag}.pyc"
    user = {name for name in names if name.startswith("program/") and "__pycache__" not in name}
    own = {f"program/project/{name}" for name in ("data/grid.txt", "heat.py", "of_another_python.py")}
    assert user == {"program/heat.py", *own} and cache in names
    packages = {name.split("/")[3] for name in names if "/site-packages/" in name}
    assert {"numpy", "h5py", "anyrank"} <= packages
    assert not packages & {"pip", "setuptools", "pytest", "mypy", "Cython", "numba", "PIL"}
    assert not [name for name in names if "__editable__" in name or "/idlelib/" in name or "direct_url" in name]
    source, compiled = {name for name in names if name.endswith(".py")}, {name for name in names if ".pyc" in name}
    assert len(source) - len(compiled) == 1, "all but one, which is of another Python"


@pytest.mark.slow
def test_pack_from_an_unpacked_archive_is_refused(unpacked, tmp_path):
    done = run_clean(unpacked / "bin/anyrank", "pack", "--out", tmp_path / "x.tar")
    assert done.returncode == 2 and "is an unpacked archive. Use that archive" in done.stderr
    assert not list(tmp_path.iterdir())


BAD = {
    "not an archive": (("--out", "env.zip"), "--out 'env.zip' must end in .tar.gz or .tar"),
    "there already": (("--out", "there.tar"), "--out 'there.tar' exists. Use another name, or --force"),
    "a folder": (("--out", "folder.tar", "--force"), "--out 'folder.tar' exists. Use another name"),
    "nowhere": (("--out", "no/env.tar"), "--out 'no/env.tar' cannot be written (No such file or directory)"),
    "not writable": (("--out", "/proc/env.tar"), "--out '/proc/env.tar' cannot be written"),
    "no program": (("heat.py", "--out", "env.tar"), "PROGRAM 'heat.py' cannot be read"),
    "two of one name": (("a", "b/../a", "--out", "env.tar"), "PROGRAM 'b/../a' and 'a' have the same name"),
    "unknown only": (("--only", "anyrank,scpy", "--out", "env.tar"), "'scpy': it is not installed here"),
    "unknown without": (("--without", "scpy", "--out", "env.tar"), "'scpy': it is not installed here"),
}


@pytest.mark.parametrize("case", BAD)
def test_pack_bad_input_is_refused_before_any_work(tmp_path, monkeypatch, case):
    words, expected = BAD[case]
    (tmp_path / "there.tar").write_text("precious")
    for name in ("folder.tar", "a", "b"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=re.escape(expected)):
        command.main(words, standalone_mode=False)
    assert (tmp_path / "there.tar").read_text() == "precious"
    assert {path.name for path in tmp_path.iterdir()} == {"there.tar", "folder.tar", "a", "b"}


def test_pack_without_out_is_refused(tmp_path):
    done = run_anyrank("pack", cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.count("Missing option '--out'") == 1 and not list(tmp_path.iterdir())


def test_pack_full_disk_keeps_the_old_archive(tmp_path):
    (tmp_path / "env.tar").write_text("precious")
    pack = shlex.join(anyrank_command("pack", "--only", "click", "--out", "env.tar", "--force"))
    done = run_command("bash", "-c", f"ulimit -f 10000; exec {pack}", cwd=tmp_path)
    assert done.returncode == 1 and "--out 'env.tar' cannot be made: " in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and (tmp_path / "env.tar").read_text() == "precious"
    assert [path.name for path in tmp_path.iterdir()] == ["env.tar"]


@pytest.fixture
def site(tmp_path, monkeypatch):
    """Fixture without other distributions: `site(name, requires, files)` installs one."""
    folder = tmp_path / "lib" / "python3.x" / "site-packages"
    monkeypatch.setattr(sys, "path", [str(folder)])

    def install(name, *requires, files=(), **more):
        information = folder / f"{name.replace('-', '_')}-1.0.dist-info"
        information.mkdir(parents=True)
        needs = "".join(f"Requires-Dist: {need}\n" for need in requires)
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{needs}")
        for file in files:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_text("#!/bin/sh\n")
        for file, text in {"RECORD": "".join(f"{file},,\n" for file in files), **more}.items():
            if text is not None:
                (information / file.replace("_json", ".json")).write_text(text)
        return folder

    return install


def names(*arguments):
    return [result.metadata["Name"] for result in select_packages(*arguments)]


def test_select_packages_only_takes_what_is_required(site):
    site("Top", "mid-dle[fast]; python_version > '3'", "old; python_version < '3'", "gone")
    site("mid_dle", "quick; extra == 'fast'", "slow; extra == 'other'", "top")
    for name in ("quick", "slow", "old", "mpich", "anyrank", "pip"):
        site(name)
    assert names(["top"], []) == ["anyrank", "mid_dle", "mpich", "quick", "Top"]
    assert names(["TOP"], ["Mid.Dle", "mpich"]) == ["anyrank", "Top"]
    assert names([], ["old"]) == ["anyrank", "mid_dle", "mpich", "quick", "slow", "Top"]


def test_files_of_takes_files_and_programs_of_the_environment(site):
    """Files outside the environment, caches and scripts with an absolute path of Python are left out."""
    listed = ["a.py", "__pycache__/a.pyc", "../../../bin/tool", "../../../include/a.h", "../../../../out", "gone.py"]
    folder = site("a", files=listed)
    (folder / "gone.py").unlink()
    (tool := folder.parents[2] / "bin" / "script").write_text("#!/old/place/bin/python3\n")
    (folder / "a-1.0.dist-info" / "RECORD").open("a").write("../../../bin/script,,\n")
    result = files_of(select_packages([], [])[0])
    assert tool.is_file() and {name.split("site-packages/")[-1] for name in result} == {"a.py", "bin/tool"}


def test_select_packages_editable_or_without_record_is_refused(site):
    site("ours", direct_url_json='{"dir_info": {"editable": true}, "url": "file:///home/me/ours"}')
    site("apt", RECORD=None)
    with pytest.raises(UsageError, match=r"apt is installed without pip.* --without apt "):
        select_packages([], [])
    with pytest.raises(UsageError, match=r"ours is installed editable.*with pip and without -e, or use --without ours"):
        select_packages([], ["apt"])
    assert select_packages([], ["apt", "ours"]) == []


def test_select_packages_conda_environment_is_refused(tmp_path, monkeypatch):
    (tmp_path / "conda-meta").mkdir()
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path))
    with pytest.raises(UsageError, match=f"{sys.prefix} is a conda environment. Pack it with conda-pack"):
        select_packages([], [])


def test_resume_moved_program_needs_its_new_path(half_run, tmp_path):
    half, expected = half_run
    shutil.copytree(half, tmp_path / "run")
    description = (tmp_path / "run" / "run.toml").read_text().replace(str(HEAT), "/gone/heat.py")
    (tmp_path / "run" / "run.toml").write_text(description)
    shutil.copy(HEAT, tmp_path / "now.py")
    for words, message in {
        (): "program file '/gone/heat.py' does not exist",
        ("--program", "gone.py"): "program file 'gone.py' does not exist",
        ("--program", "pi"): "--program pi is 'pi', but run is a run of 'heat'. Give the file of that program.",
    }.items():
        done = run_anyrank("resume", "run", *words, cwd=tmp_path, ranks=1)
        assert done.returncode == 2 and done.stderr.count(message) == 1, done.stderr
    done = run_anyrank("resume", "run", "--program", "now.py", "--json", cwd=tmp_path, ranks=3)
    assert digest(done) == expected and (tmp_path / "run" / "run.toml").read_text() == description


def test_run_module_names_in_the_working_folder_are_not_imported(tmp_path):
    for name in ("h5py", "click", "calendar"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported from the working folder')\n")
    done = run_anyrank("run", "pi", "--points", 10, "--out", "run", cwd=tmp_path, ranks=2)
    assert done.returncode == 0, done.stderr


WHERE = '''
import sys
from pathlib import Path
from anyrank import exact
from heat import Heat


class Where(Heat):
    """Heat that tells where its Python is, and what it has loaded from elsewhere."""

    def result(self, state):
        files = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
        unpacked = str(Path(sys.prefix).resolve())
        foreign = sorted({file for file in files if file and not file.startswith(unpacked)})
        return {"unpacked": unpacked, "elsewhere": foreign}
'''


@pytest.mark.slow
def test_pack_slurm_job_needs_no_other_python(archive, half_run, tmp_path, slurm):
    """Two nodes unpack the archive; this environment is hidden from the shell of the job, which starts anyrank."""
    hide = " && ".join(f"mount -t tmpfs none {shlex.quote(str(path))}" for path in environment_folders())
    setup = f'[[ -n $HIDDEN ]] || HIDDEN=1 exec unshare -m bash -c {shlex.quote(hide)}\' && exec bash "$0"\' "$0"'
    sites = tmp_path / "config" / "anyrank" / "sites"
    sites.mkdir(parents=True)
    (sites / "hidden.toml").write_text(
        f'scheduler = "slurm"\npack = "{archive}"\nscratch = "{tmp_path}/disk of a node"\n'
        f'setup = [{json.dumps(setup)}]\n[environment]\nPATH = "/usr/bin:/bin"\n'
    )
    shutil.copy(HEAT, tmp_path)
    (tmp_path / "where.py").write_text(WHERE)
    run = tmp_path / "run"
    words = ("submit", tmp_path / "where.py", *SIZE, "--site", "hidden", "--nodes", 2, "--out", run)
    done = run_anyrank(*words, cwd=tmp_path, env={**slurm.environment, "XDG_CONFIG_HOME": str(tmp_path / "config")})
    assert done.returncode == 0, done.stderr
    job = (run / "job" / "id").read_text().strip()
    slurm.wait_for(job, "COMPLETED", "FAILED")
    assert (run / "result.json").exists(), (run / "job" / f"{job}.log").read_text()
    result = json.loads((run / "result.json").read_text())
    assert result["unpacked"] == f"{tmp_path}/disk of a node/anyrank-{job}"
    assert result["elsewhere"] == [str(tmp_path / name) for name in ("heat.py", "where.py")]
    assert json.loads((run / "summary.json").read_text())["digest"] == half_run[1]
    assert not list((tmp_path / "disk of a node").iterdir()), "the nodes' disks are clean again"
