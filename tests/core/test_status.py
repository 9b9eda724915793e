"""What status shows: every state and every place at least once, with its words."""

from ipaddress import ip_network

import attrs
import pytest

from lvsctl.config import Config, SafetyConfig
from lvsctl.core.decide import decide
from lvsctl.core.instance import Answers, Health, Instance
from lvsctl.core.ownership import Ledger, LedgerEntry
from lvsctl.core.provenance import Provenance
from lvsctl.core.served import Served
from lvsctl.core.status import Place, RealServerStatus, State, VirtualServerStatus
from lvsctl.core.virtual_server_status import bare_virtual_servers, virtual_servers
from lvsctl.core.words import virtual_server_words
from netlink.types import Observed, RealServerUsage, SchedulerFlag, TableEntry, Traffic, VirtualServer, VirtualServerKey
from tests.values import (
    KEY,
    NOW,
    OWN,
    VIP,
    answers_of,
    config_of,
    configured,
    decided,
    entry,
    failing,
    instance,
    kernel_with,
    observed_of,
    real,
    real_key,
    table_of,
)

TWO = entry(real(1), real(2))


def ours(written: TableEntry | None = TWO, **draining: float) -> Ledger:
    since = {real_key(int(name.strip("_"))): NOW - seconds for name, seconds in draining.items()}
    return {KEY: LedgerEntry(name="reco", drain_timeout=30.0, written=written, draining=since)}


def rows_of(
    observed: Observed,
    answers: Answers,
    *,
    config: Config | None = None,
    ledger: Ledger | None = None,
    refused: str = "",
    local: bool = True,
) -> tuple[VirtualServerStatus, ...]:
    config = config or config_of()
    decision = decide(
        config,
        answers,
        observed,
        ours() if ledger is None else ledger,
        own_addresses=OWN,
        templates_expire=False,
        now=NOW,
    )
    return virtual_servers(
        config,
        decision,
        observed,
        refused={(KEY, None): refused} if refused else {},
        local=frozenset({VIP}) if local else frozenset(),
        ages={},
    )


def row_of(
    observed: Observed, *instances: Instance, config: Config | None = None, **given: object
) -> VirtualServerStatus:
    (row,) = rows_of(observed, answers_of(config or config_of(), *instances), config=config, **given)  # type: ignore[arg-type]
    return row


def standing(row: VirtualServerStatus) -> tuple[State, int, int, str]:
    return row.state, row.serving, row.wanted, row.note


def places(row: VirtualServerStatus) -> list[tuple[str, Place, str]]:
    return [(each.real_server or each.instance, each.place, each.why) for each in row.real_servers]


def test_what_passes_and_is_not_there_yet_is_not_said_to_fail() -> None:
    row = row_of(kernel_with({}).observe(), instance(1), failing(2), ledger={})
    assert standing(row) == (State.EMPTY, 0, 2, "what passes is not in the kernel yet")


def test_ok() -> None:
    kernel = kernel_with(table_of(TWO))
    kernel.set_traffic(KEY, Traffic(connection_rate=42))
    kernel.set_usage(KEY, real_key(1), RealServerUsage(active=3, inactive=4, connection_rate=40))
    kernel.set_usage(KEY, real_key(2), RealServerUsage(active=1, inactive=0, connection_rate=2))
    row = row_of(kernel.observe(), instance(1), instance(2))
    first = RealServerStatus(
        real_server="10.0.0.1:8080",
        node="app1",
        instance="reco-1",
        check="passing",
        place=Place.SERVING,
        weight=1,
        active=3,
        inactive=4,
        rate=40,
        why="",
    )
    second = attrs.evolve(
        first, real_server="10.0.0.2:8080", node="app2", instance="reco-2", active=1, inactive=0, rate=2
    )
    assert row == VirtualServerStatus(
        name="reco",
        consul_service="reco",
        address="tcp 10.9.0.100:80",
        scheduler="wlc",
        forwarding="masquerade",
        serving=2,
        wanted=2,
        state=State.OK,
        note="",
        active=4,
        inactive=4,
        rate=42,
        real_servers=(first, second),
    )


