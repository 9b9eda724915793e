"""Why, in words: every kind of cause at least once, exactly as an operator reads it."""

from ipaddress import ip_network

import pytest

from lvsctl.config import SafetyConfig
from lvsctl.core.cause import Cause, Kind
from lvsctl.core.decision import Decision, Step
from lvsctl.core.difference import difference
from lvsctl.core.instance import Check, Health
from lvsctl.core.ownership import LedgerEntry
from netlink.types import SchedulerFlag, TableEntry, VirtualServerKey
from tests.values import (
    KEY,
    NOW,
    config_of,
    configured,
    decided,
    entry,
    failing,
    instance,
    observed_of,
    real,
    real_key,
)

TWO = entry(real(1), real(2))


def ours(written: TableEntry | None, **draining: float) -> dict[VirtualServerKey, LedgerEntry]:
    """Return the ledger that remembers `written`, and real servers `_N` that have been draining for so long."""
    since = {real_key(int(name.strip("_"))): NOW - seconds for name, seconds in draining.items()}
    return {KEY: LedgerEntry(name="reco", drain_timeout=30.0, written=written, draining=since)}


def only(decision: Decision) -> Step:
    assert len(decision.steps) == 1, decision.steps
    return decision.steps[0]


def cause(kind: Kind, text: str) -> Cause:
    return Cause(kind=kind, text=text)


def test_new() -> None:
    server, first = decided(observed_of(), instance(1)).steps
    assert server.cause == cause(Kind.NEW, "new in the configuration")
    assert first.cause == cause(Kind.NEW, "passing in Consul: instance 'reco-1' on node 'app1'")


def test_returned() -> None:
    observed = observed_of(entry(real(1), real(2, 0)))
    step = only(decided(observed, instance(1), instance(2), ledger=ours(TWO, _2=5)))
    assert step.cause == cause(Kind.RETURNED, "passing again: instance 'reco-2' on node 'app2'")


@pytest.mark.parametrize(
    ("health", "kind", "text"),
    [
        (Health.CRITICAL, Kind.CHECK, "check 'HTTP' is critical: no answer"),
        (Health.WARNING, Kind.CHECK, "check 'HTTP' is warning: no answer"),
        (Health.MAINTENANCE, Kind.MAINTENANCE, "in maintenance: no answer"),
    ],
)
def test_a_check(health: Health, kind: Kind, text: str) -> None:
    step = only(decided(observed_of(TWO), instance(1), failing(2, health), ledger=ours(TWO)))
    assert step.cause == cause(kind, f"instance 'reco-2' on node 'app2': {text}")


def test_a_check_without_output_and_maintenance_without_a_reason() -> None:
    step = only(decided(observed_of(TWO), instance(1), failing(2, output=""), ledger=ours(TWO)))
    assert step.cause.text == "instance 'reco-2' on node 'app2': check 'HTTP' is critical"
    silent = failing(2, Health.MAINTENANCE, output="")
    step = only(decided(observed_of(TWO), instance(1), silent, ledger=ours(TWO)))
    assert step.cause.text == "instance 'reco-2' on node 'app2': in maintenance"


def test_deregistered() -> None:
    step = only(decided(observed_of(TWO), instance(1), ledger=ours(TWO)))
    assert step.cause == cause(Kind.DEREGISTERED, "no longer registered in Consul")


def test_filtered() -> None:
    config = config_of(configured(tags=("v2",)))
    found = (instance(1, tags=("v2",)), instance(2, tags=("v1",)))
    step = only(decided(observed_of(TWO), *found, config=config, ledger=ours(TWO)))
    assert step.cause == cause(Kind.FILTERED, "instance 'reco-2' on node 'app2': has no tag 'v2'")


def test_rejected() -> None:
    config = config_of(safety=SafetyConfig(allowed_networks=(ip_network("10.0.0.1/32"),)))
    step = only(decided(observed_of(TWO), instance(1), instance(2), config=config, ledger=ours(TWO)))
    text = "instance 'reco-2' on node 'app2': 10.0.0.2 is outside safety.allowed_networks"
    assert step.cause == cause(Kind.REJECTED, text)


