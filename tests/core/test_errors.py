"""What a chain of wrapped exceptions comes to in one line."""

from __future__ import annotations

import pytest

from reconciler.core.errors import innermost


def test_the_innermost_words_of_a_chain_are_told() -> None:
    inner = OSError("no\n such\thost")
    wrapped = RuntimeError("a pool", ValueError("a retry", inner))
    assert innermost(inner) == "no such host"
    assert innermost(wrapped) == "no such host"
    with pytest.raises(RuntimeError) as caught:
        raise RuntimeError("outer") from wrapped
    assert innermost(caught.value) == "no such host"
    assert innermost(TimeoutError()) == "TimeoutError"


def test_a_chain_and_its_words_are_bounded() -> None:
    error = ValueError("x" * 500)
    assert innermost(error) == "x" * 200
    for depth in range(20):
        error = ValueError(f"at {depth}", error)
    assert innermost(error).startswith("('at 11', ")
