"""The package as users install it: kernels of all bodies are in it, and the compiled ones import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


def pip(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of the files under version control, so that nothing left behind by a build hides what is missing."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    tree = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
    for name in filter(None, tree.split("\0")):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    pip("wheel", "--quiet", "--no-deps", "--wheel-dir", folder, source)
    (made,) = folder.glob("anyrank-*.whl")
    return made


def test_every_source_file_of_the_package_is_in_the_wheel(wheel: Path) -> None:
    inside = set(ZipFile(wheel).namelist())
    for source, package in (("src/anyrank", "anyrank"), ("kernels", "anyrank/kernels")):
        listed = subprocess.run(["git", "ls-files", source], cwd=ROOT, capture_output=True, check=True, text=True)
        expected = {name.replace(source, package, 1) for name in listed.stdout.split()}
        assert expected
        assert not expected - inside
    assert not [name for name in inside if name.startswith(("tests/", "kernels/", "benchmarks/"))]


def test_the_installed_package_has_its_compiled_parts(wheel: Path, tmp_path: Path) -> None:
    pip("install", "--quiet", "--no-deps", "--target", tmp_path, wheel)
    kernels = sorted(path.parent.name for path in ROOT.glob("kernels/*/cpu_cython.pyx"))
    modules = ["anyrank.runtime.watchdog.watch", *(f"anyrank.kernels.{name}.cpu_cython" for name in kernels)]
    program = "; ".join(["import anyrank", *(f"import {name}" for name in modules), "print(anyrank.__file__)"])
    # This environment holds an editable anyrank: the installed copy comes before it.
    code = f"import sys; sys.path[:0] = [{str(tmp_path)!r}]; {program}"
    result = subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert Path(result.stdout.strip()).is_relative_to(tmp_path)
