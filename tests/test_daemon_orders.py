"""Operators' orders in the daemon, given by the commands: what leaves, what stays out, and what is said."""

import asyncio
import json
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
from aiohttp import web
from click.testing import CliRunner, Result

from lvsctl.cli import lvsctl
from lvsctl.core.event_words import sentence
from lvsctl.core.status import Place, State, Status
from lvsctl.journal import Reader
from lvsctl.order_file import ASIDE, FILE
from lvsctl.order_format import decode_orders
from netlink.errors import Interrupted
from netlink.requests import DeleteRealServer, SetRealServer
from netlink.types import Observed, RealServerUsage, VirtualServerKey
from tests.consul.server import Blocking, refusing
from tests.test_daemon import Running, Watched, _signals, port_of, running
from tests.values import KEY, entry, failing, instance, real, real_key, table_of

__all__ = ["_signals"]  # a fixture

FOUR = tuple(instance(number) for number in range(1, 5))
ALL = table_of(entry(*map(real, range(1, 5))))
OTHERS = table_of(entry(real(2), real(3), real(4)))


async def command(daemon: Running, *words: str, given: str | None = None) -> Result:
    """Return what `lvsctl drain app1` and the like did and said."""
    arguments = [words[0], "-c", str(daemon.file), *words[1:]]
    return await asyncio.to_thread(CliRunner().invoke, lvsctl, arguments, given)


def places(status: Status) -> dict[str, tuple[Place, str]]:
    return {each.real_server: (each.place, each.why) for each in status.virtual_servers[0].real_servers}


async def reloaded(daemon: Running) -> None:
    before = len(daemon.events("reloaded"))
    os.kill(os.getpid(), signal.SIGHUP)
    await daemon.until_status(lambda _: len(daemon.events("reloaded")) > before)


async def test_a_drain_survives_reload_restart_and_registering_again(tmp_path: Path) -> None:
    blocking = Blocking(FOUR)
    async with running(blocking, tmp_path) as daemon:
        await daemon.until(ALL)
        daemon.kernel.set_usage(KEY, real_key(1), RealServerUsage(active=2, inactive=1))
        result = await command(daemon, "drain", "10.0.0.1:8080", "--reason", "kernel upgrade", "--for", "2h")
        assert result.exit_code == 0, result.output
        first, row = result.output.splitlines()
        assert first.startswith("10.0.0.1:8080 is drained until ")
        assert first.endswith("(2 h 0 min): 1 real server leaves")
        assert row.split() == ["reco", "10.0.0.1:8080", "reco-1", "draining", "2", "active,", "1", "inactive"]
        await daemon.until(table_of(entry(real(1, 0), real(2), real(3), real(4))))
        status = await daemon.status()
        place, why = places(status)["10.0.0.1:8080"]
        assert place is Place.DRAINING
        assert why.startswith("drained by root until ")
        assert why.endswith(": kernel upgrade")
        (order,) = status.orders
        assert (order.order, order.target, order.by, order.reason) == (
            "drain", "10.0.0.1:8080", "root", "kernel upgrade",
        )  # fmt: skip
        assert [each.place for each in order.real_servers] == [Place.DRAINING]
        daemon.kernel.set_usage(KEY, real_key(1), RealServerUsage())
        await daemon.until(OTHERS)
        (quiesced,) = daemon.events("real_server_quiesced")
        assert quiesced["cause"] == "override"
        assert "instance 'reco-1' on node 'app1': drained by root until" in quiesced["why"]
        await reloaded(daemon)
        await blocking.change(*FOUR[1:])
        await blocking.change(instance(1, instance_id="another", node="app9"), *FOUR[1:])
        await daemon.until_status(lambda status: len(status.virtual_servers[0].real_servers) == 4)
        assert daemon.kernel.observe().table == OTHERS
    daemon.kernel.writes.clear()
    async with running(blocking, tmp_path, daemon.kernel) as again:
        status = await again.until_status(lambda status: bool(status.orders and status.orders[0].real_servers))
        assert [each.place for each in status.orders[0].real_servers] == [Place.OUT]
        assert again.kernel.writes == []
        result = await command(again, "undrain", "10.0.0.1:8080")
        assert result.output == (
            "10.0.0.1:8080 is no longer drained (it was by root: kernel upgrade): 1 instance may serve again\n"
        )
        await again.until(ALL)
        assert (await again.status()).orders == ()


