"""Ports of loopback for what is started later, by a program that does not take a socket from us.

They lie below those that the kernel gives out: no connection of anybody and no `bind` to port 0 takes one in between.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
from collections import deque

FIRST, COUNT = 20_000, 10_000
KEPT = 200
_next = itertools.count(os.getpid() * 61)
_claims: deque[socket.socket] = deque(maxlen=KEPT)


def free_port() -> int:
    """A port that nothing listens at. The last `KEPT` are given to no other worker, for none of them claims one twice.

    The claim is the same port of UDP, which nothing here uses, and which is free again when this worker ends.
    """
    for number in itertools.islice(_next, COUNT):
        port = FIRST + number % COUNT
        claim = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with contextlib.suppress(OSError), socket.socket() as probe:
            claim.bind(("127.0.0.1", port))
            probe.bind(("", port))
            _claims.append(claim)
            return port
        claim.close()
    raise SystemExit(f"of {COUNT} ports from {FIRST} on none is free. Stop what listens there")
