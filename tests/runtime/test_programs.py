"""Loading a program: files in packages, classes from other modules, and paths with colons."""

from __future__ import annotations

import subprocess
import sys

import pytest
from ranks import run_anyrank

from anyrank.errors import UsageError
from anyrank.runtime.programs import load
from anyrank.runtime.user_files import absolute, split_source

OCEAN = """
from anyrank import Program, State, param
{imports}

class Ocean(Program):
    steps: int = param(2, "steps")

    def declare(self, state: State) -> None:
        state.field("T", (8,))

    def step(self, state: State) -> None:
        state.T[...] = state.T.local + rate()
"""
RUN = "import anyrank, sys; print(anyrank.run(sys.argv[1], out=sys.argv[2], **eval(sys.argv[3])).fields['T'][0])"


@pytest.fixture
def model(tmp_path):
    """A folder with a package, and a file that imports the program from the package."""
    folder = tmp_path / f"model_{tmp_path.name.translate({ord(sign): '_' for sign in '.-'})}"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "common.py").write_text("def rate():\n    return 2.0\n")
    (folder / "ocean.py").write_text(OCEAN.format(imports="from .common import rate"))
    (tmp_path / "run_ocean.py").write_text(f"from {folder.name}.ocean import Ocean\n")
    return folder


def test_load_file_of_a_package_imports_relatively(model):
    result = load(str(model / "ocean.py"))
    assert result.__module__ == f"{model.name}.ocean" and load(f"{model / 'ocean.py'}:Ocean") is result


def test_load_file_of_a_folder_without_init_imports_relatively(model):
    (model / "__init__.py").unlink()
    assert load(str(model / "ocean.py")).__module__ == f"{model.name}.ocean"


def test_load_file_of_a_package_in_a_package(model):
    (model / "deep").mkdir()
    (model / "deep" / "ocean.py").write_text(OCEAN.format(imports="from ..common import rate"))
    assert load(str(model / "deep" / "ocean.py")).__module__ == f"{model.name}.deep.ocean"


def test_load_file_in_a_package_finds_modules_in_its_folder(model):
    """This worked before packages were supported."""
    (model / "beside_ocean.py").write_text("from common import rate\n")
    (model / "ocean.py").write_text(OCEAN.format(imports="from beside_ocean import rate"))
    assert load(str(model / "ocean.py")).__name__ == "Ocean"


def test_load_class_of_another_module_is_loaded(model, tmp_path):
    loaded = load(str(model / "ocean.py"))
    assert load(f"{tmp_path / 'run_ocean.py'}:Ocean") is loaded and load(str(tmp_path / "run_ocean.py")) is loaded


@pytest.mark.parametrize("name", ["random", "a.b"])
def test_load_package_of_a_used_name_is_refused(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    (folder / "ocean.py").write_text(OCEAN.format(imports="from .common import rate"))
    with pytest.raises(UsageError, match=f"imports from its package '{name}', but another module.* Rename the folder"):
        load(str(folder / "ocean.py"))


def test_load_package_that_fails_shows_the_users_lines(model):
    (model / "__init__.py").write_text("import nowhere_to_be_found\n")
    with pytest.raises(UsageError, match=r"does not import\. Fix this error:\n(.|\n)*__init__.py.*line 1") as caught:
        load(str(model / "ocean.py"))
    assert "importlib" not in str(caught.value)


@pytest.mark.parametrize("source", ["ocean.py", "run_ocean.py:Ocean"])
def test_verbs_take_a_program_of_a_package(model, tmp_path, source):
    file = model / source if source == "ocean.py" else tmp_path / source
    words = ("--on", "slurm", "--dry-run", "--out", tmp_path / "job")
    for done in (
        run_anyrank("run", file, "--out", tmp_path / "run", "--stop-at", 1, ranks=2),
        run_anyrank("resume", tmp_path / "run"),
        run_anyrank("submit", file, *words),
        run_anyrank("verify", file, "--quick", "--ranks", "1"),
        run_anyrank("scale", "strong", file, "--ranks", "1,2", "--repeat", 1, "--out", tmp_path / "scale"),
    ):
        assert done.returncode in (0, 75), done.stderr + done.stdout


@pytest.mark.parametrize("options", ["{}", "{'ranks': 2}"])
def test_run_from_python_takes_a_file(model, tmp_path, options):
    words = [sys.executable, "-c", RUN, str(model / "ocean.py"), str(tmp_path / "run"), options]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.stdout == "4.0\n", done.stderr


@pytest.mark.parametrize(
    ("source", "file", "class_name"),
    [
        ("heat.py", "heat.py", ""),
        ("heat.py:Heat", "heat.py", "Heat"),
        ("at/12:00:00/heat.py", "at/12:00:00/heat.py", ""),
        ("at/12:00:00/heat.py:Heat", "at/12:00:00/heat.py", "Heat"),
        ("old.py:kept/heat.py", "old.py:kept/heat.py", ""),
        ("heat.py:x.py", "heat.py:x.py", ""),
        ("weather", "weather", ""),
    ],
)
def test_split_source_takes_the_last_colon_before_a_class(source, file, class_name, tmp_path):
    assert split_source(source) == (file, class_name)
    whole = f"{tmp_path / file}{class_name and ':' + class_name}" if file.endswith(".py") else file
    assert absolute(source, tmp_path) == whole


def test_verbs_take_paths_with_colons(tmp_path):
    folder = tmp_path / "2024-01-01T12:00:00"
    folder.mkdir()
    (folder / "ocean.py").write_text(OCEAN.format(imports="def rate():\n    return 2.0\n"))
    for done in (
        run_anyrank("run", "ocean.py:Ocean", "--out", "run:1", "--stop-at", 1, cwd=folder, ranks=2),
        run_anyrank("resume", "run:1", cwd=folder),
        run_anyrank("submit", "run:1", "--on", "slurm", "--dry-run", cwd=folder),
        run_anyrank("submit", f"{folder.name}/ocean.py:Ocean", "--on", "pbs", "--dry-run", cwd=tmp_path),
        run_anyrank("verify", f"{folder}/ocean.py", "--quick", "--ranks", "1", "--out", "of:1", cwd=folder),
        run_anyrank("scale", "weak", "ocean.py:Ocean", "--grow", "steps", "--ranks", "1", "--repeat", 1, cwd=folder),
    ):
        assert done.returncode in (0, 75), done.stderr + done.stdout
