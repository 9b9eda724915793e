"""Who gets an address that Consul services declare: what the operator opened and nothing else, and first come stays."""

# ruff: noqa: ANN401  changes are attributes of whatever is built

import random
from ipaddress import ip_address, ip_network
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvsctl.config import DECLARABLE, Config, Declaration, DefaultsTable, DiscoveryConfig, Probe, VirtualServerConfig
from lvsctl.config_addresses import PortRange
from lvsctl.core.candidates import Refusal, asked, name_of, queries_to_ask, remembered
from lvsctl.core.declaration import is_candidate
from lvsctl.core.desired import query_of
from lvsctl.core.discovery import Discovered, discover
from lvsctl.core.instance import Answer, Answers, Instance, Malformed, Query
from lvsctl.core.ownership import Ledger, LedgerEntry
from netlink.types import Forwarding, Protocol, SchedulerFlag, VirtualServerKey
from tests.values import configured, entry, instance, real

OPEN = DiscoveryConfig(addresses=(ip_network("10.9.1.0/24"), ip_network("fd00:9::/64")))
ALL = attrs.evolve(OPEN, keys=DECLARABLE, protocols=tuple(Protocol))
HERE = "10.9.1.20:80"
KEY = VirtualServerKey.by_address(Protocol.TCP, ip_address("10.9.1.20"), 80)
OTHER = VirtualServerKey.by_address(Protocol.TCP, ip_address("10.9.1.21"), 80)


def declaring(number: int = 1, address: str = HERE, *tags: str, **changes: Any) -> Instance:
    """Return an instance that declares `address` by tags."""
    said = (f"lvs-address={address}", *(f"lvs-{tag}" for tag in tags))
    return instance(number, **{"tags": said, **changes})


def answers_of(**services: tuple[Instance, ...]) -> Answers:
    """Return an answer for each Consul service."""
    return {Query(service=name): Answer(instances=its, index=5) for name, its in services.items()}


def found(
    answers: Answers,
    discovery: DiscoveryConfig = OPEN,
    ledger: Ledger | None = None,
    *files: VirtualServerConfig,
    **more: Any,
) -> Discovered:
    """Return what is discovered when all of `answers` are of candidates."""
    config = Config(discovery=discovery, virtual_servers={each.name: each for each in files})
    return discover(config, {query.service for query in answers}, answers, ledger or {}, **more)


def ledger_of(service: str, key: VirtualServerKey = KEY, **values: str) -> Ledger:
    """Return a ledger in which `service` has `key`."""
    said = {"address": str(key).split(" ")[1], **values}
    declaration = Declaration(service=service, values=tuple(sorted(said.items())))
    return {key: LedgerEntry(name=service, drain_timeout=30.0, written=entry(key=key), declaration=declaration)}


def keys_of(discovered: Discovered) -> dict[str, VirtualServerKey]:
    """Return the keys by name."""
    return {name: each.key for name, each in discovered.config.virtual_servers.items()}


def why(discovered: Discovered) -> str:
    """Return the reason of the one refusal."""
    (refusal,) = discovered.refusals
    return refusal.text


# What is declared


def test_tags_declare_a_virtual_server() -> None:
    tags = (
        *("protocol=udp", "scheduler=sh", "scheduler_flags=sh-port, sh-fallback", "persistence=5m"),
        *("forwarding=tunnel", "drain_timeout=1m", "upper_threshold=1000", "lower_threshold=800"),
    )
    config = found(answers_of(reco=(declaring(1, HERE, *tags), declaring(2, HERE, *tags))), ALL).config
    made = config.virtual_servers["reco"]
    assert attrs.evolve(made, declaration=None) == VirtualServerConfig(
        name="reco",
        key=VirtualServerKey.by_address(Protocol.UDP, ip_address("10.9.1.20"), 80),
        consul_service="reco",
        scheduler="sh",
        scheduler_flags=SchedulerFlag.FLAG_1 | SchedulerFlag.FLAG_2,
        persistence=300,
        forwarding=Forwarding.TUNNEL,
        drain_timeout=60.0,
        upper_threshold=1000,
        lower_threshold=800,
        probe=Probe.NOBODY,
    )
    assert made.declaration is not None
    assert dict(made.declaration.values)["scheduler_flags"] == "sh-port, sh-fallback"


