"""Checks of submit files and DAG files with HTCondor's own parsers and ClassAds, and with two lists from its manual.

`condor_submit` takes a misspelt command for a user's variable, so commands are compared with the list in the manual
(HTCondor Manual 24, condor_submit). Expressions are evaluated with the ads of jobs that ended in different ways.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

htcondor2 = pytest.importorskip("htcondor2", reason="HTCondor's Python bindings are not installed")
classad2 = pytest.importorskip("classad2")

#: Submit commands of the vanilla universe (condor_submit, "Submit Description File Commands").
COMMANDS = """
accounting_group accounting_group_user allowed_execute_duration allowed_job_duration append_files arguments batch_name
checkpoint_exit_code concurrency_limits container_image coresize cron_day_of_month cron_day_of_week cron_hour
cron_minute cron_month cuda_version deferral_prep_time deferral_time deferral_window description docker_image
dont_encrypt_input_files dont_encrypt_output_files email_attributes encrypt_execute_directory encrypt_input_files
encrypt_output_files env environment erase_output_and_error_on_restart error executable getenv gpus_maximum_capability
gpus_minimum_capability gpus_minimum_memory gpus_minimum_runtime hold initialdir input job_ad_information_attrs
job_lease_duration job_machine_attrs job_max_vacate_time jobset keep_claim_idle kill_sig kill_sig_timeout
leave_in_queue log log_xml machine_count manifest manifest_dir max_idle max_job_retirement_time max_materialize
max_retries max_transfer_input_mb max_transfer_output_mb mount_under_scratch next_job_start_delay nice_user noop_job
noop_job_exit_code noop_job_exit_signal notification notify_user on_exit_hold on_exit_hold_reason on_exit_hold_subcode
on_exit_remove output periodic_hold periodic_hold_reason periodic_hold_subcode periodic_release periodic_remove
periodic_vacate preserve_relative_paths priority rank remote_initialdir remove_kill_sig request_cpus request_disk
request_gpus request_memory require_gpus requirements retry_request_memory retry_request_memory_increase
retry_request_memory_max retry_until run_as_owner should_transfer_files skip_if_dataflow stack_size starter_debug
starter_log stream_error stream_input stream_output submit_event_notes success_exit_code transfer_checkpoint_files
transfer_error transfer_executable transfer_input transfer_input_files transfer_output transfer_output_files
transfer_output_remaps ulog_execute_attrs universe use_oauth_services use_scitokens use_x509userproxy
want_graceful_removal want_io_proxy when_to_transfer_output x509userproxy
"""
#: Commands whose value must be true or false for every job, and commands whose value must be a number.
TRUTHS = ("on_exit_remove", "on_exit_hold", "periodic_hold", "periodic_release", "periodic_remove", "leave_in_queue")
NUMBERS = ("request_cpus", "request_gpus", "job_max_vacate_time", "max_materialize", "max_idle", "max_retries")
NUMBERS += ("allowed_execute_duration", "allowed_job_duration", "success_exit_code")
#: Ads of jobs as the shadow sees them: running, ended well, failed, stopped on request, killed, never run.
ADS: tuple[dict[str, Any], ...] = (
    {"JobStatus": 2, "NumJobStarts": 1},
    *({"JobStatus": 2, "NumJobStarts": 1, "ExitBySignal": False, "ExitCode": code} for code in (0, 1, 75)),
    {"JobStatus": 2, "NumJobStarts": 3, "ExitBySignal": True, "ExitSignal": 9},
    {"JobStatus": 5, "HoldReasonCode": 47, "NumJobStarts": 1},
    {"JobStatus": 1},
)


def check_submit(text: str) -> Any:
    """Parse the text of a submit file; AssertionError if HTCondor would not do what the text says."""
    submit = htcondor2.Submit(text)
    used = {name.lower() for name in re.findall(r"\$\((\w+)[:)]", text)}
    for key in submit.keys():  # noqa: SIM118 (it is no dict)
        known = key.lower() in used.union(COMMANDS.split()) or key.upper().startswith("MY.")
        assert known, f"{key} is no submit command, and no variable that is used"
    for key in TRUTHS:
        for ad in ADS if key in submit else ():
            assert isinstance(evaluate(submit, key, ad), bool), f"{key} = {submit[key]} is not true or false for {ad}"
    for key in NUMBERS:
        number = key not in submit or type(evaluate(submit, key, {})) is int
        assert number, f"{key} = {submit[key]} is no number"
    for key in submit.keys():  # noqa: SIM118
        if key.upper().startswith("MY.") or key.lower() in ("requirements", "rank"):
            classad2.ExprTree(submit.expand(key))
    if "arguments" in submit:
        split_arguments(submit.expand("arguments"))
    assert submit.get("executable"), "there is no executable"
    assert re.search(r"^queue\b", text, re.MULTILINE | re.IGNORECASE), "nothing is queued"
    return submit


def evaluate(submit: Any, key: str, ad: dict[str, Any]) -> Any:
    """The value of an expression of a submit description for the ad of a job."""
    return classad2.ExprTree(submit.expand(key)).eval(classad2.ClassAd(ad))


def leaves_queue(submit: Any, code: int | None, starts: int = 1) -> bool:
    """Whether a job that ends with this status, or by a signal if it is None, leaves the queue."""
    ended = {"ExitBySignal": True, "ExitSignal": 9} if code is None else {"ExitBySignal": False, "ExitCode": code}
    return (
        "on_exit_remove" not in submit or evaluate(submit, "on_exit_remove", {"NumJobStarts": starts, **ended}) is True
    )


def split_arguments(arguments: str) -> list[str]:
    """The words of `arguments` in the new syntax (condor_submit, arguments); AssertionError for another syntax."""
    assert re.fullmatch(r'"(?:[^"]|"")*"', arguments), f"{arguments} is not in double quotes"
    inner = arguments[1:-1].replace('""', '"')
    assert inner.count("'") % 2 == 0, f"{arguments}: a single quote is not closed"
    result = re.findall(r"(?:[^\s']|'(?:[^']|'')*')+", inner)
    return [re.sub(r"'((?:[^']|'')*)'", lambda part: part[1].replace("''", "'"), word) for word in result]


#: The lines of a DAG file that we use, with their usage as condor_dagman prints it.
DAG_LINES = {
    "JOB": r"(?P<name>\S+) (?P<file>\S+)(?: DIR (?P<dir>\S+))?(?: NOOP)?(?: DONE)?",
    "PARENT": r"(?P<parents>\S+(?: \S+)*?) CHILD (?P<children>\S+(?: \S+)*)",
    "RETRY": r"(?P<name>\S+) \d+(?: UNLESS-EXIT -?\d+)?",
    "VARS": r'(?P<name>\S+)(?: \w+="(?:[^"\\]|\\.)*")+',
    "SCRIPT": r"(?:PRE|POST|HOLD) (?P<name>\S+) (?P<file>\S+).*",
}


def check_dag(text: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, set[str]]:
    """The nodes of a DAG file and the nodes that each needs; AssertionError if DAGMan would refuse or misread the file.

    HTCondor's own parser reads the file too; it needs a file called condor_dagman on the PATH.
    """
    _own_parser(text, folder, monkeypatch)
    needs: dict[str, set[str]] = {}
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line.strip() and not line.startswith("#")]
    for word, rest in sorted(lines, key=lambda line: line[0] != "JOB"):
        match = re.fullmatch(DAG_LINES[word], rest.strip())
        assert match, f"not the grammar of {word}: {rest}"
        output = match.groupdict()
        if word == "JOB":
            assert re.fullmatch(r"[^+.]+", output["name"]) and output["name"] not in ("PARENT", "CHILD", "ALL_NODES"), (
                rest
            )
            assert output["name"] not in needs, f"{output['name']} is there twice"
            needs[output["name"]] = set()
        elif word == "PARENT":
            parents = output["parents"].split()
            for child in output["children"].split():
                assert {child, *parents} <= needs.keys(), f"unknown node: {rest}"
                needs[child].update(parents)
        else:
            assert output["name"] in needs, f"unknown node: {rest}"
    left = dict(needs)
    while ready := [name for name, parents in left.items() if not parents & left.keys()]:
        left = {name: parents for name, parents in left.items() if name not in ready}
    assert not left, f"these wait for each other: {', '.join(left)}"
    return needs


def _own_parser(text: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, content in (("check.dag", text), ("condor_dagman", "#!/bin/sh\n")):
        (folder / name).write_text(content)
    (folder / "condor_dagman").chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
        patch.chdir(folder)
        htcondor2.Submit.from_dag("check.dag", {"force": True})