def test_weight() -> None:
    step = only(decided(observed_of(TWO), instance(1), instance(2, weight=5), ledger=ours(TWO)))
    assert step.cause == cause(Kind.WEIGHT, "weight in Consul is 5, was 1: instance 'reco-2' on node 'app2'")


def test_configuration() -> None:
    config = config_of(
        configured(scheduler="sh", scheduler_flags=SchedulerFlag.FLAG_1 | SchedulerFlag.FLAG_2, persistence=300)
    )
    step = only(decided(observed_of(TWO), instance(1), instance(2), config=config, ledger=ours(TWO)))
    text = "scheduler wlc -> sh, scheduler flags none -> flag-1 | flag-2, persistence none -> 300"
    assert step.cause == cause(Kind.CONFIGURATION, f"configuration changed: {text}")
    config = config_of(configured(upper_threshold=9))
    step = only(decided(observed_of(entry(real(1))), instance(1), config=config, ledger=ours(entry(real(1)))))
    assert step.cause == cause(Kind.CONFIGURATION, "configuration changed: upper threshold 0 -> 9")


def test_no_longer_configured() -> None:
    other = config_of(configured("other", VirtualServerKey.by_mark(7)))
    found = entry(real(1))
    steps = decided(observed_of(found), config=other, ledger=ours(found)).steps
    assert steps[-1].cause == cause(Kind.CONFIGURATION, "its virtual server is no longer in the configuration")
    steps = decided(observed_of(entry()), config=other, ledger=ours(found)).steps
    assert steps[-1].cause == cause(Kind.CONFIGURATION, "no longer in the configuration")


def test_moved_to_another_address() -> None:
    elsewhere = config_of(configured(key=VirtualServerKey.by_mark(7)))
    found = entry(real(1))
    decision = decided(observed_of(found), instance(1), config=elsewhere, ledger=ours(found))
    (left,) = [step for step in decision.steps if step.key == KEY]
    assert left.cause == cause(Kind.CONFIGURATION, "its virtual server is at mark 7 now")
    decision = decided(observed_of(entry()), instance(1), config=elsewhere, ledger=ours(found))
    (left,) = [step for step in decision.steps if step.key == KEY]
    assert left.cause == cause(Kind.CONFIGURATION, "at mark 7 now")


def test_drift() -> None:
    both = (instance(1), instance(2))
    for observed, text in (
        (entry(real(1), real(2, 7)), "changed by hand: weight 1 -> 7"),
        (entry(real(1)), "was in the kernel and is gone: deleted by hand"),
        (entry(real(1), real(2), scheduler="rr"), "changed by hand: scheduler wlc -> rr"),
        (entry(real(1), real(2), real(3)), "added by hand: neither Consul nor lvsctl knows it"),
    ):
        assert only(decided(observed_of(observed), *both, ledger=ours(TWO))).cause == cause(Kind.DRIFT, text)


def test_a_hand_that_raises_what_drains_is_drift() -> None:
    found = observed_of(entry(real(1), real(2, 5)), connections={real_key(2): 1})
    ledger = ours(entry(real(1), real(2, 0)), _2=5)
    step = only(decided(found, instance(1), failing(2), ledger=ledger))
    why = "instance 'reco-2' on node 'app2': check 'HTTP' is critical: no answer"
    assert step.cause == cause(Kind.DRIFT, f"changed by hand: weight 0 -> 5, and it leaves; {why}")
    refused = ours(TWO, _2=5)  # the kernel did not take the first try
    step = only(decided(found, instance(1), failing(2), ledger=refused))
    assert step.cause == cause(Kind.CHECK, why)


def test_a_hand_that_deletes_what_is_quiesced_for_good_is_drift() -> None:
    quiesced, both = entry(real(1), real(2, 0)), (instance(1), instance(2, weight=0))
    step = only(decided(observed_of(entry(real(1))), *both, ledger=ours(quiesced)))
    assert step.cause == cause(Kind.DRIFT, "was in the kernel and is gone: deleted by hand")
    step = only(decided(observed_of(entry(real(1))), instance(1), instance(2), ledger=ours(quiesced, _2=5)))
    assert step.cause == cause(Kind.NEW, "passing in Consul: instance 'reco-2' on node 'app2'")