async def test_one_that_is_undrained_while_it_drains_is_raised_in_place(tmp_path: Path) -> None:
    async with running(Blocking(FOUR), tmp_path) as daemon:
        await daemon.until(ALL)
        daemon.kernel.set_usage(KEY, real_key(1), RealServerUsage(active=1))
        assert (await command(daemon, "drain", "app1")).exit_code == 0
        await daemon.until(table_of(entry(real(1, 0), real(2), real(3), real(4))))
        daemon.kernel.writes.clear()
        assert (await command(daemon, "undrain", "app1")).exit_code == 0
        await daemon.until(ALL)
        assert daemon.kernel.writes == [SetRealServer(virtual_server=KEY, real_server=real(1))]
        await daemon.until_status(lambda _: bool(daemon.events("real_server_changed")))
        (changed,) = daemon.events("real_server_changed")
        assert (changed["cause"], changed["why"]) == (
            "override", "no longer drained by root: instance 'reco-1' on node 'app1'",
        )  # fmt: skip


async def test_it_ends_by_itself_at_its_time(tmp_path: Path) -> None:
    async with running(Blocking(FOUR), tmp_path) as daemon:
        await daemon.until(ALL)
        began = time.time()
        assert (await command(daemon, "drain", "reco-1", "--for", "2s")).exit_code == 0
        await daemon.until(OTHERS)
        await daemon.until(ALL)
        assert 2 <= time.time() - began < 5
        await daemon.until_status(lambda status: bool(daemon.events("order_over")) and not status.orders)
        (over,) = daemon.events("order_over")
        assert (over["target"], over["by"], over["why"]) == ("instance app1/reco-1", "root", "its time is over")
        assert decode_orders((tmp_path / FILE).read_bytes()).entries == ()


async def test_the_last_ones_are_refused_first_and_kept_then(tmp_path: Path) -> None:
    async with running(Blocking((instance(1), failing(2))), tmp_path) as daemon:
        await daemon.until(table_of(entry(real(1))))
        result = await command(daemon, "drain", "10.0.0.1")
        assert result.exit_code == 1
        assert result.output.splitlines() == [
            "nothing else would serve: reco (10.0.0.1:8080)",
            "nothing was changed; --yes drains it, and the last ones stay until lvsctl release",
        ]
        assert (await daemon.status()).orders == ()
        assert not (tmp_path / FILE).exists()
        result = await command(daemon, "drain", "10.0.0.1", "--yes", "--wait")
        assert result.exit_code == 1
        assert "reco: the last ones stay; lvsctl release reco lets them go" in result.output
        assert "10.0.0.1 stays drained, but 1 real server will not leave; lvsctl release reco lets go" in result.output
        status = await daemon.status()
        assert status.virtual_servers[0].state is State.HELD
        assert places(status)["10.0.0.1:8080"][0] is Place.HELD
        assert daemon.kernel.observe().table == table_of(entry(real(1)))
        assert (await command(daemon, "release", "reco", "--yes")).output.startswith("reco: 1 real server leaves")
        await daemon.until(table_of(entry()))


async def test_wait_returns_when_the_connections_are_gone(tmp_path: Path) -> None:
    async with running(Blocking(FOUR), tmp_path) as daemon:
        await daemon.until(ALL)
        daemon.kernel.set_usage(KEY, real_key(1), RealServerUsage(active=3))
        result = await command(daemon, "drain", "app1", "--wait", "--timeout", "1s")
        assert result.exit_code == 1
        assert "node app1 stays drained, and is not out after 1 s: 1 of 1 real server left, 3 active" in result.output
        waiting = asyncio.create_task(command(daemon, "drain", "app1", "--reason", "again", "--wait"))
        await daemon.until_status(lambda status: status.orders[0].reason == "again")
        daemon.kernel.set_usage(KEY, real_key(1), RealServerUsage())
        result = await waiting
        assert result.exit_code == 0, result.output
        assert "(in place of the drain by root)" in result.output
        assert result.output.splitlines()[-1].startswith("out: node app1 after ")
        assert daemon.kernel.writes[-1] == DeleteRealServer(virtual_server=KEY, key=real_key(1))


