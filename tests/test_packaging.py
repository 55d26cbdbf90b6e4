"""The installed package: it contains the kernels of all bodies, and the compiled modules import."""

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
    """A wheel of the files under version control only, so that leftovers of a build do not hide missing files."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    tree = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
    for name in filter(None, tree.split("\0")):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    pip("wheel", "--quiet", "--no-deps", "--wheel-dir", folder, source)
    (wheel_file,) = folder.glob("anyrank-*.whl")
    return wheel_file


def test_wheel_contains_every_source_file(wheel: Path) -> None:
    inside = set(ZipFile(wheel).namelist())
    for source, package in (("src/anyrank", "anyrank"), ("kernels", "anyrank/kernels")):
        listed = subprocess.run(["git", "ls-files", source], cwd=ROOT, capture_output=True, check=True, text=True)
        expected = {name.replace(source, package, 1) for name in listed.stdout.split()}
        assert expected
        assert not expected - inside
    assert not [name for name in inside if name.startswith(("tests/", "kernels/", "benchmarks/"))]


def test_installed_package_imports_its_compiled_modules(wheel: Path, tmp_path: Path) -> None:
    pip("install", "--quiet", "--no-deps", "--target", tmp_path, wheel)
    kernels = sorted(path.parent.name for path in ROOT.glob("kernels/*/cpu_cython.pyx"))
    modules = ["anyrank.runtime.watchdog.watch", *(f"anyrank.kernels.{name}.cpu_cython" for name in kernels)]
    program = "; ".join(["import anyrank", *(f"import {name}" for name in modules), "print(anyrank.__file__)"])
    # This environment has an editable anyrank, so the installed copy comes first on the path.
    code = f"import sys; sys.path[:0] = [{str(tmp_path)!r}]; {program}"
    result = subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert Path(result.stdout.strip()).is_relative_to(tmp_path)