def test_metadata_declares_with_the_tag_and_not_without() -> None:
    meta = {"lvs-address": HERE, "lvs-scheduler": "rr", "version": "2"}
    opened = attrs.evolve(OPEN, keys=("scheduler",))
    made = found(answers_of(reco=(instance(tags=("lvs",), meta=meta),)), opened).config.virtual_servers["reco"]
    assert (made.key, made.scheduler) == (KEY, "rr")
    assert found(answers_of(reco=(instance(meta=meta),)), opened) == found(answers_of(reco=(instance(),)), opened)


def test_defaults_count_for_what_is_not_declared() -> None:
    opened = attrs.evolve(OPEN, defaults=DefaultsTable(scheduler="rr", drain_timeout=5.0, datacenter="dc2"))
    answers = {Query(service="reco", datacenter="dc2"): Answer(instances=(declaring(),), index=5)}
    made = found(answers, opened).config.virtual_servers["reco"]
    assert (made.scheduler, made.drain_timeout, made.datacenter) == ("rr", 5.0, "dc2")


def test_a_catalogue_s_tags_tell_who_may_declare() -> None:
    assert is_candidate(["v2", "lvs-address=10.9.1.1:80"], "lvs")
    assert is_candidate(["lvs"], "lvs")
    for tags in (["lvs-scheduler=rr"], ["lvsx"], ["xlvs-address=1"], [], None, "lvs", [7], [["lvs"]]):
        assert not is_candidate(tags, "lvs")


@pytest.mark.parametrize(
    ("address", "tags", "reason"),
    [
        ("10.9.2.20:80", (), "lvs-address: 10.9.2.20 is outside discovery.addresses; declare one in 10.9.1.0/24, fd0"),
        ("10.9.1.255:80", (), "lvs-address: 10.9.1.255 is its network's broadcast address; declare another one in"),
        ("10.9.1.0:80", (), "lvs-address: 10.9.1.0 is the first address of its network"),
        ("10.9.1.20", (), 'lvs-address: "10.9.1.20" has no port; write one, like "10.9.1.20:80"'),
        ("10.9.1.20:0", (), 'lvs-address: "10.9.1.20:0" has port 0'),
        ("127.0.0.1:80", (), 'lvs-address: "127.0.0.1:80" is a loopback address'),
        ("", (), 'lvs-address: "" is not an IP address and a port'),
        ("\x1b[2J", (), 'lvs-address: "\\u001b[2J" is not an IP address and a port'),
        ("[::ffff:10.9.1.20]:80", (), 'lvs-address: "[::ffff:10.9.1.20]:80" is an IPv4 address written as IPv6'),
        ("9" * 101, (), f'lvs-address: "{"9" * 60}…" has 101 characters; write 100 at most'),
        (HERE, ("scheduler=rr",), 'lvs-scheduler: this key is not opened; remove it, or have "scheduler" in disc'),
        (HERE, ("protocol=udp",), "lvs-protocol: udp is not in discovery.protocols; declare tcp"),
        (HERE, ("shceduler=rr",), "lvs-shceduler: there is no such key; write address, protocol"),
        (HERE, ("near=_agent",), "lvs-near: there is no such key"),
        (HERE, ("\x1b=1",), "lvs-\\u001b: there is no such key"),
        (HERE, ("address=10.9.1.21:80",), "lvs-address: it is declared twice, differently"),
    ],
)
def test_what_was_not_opened_is_refused(address: str, tags: tuple[str, ...], reason: str) -> None:
    outcome = found(answers_of(reco=(declaring(1, address, *tags),)))
    assert why(outcome).startswith(reason)
    assert keys_of(outcome) == {}


