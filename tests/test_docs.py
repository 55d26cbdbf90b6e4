"""The documents: every relative link has a target, and names that the style replaced do not return."""

from __future__ import annotations

import importlib.util
import pkgutil
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from anyrank import Program
from anyrank.runtime.python import run

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "CHANGELOG", "jobs/README", "benchmarks/README")),
    *sorted((ROOT / "docs").glob("*.md")),
]
#: Names that the style replaced by terms of the field.
REPLACED = (
    *("Way", "Companion", "Weightless", "Crossing", "Moving", "Least", "absorb", "codes.py", "coding.py"),
    *("population", "crowded", "grave", "buried"),
)
#: Replaced as names, in backticks; ordinary words elsewhere.
REPLACED_IN_CODE = ("together", "every", "total", "meet", "facts", "shown", "heavy")

#: Paths, relative to the repository or to the page, and public names, in backticks. What `make` writes need not exist.
PATH = r"`((?:src|tests|benchmarks|kernels|examples|jobs|docs)/(?!results/gpu)[\w/.-]+)`"
NAME = r"`(anyrank(?:\.\w+)+)`"


def prose(text: str) -> str:
    """The text without its blocks of code, where `#` starts a comment instead of a heading."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)


def anchors(text: str) -> set[str]:
    """The anchors of the headings, as GitHub derives them."""
    headings = re.findall(r"^#+ +(.*?) *$", prose(text), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(text: str) -> Iterator[tuple[str, str]]:
    """The relative links: the path, empty for the page itself, and the anchor, empty if there is none."""
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(text)):
        if not re.match(r"[a-z]+:", target):
            path, _, anchor = target.partition("#")
            yield path, anchor


def broken_links(page: Path) -> list[str]:
    """The links of a page whose file or heading does not exist."""
    broken = []
    for path, anchor in links(page.read_text(encoding="utf-8")):
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in anchors(target.read_text(encoding="utf-8"))):
            broken.append(f"{path}#{anchor}")
    return broken


def replaced_names(text: str) -> list[str]:
    """The replaced names that a text contains."""
    code = " ".join(re.findall(r"`[^`\n]+`", text))
    words = [(name, text) for name in REPLACED] + [(f"`{name}`", code) for name in REPLACED_IN_CODE]
    return [name for name, where in words if re.search(rf"(?<![\w]){re.escape(name)}(?![\w])", where)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_docs_relative_links_have_a_target(page):
    assert not broken_links(page)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_docs_paths_and_dotted_names_exist(page):
    text = page.read_text(encoding="utf-8")
    paths = re.findall(PATH, text)
    missing = [path for path in paths if not (ROOT / path).exists() and not (page.parent / path).exists()]
    for name in re.findall(NAME, text):
        try:
            pkgutil.resolve_name(name)
        except (ImportError, AttributeError):
            missing.append(name)
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_docs_contain_no_replaced_name(page):
    assert not replaced_names(page.read_text(encoding="utf-8"))


def test_docs_every_page_is_linked_from_another_page():
    linked = {
        (page.parent / path).resolve() for page in PAGES for path, _ in links(page.read_text(encoding="utf-8")) if path
    }
    assert not [page.name for page in PAGES if page.parent.name == "docs" and page.resolve() not in linked]


def guide_module(folder: Path) -> ModuleType:
    """Import the Python blocks of the guide, in their order, as one module."""
    blocks = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs/programs.md").read_text("utf-8"), re.M | re.S)
    file = folder / "guide.py"
    file.write_text("\n".join(blocks), encoding="utf-8")
    spec = importlib.util.spec_from_file_location("guide", file)
    module = sys.modules["guide"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_docs_programs_of_the_guide_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    guide = guide_module(tmp_path)
    programs = [v for v in vars(guide).values() if isinstance(v, type) and issubclass(v, Program) and v is not Program]
    assert {program.__name__ for program in programs} >= {"Plate", "Waves", "TypedPlate"}
    for program in programs:
        steps = {"steps": 4} if "steps" in program.declared() else {}
        through = run(program(**steps), out=tmp_path / program.name / "a")
        run(program(**steps), out=tmp_path / program.name / "b", stop_at=2)
        resumed = run(program(**steps), out=tmp_path / program.name / "b")
        assert resumed.digest == through.digest != "" and resumed.summary["resumed_from"] == 2


def test_broken_links_of_file_and_heading_are_found(tmp_path):
    (tmp_path / "b.md").write_text("# `--b`: a Heading, two\n```\n# no heading\n```\n")
    page = tmp_path / "a.md"
    page.write_text("[x](b.md#--b-a-heading-two) [y](b.md#no-heading) [z](c.md) [w](#a) [v](https://c.md)\n# A\n")
    assert broken_links(page) == ["b.md#no-heading", "c.md#"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a Way, crowded", ["Way", "crowded"]), ("`every` call", ["`every`"]), ("every way out: exit codes", [])],
)
def test_replaced_names_in_a_text_are_found(text, expected):
    assert replaced_names(text) == expected
