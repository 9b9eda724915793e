"""Measuring ours and theirs in turn, so that a machine with other work to do disturbs both."""

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import attrs

Value = TypeVar("Value")
Run = Callable[[], Sequence[float]]
"""One untimed preparation and the milliseconds of what was timed after it: one number, or one for each of its parts."""


@attrs.frozen
class Samples:
    """Milliseconds of ours and of theirs, from alternating runs."""

    ours: tuple[float, ...]
    theirs: tuple[float, ...]


def in_turn(rounds: int, ours: Run, theirs: Run, *, ours_each: int = 1) -> list[Samples]:
    """Return the samples of each part, from `rounds` turns of both; ours runs `ours_each` times in a turn.

    More than once where theirs takes seconds: else ours, in its few milliseconds, would see none of what disturbs them.
    """
    our_runs: list[Sequence[float]] = []
    their_runs: list[Sequence[float]] = []
    for _ in range(rounds):
        our_runs += [ours() for _ in range(ours_each)]
        their_runs.append(theirs())
    pairs = zip(zip(*our_runs, strict=True), zip(*their_runs, strict=True), strict=True)
    return [Samples(ours=one, theirs=other) for one, other in pairs]


def timed(work: Callable[[], Value]) -> tuple[float, Value]:
    """Return the milliseconds that `work` takes, and what it returns; rubbish of before is not on its account."""
    gc.collect()
    began = time.perf_counter_ns()
    value = work()
    return (time.perf_counter_ns() - began) / 1e6, value


def median(samples: Sequence[float]) -> float:
    """Return the middle of `samples`."""
    return statistics.median(samples)


def spread(samples: Sequence[float]) -> float:
    """Return how far apart the samples are: largest less smallest, as a part of the median."""
    return (max(samples) - min(samples)) / statistics.median(samples)
