"""Which shard looks after an environment. Every daemon reckons it for itself, so nothing has to be agreed upon."""

from __future__ import annotations

import hashlib


def shard_of(environment: str, count: int) -> int:
    """The shard of `environment`, of 0 … `count` - 1: the same on every machine and in every release.

    Rendezvous hashing (Thaler and Ravishankar 1998): of n + 1 shards the new one takes its share, and no environment
    moves between the others.
    """
    return max(range(count), key=lambda index: hashlib.sha256(f"{environment}/{index}".encode()).digest())


def mine(environment: str, explicit: int | None, index: int, count: int) -> bool:
    """Whether shard `index` looks after `environment`; `explicit` is what its settings say, None for nothing."""
    return (shard_of(environment, count) if explicit is None else explicit) == index