@pytest.mark.parametrize(
    ("tag", "reason"),
    [
        ("scheduler=$(x)", 'lvs-scheduler: "$(x)" is not known; write one of rr, wrr'),
        ("scheduler=wrrr", 'lvs-scheduler: "wrrr" is not known; did you mean "wrr"?'),
        ("persistence=300", 'lvs-persistence: "300" is no duration'),
        ("upper_threshold=-1", 'lvs-upper_threshold: "-1" is not a whole number'),
        ("upper_threshold=9999999999", "lvs-upper_threshold: 9999999999 is out of range"),
        ("lower_threshold=5", "lvs-lower_threshold: lower_threshold 5 is above upper_threshold 0 (no limit)"),
        ("scheduler_flags=mh-port", 'lvs-scheduler_flags: "mh-port" does not fit the scheduler "wlc"'),
        ("scheduler_flags=a,b,c,d", 'lvs-scheduler_flags: "a" is not known'),
        ("forwarding=-m", 'lvs-forwarding: "-m" is not known; did you mean "masquerade"?'),
    ],
)
def test_values_are_read_as_those_of_the_file(tag: str, reason: str) -> None:
    assert why(found(answers_of(reco=(declaring(1, HERE, tag),)), ALL)).startswith(reason)


def test_ports_that_are_opened_are_all_that_may_be_declared() -> None:
    opened = attrs.evolve(OPEN, ports=(PortRange(80, 80), PortRange(8000, 8999)))
    addresses = {"a": "10.9.1.1:80", "b": "10.9.1.1:8999", "c": "10.9.1.1:9000"}
    outcome = found(answers_of(**{name: (declaring(1, each),) for name, each in addresses.items()}), opened)
    assert keys_of(outcome).keys() == {"a", "b"}
    assert why(outcome) == "lvs-address: port 9000 is not in discovery.ports; declare one that is"


def test_a_marker_without_an_address_says_what_is_missing() -> None:
    outcome = found(answers_of(reco=(instance(tags=("lvs",)),)))
    assert why(outcome) == 'lvs-address: it is missing; declare one, like "10.9.0.100:80"'


# Who gets an address


def test_a_virtual_server_of_the_file_has_its_address() -> None:
    outcome = found(answers_of(reco=(declaring(),)), OPEN, ledger_of("reco"), configured("mine", KEY))
    assert keys_of(outcome) == {"mine": KEY}
    assert why(outcome) == "tcp 10.9.1.20:80 is virtual_server.mine of the configuration file, which has it"


@pytest.mark.parametrize("owner", ["a", "b"])
def test_who_has_an_address_by_the_ledger_keeps_it(owner: str) -> None:
    both = answers_of(a=(declaring(1),), b=(declaring(2),))
    outcome = found(both, OPEN, ledger_of(owner))
    loser = {"a": "b", "b": "a"}[owner]
    assert keys_of(outcome) == {owner: KEY}
    assert outcome.refusals == (
        Refusal(
            service=loser, name=loser, text=f"tcp 10.9.1.20:80 belongs to Consul service {owner!r}, which had it first"
        ),
    )


def test_the_first_by_name_gets_an_address_that_nobody_had() -> None:
    assert keys_of(found(answers_of(b=(declaring(2),), a=(declaring(1),)))) == {"a": KEY}


def test_one_that_moves_to_another_s_address_stays_where_it_is() -> None:
    outcome = found(
        answers_of(a=(declaring(1, "10.9.1.21:80"),), b=(declaring(2, "10.9.1.21:80"),)),
        OPEN,
        {**ledger_of("a"), **ledger_of("b", OTHER)},
    )
    assert keys_of(outcome) == {"a": KEY, "b": OTHER}
    assert [(each.service, each.kept) for each in outcome.refusals] == [("a", KEY)]


def test_an_address_is_free_once_the_ledger_says_so() -> None:
    moving = answers_of(a=(declaring(1, "10.9.1.21:80"),), b=(declaring(2),))
    assert keys_of(found(moving, OPEN, ledger_of("a"))) == {"a": OTHER}
    assert keys_of(found(moving, OPEN, ledger_of("a", OTHER))) == {"a": OTHER, "b": KEY}