def test_degraded_and_where_each_stands() -> None:
    found = (
        instance(1, weight=0),
        failing(2),
        instance(3),
        failing(4),
        instance(5, address="127.0.0.1"),
        instance(6),
    )
    observed = observed_of(entry(real(1, 0), real(2, 0), real(3)), connections={real_key(2): 1})
    row = row_of(observed, *found, ledger=ours(_2=5))
    assert standing(row) == (State.DEGRADED, 1, 6, "")
    assert places(row) == [
        ("10.0.0.1:8080", Place.QUIESCED, "its own weight is 0"),
        ("10.0.0.2:8080", Place.DRAINING, "check 'HTTP' is critical: no answer"),
        ("10.0.0.3:8080", Place.SERVING, ""),
        ("10.0.0.4:8080", Place.OUT, "check 'HTTP' is critical: no answer"),
        ("127.0.0.1:8080", Place.REJECTED, "127.0.0.1 is a loopback address"),
        ("10.0.0.6:8080", Place.PENDING, "passing, not in the kernel yet"),
    ]
    assert [each.weight for each in row.real_servers] == [0, 0, 1, None, None, None]
    assert [each.check for each in row.real_servers] == [
        "passing", "critical", "passing", "critical", "passing", "passing",
    ]  # fmt: skip


def test_empty() -> None:
    assert standing(row_of(observed_of(entry()), failing(9)))[::3] == (State.EMPTY, "no instance passes")
    assert standing(row_of(observed_of(entry()))) == (State.EMPTY, 0, 0, "Consul has no instance of it")


def test_why_nothing_serves() -> None:
    outside = {"address": "192.0.2.9"}
    tagged = config_of(configured(tags=("v2",)))
    assert standing(row_of(observed_of(entry()), failing(8), instance(9, **outside)))[3] == (
        "no instance passes, 1 rejected"
    )
    assert standing(row_of(observed_of(entry()), instance(9, **outside)))[3] == (
        "its instance is rejected: 192.0.2.9 is outside safety.allowed_networks"
    )
    assert standing(row_of(observed_of(entry()), instance(8, **outside), instance(9, **outside)))[3] == (
        "all 2 instances are rejected"
    )
    assert standing(row_of(observed_of(entry()), instance(8), instance(9), config=tagged))[3] == (
        "none of Consul's 2 instances has the tags and meta asked for"
    )


def test_held() -> None:
    row = row_of(observed_of(TWO), failing(1))
    note = "no instance passes; the last serving real servers stay"
    assert standing(row) == (State.HELD, 1, 1, note)
    assert places(row) == [
        ("10.0.0.1:8080", Place.HELD, "kept, for nothing else would serve: check 'HTTP' is critical: no answer"),
        ("10.0.0.2:8080", Place.DRAINING, "no longer registered in Consul"),
    ]
    gone = row_of(observed_of(TWO))
    why = "kept, for nothing else would serve: no longer registered in Consul"
    assert [each.place for each in gone.real_servers] == [Place.HELD, Place.HELD]
    assert [each.why for each in gone.real_servers] == [why, why]
    assert [each.check for each in gone.real_servers] == ["", ""]


def floored(config: Config, *instances: Instance, now: float = NOW) -> VirtualServerStatus:
    """Return the row of six that served, and were to leave but for `instances`."""
    six = entry(*map(real, range(1, 7)))
    remembered = LedgerEntry(
        name="reco",
        drain_timeout=30.0,
        written=six,
        provenance=Provenance(service="reco"),
        served=Served(count=6),
    )
    observed = observed_of(six)
    decision = decided(observed, *instances, config=config, ledger={KEY: remembered}, now=now)
    (row,) = virtual_servers(config, decision, observed, refused={}, local=frozenset({VIP}), ages={})
    return row


def test_held_for_the_floor() -> None:
    row = floored(config_of(), instance(1), instance(2, weight=0))
    note = (
        "2 kept, for fewer than 3 of the 6 that served would be left; the floor is 3 until 1970-01-12 14:01 UTC, or: "
    )
    assert (row.state, row.note) == (State.HELD, f"{note}lvsctl release reco")
    why = "kept, for fewer than 3 of the 6 that served would be left"
    assert [each.why for each in row.real_servers if each.place is Place.HELD] == [
        f"{why}: its own weight is 0",
        f"{why}: no longer registered in Consul",
    ]


def test_what_a_high_floor_holds_for_ever_names_the_way_out() -> None:
    row = floored(config_of(configured(floor=100)), instance(1))
    assert row.note == "5 kept, for fewer than 6 of the 6 that served would be left; lvsctl release reco"


