"""Causes that are gone when their effect comes: a datacenter out of the list, another Consul service, an override."""

from collections.abc import Mapping
from typing import Any

# ruff: noqa: ANN401 -- changes are attributes of whatever is built
import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvsctl.config import Config, OverridesConfig
from lvsctl.core.cause import BY_HAND, Cause, Kind
from lvsctl.core.decide import decide
from lvsctl.core.decision import Decision
from lvsctl.core.difference import difference
from lvsctl.core.event import Evidence
from lvsctl.core.evidence import evidence_of
from lvsctl.core.instance import Answer, Answers, Instance, Malformed, Query
from lvsctl.core.override import NO_OVERRIDES, Override, Overrides, parse_share
from lvsctl.core.ownership import LedgerEntry
from lvsctl.core.provenance import UNKNOWN, Provenance
from lvsctl.core.remembrance import ledger_ahead, ledger_settled
from lvsctl.ledger_format import decode, encode, encode_one
from netlink.fake import FakeIPVS
from netlink.requests import AddRealServer
from netlink.types import Observed, RealServerUsage
from tests.values import (
    KEY,
    NOW,
    OWN,
    config_of,
    configured,
    entry,
    failing,
    instance,
    kernel_with,
    real,
    real_key,
    requests_of,
)

V2 = instance(2, tags=("v2",))


@attrs.define
class World:
    """Cycles with what changes between them; the ledger is written and read as bytes each time."""

    config: Config
    answers: Answers
    kernel: FakeIPVS = attrs.field(factory=lambda: kernel_with({}))
    ledger: Mapping = attrs.field(factory=dict)  # type: ignore[type-arg]
    now: float = NOW
    overrides: Overrides = NO_OVERRIDES
    last: Decision | None = None
    remembers: bool = False  # the last decision, as a daemon does that runs on

    def decide(self) -> tuple[Decision, Observed]:
        observed = self.kernel.observe()
        return decide(
            self.config,
            self.answers,
            observed,
            self.ledger,
            own_addresses=OWN,
            templates_expire=False,
            now=self.now,
            overrides=self.overrides,
            last=self.last,
        ), observed

    def once(self, steps: int | None = None) -> list[tuple[str | None, Kind, str]]:
        """Carry out a cycle, or die after so many steps; return what real servers are changed and why."""
        decision, observed = self.decide()
        self.last = decision if self.remembers else None
        self.keep(ledger_ahead(decision, self.ledger, observed))
        done = decision.steps[:steps]
        assert not any(self.kernel.apply(requests_of(done)))
        if steps is None:
            self.keep(ledger_settled(decision, self.ledger, ()))
        self.now += 1.0
        return [(line.real_server, line.cause.kind, line.cause.text) for line in difference(decision)]

    def keep(self, ledger: Mapping) -> None:  # type: ignore[type-arg]
        self.ledger, _ = decode(encode(encode_one(key, each) for key, each in ledger.items())[0])
        assert self.ledger == ledger

    def busy(self, *numbers: int) -> None:
        """Have these real servers keep connections."""
        for number in numbers:
            self.kernel.set_usage(KEY, real_key(number), RealServerUsage(active=3))


def asked(service: str = "reco", **of: tuple[Instance, ...]) -> Answers:
    return {
        Query(service=service, datacenter="" if name == "own" else name): Answer(instances=each, index=1)
        for name, each in of.items()
    }


def config(**changes: Any) -> Config:
    return config_of(configured(scheduler="wrr", **changes), overrides=OverridesConfig(kv_prefix="lvsctl"))


GONE = "the configuration no longer names datacenter 'dc2' for it"


def failed_over() -> World:
    world = World(
        config(failover=("dc2", "dc3")), asked(own=(failing(1),), dc2=(instance(2), instance(3)), dc3=(instance(4),))
    )
    world.once()
    assert world.once() == []
    assert world.ledger[KEY].provenance == Provenance(service="reco", datacenter="dc2")
    world.busy(2, 3)
    world.config = config(failover=("dc3",))
    return world


def test_a_datacenter_that_left_the_list_is_the_files_cause_until_the_last_is_gone() -> None:
    world = failed_over()
    leaving = [(f"10.0.0.{number}:8080", Kind.CONFIGURATION, GONE) for number in (2, 3)]
    assert sorted(world.once())[:2] == leaving
    assert world.once() == leaving, "while they drain, too, and after a restart"
    for number in (2, 3):
        world.kernel.set_usage(KEY, real_key(number), RealServerUsage())
    assert [text.endswith(f"; {GONE}") for _, _, text in world.once()] == [True, True]
    assert world.once() == []
    assert world.ledger[KEY].provenance == Provenance(service="reco", datacenter="dc3")