def test_an_address_that_an_instance_or_the_director_has_is_refused() -> None:
    theirs = answers_of(reco=(declaring(),), shop=(instance(7, address="::ffff:10.9.1.20"),))
    assert "is the address of instance 'reco-7' on node 'app7' of Consul service 'shop'" in why(found(theirs))
    mine = found(answers_of(reco=(declaring(),)), own_addresses={ip_address("10.9.1.20")})
    assert "is the director's own address" in why(mine)
    served = real(1, key=attrs.evolve(real(1).key, address=ip_address("10.9.1.20")))
    held = {OTHER: LedgerEntry(name="x", drain_timeout=0.0, written=entry(served, key=OTHER))}
    assert "is the address of a real server of 'x'" in why(found(answers_of(reco=(declaring(),)), OPEN, held))
    assert keys_of(found(theirs, OPEN, ledger_of("reco"))) == {"reco": KEY}, "who had it first"


# What ends a declaration


@pytest.mark.parametrize(
    "answer",
    [
        None,
        Answer(index=9),
        Answer(instances=(instance(),), index=9, doubt="why not"),
        Answer(instances=(declaring(1, "10.9.1.21:80"),), index=9, doubt="why not"),
        Answer(instances=(instance(),), index=9, snapshot=1.0),
        Answer(instances=(instance(),), malformed=(Malformed(node="n", instance_id="i", reason="r"),), index=9),
    ],
    ids=["absent", "empty", "doubted", "moved in doubt", "snapshot", "unreadable"],
)
def test_nothing_but_a_believed_answer_without_it_ends_a_declaration(answer: Answer | None) -> None:
    answers = {} if answer is None else {Query(service="reco"): answer}
    config = Config(discovery=OPEN)
    outcome = discover(config, set(), answers, ledger_of("reco"))
    assert keys_of(outcome) == {"reco": KEY}
    assert queries_to_ask(config, set(), ledger_of("reco")) == {Query(service="reco")}


def test_a_declaration_ends_when_instances_that_are_believed_declare_nothing() -> None:
    assert keys_of(found(answers_of(reco=(instance(1), instance(2))), OPEN, ledger_of("reco"))) == {}


@pytest.mark.parametrize(
    "closed",
    [
        {"addresses": (ip_network("10.9.2.0/24"),)},
        {"ports": (PortRange(81, 81),)},
        {"protocols": (Protocol.UDP,)},
        {"exclude": ("r*",)},
        {"services": ("shop",)},
    ],
)
def test_what_the_operator_closes_ends_it(closed: dict[str, Any]) -> None:
    answers = answers_of(reco=(declaring(),))
    assert keys_of(found(answers, attrs.evolve(OPEN, **closed), ledger_of("reco"))) == {}
    assert found(answers, OPEN, ledger_of("reco")).refusals == ()


def test_a_key_that_is_closed_no_longer_counts_and_the_rest_stays() -> None:
    ledger = ledger_of("reco", scheduler="rr")
    answers = answers_of(reco=(declaring(1, HERE, "scheduler=rr"),))
    outcome = found(answers, OPEN, ledger)
    assert outcome.config.virtual_servers["reco"].scheduler == "wlc"
    assert outcome.refusals[0].kept == KEY
    opened = found(answers, attrs.evolve(OPEN, keys=("scheduler",)), ledger)
    assert (opened.config.virtual_servers["reco"].scheduler, opened.refusals) == ("rr", ())


def test_instances_that_disagree_change_nothing() -> None:
    mixed = (declaring(1, "10.9.1.21:80"), declaring(2))
    outcome = found(answers_of(reco=mixed), OPEN, ledger_of("reco"))
    assert keys_of(outcome) == {"reco": KEY}
    assert why(outcome) == (
        "its instances disagree: instance 'reco-1' on node 'app1' says 'address=10.9.1.21:80', "
        "instance 'reco-2' on node 'app2' says 'address=10.9.1.20:80'"
    )
    assert keys_of(found(answers_of(reco=mixed))) == {"reco": OTHER}, "the first by node and id, where none counted"
    assert keys_of(found(answers_of(reco=(declaring(1, "x"), declaring(2))))) == {"reco": KEY}, "the first good one"
    assert keys_of(found(answers_of(reco=(declaring(2), instance(3))), OPEN, ledger_of("reco", OTHER))) == {"reco": KEY}


def test_a_refused_declaration_leaves_what_counted() -> None:
    outcome = found(answers_of(reco=(declaring(1, "10.8.0.1:80"),)), OPEN, ledger_of("reco"))
    assert (keys_of(outcome), outcome.refusals[0].kept) == ({"reco": KEY}, KEY)


