"""The hosts of a run, and which of them respond over the network."""

from __future__ import annotations

import fcntl
import socket
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from typing import Any

#: The port to connect to (ssh; a refused connection is also a response) and the timeout in seconds.
PORT, PATIENCE = 22, 2.0
#: How many other hosts a host probes to detect that it is cut off, and the timeout for all probes in seconds.
SAMPLE, PROBE_TIME = 8, 15.0
_SIOCGIFADDR = 0x8915

#: A host's `name`, `addresses` and `ranks`.
Host = dict[str, Any]


def this_host() -> tuple[str, list[str]]:
    """Return the name of this host and its IPv4 addresses, without the loopback address."""
    addresses = []
    # A sandbox may refuse the request: then no addresses are known.
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as query:
        for _, name in socket.if_nameindex():
            with suppress(OSError):  # an interface without an address
                addresses.append(
                    socket.inet_ntoa(fcntl.ioctl(query, _SIOCGIFADDR, struct.pack("256s", name.encode()))[20:24])
                )
    return socket.gethostname(), [address for address in addresses if not address.startswith("127.")]


def hosts_of(gathered: Sequence[tuple[str, list[str]]]) -> list[Host]:
    """Return the hosts, from the values of `this_host` on all ranks.

    An address that several hosts have (such as that of a container bridge) identifies none of them and is left out.
    """
    ranks: dict[tuple[str, ...], list[int]] = {}
    for rank, (name, addresses) in enumerate(gathered):
        ranks.setdefault((name, *addresses), []).append(rank)
    times = Counter(address for host in ranks for address in host[1:])
    return [
        {"name": host[0], "addresses": [address for address in host[1:] if times[address] == 1], "ranks": host_ranks}
        for host, host_ranks in ranks.items()
    ]


def responds_to_connect(host: Host) -> bool:
    """Return whether one of the host's addresses responds; a refused connection is a response."""
    for address in host["addresses"]:
        try:
            socket.create_connection((address, PORT), PATIENCE).close()
        except ConnectionRefusedError:
            return True
        except OSError:
            continue
        return True
    return False


def probe_hosts(
    hosts: Sequence[Host], mine: int, most: int = 0, responds: Callable[[Host], bool] = responds_to_connect
) -> tuple[bool, list[Host]]:
    """Return whether host number `mine` is connected, and the hosts, of at most `most`, that do not respond to it.

    A host that reaches fewer than half of the hosts, including itself, is cut off. If no host responds, a firewall may
    be the reason: then no host is reported.
    """
    others = [host for host in [*hosts[mine + 1 :], *hosts[:mine]] if host["addresses"]]
    others = others[:most] if most else others
    pool = ThreadPoolExecutor(64)
    probes = [pool.submit(responds, host) for host in others]
    completed, _ = wait(probes, PROBE_TIME)
    pool.shutdown(wait=False, cancel_futures=True)
    silent = [host for host, probe in zip(others, probes, strict=True) if probe in completed and not probe.result()]
    reached = len(others) - len(silent)
    connected = 2 * (reached + 1) >= len(others) + 1
    return connected, silent if connected and reached else []
