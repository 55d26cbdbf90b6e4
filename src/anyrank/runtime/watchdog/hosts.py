"""The hosts of a run, and which of them still answer over the network."""

from __future__ import annotations

import fcntl
import socket
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from typing import Any

#: What is called (ssh's port; whether anybody listens does not matter) and how many seconds it may take.
PORT, PATIENCE = 22, 2.0
#: How many others a host calls to see whether it is cut off, and how many seconds calling all of them may take.
SAMPLE, LOOKING = 8, 15.0
_SIOCGIFADDR = 0x8915

#: A host's `name`, `addresses` and `ranks`.
Host = dict[str, Any]


def this_host() -> tuple[str, list[str]]:
    """The name of this host and its IPv4 addresses but the loopback's."""
    found = []
    # A sandbox may refuse to be asked: then nothing is known of the network.
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        for _, name in socket.if_nameindex():
            with suppress(OSError):  # an interface without an address
                found.append(
                    socket.inet_ntoa(fcntl.ioctl(asked, _SIOCGIFADDR, struct.pack("256s", name.encode()))[20:24])
                )
    return socket.gethostname(), [address for address in found if not address.startswith("127.")]


def hosts_of(everywhere: Sequence[tuple[str, list[str]]]) -> list[Host]:
    """The hosts, from what `this_host` says on each rank.

    An address that several hosts have (of a bridge for containers, say) leads to none of them.
    """
    ranks: dict[tuple[str, ...], list[int]] = {}
    for rank, (name, addresses) in enumerate(everywhere):
        ranks.setdefault((name, *addresses), []).append(rank)
    times = Counter(address for host in ranks for address in host[1:])
    return [
        {"name": host[0], "addresses": [address for address in host[1:] if times[address] == 1], "ranks": theirs}
        for host, theirs in ranks.items()
    ]


def answers(host: Host) -> bool:
    """Whether one of the host's addresses answers; a refusal is an answer."""
    for address in host["addresses"]:
        try:
            socket.create_connection((address, PORT), PATIENCE).close()
        except ConnectionRefusedError:
            return True
        except OSError:
            continue
        return True
    return False


def look_around(
    hosts: Sequence[Host], mine: int, most: int = 0, there: Callable[[Host], bool] = answers
) -> tuple[bool, list[Host]]:
    """Whether host number `mine` may speak for all, and the hosts that do not answer it; at most `most` are called.

    One that reaches fewer than half of the hosts, itself among them, is itself cut off. Where nobody answers, that
    may be a firewall's doing: then nothing is said of hosts.
    """
    others = [host for host in [*hosts[mine + 1 :], *hosts[:mine]] if host["addresses"]]
    others = others[:most] if most else others
    pool = ThreadPoolExecutor(64)
    calls = [pool.submit(there, host) for host in others]
    called, _ = wait(calls, LOOKING)
    pool.shutdown(wait=False, cancel_futures=True)
    silent = [host for host, call in zip(others, calls, strict=True) if call in called and not call.result()]
    reached = len(others) - len(silent)
    sure = 2 * (reached + 1) >= len(others) + 1
    return sure, silent if sure and reached else []