async def test_wait_is_not_over_when_the_instance_is_deregistered_before_its_connections_end(tmp_path: Path) -> None:
    blocking = Blocking(FOUR)
    async with running(blocking, tmp_path) as daemon:
        await daemon.until(ALL)
        daemon.kernel.set_usage(KEY, real_key(1), RealServerUsage(active=3))
        waiting = asyncio.create_task(command(daemon, "drain", "app1", "--wait", "--timeout", "3s"))
        await daemon.until(table_of(entry(real(1, 0), real(2), real(3), real(4))))
        await blocking.change(*FOUR[1:])
        status = await daemon.until_status(lambda status: "no longer reg" in places(status)["10.0.0.1:8080"][1])
        (row,) = status.orders[0].real_servers
        assert (row.place, row.instance, row.active) == (Place.DRAINING, "reco-1", 3)
        result = await waiting
        assert result.exit_code == 1, result.output
        assert "node app1 stays drained, and is not out after 3 s: 1 of 1 real server left, 3 active" in result.output
        await blocking.change(instance(1, port=9090), *FOUR[1:])
        await daemon.until_status(lambda status: len(status.orders[0].real_servers) == 2)
        assert (await command(daemon, "undrain", "app1")).output.endswith(
            "(it was by root): 1 instance may serve again\n"
        )