@pytest.mark.parametrize("steps", range(4))
def test_a_crash_between_the_steps_does_not_forget_the_cause(steps: int) -> None:
    world = failed_over()
    world.once(steps=steps)
    again = {(where, text) for where, _, text in world.once() if where != "10.0.0.4:8080"}
    assert again == {(f"10.0.0.{number}:8080", GONE) for number in (2, 3)}


ELSEWHERE = instance(2, port=8081)
UNREADABLE = Malformed(node="app2", instance_id="reco-2", reason="Weights.Passing is -1")
ANOTHER = instance(3, instance_id="reco-2", port=9)


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize(
    ("found", "kind", "text"),
    [
        ((), Kind.DEREGISTERED, "is no longer registered in Consul"),
        ((ELSEWHERE,), Kind.DEREGISTERED, "is registered at 10.0.0.2:8081 now"),
        (
            (instance(2, address="db.example"),),
            Kind.REJECTED,
            "is rejected now: registered with 'db.example', which is not an IP address; names are not resolved",
        ),
        ((UNREADABLE,), Kind.REJECTED, "is rejected now: Weights.Passing is -1"),
        ((ANOTHER,), Kind.DEREGISTERED, "is no longer registered in Consul"),  # the same id on another node
    ],
)
def test_what_became_of_an_instance_is_told_until_it_is_gone(
    found: tuple[Instance | Malformed, ...], kind: Kind, text: str, *, restarts: bool
) -> None:
    world = World(config(floor=0), asked(own=(instance(1), instance(2))), remembers=True)
    world.once()
    (query,) = world.answers
    world.answers = {
        query: Answer(
            instances=(instance(1), *(each for each in found if isinstance(each, Instance))),
            malformed=tuple(each for each in found if isinstance(each, Malformed)),
            index=2,
        )
    }
    world.busy(2)
    told = ("10.0.0.2:8080", kind, f"instance 'reco-2' on node 'app2' {text}")
    assert told in world.once()
    assert world.last is not None
    evidence = evidence_of(world.last.virtual_servers[KEY], real_key(2), Cause(kind=kind, text=""))
    assert evidence == Evidence(service="reco", index=2, node="app2", instance="reco-2")
    world.last = None if restarts else world.last
    assert told in world.once()
    world.kernel.set_usage(KEY, real_key(2), RealServerUsage())
    world.last = None if restarts else world.last
    assert (told[0], Kind.DRAIN, f"drained in 2 s; {told[2]}") in world.once()


def test_what_is_kept_of_it_in_the_ledger_is_bounded() -> None:
    long = instance(2, instance_id="x" * 1024, node="y" * 1024)
    world = World(config(floor=0), asked(own=(instance(1), long)), remembers=True)
    world.once()
    world.answers = asked(own=(instance(1),))
    world.once()
    (left,) = world.ledger[KEY].provenance.left.values()
    assert len(left) == len("deregistered: ") + 400
    assert left.endswith("' is no longer registered in Consul")


def test_of_what_is_held_it_is_told_what_became_of_it_meanwhile() -> None:
    world = World(config(), asked(own=(instance(1), instance(2))), remembers=True)
    world.once()
    (query,) = world.answers
    world.answers = {query: Answer(instances=(instance(1),), index=2, doubt="a token")}
    held = "held, for Consul's answer is in doubt (a token): instance 'reco-2' on node 'app2' is "
    assert world.once() == [("10.0.0.2:8080", Kind.HELD, f"{held}no longer registered in Consul")]
    world.answers = {query: Answer(instances=(instance(1), ELSEWHERE), index=3, doubt="a token")}
    assert ("10.0.0.2:8080", Kind.HELD, f"{held}registered at 10.0.0.2:8081 now") in world.once()


def test_what_a_hand_added_was_never_registered_until_it_is_gone() -> None:
    world = World(config(), asked(own=(instance(1),)))
    world.once()
    assert not any(world.kernel.apply([AddRealServer(virtual_server=KEY, real_server=real(9))]))
    world.busy(9)
    by_hand = [("10.0.0.9:8080", Kind.DRIFT, BY_HAND)]
    assert [world.once(), world.once()] == [by_hand, by_hand]
    world.kernel.set_usage(KEY, real_key(9), RealServerUsage())
    assert world.once() == [("10.0.0.9:8080", Kind.DRAIN, f"drained in 2 s; {BY_HAND}")]
    assert world.once() == []
    assert world.ledger[KEY].provenance == Provenance(service="reco")