# Names and numbers


@pytest.mark.parametrize("service", ["reco v2", "", "-rf", "a" * 64, "a/b", "\x1b[2J", "reco.9f86d081", "\ud800"])
def test_a_name_that_cannot_be_one_is_made(service: str) -> None:
    made = name_of(service, set())
    assert made != service
    assert name_of(made, set()) != made, "nobody can have it"


def test_a_name_of_the_file_is_not_taken() -> None:
    outcome = found(answers_of(mine=(declaring(),)), OPEN, None, configured("mine", OTHER))
    assert keys_of(outcome) == {"mine": OTHER, name_of("mine", {"mine"}): KEY}


def test_services_beyond_the_bound_are_passed_over_and_the_known_never() -> None:
    few = attrs.evolve(OPEN, max_virtual_servers=2)
    services, refusals = asked(few, {"a", "b", "c", "z"}, ledger_of("z"))
    assert services == ("a", "z")
    (refusal,) = refusals
    assert (refusal.service, refusal.text) == (
        "b",
        "it and 1 more are passed over: discovery.max_virtual_servers is 2",
    )
    assert asked(attrs.evolve(few, max_virtual_servers=1), {"a"}, {**ledger_of("y"), **ledger_of("z", OTHER)})[0] == (
        "y",
        "z",
    )


@pytest.mark.parametrize("service", ["..", ".", "a b", "a/../b", "", "x" * 256, "\x00"])
def test_a_name_that_cannot_be_asked_for_is_refused(service: str) -> None:
    services, refusals = asked(OPEN, {service, "reco"}, {})
    assert (services, [each.service for each in refusals]) == (("reco",), [service[:255]])


def test_off_is_off() -> None:
    config = Config(virtual_servers={"mine": configured("mine", OTHER)})
    outcome = discover(config, {"reco"}, answers_of(reco=(declaring(),)), ledger_of("reco"))
    assert outcome == Discovered(config=config)
    assert queries_to_ask(config, {"reco"}, ledger_of("reco")) == frozenset()


# Whatever is declared

anything = st.text(max_size=12) | st.sampled_from(
    (
        HERE,
        "10.9.1.21:80",
        "[fd00:9::7]:443",
        "10.9.2.1:80",
        "127.0.0.1:80",
        "udp",
        "tcp",
        "rr",
        "sh",
        "5m",
        "7",
        "$(x)",
    )
)
keys = st.sampled_from(("address", "address", "protocol", *DECLARABLE, "near", "tags", "consul_service")) | st.text(
    max_size=5
)
tags = st.builds(lambda key, value: f"lvs-{key}={value}", keys, anything) | st.sampled_from(("lvs", "v2")) | anything
metas = st.dictionaries(keys.map("lvs-{}".format), anything, max_size=3)
addressed = st.sampled_from((HERE, HERE, "10.9.1.21:80", "[fd00:9::7]:443")).map("lvs-address={}".format)
registered = st.builds(
    instance,
    st.integers(1, 9),
    tags=st.tuples(addressed, *([tags] * 2)) | st.lists(tags, max_size=3).map(tuple),
    meta=metas,
    address=st.sampled_from(("10.0.0.1", "10.9.1.21", "nowhere")),
)
discoveries = st.builds(
    DiscoveryConfig,
    addresses=st.sampled_from((OPEN.addresses, OPEN.addresses[:1])),
    ports=st.sampled_from(((), (PortRange(80, 80),))),
    protocols=st.sampled_from(((Protocol.TCP,), tuple(Protocol))),
    keys=st.lists(st.sampled_from(DECLARABLE), unique=True).map(tuple),
    exclude=st.sampled_from(((), ("b",))),
    max_virtual_servers=st.integers(1, 4),
)
NAMES = ("a", "b", "c", "mine", "d e")


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Config, Answers, Ledger]:
    """Draw a configuration, what a few Consul services declare, and a ledger that some of it is in."""
    discovery = draw(discoveries)
    files = {"mine": configured("mine", OTHER)} if draw(st.booleans()) else {}
    config = Config(discovery=discovery, virtual_servers=files)
    answers = {
        Query(service=name): Answer(
            instances=tuple(draw(st.lists(registered, max_size=3, unique_by=lambda each: each.identity))),
            index=5,
            doubt=draw(st.sampled_from(("", "", "why not"))),
        )
        for name in draw(st.lists(st.sampled_from(NAMES), unique=True))
    }
    ledger: dict[VirtualServerKey, LedgerEntry] = {}
    for key, owner in zip(
        (KEY, OTHER), draw(st.lists(st.sampled_from(NAMES[:3]), max_size=2, unique=True)), strict=False
    ):
        ledger |= ledger_of(owner, key, **draw(st.sampled_from(({}, {"scheduler": "rr"}, {"scheduler": "$(x)"}))))
    return config, answers, ledger