async def test_wait_is_not_over_while_nobody_knows_what_is_drained(tmp_path: Path) -> None:
    async with running(Blocking(FOUR), tmp_path) as daemon:
        await daemon.until(ALL)
        daemon.kernel.set_usage(KEY, real_key(1), RealServerUsage(active=3))
        assert (await command(daemon, "drain", "app1")).exit_code == 0
        await daemon.until(table_of(entry(real(1, 0), real(2), real(3), real(4))))
    async with running(refusing(500), tmp_path, daemon.kernel, port=port_of(daemon.server)) as again:
        words = ("drain", "app1", "--as", "node", "--ahead", "--wait", "--timeout", "1s")
        result = await command(again, *words)
        assert result.exit_code == 1, result.output
        assert result.output.endswith("is not out after 1 s: Consul has not answered for it since lvsctl was started\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("drain", "app9"), "no address, node or instance 'app9'; there are: app1, app2, app3, app4, reco-1"),
        (("drain", "reco"), "'reco' is a virtual server; drain takes an address, a node or an instance"),
        (("drain", "10.0.0.9"), "no instance and no real server is at 10.0.0.9; --ahead takes what is to come"),
        (("drain", "10.0.0.1:80"), "nothing is at 10.0.0.1:80; at that address there are: 10.0.0.1:8080"),
        (("drain", "app9", "--ahead"), "'app9' is not there yet, so write what it will be"),
        (("drain", "fd00::1:80"), "with a port it is written [fd00::1]:80"),
        (("drain", "app1", "--as", "instance"), "no address, node or instance 'app1'"),
        (("drain", "app1", "--as", "address"), "'app1' is no address; write 10.0.0.1"),
        (("drain", ""), "a target has 1 to 600 characters"),
        (("drain", "app1", "--for", "0"), "--for: "),
        (("drain", "app1", "--for", "0s"), "--for: "),
        (("drain", "app1", "--for", "-1s"), "--for: "),
        (("drain", "app1", "--timeout", "3s"), "--timeout goes with --wait"),
        (("drain", "app1", "--reason", "x" * 201), "a reason has 200 characters at most"),
        (("drain", "--wait"), "these options go with a target"),
        (("undrain", "app1"), "'app1' is not drained; drained: nothing is"),
        (("hold", "rec"), "no virtual server 'rec'; there are: reco"),
        (("pause", "rec"), "no virtual server 'rec'; there are: reco"),
        (("pause", ""), "NAME is empty; leave it out to pause everything"),
        (("pause", "--for", "25h"), "a pause lasts for 1 s to 24 h"),
        (("resume",), "everything is not paused; paused: nothing"),
        (("resume", "reco"), "reco is not paused; paused: nothing"),
    ],
)
async def test_what_makes_no_sense_is_refused_and_nothing_changes(
    tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    async with running(Blocking(FOUR), tmp_path) as daemon:
        await daemon.until(ALL)
        result = await command(daemon, *words)
        assert result.exit_code == 2, result.output
        assert said in result.output
        assert "Traceback" not in result.output
        assert (await daemon.status()).orders == ()
        assert not (tmp_path / FILE).exists()


async def test_an_instance_that_is_on_several_nodes_is_named_with_one(tmp_path: Path) -> None:
    same = tuple(instance(number, instance_id="reco") for number in (1, 2, 3))
    async with running(Blocking(same), tmp_path) as daemon:
        await daemon.until(table_of(entry(real(1), real(2), real(3))))
        result = await command(daemon, "drain", "reco")
        assert result.exit_code == 2
        assert "'reco' is 3 things; write which: app1/reco, app2/reco, app3/reco" in result.output
        assert (await command(daemon, "drain", "app2/reco")).exit_code == 0
        await daemon.until(table_of(entry(real(1), real(3))))
        assert (await command(daemon, "undrain", "reco")).exit_code == 0, "one drain alone can be meant"


async def test_what_is_out_by_another_drain_is_said(tmp_path: Path) -> None:
    async with running(Blocking(FOUR), tmp_path) as daemon:
        await daemon.until(ALL)
        await command(daemon, "drain", "app1", "--reason", "upgrade")
        result = await command(daemon, "undrain", "10.0.0.1:8080")
        assert result.exit_code == 2
        assert "'10.0.0.1:8080' is out by another drain: lvsctl undrain app1 --as node" in result.output
        await command(daemon, "drain", "10.0.0.1")
        shown = await command(daemon, "drain")
        assert [line.split()[:3] for line in shown.output.splitlines()] == [
            ["ORDER", "TARGET", "UNTIL"], ["drain", "node", "app1"], ["drain", "10.0.0.1", "undrained"],
        ]  # fmt: skip
        assert "matches nothing" not in shown.output
        result = await command(daemon, "undrain", "10.0.0.1")
        assert "some of it is still out: node app1" in result.output
        await daemon.until(OTHERS)


async def test_one_drained_ahead_never_serves(tmp_path: Path) -> None:
    blocking = Blocking(FOUR[1:])
    async with running(blocking, tmp_path) as daemon:
        await daemon.until(OTHERS)
        result = await command(daemon, "drain", "app1", "--as", "node", "--ahead")
        assert result.output == "node app1 is drained until it is undrained: nothing matches yet\n"
        daemon.kernel.writes.clear()
        await blocking.change(*FOUR)
        status = await daemon.until_status(lambda status: len(status.virtual_servers[0].real_servers) == 4)
        assert (places(status)["10.0.0.1:8080"][0], daemon.kernel.writes) == (Place.OUT, [])


async def test_a_hold_keeps_what_serves_until_it_is_released(tmp_path: Path) -> None:
    blocking = Blocking(FOUR)
    async with running(blocking, tmp_path) as daemon:
        await daemon.until(ALL)
        result = await command(daemon, "hold", "reco", "--reason", "checks are broken", "--for", "30m")
        assert result.exit_code == 0
        assert result.output.startswith("reco is held until ")
        assert result.output.endswith("nothing leaves it on Consul's word; lvsctl release reco ends it\n")
        status = await daemon.status()
        assert status.virtual_servers[0].state is State.OK
        assert "held by root until" in status.virtual_servers[0].note
        await blocking.change(failing(1), instance(3), instance(5))
        await daemon.until(table_of(entry(*map(real, range(1, 6)))))
        status = await daemon.until_status(lambda status: status.virtual_servers[0].state is State.HELD)
        assert [each.real_server for each in status.orders[0].real_servers] == [
            "10.0.0.1:8080", "10.0.0.2:8080", "10.0.0.4:8080",
        ]  # fmt: skip
        assert "3 kept, held by root until" in status.virtual_servers[0].note
        daemon.kernel.writes.clear()
        await reloaded(daemon)
        assert daemon.kernel.writes == []
    async with running(blocking, tmp_path, daemon.kernel) as again:
        await again.until_status(lambda status: status.virtual_servers[0].state is State.HELD)
        assert again.kernel.writes == []
        assert (await command(again, "drain", "10.0.0.2")).exit_code == 0, "an operator's other order counts"
        await again.until(table_of(entry(real(1), real(3), real(4), real(5))))
        result = await command(again, "release", "reco")
        assert result.output.splitlines()[0].startswith("reco: no longer held by root until")
        assert result.output.splitlines()[1] == "reco: 2 real servers leave, 2 others serve"
        await again.until(table_of(entry(real(3), real(5))))
        assert [each.order for each in (await again.status()).orders] == ["drain"]
        assert (await command(again, "release", "reco")).output == "reco: nothing is held\n"


async def test_a_hold_of_what_left_the_file_is_ended_by_its_release(tmp_path: Path) -> None:
    blocking = Blocking(FOUR)
    other = '[virtual_server.shop]\naddress = "10.9.0.101:80"'
    async with running(blocking, tmp_path, lines=(other,)) as daemon:
        await daemon.until_status(lambda status: all(row.serving == 4 for row in status.virtual_servers))
        assert (await command(daemon, "hold", "shop")).exit_code == 0
        daemon.file.write_text(daemon.file.read_text().replace(other, ""))
        await reloaded(daemon)
        await daemon.until(ALL)
        assert [each.target for each in (await daemon.status()).orders] == ["shop"]
        result = await command(daemon, "release", "shop", "reco")
        assert result.output.splitlines() == ["reco: nothing is held", "shop: no longer held by root"]
        assert (await daemon.status()).orders == ()
        assert (await command(daemon, "release", "shop")).exit_code == 2


async def test_while_consul_is_away_what_it_said_last_is_drained(tmp_path: Path) -> None:
    blocking = Blocking(FOUR)
    away = False

    async def answering(request: web.Request) -> web.StreamResponse:
        return await (refusing(500)(request) if away else blocking(request))

    async with running(answering, tmp_path) as daemon:
        await daemon.until(ALL)
        away = True
        await blocking.change(*FOUR)  # what waits is answered, and asks again
        await daemon.until_status(lambda status: status.consul is not None and not status.consul.reachable)
        assert (await command(daemon, "drain", "app1")).exit_code == 0
        await daemon.until(OTHERS)
        assert (await command(daemon, "undrain", "app1")).exit_code == 0
        await daemon.until(ALL)


async def test_a_start_without_consul_knows_what_is_drained(tmp_path: Path) -> None:
    blocking = Blocking(FOUR)
    async with running(blocking, tmp_path) as daemon:
        await daemon.until(ALL)
        await command(daemon, "drain", "app1")
        await daemon.until(OTHERS)
        port = port_of(daemon.server)
    async with running(refusing(500), tmp_path, port=port) as again:  # and without a table: a reboot
        await again.until(OTHERS)
        result = await command(again, "drain", "app2")
        assert result.exit_code == 2, "what serves is left as it is until Consul has answered"
        assert "Consul has not answered yet, so nobody knows what 'app2' is; --ahead takes it" in result.output
        assert (await command(again, "drain", "app2", "--as", "node", "--ahead")).exit_code == 0
        again.server.answering = Blocking(FOUR)
        await again.until(table_of(entry(real(3), real(4))))


async def test_a_pause_writes_nothing_until_it_is_resumed(tmp_path: Path) -> None:
    blocking = Blocking(FOUR)
    async with running(blocking, tmp_path, tables='audit_interval = "1s"') as daemon:
        await daemon.until(ALL)
        result = await command(daemon, "pause", "--reason", "by hand")
        assert result.output.startswith("everything is paused until ")
        assert result.output.endswith("(1 h 0 min): nothing is written; lvsctl resume ends it\n")
        daemon.kernel.apply([DeleteRealServer(virtual_server=KEY, key=real_key(4))])  # a hand
        daemon.kernel.writes.clear()
        await blocking.change(*FOUR, instance(5))
        status = await daemon.until_status(lambda status: status.kernel.pending == 2)
        assert status.virtual_servers[0].state is State.PAUSED
        assert status.virtual_servers[0].note.startswith("2 changes to make, but paused by root until")
        shown = await command(daemon, "status")
        assert shown.exit_code == 1
        assert "PAUSED   by root until" in shown.output
        assert "2 changes to make, when the pause is over" in shown.output
        result = await command(daemon, "drain", "app1", "--wait")
        assert result.exit_code == 1
        assert "nothing is written yet: paused by root until" in result.output
        assert "node app1 does not leave now, nothing is written: paused by root" in result.output
        assert (await daemon.status()).virtual_servers[0].serving == 3, "what is drained serves on"
        result = await command(daemon, "release", "reco")
        assert result.exit_code == 8
        assert "nothing can be released: paused by root" in result.output
        result = await command(daemon, "disown", "reco", "--yes")
        assert "whose it is cannot change now: paused by root" in result.output
        await reloaded(daemon)
        assert daemon.kernel.writes == []
    async with running(blocking, tmp_path, daemon.kernel) as again:
        status = await again.until_status(lambda status: status.kernel.pending == 3)
        assert again.kernel.writes == []
        result = await command(again, "resume")
        assert result.output.endswith("(it was by root: by hand): 3 changes to make\n")
        await again.until(table_of(entry(real(2), real(3), real(4), real(5))))
        assert {each["cause"] for each in again.events("real_server_added")} == {"drift", "new"}


async def test_a_pause_of_one_leaves_the_others_alone(tmp_path: Path) -> None:
    blocking = Blocking((instance(1),))
    other = '[virtual_server.shop]\naddress = "10.9.0.101:80"'
    async with running(blocking, tmp_path, lines=(other,)) as daemon:
        await daemon.until_status(lambda status: all(row.serving == 1 for row in status.virtual_servers))
        assert (await command(daemon, "pause", "shop", "--for", "10m")).exit_code == 0
        await blocking.change(instance(1), instance(2))
        status = await daemon.until_status(lambda status: status.virtual_servers[0].serving == 2)
        assert [(row.name, row.serving, row.state) for row in status.virtual_servers] == [
            ("reco", 2, State.OK), ("shop", 1, State.PAUSED),
        ]  # fmt: skip
        assert (await command(daemon, "resume", "shop")).exit_code == 0
        await daemon.until_status(lambda status: all(row.serving == 2 for row in status.virtual_servers))


@pytest.mark.parametrize("words", [("pause",), ("pause", "reco")])
async def test_a_pause_does_not_outlive_what_it_leaves_as_it_is(tmp_path: Path, words: tuple[str, ...]) -> None:
    async with running(Blocking(FOUR), tmp_path) as daemon:
        await daemon.until(ALL)
        assert (await command(daemon, *words, "--for", "24h")).exit_code == 0
    kernel, port = daemon.kernel, port_of(daemon.server)
    async with running(Blocking(FOUR), tmp_path, kernel, port=port) as daemon:
        status = await daemon.until_status(lambda status: status.virtual_servers[0].state is State.PAUSED)
        assert len(status.orders) == 1, "what is there is paused over a restart"
    async with running(Blocking(FOUR), tmp_path, port=port) as daemon:  # the machine was booted
        await daemon.until(ALL)
        assert (await daemon.status()).orders == ()
        (over,) = daemon.events("order_over")
        assert over["why"].startswith("the kernel lost what was paused while lvsctl was away")
        assert decode_orders((tmp_path / FILE).read_bytes()).entries == ()


async def test_a_damaged_file_is_told_until_somebody_has_looked(tmp_path: Path) -> None:
    blocking = Blocking(FOUR)
    async with running(blocking, tmp_path) as daemon:
        await daemon.until(ALL)
        await command(daemon, "drain", "app1")
        await daemon.until(OTHERS)
        port = port_of(daemon.server)
    kept = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(kept[:-3])
    for _ in range(2):  # it is told after another restart, too
        async with running(blocking, tmp_path, daemon.kernel, port=port) as again:
            await again.until(ALL)
            result = await command(again, "status")
            assert result.exit_code == 1
            assert "the orders it kept do not count" in result.output
            assert (tmp_path / ASIDE).read_bytes() == kept[:-3]
    async with running(blocking, tmp_path, daemon.kernel, port=port) as again:
        await again.until_status(lambda status: status.kernel.in_sync_since is not None)
        assert (await command(again, "drain", "app1")).exit_code == 0
        assert "do not count" in (await command(again, "status")).output
        (tmp_path / ASIDE).unlink()
        assert (await command(again, "status")).exit_code == 0


async def test_an_order_that_cannot_be_kept_is_refused(tmp_path: Path) -> None:
    async with running(Blocking(FOUR), tmp_path) as daemon:
        await daemon.until(ALL)
        (tmp_path / "orders.new").mkdir()
        result = await command(daemon, "drain", "app1")
        assert result.exit_code == 8
        assert "nothing was changed" in result.output
        assert (await daemon.status()).orders == ()
        (tmp_path / "orders.new").rmdir()
        assert (await command(daemon, "drain", "app1")).exit_code == 0
        assert (await command(daemon, "status")).exit_code == 0


async def test_where_its_order_cannot_be_ended_nothing_is_released(tmp_path: Path) -> None:
    blocking = Blocking(FOUR)
    async with running(blocking, tmp_path) as daemon:
        await daemon.until(ALL)
        await command(daemon, "hold", "reco")
        await blocking.change(failing(1), *FOUR[1:])
        await daemon.until_status(lambda status: status.virtual_servers[0].state is State.HELD)
        (tmp_path / "orders.new").mkdir()
        result = await command(daemon, "release", "reco", "--yes")
        assert (result.exit_code, "nothing was changed" in result.output) == (8, True), result.output
        assert (await daemon.status()).virtual_servers[0].state is State.HELD
        assert daemon.kernel.observe().table == ALL
        (tmp_path / "orders.new").rmdir()
        assert "1 real server leaves, 3 others serve" in (await command(daemon, "release", "reco", "--yes")).output


async def test_while_the_kernel_cannot_be_read_no_order_is_taken(tmp_path: Path) -> None:
    class Silent(Watched):
        silent = False

        def observe(self, only: Iterable[VirtualServerKey] | None = None) -> Observed:
            """Fail where it is to."""
            if self.silent:
                raise Interrupted("observe", "all virtual servers", "interrupted again and again")
            return super().observe(only)

    kernel = Silent()
    async with running(Blocking(FOUR), tmp_path, kernel) as daemon:
        await daemon.until(ALL)
        kernel.silent = True
        result = await command(daemon, "drain", "app1")
        kernel.silent = False
        assert result.exit_code == 8
        assert "interrupted again and again; nothing was changed" in result.output
        assert not (tmp_path / FILE).exists()


async def test_orders_are_in_the_journal_and_in_the_json(tmp_path: Path) -> None:
    async with running(Blocking(FOUR), tmp_path) as daemon:
        await daemon.until(ALL)
        await command(daemon, "drain", "app1", "--reason", "upgrade")
        await daemon.until(OTHERS)
        await command(daemon, "undrain", "app1")
        await daemon.until(ALL)
        shown = json.loads((await command(daemon, "status", "-o", "json")).output)
        assert (shown["orders"], shown["orders_error"]) == ([], "")
    given, over = (each for each in Reader(tmp_path).read() if each.event.startswith("order"))
    assert (given.event, given.what, given.by, given.why) == ("order", "drain of node app1", "root", "upgrade")
    assert (over.event, over.by, over.why) == ("order_over", "root", "")
    assert sentence(given) == "the drain of node app1 was ordered: by root; upgrade"
    assert sentence(over) == "the drain of node app1 ended: by root"


def test_without_a_daemon_it_says_so(tmp_path: Path) -> None:
    file = tmp_path / "lvsctl.toml"
    file.write_text(
        f'[daemon]\ncontrol_socket = "{tmp_path}/none.sock"\n[virtual_server.reco]\naddress = "10.9.0.100:80"\n'
    )
    for words in (["drain", "app1"], ["drain"], ["undrain", "x"], ["hold", "reco"], ["pause"], ["resume"]):
        result = CliRunner().invoke(lvsctl, [words[0], "-c", str(file), *words[1:]])
        assert result.exit_code == 8, words
        assert "no daemon answers on" in result.output
