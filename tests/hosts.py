"""Several hosts on one machine: network namespaces with a host name and an address each, joined by a bridge.

They share the file system, and nothing else: what ranks tell each other crosses a wire that `cut` can cut.
Needs root, `ip` and `unshare`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ranks import mpiexec_path


class Hosts:
    """The names, the addresses, and the wires of some hosts."""

    def __init__(self, count: int, folder: Path):
        # Names and addresses of their own, so that two of these do not meet.
        self._key = f"{os.getpid() % 0xFFFF:04x}"
        net = f"10.{64 + os.getpid() % 64}.{os.getpid() // 64 % 256}"
        self.names = [f"ar{self._key}n{i}" for i in range(1, count + 1)]
        self.addresses = [f"{net}.{i}" for i in range(1, count + 1)]
        self.bridge, self.centre = f"ar{self._key}b", f"{net}.254"
        self._launcher = folder / "launcher"

    def start(self) -> None:
        """Make the bridge and the hosts."""
        ip("link", "add", self.bridge, "type", "bridge")
        ip("addr", "add", f"{self.centre}/24", "dev", self.bridge)
        ip("link", "set", self.bridge, "up")
        for name, address in zip(self.names, self.addresses, strict=True):
            ip("netns", "add", name)
            ip("link", "add", self.wire(name), "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("link", "set", self.wire(name), "master", self.bridge, "up")
            ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "link", "set", "eth0", "up")
        # What mpiexec uses for ssh: [OPTIONS] ADDRESS COMMAND. The last number of an address is the host's.
        self._launcher.write_text(
            '#!/bin/sh\nwhile case "$1" in -*) true;; *) false;; esac; do shift; done\n'
            f'name=ar{self._key}n${{1##*.}}; shift\nexec ip netns exec "$name" unshare --uts '
            'sh -c \'hostname "$0"; exec sh -c "$*"\' "$name" "$@"\n'
        )
        self._launcher.chmod(0o755)

    @staticmethod
    def wire(name: str) -> str:
        """The end of a host's wire at the bridge."""
        return f"{name}w"

    def cut(self, host: int) -> None:
        """Take a host off the network; hosts count from 0."""
        ip("link", "set", self.wire(self.names[host]), "down")

    def mend(self, host: int) -> None:
        """Bring it back."""
        ip("link", "set", self.wire(self.names[host]), "up")

    def stop(self) -> None:
        """Remove all that `start` made."""
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
        subprocess.run(["ip", "link", "del", self.bridge], check=False, capture_output=True)

    @property
    def environment(self) -> dict[str, str]:
        """What makes anyrank start its ranks on them, and MPICH use the wires, not shared memory."""
        options = f"-localhost {self.centre} -launcher ssh -launcher-exec {self._launcher}"
        return {
            "ANYRANK_MPIEXEC": f"{mpiexec_path()} {options}",
            "UCX_TLS": "tcp,self",
            "UCX_NET_DEVICES": "eth0",
        }


def ip(*words: str) -> None:
    """Run `ip`."""
    subprocess.run(["ip", *words], check=True, capture_output=True)


def missing() -> str:
    """Why there can be no hosts here, an empty string where there can."""
    if os.getuid() != 0 or not shutil.which("ip") or not shutil.which("unshare"):
        return "needs root, ip and unshare"
    name = f"ar{os.getpid() % 0xFFFF:04x}probe"
    probe = subprocess.run(["ip", "netns", "add", name], check=False, capture_output=True, text=True)
    if probe.returncode:
        return f"network namespaces cannot be made here: {probe.stderr.strip()}"
    ip("netns", "del", name)
    return ""


@contextmanager
def started_hosts(count: int, folder: Path) -> Iterator[Hosts]:
    """Hosts, until the block ends."""
    hosts = Hosts(count, folder)
    try:
        hosts.start()
        yield hosts
    finally:
        hosts.stop()
