"""Flags are derived from declarations: options of every verb, parameters of any name, and help in groups."""

from __future__ import annotations

import json
import re

import click
import pytest
from click.testing import CliRunner
from ranks import run_anyrank

from anyrank.batch.study import _options
from anyrank.cli import VERBS as ALL_VERBS
from anyrank.cli import anyrank as everything
from anyrank.cli.flags import VERBS, ProgramCommand, option_flags, reserved_flags
from anyrank.cli.run import Runs
from anyrank.cli.scale import command as scale
from anyrank.cli.submit import Submissions
from anyrank.cli.verify import Verifications
from anyrank.errors import UsageError
from anyrank.program import Program, flag_of, param
from anyrank.runtime.options import Options, option_words


class Names(Program):
    """Parameters with the names of options, and with other names."""

    n: int = param(8, "points", ge=3)
    nodes: int = param(100, "nodes of the mesh", ge=2)
    transfer: float = param(0.25, "share", ge=0, le=1)
    queue: str = param("a", "a name")
    quick: bool = param(False, "a switch")
    deep: bool = param(True, "another")
    no_deep: bool = param(False, "whose flag is the one before's")
    levels: list[int] = param([1, 2], "levels")
    limit: int | None = param(None, "a limit")


RUN, SUBMIT, VERIFY = Runs("run"), Submissions("submit"), Verifications("verify")
STRONG, WEAK = scale.commands["strong"], scale.commands["weak"]


def call(*words: str, verb=RUN) -> dict:
    """The arguments of a verb's function."""
    got: dict = {}
    command = ProgramCommand(
        "names", program=Names, tables=verb.tables, contexts=verb.contexts, callback=lambda **given: got.update(given)
    )
    command.main([*words], standalone_mode=False)
    return got


def test_flag_parameter_of_any_name_can_be_set():
    got = call("--n", "9", "--set", "nodes=50", "--set", "transfer=0.5", "--set", "no-deep=true", "--no-deep")
    result = got["parameters"]
    assert (result["n"], result["nodes"], result["transfer"], result["deep"], result["no_deep"]) == (
        9,
        50,
        0.5,
        False,
        True,
    )
    assert got["options"] == Options()


@pytest.mark.parametrize(
    ("words", "levels"),
    [
        (("--levels", "1,2", "--levels", "3"), [1, 2, 3]),
        (("--set", "levels=4", "--set", "levels=5,6"), [4, 5, 6]),
        (("--levels", ""), []),
        ((), [1, 2]),
    ],
)
def test_flag_list_is_split_at_commas_or_repeated(words, levels):
    assert call(*words)["parameters"]["levels"] == levels


def test_flag_value_none_is_a_word():
    assert call("--limit", "3", "--set", "queue=none")["parameters"]["limit"] == 3
    assert call("--limit", "none")["parameters"]["limit"] is None


def test_flag_of_an_option_is_kept_from_parameters():
    got = call("--transfer", "direct")
    assert got["options"].transfer == "direct" and got["parameters"]["transfer"] == 0.25
    got = call("--nodes", "4", "--partition", "b", verb=SUBMIT)
    assert got["job_options"].given() == {"nodes": 4, "partition": "b"} and got["parameters"]["nodes"] == 100


OWNED = {
    "an option's value": (("--transfer", "0.5"), RUN, "--transfer 0.5 must be one of auto", "--set transfer=VALUE"),
    "another verb's option": (("--nodes", "50"), RUN, "--nodes belongs to anyrank submit", "or rename it"),
    "a switch of another verb": (("--quick",), RUN, "--quick belongs to anyrank verify", "--set quick=VALUE"),
    "a second spelling": (("--queue", "b"), SUBMIT, "--queue belongs to anyrank submit", "or rename it"),
    "another verb's in verify": (("--queue", "b"), VERIFY, "--queue belongs to anyrank submit", "--set queue="),
    "another verb's in scale": (("--quick",), STRONG, "--quick belongs to anyrank verify", "--set quick="),
    "out of bounds": (("--set", "nodes=1"), RUN, "nodes = 1 must be at least 2", "Use nodes = 2 or more"),
    "no name": (("--set", "nodes"), RUN, "--set 'nodes' must be NAME=VALUE", "n, nodes, transfer"),
    "no parameter": (("--set", "node=1"), RUN, "node = '1' is not a parameter", "Did you mean"),
    "given twice": (("--n", "9", "--set", "n=10"), RUN, "--set n=10: --n is given, too", "Remove one of them"),
}


@pytest.mark.parametrize("case", OWNED)
def test_flag_that_is_not_the_parameters_is_refused(case):
    words, verb, *expected = OWNED[case]
    with pytest.raises(UsageError) as refused:
        call(*words, verb=verb)
    assert all(text in str(refused.value) for text in expected)


@pytest.mark.parametrize("verb", [RUN, SUBMIT, VERIFY, STRONG, WEAK])
def test_help_shows_parameters_first_and_how_to_set_them(verb):
    command = ProgramCommand("names", program=Names, tables=verb.tables, callback=print, contexts=verb.contexts)
    text = CliRunner().invoke(command, ["--help"]).output
    first = " ".join(text.partition("Parameters:\n")[2].partition("\n\n")[0].split())
    assert text.index("Parameters:") < min(
        text.index(f"{title}:") for title in re.findall(r"^([A-Z][\w ]+):$", text, re.M)[1:]
    )
    assert "--n INTEGER points; at least 3 [default: 8]" in first
    assert (
        "--set nodes=INTEGER nodes of the mesh; at least 2; --nodes belongs to anyrank submit [default: 100]" in first
    )
    assert "--set quick=true|false" in first and "--deep / --no-deep" in first and "--set no_deep=" in first
    assert "--levels INTEGER,… levels [default: 1,2]" in first and "[default: none]" in first