@given(world=worlds())
def test_nothing_that_was_not_opened_ever_comes_through(world: tuple[Config, Answers, Ledger]) -> None:
    config, answers, ledger = world
    opened = config.discovery
    assert opened is not None
    outcome = discover(config, {query.service for query in answers}, answers, ledger)
    made = {name: each for name, each in outcome.config.virtual_servers.items() if name not in config.virtual_servers}
    assert config.virtual_servers.items() <= outcome.config.virtual_servers.items()
    assert len({each.key for each in outcome.config.virtual_servers.values()}) == len(outcome.config.virtual_servers)
    assert len(made) <= max(opened.max_virtual_servers, len(remembered(ledger)))
    for name, each in made.items():
        assert each.name == name
        assert each.key.address is not None
        assert any(each.key.address in network for network in opened.addresses)
        assert not opened.ports or each.key.port == 80
        assert each.key.protocol in opened.protocols
        assert each.consul_service not in opened.exclude
        usual = VirtualServerConfig(name=name, key=each.key, consul_service=each.consul_service)
        changed = {
            field.name
            for field in attrs.fields(VirtualServerConfig)
            if getattr(each, field.name) != getattr(usual, field.name)
        }
        implied = {"scheduler_flags"} if "scheduler" in opened.keys else set()  # sh and mh have defaults of their own
        assert changed <= {"declaration", *opened.keys, *implied}


@given(world=worlds())
def test_a_clash_never_moves_an_owner(world: tuple[Config, Answers, Ledger]) -> None:
    config, answers, ledger = world
    outcome = discover(config, {query.service for query in answers}, answers, ledger)
    owners = {each.key: each.consul_service for name, each in outcome.config.virtual_servers.items() if name != "mine"}
    for service, (key, _) in remembered(ledger).items():
        assert owners.get(key, service) == service


@given(world=worlds(), seed=st.integers())
def test_order_and_what_was_known_before_make_no_difference(world: tuple[Config, Answers, Ledger], seed: int) -> None:
    config, answers, ledger = world
    candidates = {query.service for query in answers}
    mixing = random.Random(seed)
    turned = {
        query: attrs.evolve(answer, instances=tuple(mixing.sample(answer.instances, len(answer.instances))))
        for query, answer in mixing.sample(sorted(answers.items()), len(answers))
    }
    first = discover(config, candidates, answers, ledger)
    other = discover(config, candidates, turned, dict(mixing.sample(list(ledger.items()), len(ledger))))
    assert keys_of(first) == keys_of(other)
    assert {(each.service, each.kept) for each in first.refusals} == {
        (each.service, each.kept) for each in other.refusals
    }
    again = discover(config, candidates, answers, ledger, before=first)
    assert again == first
    for name, each in again.config.virtual_servers.items():
        if each.declaration is not None:
            assert each is first.config.virtual_servers[name], "what was decided of the same object is decided already"


def test_the_query_is_that_of_the_virtual_server() -> None:
    opened = attrs.evolve(OPEN, defaults=DefaultsTable(datacenter="dc2", near="_agent"))
    answers = {Query(service="reco", datacenter="dc2", near="_agent"): Answer(instances=(declaring(),), index=5)}
    made = found(answers, opened).config.virtual_servers["reco"]
    assert {query_of(made)} == queries_to_ask(Config(discovery=opened), {"reco"}, {})
