"""Which shard looks after an environment: a stable share for each, and few moves when shards are added."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.shards import mine, shard_of

NAMES = [f"team-{number}" for number in range(2_000)]


def test_the_shard_of_a_name_never_changes() -> None:
    """These are promises to running installations: another result moves environments between daemons."""
    assert [shard_of(name, 4) for name in ("production", "staging", "dev", "team-a")] == [0, 1, 1, 2]


def test_each_shard_has_its_share() -> None:
    counted = Counter(shard_of(name, 4) for name in NAMES)
    assert sorted(counted) == [0, 1, 2, 3]
    assert all(400 < count < 600 for count in counted.values())


def test_a_new_shard_only_takes() -> None:
    moved = [name for name in NAMES if shard_of(name, 4) != shard_of(name, 5)]
    assert {shard_of(name, 5) for name in moved} == {4}
    assert len(moved) < 500


@given(st.text(max_size=20), st.integers(1, 20), st.none() | st.integers(0, 19))
def test_exactly_one_shard_looks_after_an_environment(name: str, count: int, explicit: int | None) -> None:
    wanted = explicit if explicit is None or explicit < count else None
    assert sum(mine(name, wanted, index, count) for index in range(count)) == 1
    if wanted is not None:
        assert mine(name, wanted, wanted, count)
