"""Several hosts on one machine: network namespaces, each with a host name and an address, joined by a bridge.

They share only the file system: messages between ranks cross a link that `cut` can cut. With `Wires`, a switch in user
space joins them (switch.py), whose links have a delay and a rate. With `polite`, ranks release their cores while they
wait (polite.c), so that many hosts fit on few cores. Needs root, `ip` and `unshare`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from ranks import mpiexec_path
from switch import TUN, Port, SwitchProcess, Wires

_TURNS = count()


class Hosts:
    """The names, the addresses and the links of some hosts."""

    def __init__(self, number: int, folder: Path, wires: Wires | None = None, polite: bool = False):
        # Each instance has its own names and addresses, so that two instances do not conflict. Names of earlier
        # instances are not reused: the system needs a moment to remove their links.
        self._key = f"{os.getpid() % 0xFFFF:04x}{next(_TURNS) % 16:x}"
        net = f"10.{64 + os.getpid() % 64}.{os.getpid() // 64 % 256}"
        self.names = [f"ar{self._key}n{i}" for i in range(1, number + 1)]
        self.addresses = [f"{net}.{i}" for i in range(1, number + 1)]
        self.bridge, self.centre = f"ar{self._key}b", f"{net}.254"
        self._launcher, self._polite = folder / "launcher", folder / "polite.so" if polite else None
        self._wires, self._switch = wires, None

    def start(self) -> None:
        """Make the hosts and the bridge or switch."""
        for name in self.names:
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        if self._wires is None:
            self._start_bridge()
        else:
            ports = [Port(self.wire(name), name, at) for name, at in zip(self.names, self.addresses, strict=True)]
            self._switch = SwitchProcess([*ports, Port(self.bridge, "", self.centre, far=False)])
            self.set(self._wires)
        self._write_launcher()
        if self._polite is not None:
            source = Path(__file__).with_name("polite.c")
            subprocess.run(["cc", "-shared", "-fPIC", "-O2", source, "-o", self._polite, "-ldl"], check=True)

    def _start_bridge(self) -> None:
        ip("link", "add", self.bridge, "type", "bridge")
        ip("addr", "add", f"{self.centre}/24", "dev", self.bridge)
        ip("link", "set", self.bridge, "up")
        for name, address in zip(self.names, self.addresses, strict=True):
            ip("link", "add", self.wire(name), "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("link", "set", self.wire(name), "master", self.bridge, "up")
            ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")

    def _write_launcher(self) -> None:
        # Used by mpiexec in place of ssh: [OPTIONS] ADDRESS COMMAND. The last number of an address is the host's.
        self._launcher.write_text(
            '#!/bin/sh\nwhile case "$1" in -*) true;; *) false;; esac; do shift; done\n'
            f'name=ar{self._key}n${{1##*.}}; shift\nexec ip netns exec "$name" unshare --uts '
            'sh -c \'hostname "$0"; exec sh -c "$*"\' "$name" "$@"\n'
        )
        self._launcher.chmod(0o755)

    def set(self, wires: Wires) -> None:
        """Set the delay and the rate of the links."""
        assert self._switch is not None, "a bridge has none"
        self._switch.set(wires)

    @staticmethod
    def wire(name: str) -> str:
        """The end of a host's link at the bridge."""
        return f"{name}w"

    def cut(self, host: int) -> None:
        """Disconnect a host from the network; hosts count from 0."""
        ip("link", "set", self.wire(self.names[host]), "down")

    def mend(self, host: int) -> None:
        """Connect the host again."""
        ip("link", "set", self.wire(self.names[host]), "up")

    def stop(self) -> None:
        """Remove everything that `start` made."""
        if self._switch is not None:
            self._switch.stop()
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
        subprocess.run(["ip", "link", "del", self.bridge], check=False, capture_output=True)

    @property
    def environment(self) -> dict[str, str]:
        """The variables with which anyrank starts its ranks on the hosts and MPICH uses the network."""
        options = f"-localhost {self.centre} -launcher ssh -launcher-exec {self._launcher}"
        return {
            "ANYRANK_MPIEXEC": f"{mpiexec_path()} {options}",
            "UCX_TLS": "tcp,self",
            "UCX_NET_DEVICES": "eth0",
            **({"LD_PRELOAD": str(self._polite)} if self._polite is not None else {}),
        }


def ip(*words: str) -> None:
    """Run `ip`."""
    subprocess.run(["ip", *words], check=True, capture_output=True)


def missing(switch: bool = False) -> str:
    """Why hosts are not available here, or not with a switch; an empty string if they are."""
    if switch and not TUN.exists():
        return f"needs {TUN}"
    if os.getuid() != 0 or not shutil.which("ip") or not shutil.which("unshare"):
        return "needs root, ip and unshare"
    name = f"ar{os.getpid() % 0xFFFF:04x}probe"
    probe = subprocess.run(["ip", "netns", "add", name], check=False, capture_output=True, text=True)
    if probe.returncode:
        return f"network namespaces cannot be made here: {probe.stderr.strip()}"
    ip("netns", "del", name)
    return ""


@contextmanager
def start_hosts(count: int, folder: Path, wires: Wires | None = None, polite: bool = False) -> Iterator[Hosts]:
    """Hosts that exist until the block ends."""
    hosts = Hosts(count, folder, wires, polite)
    try:
        hosts.start()
        yield hosts
    finally:
        hosts.stop()
