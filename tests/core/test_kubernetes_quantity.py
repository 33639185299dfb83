"""Quantities are written as an API server gives them back."""

from __future__ import annotations

import re
from datetime import timedelta
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core import kubernetes_quantity as quantity

UNITS = {"m": Fraction(1, 1000), "": 1, **{unit: 1000**n for n, unit in enumerate("kMGTPE", 1)}}
UNITS |= {f"{unit}i": 1024**n for n, unit in enumerate("KMGTPE", 1)}


def value(text: str) -> Fraction:
    found = re.fullmatch(r"([1-9][0-9]*)([A-Za-z]*)", text)
    assert found is not None, text
    return Fraction(int(found[1]) * UNITS[found[2]])


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (1, "1"),
        (6 * 2**20, "6Mi"),
        (33554432, "32Mi"),
        (1536 * 2**20, "1536Mi"),
        (500_000_000, "500M"),
        (2**40, "1Ti"),
        (1000, "1k"),
        (1023, "1023"),
        (1024 * 1000, "1000Ki"),
    ],
)
def test_memory_is_canonical(size: int, text: str) -> None:
    assert quantity.memory(size) == text


@pytest.mark.parametrize(
    ("nano", "text"),
    [(10**9, "1"), (5 * 10**8, "500m"), (1_500_000_000, "1500m"), (1, "1m"), (10**6 + 1, "2m"), (2 * 10**12, "2k")],
)
def test_cpu_is_canonical_and_not_finer_than_a_thousandth(nano: int, text: str) -> None:
    assert quantity.cpu(nano) == text


@given(st.integers(1, 2**62))
def test_memory_says_how_much_it_is_in_the_largest_unit(size: int) -> None:
    found = quantity.memory(size)
    assert value(found) == size
    number = int(re.match(r"\d+", found)[0])  # type: ignore[index]
    assert number % (1024 if size % 1024 == 0 else 1000) or found.endswith(("E", "Ei"))


@given(st.integers(1, 10**13))
def test_cores_are_never_less_than_asked_for(nano: int) -> None:
    assert 0 <= value(quantity.cores(nano / 10**9)) - Fraction(nano, 10**9) < Fraction(1, 1000)


def test_seconds_are_rounded_up() -> None:
    assert quantity.seconds(timedelta(0)) == 0
    assert quantity.seconds(timedelta(milliseconds=1)) == 1
    assert quantity.seconds(timedelta(seconds=2)) == 2
    assert quantity.seconds(timedelta(0), 1) == 1
