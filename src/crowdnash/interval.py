"""Intervals, the form in which uncertain results are given."""

from typing import NamedTuple


class Interval(NamedTuple):
    """A range that contains a value, with confidence or for certain; lower = upper if exact."""

    lower: float
    upper: float