def test_help_of_run_has_groups():
    text = CliRunner().invoke(everything, ["run", "pi", "--help"]).output
    titles = re.findall(r"^([A-Z][\w ]+):$", text, re.M)
    assert titles == ["Parameters", "Run", "Checkpoints", "Outputs", "Stops and restarts", "Placement", "Diagnostics"]


def test_help_of_run_and_resume_has_every_option_with_a_group():
    for words in (["run", "pi", "--help"], ["resume", "--help"]):
        shown = CliRunner().invoke(everything, words).output
        for name, info in Options.model_fields.items():
            flag = Options.flags(name)[-1]
            assert re.search(rf"^ +(-\w, )?{flag}\b", shown, re.M), f"{flag} is missing in {words}"
            assert info.description and Options.metadata(name).group


def test_flags_of_a_verb_are_unique():
    for verb in (RUN, SUBMIT, VERIFY, STRONG, WEAK):
        flags = [flag for table in verb.tables.values() for flag in option_flags(table, verb.contexts)]
        spellings = [spelling for flag in flags for spelling in flag.opts + flag.secondary_opts]
        assert len(spellings) == len(set(spellings)) and len({flag.name for flag in flags}) == len(flags)


def test_reserved_flags_are_those_of_all_verbs():
    words = {"ranks", "nodes", "memory", "network", "transfer", "queue", "name", "out", "set", "parameters", "help"}
    words |= {"quick", "junit", "grow", "predict", "site", "dry_run", "no_picture", "directive", "checkpoint_every"}
    assert {flag_of(name) for name in words} <= set(reserved_flags()) and "--n" not in reserved_flags()
    assert set(VERBS) < set(ALL_VERBS)


def test_options_kept_are_those_that_resume_needs():
    kept = {name for name in Options.model_fields if Options.metadata(name).kept}
    assert kept == {
        *("ranks", "threads", "body", "split", "halo_steps", "transfer", "picture", "memory_limit"),
        "allocator",
        *("checkpoint_every", "checkpoint_io", "keep", "mtbf", "hang_timeout"),
        *("frames", "frames_every", "frames_stride", "frames_type", "frames_compression", "on_full_disk"),
    }
    given = {"threads": 1, "memory_limit": "1GB", "frames": "T", "frames_every": 1, "frames_type": "float32"}
    assert set(Options(**given).kept()) == kept


def test_options_that_jobs_and_studies_refuse():
    def refused_in(place):
        return {name for name in Options.model_fields if place in Options.metadata(name).not_in}

    assert refused_in("jobs") == {
        *("ranks", "threads", "walltime", "stop_at", "hosts", "chaos", "i_mean_it", "as_json", "quiet"),
    }
    assert refused_in("studies") == {"max_restarts", "min_ranks", "check", "digests", "picture", "weights"}
    values = {"ranks": 2, "threads": 1, "walltime": "1h", "stop_at": 1, "hosts": "a", "chaos": "kill rank=0 step=1"}
    values |= dict.fromkeys(("i_mean_it", "as_json", "quiet"), True)
    for name in refused_in("jobs"):
        with pytest.raises(UsageError, match=rf"options: {name} = .* is not for jobs"):
            _options({name: values[name]})


def test_option_words_are_parsed_to_the_same_options():
    options = Options(ranks=3, body="numba", picture=False, checkpoint_every="200", as_json=True, stop_at=7)
    assert call(*option_words(options.given()))["options"] == options


def test_flag_unknown_is_refused_with_a_suggestion():
    with pytest.raises(click.NoSuchOption) as refused:
        call("--level", "3")
    assert "--levels" in refused.value.format_message()


EVERY_TYPE = """
from pathlib import Path
from typing import Literal
from anyrank import Program, State, param

class Types(Program):
    mesh: Path = param("mesh.txt", "a file")
    order: Literal[1, 2] = param(1, "order")
    limit: int | None = param(5, "a limit")
    levels: list[float] = param((1, 2), "levels")
    memory: str = param("a", "text whose name is an option's")
    steps: int = param(4, "steps")

    def check(self) -> None:
        assert isinstance(self.mesh, Path) and self.order == 2 and self.limit is None and self.levels == [0.5]

    def declare(self, state: State) -> None:
        state.field("T", (8,))

    def step(self, state: State) -> None:
        state.T[...] = state.T.local + self.levels[0]
"""


def test_run_with_all_types_is_resumed_from_another_folder(tmp_path):
    (tmp_path / "types.py").write_text(EVERY_TYPE)
    (tmp_path / "elsewhere").mkdir()
    words = ("--order", 2, "--limit", "none", "--levels", "0.5", "--set", "memory=é", "--out", "r", "--stop-at", 2)
    done = run_anyrank("run", "types.py", *words, cwd=tmp_path)
    assert done.returncode == 75, done.stderr
    again = run_anyrank("run", "types.py", *words[:-2], "--mesh", "other.txt", cwd=tmp_path)
    assert again.returncode == 2 and "the parameters of a run cannot change" in again.stderr
    done = run_anyrank("resume", "../r", "--json", cwd=tmp_path / "elsewhere")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    mesh = str(tmp_path / "mesh.txt")
    kept = {"mesh": mesh, "order": 2, "limit": "none", "levels": [0.5], "memory": "é", "steps": 4}
    assert summary["parameters"] == kept and summary["resumed_from"] == 2