def test_a_weight_of_its_own_that_another_thing_changed() -> None:
    config = config_of(configured(only_passing=False))
    found = observed_of(entry(real(1, 10)))
    warned = failing(1, Health.WARNING, weight=10, warning_weight=2)
    step = only(decided(found, warned, config=config, ledger=ours(entry(real(1, 10)))))
    text = "weight 2, was 10, while it warns: instance 'reco-1' on node 'app1': check 'HTTP' is warning: no answer"
    assert step.cause == cause(Kind.CHECK, text)
    config = config_of(safety=SafetyConfig(max_weight=5))
    step = only(decided(found, instance(1, weight=10), config=config, ledger=ours(entry(real(1, 10)))))
    text = "weight 5, was 10: instance 'reco-1' on node 'app1': its own weight, 10, is cut to safety.max_weight, 5"
    assert step.cause == cause(Kind.WEIGHT, text)


def test_maintenance_says_whose() -> None:
    for check_id, text in (
        ("_service_maintenance:reco-2", "in maintenance"),
        ("_node_maintenance", "its node is in maintenance"),
    ):
        check = Check(check_id=check_id, name="Maintenance", health=Health.MAINTENANCE, output="new disk")
        step = only(decided(observed_of(TWO), instance(1), instance(2, checks=(check,)), ledger=ours(TWO)))
        assert step.cause == cause(Kind.MAINTENANCE, f"instance 'reco-2' on node 'app2': {text}: new disk")


def test_a_reboot_is_drift() -> None:
    server, *rest = decided(observed_of(), instance(1), instance(2), ledger=ours(TWO)).steps
    assert server.cause == cause(Kind.DRIFT, "was in the kernel and is gone: a reboot, or deleted by hand")
    assert {step.cause for step in rest} == {cause(Kind.DRIFT, "put back with its virtual server")}


def test_drained() -> None:
    observed = observed_of(entry(real(1), real(2, 0)))
    step = only(decided(observed, instance(1), failing(2), ledger=ours(TWO, _2=12)))
    why = "instance 'reco-2' on node 'app2': check 'HTTP' is critical: no answer"
    assert step.cause == cause(Kind.DRAIN, f"drained in 12 s; {why}")


def test_the_deadline_of_a_drain() -> None:
    observed = observed_of(entry(real(1), real(2, 0)), connections={real_key(2): 3}, inactive=1)
    step = only(decided(observed, instance(1), ledger=ours(TWO, _2=31)))
    text = "drain timeout of 30 s is over with 3 active and 1 closing connections left; no longer registered in Consul"
    assert step.cause == cause(Kind.DRAIN, text)


def test_held() -> None:
    decision = decided(observed_of(TWO), failing(1), ledger=ours(TWO))
    lines = {line.real_server: line.cause for line in difference(decision)}
    why = "instance 'reco-1' on node 'app1': check 'HTTP' is critical: no answer"
    assert lines["10.0.0.1:8080"] == cause(Kind.HELD, f"held, for nothing else would serve: {why}")
    assert lines["10.0.0.2:8080"] == cause(Kind.DEREGISTERED, "no longer registered in Consul")
    gone = difference(decided(observed_of(TWO), ledger=ours(TWO)))
    text = "held, for nothing else would serve: no longer registered in Consul"
    assert {line.cause for line in gone} == {cause(Kind.HELD, text)}


def test_the_worst_of_several_checks_is_the_one_named() -> None:
    checks = (
        Check(check_id="a", name="A", health=Health.PASSING),
        Check(check_id="b", name="B", health=Health.CRITICAL, output="dead"),
        Check(check_id="c", name="C", health=Health.WARNING),
    )
    step = only(decided(observed_of(TWO), instance(1), instance(2, checks=checks), ledger=ours(TWO)))
    assert step.cause.text.endswith("check 'B' is critical: dead")
