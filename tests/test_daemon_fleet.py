"""Orders for the fleet in the daemon, from the commands or from other directors: what they do, and what is said."""

import asyncio
import json
import re
import time
from pathlib import Path

import pytest
from aiohttp import web
from click.testing import CliRunner

from lvsctl.cli import fleet, lvsctl
from lvsctl.core.event_words import sentence
from lvsctl.core.status import Place, State, Status
from lvsctl.journal import Reader
from lvsctl.key_file import FLEET_FILE
from lvsctl.order_file import FILE
from netlink.requests import SetRealServer
from netlink.types import RealServerUsage
from tests.consul.kv import KV
from tests.consul.server import Blocking, refusing
from tests.test_daemon import Running, Watched, _signals, port_of, running
from tests.test_daemon_orders import ALL, FOUR, OTHERS, command, places, reloaded
from tests.values import KEY, entry, failing, instance, real, real_key, table_of

__all__ = ["_signals"]  # a fixture

OPENED = ("[overrides]", 'kv_prefix = "lvsctl"', "")
APP1 = "lvsctl/orders/drain/node/app1"
QUIESCED = table_of(entry(real(1, 0), real(2), real(3), real(4)))


@pytest.fixture(autouse=True)
def _alice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have somebody type."""
    monkeypatch.setenv("SUDO_USER", "alice")
    monkeypatch.setattr("socket.gethostname", lambda: "adm1")


async def shown(daemon: Running, number: int) -> Status:
    """Return the first status with so many orders."""
    return await daemon.until_status(lambda status: len(status.orders) == number)


async def test_a_drain_is_given_obeyed_shown_and_taken_back(tmp_path: Path) -> None:
    kv = KV(Blocking(FOUR))
    async with running(kv, tmp_path, lines=OPENED) as daemon:
        await daemon.until(ALL)
        daemon.kernel.set_usage(KEY, real_key(1), RealServerUsage(active=1))
        began = time.time()
        result = await command(daemon, "drain", "app1", "--fleet", "--reason", "kernel upgrade", "--for", "2h")
        assert result.exit_code == 0, result.output
        first, row, last = result.output.splitlines()
        assert first.startswith("node app1 is drained for the fleet until ")
        assert first.endswith("(2 h 0 min): here 1 real server leaves")
        assert row.split()[:4] == ["reco", "10.0.0.1:8080", "reco-1", "draining"]
        assert last == "every director with this kv_prefix obeys that, and this one does"
        value = json.loads(kv.keys[APP1].value)
        assert (value["by"], value["reason"]) == ("alice@adm1", "kernel upgrade")
        assert 7200 <= value["until"] - began < 7230
        await daemon.until(QUIESCED)
        status = await daemon.status()
        (order,) = status.orders
        assert (order.order, order.target, order.by, order.reason, order.fleet) == (
            "drain", "node app1", "alice@adm1", "kernel upgrade", True,
        )  # fmt: skip
        assert status.fleet is not None
        assert (status.fleet.kv_prefix, status.fleet.error, status.fleet.ignored) == ("lvsctl", "", {})
        place, why = places(status)["10.0.0.1:8080"]
        assert place is Place.DRAINING
        assert why.startswith("drained for the fleet by alice@adm1 until ")
        assert why.endswith(": kernel upgrade")
        explained = await command(daemon, "explain", "10.0.0.1:8080")
        assert "drained for the fleet by alice@adm1 until" in " ".join(explained.output.split())
        listed = await command(daemon, "drain")
        assert listed.output.splitlines()[1].startswith("fleet drain  node app1")
        (said,) = daemon.events("order")
        assert (said["target"], said["by"], said["fleet"]) == ("node app1", "alice@adm1", True)
        (quiesced,) = daemon.events("real_server_quiesced")
        assert quiesced["cause"] == "override"
        assert "drained for the fleet by alice@adm1 until" in quiesced["why"]
        assert not (tmp_path / FILE).exists(), "it is none of this director's own"
        daemon.kernel.writes.clear()
        result = await command(daemon, "undrain", "app1", "--fleet")
        assert result.exit_code == 0, result.output
        assert result.output.splitlines() == [
            (
                "node app1 is no longer drained for the fleet (it was by alice@adm1: kernel upgrade): "
                "1 instance may serve again here"
            ),
            "every director with this kv_prefix obeys that, and this one does",
        ]
        assert kv.keys == {}
        await daemon.until(ALL)
        assert daemon.kernel.writes == [SetRealServer(virtual_server=KEY, real_server=real(1))]
        (over,) = daemon.events("order_over")
        assert (over["target"], over["why"], over["fleet"]) == ("node app1", "taken back in Consul's KV", True)
        await daemon.until_status(lambda _: bool(daemon.events("real_server_changed")))
        (changed,) = daemon.events("real_server_changed")
        assert changed["why"].startswith("no longer drained for the fleet by alice@adm1")
    given, ended = (each for each in Reader(tmp_path).read() if each.event.startswith("order"))
    assert sentence(given).startswith("the drain of node app1 for the fleet until ")
    assert sentence(given).endswith("was ordered: by alice@adm1; kernel upgrade")
    assert sentence(ended) == (
        "the drain of node app1 for the fleet ended: taken back in Consul's KV; it was by alice@adm1"
    )


async def test_one_that_another_director_gave_is_obeyed_and_ended_with_fleet_alone(tmp_path: Path) -> None:
    kv = KV(Blocking(FOUR))
    async with running(kv, tmp_path, lines=OPENED) as daemon:
        await daemon.until(ALL)
        await kv.hand(APP1, {"by": "bob@d2", "reason": "upgrade"})
        await daemon.until(OTHERS)
        result = await command(daemon, "undrain", "app1")
        assert result.exit_code == 2
        assert (
            "'app1' is not drained; drained: nothing is; but it is drained for the fleet by bob@d2: upgrade: "
            "lvsctl undrain app1 --as node --fleet ends that"
        ) in result.output.replace("\n", " ")
        assert (await command(daemon, "drain", "app1")).exit_code == 0
        assert len((await daemon.status()).orders) == 2
        result = await command(daemon, "undrain", "app1")
        assert result.exit_code == 0
        assert (
            "some of it is still out: node app1 for the fleet (lvsctl undrain app1 --as node --fleet)" in result.output
        )
        assert daemon.kernel.observe().table == OTHERS
        assert (await command(daemon, "drain", "app1")).exit_code == 0
        result = await command(daemon, "undrain", "app1", "--fleet")
        assert result.exit_code == 0, result.output
        assert "still out: node app1 by this director's own order (lvsctl undrain app1 --as node)" in result.output
        assert daemon.kernel.observe().table == OTHERS
        result = await command(daemon, "undrain", "app1", "--fleet")
        assert result.exit_code == 2
        assert "but it is drained by alice as root: lvsctl undrain app1 --as node ends that" in (
            result.output.replace("\n", " ")
        )
        assert (await command(daemon, "undrain", "app1")).exit_code == 0
        await daemon.until(ALL)


async def test_another_order_about_the_same_takes_its_place(tmp_path: Path) -> None:
    kv = KV(Blocking(FOUR))
    async with running(kv, tmp_path, lines=OPENED) as daemon:
        await daemon.until(ALL)
        await kv.hand(APP1, {"by": "bob@d2", "reason": "upgrade"})
        await daemon.until(OTHERS)
        result = await command(daemon, "drain", "app1", "--fleet", "--reason", "mine")
        assert "(in place of the drain by bob@d2: upgrade)" in result.output
        (order,) = (await daemon.status()).orders
        assert (order.by, order.reason) == ("alice@adm1", "mine")
        assert [each["by"] for each in daemon.events("order")] == ["bob@d2", "alice@adm1"]
        assert daemon.events("order_over") == []


async def test_a_restart_without_consul_obeys_what_was_known(tmp_path: Path) -> None:
    kv = KV(Blocking(FOUR))
    async with running(kv, tmp_path, lines=OPENED) as daemon:
        await daemon.until(ALL)
        await kv.hand(APP1, {"by": "bob@d2"})
        await daemon.until(OTHERS)
        await daemon.until_status(lambda _: (tmp_path / FLEET_FILE).exists())
        port = port_of(daemon.server)
    daemon.kernel.writes.clear()
    async with running(refusing(500), tmp_path, daemon.kernel, port=port, lines=OPENED) as again:
        status = await again.until_status(lambda status: bool(status.fleet and status.fleet.error))
        assert [each.target for each in status.orders] == ["node app1"]
        assert again.events("order") == [], "it is no news"
        screen = (await command(again, "status")).output
        assert re.search(
            r"^fleet +orders as last known, for they cannot be read: Consul answered 500", screen, re.MULTILINE
        )
        again.server.answering = kv
        await again.until_status(lambda status: bool(status.fleet and not status.fleet.error))
        assert again.kernel.observe().table == OTHERS
        assert again.kernel.writes == []
        await kv.hand(APP1, None)
        await again.until(ALL)
    async with running(refusing(500), tmp_path, Watched(), port=port, lines=OPENED) as rebooted:
        await rebooted.until(ALL)
        assert (await rebooted.status()).orders == ()


async def test_a_consul_that_has_not_read_its_own_log_again_ends_nothing(tmp_path: Path) -> None:
    kv = KV(Blocking(FOUR))
    async with running(kv, tmp_path, lines=OPENED) as daemon:
        await daemon.until(ALL)
        await kv.hand(APP1, {"by": "bob@d2"})
        await daemon.until(OTHERS)
        await daemon.until_status(lambda _: (tmp_path / FLEET_FILE).exists())
        port = port_of(daemon.server)
    keys, index = dict(kv.keys), kv.index
    kv.keys, kv.index = {}, 1
    daemon.kernel.writes.clear()
    async with running(kv, tmp_path, daemon.kernel, port=port, lines=OPENED) as again:
        await again.until_status(lambda status: status.fleet is not None and status.fleet.data_age is not None)
        await again.until_status(lambda status: status.kernel.in_sync_since is not None)
        assert [each.target for each in (await again.status()).orders] == ["node app1"]
        kv.keys, kv.index = keys, index
        await kv.tell()
        caught_up = "/v1/kv/lvsctl/orders/", str(index)
        await again.until_status(
            lambda _: caught_up in {(each.path, each.query.get("index")) for each in again.server.requests}
        )
        assert again.kernel.writes == []
        await kv.hand(APP1, None)
        await again.until(ALL)
        assert len(again.events("fleet_orders_doubted")) == 1


async def test_a_reboot_without_consul_restores_all_but_what_is_drained(tmp_path: Path) -> None:
    kv = KV(Blocking(FOUR))
    async with running(kv, tmp_path, lines=OPENED) as daemon:
        await daemon.until(ALL)
        await kv.hand(APP1, {"by": "bob@d2"})
        await daemon.until(OTHERS)
        await daemon.until_status(lambda _: (tmp_path / FLEET_FILE).exists())
        port = port_of(daemon.server)
    async with running(refusing(500), tmp_path, port=port, lines=OPENED) as again:
        await again.until(OTHERS)


@pytest.mark.parametrize("status", [403, 500])
async def test_what_cannot_be_read_any_more_stands_and_status_says_so(tmp_path: Path, status: int) -> None:
    kv = KV(Blocking(FOUR))
    async with running(kv, tmp_path, lines=OPENED) as daemon:
        await daemon.until(ALL)
        await kv.hand(APP1, {"by": "bob@d2", "reason": "upgrade"})
        await daemon.until(OTHERS)
        kv.keys.clear()
        kv.index += 1
        await kv.fail(status)
        told = await daemon.until_status(lambda status: bool(status.fleet and status.fleet.error))
        assert [each.target for each in told.orders] == ["node app1"]
        assert told.fleet is not None
        assert told.fleet.data_age is not None
        result = await command(daemon, "status")
        assert result.exit_code == 1
        assert "for they cannot be read: Consul answered" in result.output
        assert daemon.kernel.observe().table == OTHERS
        (failed,) = daemon.events("fleet_orders_failed")
        assert failed["kept"] == "the last known fleet orders"
        assert ('the token needs key_prefix "lvsctl/orders/" { policy = "read" }' in failed["error"]) == (status == 403)
        await kv.fail(200)
        await daemon.until(ALL)
        assert len(daemon.events("fleet_orders_back")) == 1


async def test_it_is_over_at_its_time_by_this_directors_clock(tmp_path: Path) -> None:
    kv = KV(Blocking(FOUR))
    async with running(kv, tmp_path, lines=OPENED) as daemon:
        await daemon.until(ALL)
        began = time.time()
        await kv.hand(APP1, {"by": "bob@d2", "until": began + 2})
        await daemon.until(OTHERS)
        await daemon.until(ALL)
        assert 2 <= time.time() - began < 5
        await daemon.until_status(lambda status: bool(daemon.events("order_over")) and not status.orders)
        (over,) = daemon.events("order_over")
        assert (over["by"], over["why"]) == ("bob@d2", "its time is over")
        await kv.hand(APP1, {"by": "bob@d2", "until": began + 1})  # heard again, and over
        await kv.hand("lvsctl/orders/hold/reco", {})
        await shown(daemon, 1)
        await kv.hand(APP1, None)
        await kv.hand("lvsctl/orders/hold/reco", None)
        await shown(daemon, 0)
        assert [each["target"] for each in daemon.events("order_over")] == ["node app1", "reco"]


async def test_the_last_ones_are_refused_here_and_kept_where_nobody_is_asked(tmp_path: Path) -> None:
    kv = KV(Blocking((instance(1), failing(2))))
    async with running(kv, tmp_path, lines=OPENED) as daemon:
        await daemon.until(table_of(entry(real(1))))
        result = await command(daemon, "drain", "10.0.0.1", "--fleet")
        assert result.exit_code == 1
        assert result.output.splitlines() == [
            "nothing else would serve: reco (10.0.0.1:8080)",
            "nothing was changed; --yes drains it, and the last ones stay until lvsctl release",
        ]
        assert kv.keys == {}
        await kv.hand("lvsctl/orders/drain/address/10.0.0.1", {"by": "bob@d2"})
        await kv.hand("lvsctl/orders/drain/node/app2", {"by": "bob@d2"})
        status = await shown(daemon, 2)
        assert status.virtual_servers[0].state is State.HELD
        assert places(status)["10.0.0.1:8080"][0] is Place.HELD
        result = await command(daemon, "drain", "10.0.0.1", "--fleet", "--yes", "--wait")
        assert result.exit_code == 1
        assert "waiting for this director; others have connections of their own" in result.output
        assert "10.0.0.1 stays drained, but 1 real server will not leave; lvsctl release reco lets go" in result.output
        assert daemon.kernel.observe().table == table_of(entry(real(1)))


async def test_wait_returns_when_the_connections_here_are_gone(tmp_path: Path) -> None:
    kv = KV(Blocking(FOUR))
    async with running(kv, tmp_path, lines=OPENED) as daemon:
        await daemon.until(ALL)
        daemon.kernel.set_usage(KEY, real_key(1), RealServerUsage(active=3))
        waiting = asyncio.create_task(command(daemon, "drain", "app1", "--fleet", "--wait"))
        await daemon.until(QUIESCED)
        daemon.kernel.set_usage(KEY, real_key(1), RealServerUsage())
        result = await waiting
        assert result.exit_code == 0, result.output
        assert result.output.splitlines()[-1].startswith("out: node app1 after ")


async def test_an_order_about_what_is_not_here_does_nothing(tmp_path: Path) -> None:
    kv = KV(Blocking(FOUR))
    async with running(kv, tmp_path, lines=OPENED) as daemon:
        await daemon.until(ALL)
        daemon.kernel.writes.clear()
        for path in ("drain/node/app9", "drain/address/10.9.9.9:80", "drain/instance/app9/x", "hold/shop"):
            await kv.hand(f"lvsctl/orders/{path}", {"by": "bob@d2"})
        await shown(daemon, 4)
        result = await command(daemon, "status")
        assert result.exit_code == 0, result.output
        assert "matches nothing" in result.output
        assert daemon.kernel.writes == []
        result = await command(daemon, "drain", "app8", "--fleet")
        assert result.exit_code == 2
        assert "--ahead, with --as for a name, orders it for those that have it" in result.output.replace("\n", " ")
        result = await command(daemon, "drain", "app8", "--fleet", "--ahead", "--as", "node")
        assert result.exit_code == 0, result.output
        assert "node app8 is drained for the fleet until it is undrained: here nothing matches yet" in result.output
        assert "lvsctl/orders/drain/node/app8" in kv.keys


async def test_a_hold_holds_until_it_is_released_with_fleet(tmp_path: Path) -> None:
    blocking = Blocking(FOUR)
    kv = KV(blocking)
    async with running(kv, tmp_path, lines=OPENED) as daemon:
        await daemon.until(ALL)
        result = await command(daemon, "hold", "reco", "--fleet", "--reason", "incident 99")
        assert result.exit_code == 0, result.output
        assert result.output.splitlines()[0] == (
            "reco is held for the fleet until it is released: nothing leaves it on Consul's word; "
            "lvsctl release reco --fleet ends it"
        )
        await blocking.change(failing(1), *FOUR[1:])
        status = await daemon.until_status(lambda status: status.virtual_servers[0].state is State.HELD)
        assert "held for the fleet by alice@adm1: incident 99; lvsctl release reco --fleet ends it" in (
            status.virtual_servers[0].note
        )
        result = await command(daemon, "release", "reco")
        assert result.exit_code == 8
        assert (
            "nothing can be released: held for the fleet by alice@adm1: incident 99; lvsctl release reco --fleet"
            in (result.output)
        )
        assert (await command(daemon, "hold", "reco")).exit_code == 0
        result = await command(daemon, "release", "reco")
        assert result.exit_code == 0
        assert result.output == (
            "reco: no longer held by alice as root, but held for the fleet by alice@adm1: incident 99; "
            "lvsctl release reco --fleet ends it\n"
        )
        assert daemon.kernel.observe().table == ALL
        result = await command(daemon, "release", "reco", "--fleet")
        assert result.exit_code == 0, result.output
        assert result.output.splitlines()[0] == (
            "reco is no longer held for the fleet (it was by alice@adm1: incident 99)"
        )
        await daemon.until(OTHERS)
        result = await command(daemon, "release", "reco", "--fleet")
        assert result.exit_code == 2
        assert "reco is not held by an order" in result.output


async def test_a_pause_of_everything_writes_nothing_until_it_is_resumed_with_fleet(tmp_path: Path) -> None:
    blocking = Blocking(FOUR)
    kv = KV(blocking)
    async with running(kv, tmp_path, lines=OPENED) as daemon:
        await daemon.until(ALL)
        result = await command(daemon, "pause", "--fleet", "--reason", "by hand")
        assert result.exit_code == 0, result.output
        assert result.output.startswith("everything is paused for the fleet until ")
        assert "(1 h 0 min): nothing is written; lvsctl resume --fleet ends it\n" in result.output
        daemon.kernel.writes.clear()
        await blocking.change(*FOUR, instance(5))
        await daemon.until_status(lambda status: status.kernel.pending == 1)
        screen = await command(daemon, "status")
        assert screen.exit_code == 1
        assert "nothing is written; lvsctl resume --fleet ends it: by hand" in screen.output
        assert "; lvsctl resume --fleet ends it" in (await daemon.status()).virtual_servers[0].note
        result = await command(daemon, "drain", "app1")
        assert "nothing is written yet: paused for the fleet by alice@adm1 until" in result.output
        assert "lvsctl resume --fleet ends that" in result.output
        assert (await command(daemon, "undrain", "app1")).exit_code == 0
        result = await command(daemon, "resume")
        assert result.exit_code == 2
        assert "lvsctl resume --fleet ends that" in result.output.replace("\n", " ")
        assert daemon.kernel.writes == []
        assert (await command(daemon, "pause", "--for", "10m")).exit_code == 0
        result = await command(daemon, "resume", "--fleet")
        assert result.exit_code == 0, result.output
        assert "it is still paused: everything by this director's own order (lvsctl resume)" in result.output
        assert daemon.kernel.writes == []
        assert (await command(daemon, "resume")).exit_code == 0
        await daemon.until(table_of(entry(*map(real, range(1, 6)))))


@pytest.mark.parametrize("away", [False, True], ids=["before", "while it was away"])
async def test_a_pause_does_not_outlive_the_table_that_it_is_about(tmp_path: Path, *, away: bool) -> None:
    kv = KV(Blocking(FOUR))
    paused = json.dumps({"by": "bob@d2", "written": time.time(), "until": time.time() + 600})
    async with running(kv, tmp_path, lines=OPENED) as daemon:
        await daemon.until(ALL)
        if not away:
            await kv.hand("lvsctl/orders/pause", paused)
            await shown(daemon, 1)
            await daemon.until_status(lambda _: (tmp_path / FLEET_FILE).exists())
    if away:
        kv.put("lvsctl/orders/pause", paused)
    async with running(kv, tmp_path, lines=OPENED) as rebooted:
        await rebooted.until(ALL)
        assert (await rebooted.status()).orders == ()
        (over,) = rebooted.events("order_over")
        assert over["why"].startswith("the kernel lost what was paused")
        await kv.hand("lvsctl/orders/pause", paused.replace("bob", "eve"))
        await shown(rebooted, 1)
    async with running(kv, tmp_path, rebooted.kernel, lines=OPENED) as again:
        await shown(again, 1)
        assert again.events("order_over") == []


async def test_keys_that_cannot_be_used_are_shown_and_the_others_count(tmp_path: Path) -> None:
    kv = KV(Blocking(FOUR))
    kv.put("lvsctl/orders/quarantine/node/app2", "{}")
    kv.put("lvsctl/orders/drain/node/app3", "[" * 3000)
    kv.put("lvsctl/orders/pause", "{}")
    kv.put("lvsctl/orders/drain/node/app4", b"\xff" * 500_000)
    kv.put(APP1, '{"reason": "\\u001b[31m"}')
    async with running(kv, tmp_path, lines=OPENED) as daemon:
        await daemon.until(OTHERS)
        status = await shown(daemon, 1)
        assert status.fleet is not None
        assert dict(status.fleet.ignored) == {
            "lvsctl/orders/drain/node/app3": "its value is not JSON",
            "lvsctl/orders/drain/node/app4": "it has no value, or one of more than 4096 bytes",
            "lvsctl/orders/pause": "a pause has to end (until) 24 h after it was written, or before",
            "lvsctl/orders/quarantine/node/app2": "this version of lvsctl knows no order 'quarantine'",
        }
        assert len(daemon.events("fleet_order_ignored")) == 4
        result = await command(daemon, "status")
        assert result.exit_code == 1
        assert re.search(r"^fleet +4 keys below lvsctl/orders/ not used$", result.output, re.MULTILINE)
        assert "\x1b" not in result.output
        assert (await command(daemon, "status", "-o", "wide")).output.count("lvsctl/orders/") > 4


async def test_a_file_or_a_daemon_without_a_prefix_is_told(tmp_path: Path) -> None:
    kv = KV(Blocking(FOUR))
    async with running(kv, tmp_path) as daemon:
        await daemon.until(ALL)
        result = await command(daemon, "drain", "app1", "--fleet")
        assert result.exit_code == 3
        assert 'write [overrides] with kv_prefix = "lvsctl"' in result.output
        daemon.file.write_text(daemon.file.read_text() + "\n".join(OPENED))
        result = await command(daemon, "drain", "app1", "--fleet")
        assert result.exit_code == 8
        assert "the configuration in use opens no orders for the fleet" in result.output
        await reloaded(daemon)
        assert (await command(daemon, "drain", "app1", "--fleet")).exit_code == 0
        await daemon.until(OTHERS)
        daemon.file.write_text(daemon.file.read_text().partition("[overrides]")[0])
        await reloaded(daemon)
        await daemon.until(ALL)
        status = await daemon.status()
        assert (status.orders, status.fleet) == ((), None)
        assert [each["target"] for each in daemon.events("order_over")] == ["node app1"]


async def test_a_token_that_may_not_write_and_a_consul_that_is_away_are_told(tmp_path: Path) -> None:
    kv = KV(Blocking(FOUR))
    async with running(kv, tmp_path, lines=OPENED) as daemon:
        await daemon.until(ALL)
        kv.write_status = 403
        result = await command(daemon, "drain", "app1", "--fleet")
        assert result.exit_code == 4
        assert 'the token needs key_prefix "lvsctl/orders/" { policy = "write" }; nothing was changed' in result.output
        kv.write_status = 200
        await kv.fail(500)
        result = await command(daemon, "drain", "app1", "--fleet")
        assert result.exit_code == 4
        assert f"{APP1}: Consul answered 500: No cluster leader; nothing was changed" in result.output
        assert daemon.kernel.observe().table == ALL
        assert (await daemon.status()).orders == ()
        daemon.file.write_text(daemon.file.read_text().replace(daemon.server.address, "http://127.0.0.1:9"))
        result = await command(daemon, "drain", "app1", "--fleet")
        assert result.exit_code == 4
        assert "cannot reach http://127.0.0.1:9" in result.output


async def test_of_those_who_write_at_the_same_time_the_last_wins_or_is_told(tmp_path: Path) -> None:
    kv = KV(Blocking(FOUR))
    rivals = 0

    def rival(kv: KV) -> None:
        nonlocal rivals
        if rivals:
            rivals -= 1
            kv.put(APP1, '{"by": "bob@d2"}')

    kv.rival = rival
    async with running(kv, tmp_path, lines=OPENED) as daemon:
        await daemon.until(ALL)
        rivals = 2
        result = await command(daemon, "drain", "app1", "--fleet")
        assert result.exit_code == 0, result.output
        assert "(in place of the drain by bob@d2)" in result.output
        assert kv.writes == 3
        rivals = 100
        result = await command(daemon, "undrain", "app1", "--fleet")
        assert result.exit_code == 4
        assert f"{APP1} was changed by somebody else at the same time, 3 times" in result.output
        assert (kv.writes, APP1 in kv.keys) == (6, True)


async def test_one_that_this_director_does_not_hear_of_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "HEARD", 0.3)
    kv = KV(Blocking(FOUR))
    async with running(kv, tmp_path, lines=OPENED) as daemon:
        await daemon.until(ALL)
        kv.deaf = True
        result = await command(daemon, "drain", "app1", "--fleet", "--wait")
        assert result.exit_code == 1
        assert "that is in Consul's KV, but this director has not heard of it within 0.3 s" in result.output
        assert APP1 in kv.keys
        kv.deaf = False
        await kv.tell()
        await daemon.until(OTHERS)


async def test_keys_that_are_long_over_are_removed_by_who_writes(tmp_path: Path) -> None:
    kv = KV(Blocking(FOUR))
    now = time.time()
    kv.put("lvsctl/orders/drain/node/app7", json.dumps({"until": now - 2 * 86400}))
    kv.put("lvsctl/orders/drain/node/app8", json.dumps({"until": now - 60}))
    async with running(kv, tmp_path, lines=OPENED) as daemon:
        await daemon.until(ALL)
        assert (await command(daemon, "drain", "app1", "--fleet")).exit_code == 0
        assert kv.keys.keys() == {APP1, "lvsctl/orders/drain/node/app8"}
        assert daemon.events("order_over") == [], "they never stood here"


async def test_no_more_orders_are_written_than_count(tmp_path: Path) -> None:
    kv = KV(Blocking(FOUR))
    for number in range(500):
        kv.put(f"lvsctl/orders/drain/node/other{number}", "{}")
    async with running(kv, tmp_path, lines=OPENED) as daemon:
        await daemon.until(ALL)
        result = await command(daemon, "drain", "app1", "--fleet")
        assert result.exit_code == 2
        assert "there are 500 orders for the fleet, and no more count" in result.output
        assert len(kv.keys) == 500


async def test_the_start_waits_for_the_orders_so_that_what_is_drained_never_serves(tmp_path: Path) -> None:
    kv, answered = KV(Blocking(FOUR)), asyncio.Event()
    kv.put(APP1, "{}")

    async def answering(request: web.Request) -> web.StreamResponse:
        if "/orders/" in request.path:
            await answered.wait()
        return await kv(request)

    async with running(answering, tmp_path, lines=OPENED) as daemon:
        await daemon.server.came(5)  # the instances and the overrides were answered for, and are waited for again
        await daemon.status()  # a cycle that had begun is done by now
        assert daemon.kernel.observe().table == {}
        answered.set()
        await daemon.until(OTHERS)
        assert real_key(1) not in {
            getattr(getattr(each, "real_server", None), "key", None) for each in daemon.kernel.writes
        }


async def test_a_reload_is_judged_with_the_orders_for_the_fleet(tmp_path: Path) -> None:
    kv = KV(Blocking(FOUR))
    async with running(kv, tmp_path, lines=OPENED) as daemon:
        await daemon.until(ALL)
        await kv.hand(APP1, {})
        await daemon.until(OTHERS)
        result = await command(daemon, "reload", "--dry-run")
        assert result.exit_code == 0, result.output
        assert "10.0.0.1:8080" not in result.output
        text = daemon.file.read_text()
        daemon.file.write_text(text.partition("[overrides]")[0])
        result = await command(daemon, "reload", "--dry-run")
        assert "+ 10.0.0.1:8080" in result.output
        daemon.file.write_text(text.replace('"lvsctl"\n', '"other"\n'))
        await kv.hand("other/orders/drain/node/app2", {})
        result = await command(daemon, "reload", "--dry-run")
        assert "+ 10.0.0.1:8080" in result.output
        assert "10.0.0.2:8080" in result.output


def test_wrong_usage_is_told_without_a_daemon(tmp_path: Path) -> None:
    file = tmp_path / "lvsctl.toml"
    text = f'[daemon]\ncontrol_socket = "{tmp_path}/none.sock"\n[virtual_server.reco]\naddress = "10.9.0.100:80"\n'
    file.write_text(text)
    words = (["drain", "app1"], ["undrain", "x"], ["hold", "reco"], ["release", "reco"], ["pause"], ["resume"])
    for each in words:
        result = CliRunner().invoke(lvsctl, [each[0], "-c", str(file), *each[1:], "--fleet"])
        assert result.exit_code == 3, each
        assert "overrides" in result.output
    file.write_text(text + "\n".join(OPENED))
    for each in words:
        result = CliRunner().invoke(lvsctl, [each[0], "-c", str(file), *each[1:], "--fleet"])
        assert result.exit_code == 8, each
        assert "no daemon answers on" in result.output
