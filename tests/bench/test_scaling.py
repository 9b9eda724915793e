"""What is made of the figures of the daemon with many Consul services."""

import pytest

from tests.bench.scaling import grown, lines, quantile

FIGURES = {
    "start_s": 3.0,
    "start_cpu_s": 2.0,
    "idle_cpu": 0.003,
    "flip_cpu_ms": 40.0,
    "rss": 85,
    "peak": 89,
    "connections": 6,
    "kernel_ms": [100.0] * 98 + [104.0, 110.0],
    "bare_ms": [5.0] * 98 + [6.0, 10.0],
}


@pytest.mark.parametrize(
    ("transport", "size", "slower", "met"),
    [
        ("http2", 5_000, 0.0, [None, True, None]),
        ("http2", 5_000, 11.0, [None, False, None]),
        ("http1", 80, 0.0, [None, True, None]),
        ("http1", 1_000, 0.0, [True, None, None]),
        ("http1", 1_000, 401.0, [False, None, None]),
        ("http1", 5_000, 2_900.0, [True, None, None]),
        ("http1", 5_000, 2_901.0, [False, None, None]),
    ],
)
def test_what_was_promised_is_the_target(transport: str, size: int, slower: float, met: list[bool | None]) -> None:
    figures = {**FIGURES, "kernel_ms": [each + slower for each in FIGURES["kernel_ms"]]}  # type: ignore[attr-defined]
    assert [each.met for each in lines(transport, size, figures)] == met


def test_memory_and_load_are_told() -> None:
    *_, start = lines("http1", 1_000, FIGURES)
    assert start.work == "start to first sync, signals"
    assert start.note == (
        "2.0 s of a processor; RSS 85 MB, at most 89 (promised: 100); 6 connections; idle 0.3% of a processor"
    )


def test_how_it_grows_is_told() -> None:
    found = {size: {**FIGURES, "rss": 50 + size // 100, "start_cpu_s": size / 1000} for size in (100, 1_000, 5_000)}
    line = grown("http2", found)
    assert line.ratio == pytest.approx(1.0)
    assert "RSS 50 MB + 10.0 kB for each Consul service" in line.note


def test_a_quantile() -> None:
    assert quantile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert quantile([float(each) for each in range(100)], 0.99) == 99.0
