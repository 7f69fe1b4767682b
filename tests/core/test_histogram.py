"""Counts by bucket."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from broker.core.histogram import SECONDS, Histogram


def test_a_value_is_counted_in_every_bucket_that_it_fits():
    times = Histogram((0.1, 1.0))
    times.add(0.1)
    times.add(0.5, 3)
    times.add(7.0)
    assert times.cumulative() == (1, 4, 5)
    assert times.count == 5
    assert times.sum == 0.1 + 1.5 + 7.0


@given(st.lists(st.floats(0, 100), max_size=50))
def test_the_last_bucket_is_all_of_them(values):
    times = Histogram()
    for value in values:
        times.add(value)
    counts = times.cumulative()
    assert list(counts) == sorted(counts)
    assert counts[-1] == times.count == len(values)
    for bound, count in zip(SECONDS, counts, strict=False):
        assert count == sum(value <= bound for value in values)