def test_what_a_hand_added_and_doubt_holds_was_never_registered_either() -> None:
    world = World(config(), asked(own=(instance(1),)))
    world.once()
    assert not any(world.kernel.apply([AddRealServer(virtual_server=KEY, real_server=real(9))]))
    (query,) = world.answers
    world.answers = {query: Answer(instances=(instance(1),), index=1, doubt="a token")}
    held = [("10.0.0.9:8080", Kind.HELD, f"held, for Consul's answer is in doubt (a token): {BY_HAND}")]
    assert [world.once(), world.once()] == [held, held]
    world.answers = asked(own=(instance(1),))
    assert world.once() == [("10.0.0.9:8080", Kind.DRIFT, BY_HAND)]


def test_what_is_held_in_proportion_is_not_said_to_be_so_in_consul() -> None:
    world = World(config(), asked(own=(instance(1), V2, instance(3))))
    world.once()
    (query,) = world.answers
    world.answers = {query: Answer(instances=(instance(1), V2), index=1, doubt="a token")}
    world.once()
    world.overrides = Overrides(entries=(override(share="10%"),))
    found = {(kind, text) for where, kind, text in world.once() if where == "10.0.0.3:8080"}
    told = "weight 9, was 1, in proportion to the others while it is held: override 'v2' 10%"
    assert any((kind, text.startswith(told)) == (Kind.HELD, True) for kind, text in found), found
    world.overrides = NO_OVERRIDES
    found = {(kind, text) for where, kind, text in world.once() if where == "10.0.0.3:8080"}
    assert (Kind.HELD, "weight 1, was 9, in proportion to the others while it is held") in found


REFILTERED = "the configuration asks for other instances now: instance 'reco-2' on node 'app2': has no tag 'v1'"


@pytest.mark.parametrize("filters", [{"tags": ("v1",)}, {"tags": ("v1",), "meta": {}}])
def test_what_the_file_asks_for_no_more_is_the_files_cause_until_it_is_gone(filters: dict[str, Any]) -> None:
    first = instance(1, tags=("v1",))
    world = World(config(), asked(own=(first, V2)))
    world.once()
    world.busy(2)
    world.config = config(**filters)
    leaving = [("10.0.0.2:8080", Kind.CONFIGURATION, REFILTERED)]
    assert world.once() == leaving
    assert world.once() == leaving, "while it drains, too, and after a restart"
    world.kernel.set_usage(KEY, real_key(2), RealServerUsage())
    ((_, kind, text),) = world.once()
    assert (kind, text.endswith(f"; {REFILTERED}")) == (Kind.DRAIN, True)


def test_an_instance_that_loses_a_tag_is_its_own_cause() -> None:
    world = World(config(tags=("v2",)), asked(own=(instance(1, tags=("v2",)), V2)))
    world.once()
    world.busy(2)
    world.answers = asked(own=(instance(1, tags=("v2",)), instance(2)))
    ((_, kind, text),) = world.once()
    assert (kind, text) == (Kind.FILTERED, "instance 'reco-2' on node 'app2': has no tag 'v2'")


def test_what_was_deregistered_in_a_datacenter_that_is_still_asked_is_consuls_cause() -> None:
    world = failed_over()
    world.config = config(failover=("dc2", "dc3"))
    world.answers = {**world.answers, **asked(dc2=(instance(2),))}
    assert ("10.0.0.3:8080", Kind.DEREGISTERED, "no longer registered in Consul") in world.once()


def test_what_is_held_says_it_too() -> None:
    world = failed_over()
    world.config = config()
    for _ in range(3):
        held = world.once()
        assert {kind for _, kind, _ in held} == {Kind.HELD}
        assert all(text.endswith(GONE) for _, _, text in held)


def test_another_datacenter_or_another_consul_service_is_the_files_cause() -> None:
    world = World(config(), asked(own=(instance(1), instance(2))))
    world.once()
    world.busy(1, 2)
    world.config, world.answers = config(datacenter="dc2"), asked(dc2=(instance(3),))
    why = "the configuration no longer names the agent's own datacenter for it"
    assert {text for where, _, text in world.once() if where != "10.0.0.3:8080"} == {why}
    assert {text for _, _, text in world.once()} == {why}
    world.config, world.answers = config(consul_service="new"), asked("new", own=(instance(4),))
    why = "the configuration asks for Consul service 'new' now, no longer for 'reco'"
    assert ("10.0.0.3:8080", Kind.CONFIGURATION, why) in world.once()


