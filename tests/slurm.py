"""A private Slurm: a real controller and three nodes of four cores each, all on this machine.

It has its own ports, and a munged with its own key and socket, so several such Slurms can run at once. Needs root, and
Debian's slurm-wlm and munge. All processes that it starts, also the jobs, have ended when the block ends.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ranks import TAG, run_command, start_process

NODES = ("n1", "n2", "n3")
#: Jobs in the partition `high` preempt jobs of `low` (requeued) and of `lowc` (cancelled) after GraceTime.
CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmctldPort={ports[0]}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=1
SchedulerType=sched/backfill
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0,sched_min_interval=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
MinJobAge=600
KillWait=5
JobRequeue=1
SlurmdParameters=config_overrides
NodeName=n1 Port={ports[1]} NodeHostname={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=4000
NodeName=n2 Port={ports[2]} NodeHostname={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=4000
NodeName=n3 Port={ports[3]} NodeHostname={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=4000
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE
PartitionName=low Nodes=ALL MaxTime=INFINITE PriorityTier=1 GraceTime=8 PreemptMode=REQUEUE
PartitionName=lowc Nodes=ALL MaxTime=INFINITE PriorityTier=1 GraceTime=8 PreemptMode=CANCEL
PartitionName=high Nodes=ALL MaxTime=INFINITE PriorityTier=10 PreemptMode=OFF
"""


class Slurm:
    """Its nodes are NODES; `environment` holds the variables that a process needs to use this Slurm."""

    def __init__(self, folder: Path):
        self.folder = folder
        commands = folder / "bin"
        self.environment = {
            "SLURM_CONF": str(folder / "slurm.conf"),
            "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}",
        }
        for path in (commands, folder / "state", *(folder / name for name in NODES)):
            path.mkdir()
        (folder / "slurm.conf").write_text(
            CONFIGURATION.format(host=socket.gethostname(), folder=folder, ports=free_ports(1 + len(NODES)))
        )
        (folder / "munge.key").write_bytes(os.urandom(128))
        (folder / "munge.key").chmod(0o400)

    def start(self, daemons: ExitStack) -> None:
        """Start the daemons, which end with the stack; returns when all nodes are idle."""
        names = ("socket", "key-file", "pid-file", "log-file", "seed-file")
        own = [f"--{name}={self.folder}/munge.{name.removesuffix('-file')}" for name in names]
        self._daemon(daemons, "munged", "--foreground", "--force", *own)
        wait_until(lambda: (self.folder / "munge.socket").is_socket(), 10, self.log)
        controller = self._daemon(daemons, "slurmctld", "-D", "-i")
        for name in NODES:
            self._daemon(daemons, "slurmd", "-D", "-N", name)
        # `run_command` kills everything with its tag when sbatch has returned; jobs have the tag of the controller and
        # end with it.
        for name in filter(shutil.which, ("sbatch", "qsub")):
            command = self.folder / "bin" / name
            command.write_text(f'#!/bin/sh\nexec env {TAG}={controller.tag} {shutil.which(name)} "$@"\n')
            command.chmod(0o755)
        wait_until(lambda: self._idle() == len(NODES), 20, self.log)

    def _idle(self) -> int:
        return self._say("sinfo", "-h", "-N", "-p", "main", "-o", "%T").stdout.split().count("idle")

    def _daemon(self, daemons: ExitStack, *command: str) -> Any:
        output = daemons.enter_context((self.folder / f"{command[0]}.out").open("a"))
        return daemons.enter_context(start_process(*command, env=self.environment, stdout=output, stderr=output))

    def _say(self, *words: Any, cwd: Path | None = None) -> Any:
        return run_command(*words, env=self.environment, cwd=cwd, timeout=30)

    def run(self, *words: Any, cwd: Path | None = None) -> str:
        """The output of a Slurm command; its exit status must be 0."""
        done = self._say(*words, cwd=cwd)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return str(done.stdout).strip()

    def job(self, job: str) -> dict[str, str]:
        """The output of `scontrol show job` by name; empty for an unknown job."""
        output = self._say("scontrol", "-o", "show", "job", job).stdout.partition("\n")[0]
        return dict(re.findall(r"(?:^| )([A-Za-z]\S*?)=(.*?)(?= [A-Za-z]\S*=|$)", output))

    def wait_for(self, job: str, *states: str, timeout: float = 60) -> dict[str, str]:
        """Wait until a job is in one of the states (RUNNING, COMPLETED, …); returns the job's description."""
        seen: dict[str, str] = {}

        def in_state() -> bool:
            seen.update(self.job(job))
            return seen.get("JobState") in states

        wait_until(in_state, timeout, lambda: f"job {job} is not {states} but {seen}\n{self.log()}", 0.3)
        return seen

    def hurry(self, job: str, timeout: float = 60) -> None:
        """Let a requeued job start as soon as it is pending: Slurm would delay it for 120 s.

        Not in the second of the requeue: a node would take it for the job that it was told to kill.
        """
        self.wait_for(job, "PENDING", timeout=timeout)
        time.sleep(1.5)
        self.run("scontrol", "update", f"jobid={job}", "StartTime=now")

    def node(self, name: str, state: str) -> None:
        """Set a node `down`, or `resume` it."""
        self.run("scontrol", "update", f"nodename={name}", f"state={state}", "reason=test")

    def log(self) -> str:
        """The logs of the daemons."""
        files = sorted([*self.folder.glob("*.out"), *self.folder.glob("*.log")])
        return "\n".join(f"--- {file.name}\n{file.read_text(errors='replace')}" for file in files)

    def kill(self) -> None:
        """Kill the daemons and the slurmstepd processes, which outlive them: all have the logs open."""
        for pid in users_of(self.folder):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not users_of(self.folder), 10, lambda: f"still there: {users_of(self.folder)}")


def wait_until(holds: Callable[[], bool], timeout: float, otherwise: Callable[[], str], pause: float = 0.05) -> None:
    """Return when `holds()` is true; after `timeout` seconds fail with the text of `otherwise()`.

    `pause` is the time between two calls: a second if the call starts anyrank, which keeps a core busy.
    """
    give_up = time.monotonic() + timeout
    while not holds():
        assert time.monotonic() < give_up, otherwise()
        time.sleep(pause)


def users_of(folder: Path) -> list[int]:
    """The processes that have a file in the folder open, except this one."""
    result = set()
    for file in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):
            if file.readlink().is_relative_to(folder):
                result.add(int(file.parts[2]))
    return sorted(result - {os.getpid()})


def free_ports(count: int) -> list[int]:
    """Ports to listen on, below the range from which the kernel assigns ports."""
    result: list[int] = []
    for port in range(10000 + os.getpid() * 8 % 20000, 32000):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("", port))
            result.append(port)
        if len(result) == count:
            break
    return result


def missing() -> str:
    """Why Slurm is not available here; an empty string if it is."""
    lacking = [name for name in ("slurmctld", "slurmd", "munged", "sbatch") if not shutil.which(name)]
    if os.getuid() != 0 or lacking:
        return f"needs root, and slurm-wlm and munge (no {', '.join(lacking) or 'root'})"
    return ""


@contextmanager
def start_slurm() -> Iterator[Slurm]:
    """A Slurm whose nodes are idle, until the block ends."""
    with TemporaryDirectory(prefix="anyrank-slurm-") as folder, ExitStack() as daemons:
        slurm = Slurm(Path(folder))
        try:
            slurm.start(daemons)
            yield slurm
        finally:
            slurm.kill()
