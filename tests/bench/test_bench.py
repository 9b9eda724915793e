"""The parts of the benchmark that only compute."""

import json

import pytest

from netlink import AddRealServer, AddVirtualServer, FakeIPVS
from tests.bench.fit import fit
from tests.bench.result import Result, Sense, as_json, compared, from_json
from tests.bench.shapes import Shape
from tests.bench.table import milliseconds, render
from tests.bench.timing import Samples, in_turn, spread

FASTER = compared(
    "load", "1,000 x 10", "ipvsadm -R", Samples((30.0, 33.0, 60.0), (3000.0, 3300.0, 3100.0)), Sense.FASTER, target=90
)
SLOWER = compared("load", "1,000 x 10", "C", Samples((33.0,), (11.0,)), Sense.ITS_TIME, target=1.5, note="three times")
ABSENT = Result(work="load", shape="1,000 x 10", against="qemu", note="not run: no qemu")


def test_the_ratio_is_of_medians_and_met_on_the_right_side() -> None:
    assert FASTER.ratio == pytest.approx(3100 / 33)
    assert FASTER.met is True
    assert SLOWER.ratio == pytest.approx(3.0)
    assert SLOWER.met is False


@pytest.mark.parametrize(("ours", "met"), [(15.0, True), (15.1, False)])
def test_a_target_that_is_just_reached_is_met(ours: float, met: bool) -> None:  # noqa: FBT001
    assert compared("load", "", "C", Samples((ours,), (10.0,)), Sense.ITS_TIME, target=1.5).met is met


def test_without_a_target_nothing_is_met_or_missed() -> None:
    assert ABSENT.met is None
    assert compared("load", "", "C", Samples((1.0,), (1.0,)), Sense.FASTER).met is None


def test_a_target_without_figures_is_missed() -> None:
    assert Result(work="load", shape="", against="C", target=1.5).met is False


def test_the_spread_is_that_of_the_more_restless() -> None:
    assert FASTER.spread == pytest.approx(30 / 33)
    assert spread([5.0]) == 0.0


def test_ours_and_theirs_take_turns() -> None:
    turns: list[str] = []

    def run(name: str, *times: float) -> tuple[float, ...]:
        turns.append(name)
        return times

    first, second = in_turn(2, lambda: run("ours", 1.0, 2.0), lambda: run("theirs", 3.0, 4.0))
    assert turns == ["ours", "theirs", "ours", "theirs"]
    assert (first, second) == (Samples((1.0, 1.0), (3.0, 3.0)), Samples((2.0, 2.0), (4.0, 4.0)))
    turns.clear()
    (only,) = in_turn(2, lambda: run("ours", 1.0), lambda: run("theirs", 3.0), ours_each=2)
    assert turns == ["ours", "ours", "theirs", "ours", "ours", "theirs"]
    assert only == Samples((1.0, 1.0, 1.0, 1.0), (3.0, 3.0))


def test_a_line_and_its_exponent() -> None:
    found = fit([1000, 2000, 4000], [7.0, 12.0, 22.0])
    assert found.fixed == pytest.approx(2.0)
    assert found.each == pytest.approx(0.005)
    assert found.r_squared == pytest.approx(1.0)
    assert found.farthest == pytest.approx(0.0)
    assert fit([10, 100, 1000], [3.0, 300.0, 30_000.0]).exponent == pytest.approx(2.0)
    assert fit([10, 100, 1000], [3.0, 3.0, 3.0]).exponent == pytest.approx(0.0)


def test_a_curve_lies_off_its_line() -> None:
    found = fit([1, 2, 3, 4], [1.0, 4.0, 9.0, 16.0])
    assert found.r_squared == pytest.approx(0.969, abs=0.001)
    assert found.farthest == pytest.approx(1.0)


def test_the_table_is_aligned_and_counts() -> None:
    assert render([FASTER, SLOWER, ABSENT]).splitlines() == [
        "work  shape       against     ours ms  theirs ms  ratio              target  met",
        "----  ----------  ----------  -------  ---------  -----  ----------  ------  ---",
        "load  1,000 x 10  ipvsadm -R     33.0      3,100   93.9  x faster    >= 90   yes",
        "load  1,000 x 10  C              33.0       11.0   3.00  x its time  <= 1.5  no",
        "    three times",
        "load  1,000 x 10  qemu              -          -      -              -       -",
        "    not run: no qemu",
        "",
        "runs are more than 25% apart in 1 of 3 lines, at most 91%",
        "missed: load 1,000 x 10 against C",
        "1 of 2 targets met",
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (3118.4, "3,118"), (100.0, "100"), (33.13, "33.1"), (3.126, "3.13"), (0.0471, "0.0471")],
)
def test_milliseconds_keep_the_digits_that_matter(value: float | None, text: str) -> None:
    assert milliseconds(value) == text


def test_json_has_every_line_and_can_be_read_back() -> None:
    text = as_json([FASTER, SLOWER, ABSENT])
    first, _, last = json.loads(text)
    assert {"work", "shape", "against", "ours_ms", "theirs_ms", "ratio", "target", "met"} <= first.keys()
    assert (first["ours_ms"], first["target"], first["met"]) == (33.0, ">= 90", True)
    assert (last["ours_ms"], last["target"], last["met"]) == (None, None, None)
    assert as_json(from_json(text)) == text


def test_what_a_shape_creates_is_its_table() -> None:
    shape = Shape(3, 4)
    kernel = FakeIPVS()
    requests = shape.additions(run=7)
    assert len(requests) == shape.rules
    assert not any(kernel.apply(requests))
    assert kernel.observe().table == shape.table(run=7)
    assert not any(kernel.apply(shape.changes(run=7, shift=1)))
    assert kernel.observe().table == shape.table(run=7, shift=1) != shape.table(run=7)


def test_no_two_runs_share_a_value() -> None:
    shape = Shape(3, 4)
    assert not set(shape.additions(1)) & set(shape.additions(2))
    assert not set(shape.table(1)) & set(shape.table(2))


def test_the_largest_shapes_fit_their_addresses() -> None:
    *_, last = Shape(10_000, 5).additions(63)
    assert isinstance(last, AddRealServer)
    assert str(last) == "add real server 10.191.195.80:8999 to tcp 10.127.39.16:83"


def test_peers_read_the_same_table() -> None:
    shape = Shape(2, 2)
    first, second, *_ = shape.additions(1)
    assert isinstance(first, AddVirtualServer)
    assert isinstance(second, AddRealServer)
    assert shape.rules_text(1).splitlines()[:2] == [
        "-A -t 10.65.0.1:80 -s wlc",
        "-a -t 10.65.0.1:80 -r 10.129.0.1:8000 -m -w 1",
    ]
    assert shape.keepalived_text(1, shift=2).splitlines()[2:9] == [
        "virtual_server 10.65.0.1 80 {",
        "    lb_algo wlc",
        "    lb_kind NAT",
        "    protocol TCP",
        "    real_server 10.129.0.1 8000 {",
        "        weight 3",
        "    }",
    ]