def test_an_older_ledger_does_not_know_and_says_what_it_said() -> None:
    world = failed_over()
    world.ledger = {KEY: attrs.evolve(world.ledger[KEY], provenance=UNKNOWN)}
    assert {text for where, _, text in world.once() if where != "10.0.0.4:8080"} == {"no longer registered in Consul"}


def override(selector: str = "v2", share: str = "5%", **changes: object) -> Override:
    values = {"virtual_server": "reco", "selector": selector, "share": parse_share(share), "by": "alice", **changes}
    return Override(**values)  # type: ignore[arg-type]


def overridden(*overrides: Override) -> World:
    world = World(config(), asked(own=(instance(1), V2, instance(3))), overrides=Overrides(entries=overrides))
    world.once()
    return world


def test_what_is_added_with_an_overrides_weight_says_so() -> None:
    world = World(config(), asked(own=(instance(1), V2)), overrides=Overrides(entries=(override(),)))
    (_, *servers) = world.once()
    assert [text for _, _, text in servers] == [
        "passing in Consul: instance 'reco-1' on node 'app1'; weight 19 for override 'v2' 5% of 'alice'",
        "passing in Consul: instance 'reco-2' on node 'app2'; weight 1 for override 'v2' 5% of 'alice'",
    ]


@pytest.mark.parametrize(
    ("opened", "said"),
    [(True, "was cleared"), (False, "counts no more: the configuration opens no overrides any more")],
)
def test_one_that_was_cleared_is_the_cause_of_every_weight_that_it_changed(*, opened: bool, said: str) -> None:
    world = overridden(override())
    world.overrides = NO_OVERRIDES
    world.config = world.config if opened else attrs.evolve(world.config, overrides=None)
    for where, kind, text in world.once():
        assert where
        assert kind is Kind.OVERRIDE
        assert f", for override 'v2' 5% of 'alice' {said}: instance" in text, text
    assert world.once() == []
    assert not world.ledger[KEY].provenance.overrides


def test_one_that_is_over_says_since_when() -> None:
    world = overridden(override(share="10", until=NOW + 60))
    world.now = NOW + 61
    (only,) = world.once()
    said = "weight 1, was 10, for override 'v2' 10 of 'alice' is over since 1970-01-12 13:47 UTC"
    assert only == ("10.0.0.2:8080", Kind.OVERRIDE, f"{said}: instance 'reco-2' on node 'app2'")


def test_one_that_counts_no_more_says_why() -> None:
    world = overridden(override())
    world.config = config_of(configured(scheduler="rr"))
    texts = [text for where, _, text in world.once() if where]
    assert all("'alice' does not count now (scheduler rr ignores weights other than 0)" in text for text in texts)
    assert texts


def test_a_weight_that_changes_in_consul_is_still_consuls() -> None:
    world = overridden(override("v9", "5%"), override("v2", "10"))
    world.answers = asked(own=(instance(1, weight=7), V2, instance(3)))
    (only,) = world.once()
    assert only[1:] == (Kind.WEIGHT, "weight in Consul is 7, was 1: instance 'reco-1' on node 'app1'")
    world.overrides = NO_OVERRIDES
    world.answers = asked(own=(instance(1, weight=9), V2, instance(3)))
    assert [kind for _, kind, _ in world.once()] == [Kind.WEIGHT, Kind.OVERRIDE]


def test_a_refusal_of_the_kernel_does_not_forget_it() -> None:
    world = overridden(override())
    world.overrides = NO_OVERRIDES
    world.once(steps=0)
    assert {kind for _, kind, _ in world.once()} == {Kind.OVERRIDE}


@given(
    st.builds(
        Provenance,
        service=st.text(max_size=5),
        datacenter=st.text(max_size=5),
        overrides=st.lists(
            st.builds(
                override,
                st.text(max_size=4),
                st.sampled_from(("0%", "0.25%", "100%", "7")),
                by=st.text(max_size=4),
                until=st.none() | st.floats(0, 1e10),
            ),
            max_size=2,
        ).map(tuple),
        left=st.dictionaries(st.integers(1, 9).map(real_key), st.text(max_size=5), max_size=2),
    )
)
def test_it_survives_as_bytes(provenance: Provenance) -> None:
    kept = {KEY: LedgerEntry(name="reco", drain_timeout=1.0, written=entry(real(1)), provenance=provenance)}
    assert decode(encode([encode_one(KEY, kept[KEY])])[0])[0] == kept