def test_leaving() -> None:
    other = config_of(configured("other", VirtualServerKey.by_mark(7)))
    rows = rows_of(observed_of(TWO), answers_of(other), config=other)
    assert [(row.name, row.state) for row in rows] == [("other", State.EMPTY), ("reco", State.LEAVING)]
    assert rows[1].note == "no longer in the configuration"
    assert rows[1].consul_service == ""


def test_waiting() -> None:
    (row,) = rows_of(observed_of(entry(real(1), scheduler="rr")), {})
    assert standing(row) == (State.WAITING, 1, 1, "Consul has not answered yet; left as it is")
    assert (row.scheduler, row.forwarding) == ("rr", "masquerade")
    (row,) = rows_of(observed_of(), {}, ledger={})
    assert (row.state, row.scheduler, row.serving) == (State.WAITING, "wlc", 0)


def test_refused() -> None:
    row = row_of(observed_of(entry(real(1))), instance(1), instance(2), refused="add real server …: no")
    assert (row.state, row.note) == (State.REFUSED, "add real server …: no")


def test_foreign() -> None:
    row = row_of(observed_of(entry(real(9), scheduler="rr")), instance(1), ledger={})
    assert row.state is State.FOREIGN
    assert row.note == (
        "a foreign virtual server is in the way: lvsctl adopt reco takes it over, "
        "ipvsadm -D -t 10.9.0.100:80 lets lvsctl create its own"
    )


def test_a_virtual_address_that_is_nowhere_is_said() -> None:
    row = row_of(observed_of(entry(real(1))), instance(1), local=False)
    assert standing(row) == (State.OK, 1, 1, "10.9.0.100 is on no interface of this machine")


def test_what_the_filters_leave_out_is_neither_wanted_nor_shown() -> None:
    config = config_of(configured(tags=("v2",)))
    row = row_of(observed_of(entry(real(1))), instance(1, tags=("v2",)), instance(2), config=config)
    assert standing(row) == (State.OK, 1, 1, "")
    assert [each.instance for each in row.real_servers] == ["reco-1"]


def test_one_that_lost_its_tag_is_shown_until_it_is_out() -> None:
    config = config_of(configured(tags=("v2",)))
    observed = observed_of(entry(real(1), real(2, 0)), connections={real_key(2): 1})
    row = row_of(observed, instance(1, tags=("v2",)), instance(2), config=config, ledger=ours(_2=5))
    assert standing(row) == (State.OK, 1, 1, "")
    assert places(row)[1] == ("10.0.0.2:8080", Place.DRAINING, "has no tag 'v2'")


def test_a_rejected_one_still_in_the_kernel_is_shown_once() -> None:
    config = config_of(safety=SafetyConfig(allowed_networks=(ip_network("10.0.0.1/32"),)))
    row = row_of(observed_of(TWO), instance(1), instance(2), config=config)
    assert [each.real_server for each in row.real_servers] == ["10.0.0.1:8080", "10.0.0.2:8080"]
    assert places(row)[1][2] == "10.0.0.2 is outside safety.allowed_networks"


@pytest.mark.parametrize("health", list(Health))
def test_check_is_consuls_word(health: Health) -> None:
    row = row_of(observed_of(entry(real(1))), failing(1, health))
    assert row.real_servers[0].check == health.name.lower()


def test_without_a_daemon_the_kernel_alone_speaks() -> None:
    mark = VirtualServerKey.by_mark(7)
    observed = observed_of(entry(real(1), real(2, 0)), entry(key=mark, scheduler="rr"))
    rows = bare_virtual_servers(observed, {KEY: "reco"})
    assert [(row.name, row.address, row.state, row.serving, row.wanted, row.forwarding) for row in rows] == [
        ("", "mark 7", State.EMPTY, 0, 0, ""),
        ("reco", "tcp 10.9.0.100:80", State.OK, 1, 2, "masquerade"),
    ]
    assert [each.place for each in rows[1].real_servers] == [Place.SERVING, Place.QUIESCED]


def test_virtual_server_words() -> None:
    server = VirtualServer(key=KEY, scheduler="sh", scheduler_flags=SchedulerFlag.FLAG_1 | SchedulerFlag.FLAG_2)
    assert virtual_server_words(server) == "sh sh-fallback sh-port"
    assert virtual_server_words(VirtualServer(key=KEY, scheduler="rr", persistence=300)) == "rr, persistent 300s"
