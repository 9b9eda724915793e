"""The metrics endpoint: what it shows is what was seen, in Prometheus's format, and nobody who asks can hurt."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Mapping
from ipaddress import ip_address
from typing import Final

import aiohttp
import attrs
import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from lvsctl import metrics
from lvsctl.config_addresses import Endpoint
from lvsctl.core.cause import Kind
from lvsctl.core.desired import query_of
from lvsctl.core.measures import METRICS, Consul, Histogram, Reading, Seen, counted
from lvsctl.core.ownership import LedgerEntry
from lvsctl.core.status import ConsulStatus, FleetStatus, KernelStatus, State
from lvsctl.core.tally import Tally
from lvsctl.errors import StateError
from netlink.types import Observed, RealServerUsage, Traffic, VirtualServerKey
from tests.values import (
    KEY,
    config_of,
    configured,
    decided,
    entry,
    failing,
    instance,
    observed_of,
    real,
    real_key,
    table_of,
)

CONFIG: Final = config_of(configured(), configured("shop", VirtualServerKey.by_mark(7)))
THEIRS: Final = VirtualServerKey.by_mark(9)
LEDGER: Final = {
    KEY: LedgerEntry(name="reco", drain_timeout=30.0, written=entry(real(1), real(2)), draining={real_key(2): 0.0})
}
TABLE: Final = table_of(entry(real(1), real(2, 0)), entry(key=THEIRS))
OBSERVED: Final = Observed(
    table=TABLE,
    traffic={KEY: Traffic(connections=77, in_bytes=1000, out_bytes=2**53)},
    usage={KEY: {real_key(1): RealServerUsage(active=3, inactive=4), real_key(2): RealServerUsage(active=10)}},
)


def seen(**changes: object) -> Seen:
    """Return what a daemon with one virtual server at work and one that is to be created has seen."""
    decision = decided(
        OBSERVED, instance(1), failing(2), instance(3, address="8.8.8.8"), config=CONFIG, ledger=LEDGER, now=1.0
    )
    tally = Tally().after_cycle(decision, done=decision.steps[:1], refused=1, seconds=0.03, now=5.0)
    found = Seen(
        version="1.2.3",
        config=CONFIG,
        config_error="",
        consul=Consul(
            status=ConsulStatus(
                address="http://127.0.0.1:8500",
                reachable=True,
                data_age=3.0,
                failing=1,
                error="\x1b[31mhostile",
                transport="HTTP/1.1",
                snapshot_age=90.0,
            ),
            reason="within-limit",
            queries=2,
            doubted=1,
            heard={query_of(CONFIG.virtual_servers["reco"]): 1_700_000_000.25},
        ),
        kernel=KernelStatus(in_sync_since=None, pending=len(tally.pending)),
        reading=Reading(config=CONFIG, decision=decision, observed=OBSERVED, refused=frozenset(), time=1_700_000_001.5),
        tally=tally,
        waiting=12.5,
    )
    return counted(attrs.evolve(found, **changes))  # type: ignore[arg-type]


def rendered(found: Seen) -> bytes:
    """Return what is served of `found`."""
    return b"".join(metrics.render(found))


def metrics_page() -> bytes:
    """Return what is served of that."""
    return rendered(seen())


def samples(page: bytes) -> list[Sample]:
    return [sample for family in text_string_to_metric_families(page.decode()) for sample in family.samples]


def value(page: bytes, name: str, **labels: str) -> float:
    """Return the value of the one series that has at least these labels."""
    (found,) = [each for each in samples(page) if each.name == name and labels.items() <= each.labels.items()]
    return found.value


def test_every_metric_is_there_with_its_labels_and_no_other() -> None:
    page = rendered(seen())
    families = {family.name: family for family in text_string_to_metric_families(page.decode())}
    expected = {each.name.removesuffix("_total") for each in METRICS}
    assert {name for name in families if not name.startswith("process_")} == expected
    assert {"process_cpu_seconds", "process_resident_memory_bytes", "process_open_fds"} <= families.keys()
    for each in METRICS:
        family = families[each.name.removesuffix("_total")]
        assert family.documentation == each.doc
        assert family.samples
        if isinstance(each, Histogram):
            assert family.type == "histogram"
        else:
            assert {tuple(sorted(sample.labels)) for sample in family.samples} == {tuple(sorted(each.labels))}
            assert family.type == ("counter" if each.only_grows else "gauge")


def test_the_values() -> None:
    page = rendered(seen())
    reco = {"virtual_server": "reco", "address": "tcp 10.9.0.100:80"}
    ours = "lvsctl_virtual_server"
    assert value(page, "lvsctl_info", version="1.2.3") == 1
    assert value(page, "lvsctl_config_last_reload_successful") == 1
    assert value(page, "lvsctl_consul_reachable") == 1
    assert value(page, "lvsctl_consul_transport_info", transport="HTTP/1.1", why="within-limit") == 1
    assert value(page, "lvsctl_consul_queries") == 2
    assert value(page, "lvsctl_consul_failing_queries") == 1
    assert value(page, "lvsctl_consul_doubted_answers") == 1
    assert value(page, "lvsctl_consul_snapshot_age_seconds") == 90
    assert value(page, "lvsctl_consul_last_contact_timestamp_seconds", **reco) == 1_700_000_000.25
    assert value(page, "lvsctl_consul_last_contact_timestamp_seconds", virtual_server="shop") == 0
    assert value(page, "lvsctl_in_sync") == 0
    assert value(page, "lvsctl_trouble") == 0
    assert value(page, "lvsctl_pending_changes") == 1
    assert value(page, "lvsctl_oldest_pending_change_seconds") == 12.5
    assert value(page, "lvsctl_table_read_timestamp_seconds") == 1_700_000_001.5
    assert value(page, "lvsctl_foreign_virtual_servers") == 1
    assert value(page, "lvsctl_writes_total", kind="virtual_server_added") == 1
    assert value(page, "lvsctl_writes_total", kind="real_server_added") == 0
    assert value(page, "lvsctl_kernel_refusals_total") == 1
    assert value(page, "lvsctl_cycle_duration_seconds_count") == 1
    assert value(page, "lvsctl_cycle_duration_seconds_sum") == 0.03
    assert value(page, "lvsctl_cycle_duration_seconds_bucket", le="0.025") == 0
    assert value(page, "lvsctl_cycle_duration_seconds_bucket", le="0.05") == 1
    assert value(page, "lvsctl_cycle_duration_seconds_bucket", le="+Inf") == 1
    assert value(page, "lvsctl_virtual_servers", state="degraded") == 1
    assert value(page, "lvsctl_virtual_servers", state="held") == 0
    assert value(page, "lvsctl_rejected_instances", reason="outside-allowed-networks") == 2
    assert value(page, "lvsctl_rejected_instances", reason="port") == 0
    assert value(page, f"{ours}_state", **reco, state="degraded") == 1
    assert value(page, f"{ours}_wanted_instances", **reco) == 3
    assert value(page, f"{ours}_serving_real_servers", **reco) == 1
    assert value(page, f"{ours}_held_real_servers", **reco) == 0
    assert value(page, f"{ours}_draining_real_servers", **reco) == 1
    assert value(page, f"{ours}_rejected_instances", **reco, reason="outside-allowed-networks") == 1
    assert value(page, f"{ours}_active_connections", **reco) == 13
    assert value(page, f"{ours}_inactive_connections", **reco) == 4
    assert value(page, f"{ours}_connections_total", **reco) == 77
    assert value(page, f"{ours}_incoming_bytes_total", **reco) == 1000
    assert value(page, f"{ours}_outgoing_bytes_total", **reco) == 2**53
    found = seen()
    prints = {of: value(page, "lvsctl_table_fingerprint", of=of) for of in ("wanted", "kernel")}
    assert prints["kernel"] == found.standings[KEY].kernel_print
    assert prints["wanted"] not in (0, prints["kernel"])


@pytest.mark.parametrize(
    ("fleet", "trouble"),
    [
        (None, 0),
        (FleetStatus(kv_prefix="lvsctl", data_age=1.0, error="", ignored={}), 0),
        (FleetStatus(kv_prefix="lvsctl", data_age=1.0, error="Consul answered 403", ignored={}), 1),
        (FleetStatus(kv_prefix="lvsctl", data_age=1.0, error="", ignored={"lvsctl/orders/x": "unknown"}), 1),
    ],
)
def test_orders_of_the_director_and_of_the_fleet_are_told_apart(fleet: FleetStatus | None, trouble: int) -> None:
    page = rendered(seen(orders={"drain": 2}, fleet_orders={"drain": 3, "pause": 1}, fleet=fleet))
    found = {
        (order, of): value(page, "lvsctl_orders", order=order, of=of)
        for order in ("drain", "hold", "pause")
        for of in ("director", "fleet")
    }
    assert {key: number for key, number in found.items() if number} == {
        ("drain", "director"): 2, ("drain", "fleet"): 3, ("pause", "fleet"): 1,
    }  # fmt: skip
    assert value(page, "lvsctl_fleet_orders_trouble") == trouble


def test_before_the_first_cycle_there_is_consul_and_no_table() -> None:
    page = rendered(seen(reading=None, consul=Consul(status=ConsulStatus(address="", reachable=True, data_age=None))))
    names = {sample.name for sample in samples(page)}
    assert "lvsctl_consul_transport_info" not in names
    assert "lvsctl_table_fingerprint" not in names
    assert not {name for name in names if name.startswith("lvsctl_virtual_server_")}
    assert value(page, "lvsctl_table_read_timestamp_seconds") == 0
    assert value(page, "lvsctl_consul_last_contact_timestamp_seconds", virtual_server="reco") == 0


def test_no_series_is_there_twice_even_while_a_virtual_server_moves() -> None:
    moved = config_of(configured(key=VirtualServerKey.by_mark(7)))
    decision = decided(OBSERVED, instance(1), config=moved, ledger=LEDGER, now=1.0)
    reading = Reading(config=moved, decision=decision, observed=OBSERVED, refused=frozenset(), time=1.0)
    page = rendered(seen(reading=reading, config=moved))
    every = [(sample.name, *sorted(sample.labels.items())) for sample in samples(page)]
    assert len(every) == len(set(every))
    assert value(page, "lvsctl_virtual_servers", state="leaving") == 1
    assert value(page, "lvsctl_virtual_server_state", virtual_server="reco", address="mark 7", state="empty") == 1


def test_nothing_that_consul_or_a_registrant_wrote_is_shown() -> None:
    hostile = '"}\n\\ \x1b[31m evil'
    instances = [instance(1, node=hostile, instance_id=hostile, tags=(hostile,)), failing(2, output=hostile)]
    decision = decided(OBSERVED, *instances, instance(3, address=hostile), config=CONFIG, ledger=LEDGER, now=1.0)
    reading = Reading(config=CONFIG, decision=decision, observed=OBSERVED, refused=frozenset(), time=1.0)
    page = rendered(
        seen(reading=reading, config_error=hostile, kernel=KernelStatus(in_sync_since=None, pending=0, error=hostile))
    )
    assert b"evil" not in page
    assert value(page, "lvsctl_trouble") == 1
    assert value(page, "lvsctl_config_last_reload_successful") == 0
    assert value(page, "lvsctl_rejected_instances", reason="not-an-address") == 2


def test_a_name_with_every_awkward_character_is_escaped() -> None:
    name = 'a"b\\c{d}'
    config = config_of(attrs.evolve(configured(), name=name))
    decision = decided(OBSERVED, instance(1), config=config, ledger=LEDGER, now=1.0)
    reading = Reading(config=config, decision=decision, observed=OBSERVED, refused=frozenset(), time=1.0)
    page = rendered(seen(reading=reading, config=config))
    assert value(page, "lvsctl_virtual_server_wanted_instances", virtual_server=name) == 1


# --- served


@attrs.define
class Told:
    """A source that a test tells what to say."""

    what: Seen
    dead: str = ""
    unready: str = ""
    asked: int = 0
    broken: bool = False

    def seen(self) -> Seen:
        """Return what was told."""
        self.asked += 1
        if self.broken:
            raise RuntimeError
        return self.what

    def why_not_alive(self) -> str:
        """Return what was told."""
        return self.dead

    def why_not_ready(self) -> str:
        """Return what was told."""
        return self.unready


def free_port(host: str = "127.0.0.1") -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as found:
        found.bind((host, 0))
        port: int = found.getsockname()[1]
        return port


@attrs.frozen
class Asked:
    """An answer."""

    status: int
    body: bytes
    headers: Mapping[str, str]


@attrs.define
class Endpoints:
    """The endpoint and who is behind it."""

    told: Told
    base: str
    port: int

    async def ask(self, path: str, method: str = "GET") -> Asked:
        """Return the answer to one request."""
        async with aiohttp.ClientSession() as session, session.request(method, self.base + path) as response:
            return Asked(response.status, await response.read(), response.headers)


@contextlib.asynccontextmanager
async def served(host: str = "127.0.0.1") -> AsyncIterator[Endpoints]:
    """Serve while the context lasts."""
    told, port = Told(seen()), free_port(host)
    base = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    async with metrics.serving(Endpoint(ip_address(host), port), told):
        yield Endpoints(told=told, base=base, port=port)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_prometheus_gets_its_format(host: str) -> None:
    async with served(host) as endpoint:
        answer = await endpoint.ask("/metrics?anything=1")
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert answer.headers["Connection"] == "close"
        assert value(answer.body, "lvsctl_info") == 1
        head = await endpoint.ask("/metrics", "HEAD")
        assert (head.status, head.body) == (200, b"")
    with pytest.raises(aiohttp.ClientConnectorError):
        await endpoint.ask("/metrics")


@pytest.mark.parametrize(
    ("path", "attribute", "good", "bad"),
    [
        ("/livez", "dead", b"alive\n", b"not alive: because\n"),
        ("/readyz", "unready", b"ready\n", b"not ready: because\n"),
    ],
)
async def test_the_probes(path: str, attribute: str, good: bytes, bad: bytes) -> None:
    async with served() as endpoint:
        answer = await endpoint.ask(path)
        assert (answer.status, answer.body) == (200, good)
        setattr(endpoint.told, attribute, "because")
        answer = await endpoint.ask(path)
        assert (answer.status, answer.body) == (503, bad)
        assert answer.headers["Content-Type"].startswith("text/plain")


async def test_other_paths_and_methods_are_refused() -> None:
    async with served() as endpoint:
        for path in ("/", "/metrics/", "/v1/status", "//metrics"):
            assert (await endpoint.ask(path)).status == 404
        for path in ("/metrics", "/livez", "/readyz"):
            for method in ("POST", "PUT", "DELETE", "OPTIONS"):
                assert (await endpoint.ask(path, method)).status == 405
        assert endpoint.told.asked == 0


async def test_many_who_ask_at_once_cost_one_rendering() -> None:
    async with served() as endpoint:
        answers = await asyncio.gather(*(endpoint.ask("/metrics") for _ in range(20)))
        assert {answer.status for answer in answers} == {200}
        assert len({answer.body for answer in answers}) == 1
        assert endpoint.told.asked == 1
        endpoint.told.what = seen(config_error="bad")
        async with asyncio.timeout(10):
            while value((await endpoint.ask("/metrics")).body, "lvsctl_config_last_reload_successful") == 1:
                pass
        assert endpoint.told.asked == 2


async def test_a_rendering_that_fails_is_an_error_of_that_moment(caplog: pytest.LogCaptureFixture) -> None:
    async with served() as endpoint:
        endpoint.told.broken = True
        assert (await endpoint.ask("/metrics")).status == 500
        assert (await endpoint.ask("/livez")).status == 200
        endpoint.told.broken = False
        async with asyncio.timeout(10):
            while (await endpoint.ask("/metrics")).status != 200:
                pass
    assert caplog.records


async def test_a_large_page_arrives_whole_and_who_goes_away_in_the_middle_is_no_error(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    large = [b"# a line\n" * 400_000, b"", b"# the last\n"]
    monkeypatch.setattr(metrics, "render", lambda _seen: large)
    async with served() as endpoint:
        for _ in range(3):
            reader, writer = await asyncio.open_connection("127.0.0.1", endpoint.port)
            writer.write(b"GET /metrics HTTP/1.1\r\nHost: lvsctl\r\n\r\n")
            assert await reader.readexactly(1000)
            writer.transport.abort()
        assert (await endpoint.ask("/metrics")).body == b"".join(large)
    assert not caplog.records


async def test_connections_beyond_the_most_are_closed_and_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "MOST", 3)
    async with served() as endpoint:
        idle = [await asyncio.open_connection("127.0.0.1", endpoint.port) for _ in range(3)]
        async with asyncio.timeout(10):
            with pytest.raises(aiohttp.ClientError):
                await endpoint.ask("/livez")
            for _, writer in idle:
                writer.close()
                await writer.wait_closed()
            while True:
                with contextlib.suppress(aiohttp.ClientError):
                    assert (await endpoint.ask("/livez")).status == 200
                    break


async def test_a_connection_that_says_nothing_or_little_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "LONGEST", 0.2)
    async with served() as endpoint, asyncio.timeout(10):
        for said in (b"", b"GET /livez HTTP/1.1\r\nHost: x\r\n", b"GET /livez HTTP/1.1\r\nContent-Length: 9\r\n\r\n1"):
            reader, writer = await asyncio.open_connection("127.0.0.1", endpoint.port)
            writer.write(said)
            await reader.read()
            writer.close()
            await writer.wait_closed()
        assert (await endpoint.ask("/livez")).status == 200


async def test_a_connection_that_is_open_holds_up_no_stop() -> None:
    async with asyncio.timeout(metrics.LONGEST / 2):
        async with served() as endpoint:
            reader, writer = await asyncio.open_connection("127.0.0.1", endpoint.port)
            writer.write(b"GET /livez HTTP/1.1\r\n")
            await writer.drain()
            assert (await endpoint.ask("/livez")).status == 200
        assert await reader.read() == b""
        writer.close()


@pytest.mark.parametrize(
    "said",
    [
        b"GET /livez?" + b"x" * 3000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 3000 + b"\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 10_000,
        b"\x00\xff" * 1000 + b"\r\n\r\n",
    ],
    ids=["line", "header", "headers", "bytes"],
)
async def test_what_is_too_much_or_no_http_is_refused(said: bytes) -> None:
    async with served() as endpoint, asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", endpoint.port)
        with contextlib.suppress(ConnectionError):
            writer.write(said)
            await writer.drain()
            answer = await reader.read()
            assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 ")) or not answer
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        assert (await endpoint.ask("/livez")).status == 200


async def test_a_port_that_is_taken_is_an_error_that_names_the_key() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(
            StateError, match=rf"^metrics\.listen 127\.0\.0\.1:{port}: address already in use; write an address "
        ) as caught:
            async with metrics.serving(Endpoint(ip_address("127.0.0.1"), port), Told(seen())):
                pytest.fail("served on a port that is taken")
    assert caught.value.exit_code == 7


async def test_an_address_of_another_machine_is_an_error() -> None:
    with pytest.raises(StateError, match=r"^metrics\.listen 192\.0\.2\.1:9105: cannot assign requested address; "):
        async with metrics.serving(Endpoint(ip_address("192.0.2.1"), 9105), Told(seen())):
            pytest.fail("served on an address of another machine")


def test_a_hold_is_a_number() -> None:
    observed = observed_of(entry(real(1), real(2)))
    ledger = {KEY: attrs.evolve(LEDGER[KEY], draining={})}
    decision = decided(observed, config=config_of(), ledger=ledger)
    reading = Reading(config=config_of(), decision=decision, observed=observed, refused=frozenset(), time=1.0)
    page = rendered(seen(reading=reading, config=config_of()))
    assert value(page, "lvsctl_virtual_servers", state=State.HELD.value) == 1
    assert value(page, "lvsctl_virtual_server_held_real_servers") == 2
    assert value(page, "lvsctl_virtual_server_serving_real_servers") == 2


def test_a_cycle_about_some_changes_what_is_shown_of_them_alone() -> None:
    whole = seen().reading
    assert whole is not None
    later = observed_of(entry(real(1), real(3)))
    decision = decided(later, instance(1), instance(3), ledger={KEY: attrs.evolve(LEDGER[KEY], draining={})})
    part = attrs.evolve(whole, decision=decision, observed=later, time=whole.time + 1)
    page = rendered(seen(reading=whole.with_part(part, {KEY})))
    ours = "lvsctl_virtual_server"
    assert value(page, f"{ours}_serving_real_servers", virtual_server="reco") == 2
    assert value(page, f"{ours}_draining_real_servers", virtual_server="reco") == 0
    assert value(page, f"{ours}_connections_total", virtual_server="reco") == 0
    assert value(page, f"{ours}_wanted_instances", virtual_server="shop") == 3
    assert value(page, "lvsctl_foreign_virtual_servers") == 1
    assert value(page, "lvsctl_table_read_timestamp_seconds") == whole.time
    waiting = attrs.evolve(
        whole, decision=attrs.evolve(whole.decision, virtual_servers={}, waiting=frozenset({"reco", "shop"}))
    )
    page = rendered(seen(reading=waiting.with_part(part, {KEY})))
    assert value(page, f"{ours}_state", virtual_server="reco", state="ok") == 1
    assert value(page, f"{ours}_state", virtual_server="shop", state="waiting") == 1
    gone = attrs.evolve(part, decision=attrs.evolve(decision, virtual_servers={}), observed=observed_of())
    page = rendered(seen(reading=whole.with_part(gone, {KEY})))
    assert {each.labels["virtual_server"] for each in samples(page) if each.name == f"{ours}_state"} == {"shop"}


def test_drift_is_a_number() -> None:
    observed = observed_of(entry(real(1, 7), real(2)))
    ledger = {KEY: attrs.evolve(LEDGER[KEY], draining={})}
    decision = decided(observed, instance(1), instance(2), config=config_of(), ledger=ledger)
    assert [step.cause.kind for step in decision.steps] == [Kind.DRIFT]
    page = rendered(seen(tally=Tally().after_cycle(decision, done=decision.steps, seconds=0.1, now=1.0)))
    assert value(page, "lvsctl_drift_repairs_total") == 1
