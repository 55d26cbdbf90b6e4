"""An Ethernet switch in user space, for networks with a delay and a rate on kernels without netem.

Run as `python switch.py`, it reads lines of JSON from standard input. The first is a list of ports: each becomes a TAP
device with an address in a network namespace (none: the switch's own). Each later line is `Wires`: the delay and rate
from then on. The switch prints `ready` when the ports are up, and ends with its ports when standard input ends.

    frame in → waits for its turn on the sender's link (bytes / rate) → `delay` → frame out

The delay is between hosts; a port that is not `far` (that of mpiexec) has none. Needs root and /dev/net/tun.
"""

from __future__ import annotations

import fcntl
import heapq
import json
import os
import select
import struct
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

TUN = Path("/dev/net/tun")
_SET_INTERFACE, _TAP, _NO_HEADER = 0x400454CA, 0x0002, 0x1000
#: Largest frame in bytes: long frames are cheaper, since the switch takes some 20 µs for each.
MTU, HEADER = 9000, 14
_EVERYONE = 0x01


@dataclass(frozen=True)
class Port:
    """A TAP device `device`, in a namespace if that has a name; `far` ports have the delay."""

    device: str
    namespace: str
    address: str
    far: bool = True


@dataclass(frozen=True)
class Wires:
    """Seconds from port to port, and bytes per second into the switch; 0 means without limit."""

    delay: float = 0.0
    rate: float = 0.0


class Switch:
    """Forwards frames between ports, each after its delay."""

    def __init__(self, ports: list[Port]):
        self.wires = Wires()
        self._files = {_open(port): port for port in ports}
        self._where: dict[bytes, int] = {}
        self._queue: list[tuple[float, int, int, bytes]] = []
        self._free = dict.fromkeys(self._files, 0.0)
        self._count = 0

    def serve(self, control: IO[bytes]) -> None:
        """Forward frames until the control file ends."""
        while True:
            until = self._queue[0][0] - time.monotonic() if self._queue else None
            ready, _, _ = select.select([*self._files, control], [], [], until and max(until, 0.0))
            for file in ready:
                if file is not control:
                    self._take(file)
                elif line := control.readline():
                    self.wires = Wires(**json.loads(line))
                else:
                    return
            self._give()

    def _take(self, source: int) -> None:
        """Queue the frames that have arrived on a port."""
        with suppress(BlockingIOError):
            for _ in range(64):  # then the other ports
                frame = os.read(source, MTU + HEADER)
                now = time.monotonic()
                self._where[frame[6:12]] = source
                if self.wires.rate:
                    now = self._free[source] = max(now, self._free[source]) + len(frame) / self.wires.rate
                for target in self._targets(frame, source):
                    far = self._files[source].far and self._files[target].far
                    self._count += 1  # frames with equal times keep their order
                    heapq.heappush(self._queue, (now + self.wires.delay * far, self._count, target, frame))

    def _targets(self, frame: bytes, source: int) -> list[int]:
        if not frame[0] & _EVERYONE and frame[:6] in self._where:
            return [self._where[frame[:6]]]
        return [file for file in self._files if file != source]

    def _give(self) -> None:
        """Send the frames whose time has come; a frame that does not fit into a port's buffer is lost."""
        while self._queue and self._queue[0][0] <= time.monotonic():
            _, _, target, frame = heapq.heappop(self._queue)
            with suppress(OSError):
                os.write(target, frame)


def _open(port: Port) -> int:
    file = os.open(TUN, os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(file, _SET_INTERFACE, struct.pack("16sH22x", port.device.encode(), _TAP | _NO_HEADER))
    where: list[str] = []
    if port.namespace:
        _ip("link", "set", port.device, "netns", port.namespace, "name", "eth0")
        where = ["-n", port.namespace]
    name = "eth0" if port.namespace else port.device
    _ip(*where, "addr", "add", f"{port.address}/24", "dev", name)
    _ip(*where, "link", "set", name, "mtu", str(MTU), "up")
    return file


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, stdin=subprocess.DEVNULL)


class SwitchProcess:
    """A switch that runs as a process of its own."""

    def __init__(self, ports: list[Port]):
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._tell([asdict(port) for port in ports])
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "ready\n":
            self.stop()
            raise RuntimeError("the switch does not start")

    def _tell(self, what: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()

    def set(self, wires: Wires) -> None:
        """Set the delay and the rate of all links."""
        self._tell(asdict(wires))

    def stop(self) -> None:
        """End the switch and its ports."""
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(OSError):
                pipe.close()  # type: ignore[union-attr]
        self._process.wait(10)


def main() -> None:
    """Make the ports of the first line, and serve."""
    with suppress(PermissionError):  # the delay of a frame must not depend on other processes
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(2))
    control = open(0, "rb", buffering=0)  # noqa: SIM115  # its lines must not wait in a buffer that select does not see
    switch = Switch([Port(**port) for port in json.loads(control.readline())])
    print("ready", flush=True)
    switch.serve(control)


if __name__ == "__main__":
    main()
