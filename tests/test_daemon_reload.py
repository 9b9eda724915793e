"""Reloads of a daemon whole, but for the kernel: what is shown, refused, taken back, and what a restart makes of it."""

import asyncio
import os
import signal
from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import attrs
import pytest
from aiohttp import web

import lvsctl.daemon
from lvsctl import control, preview, reloading
from lvsctl.cli.run import _config
from lvsctl.config import Config
from lvsctl.configfile import load
from lvsctl.configuration_kept import FILE, ConfigurationKept
from lvsctl.core.order import Wish
from lvsctl.core.reload import Ask, Became, Order, Reloaded
from lvsctl.core.status import Status
from lvsctl.errors import ConfigError, DaemonError
from lvsctl.journal import Reader
from lvsctl.preview import Preview
from lvsctl.reloading import Reloading
from netlink.errors import Interrupted
from netlink.types import Observed, Protocol, VirtualServerKey
from tests.consul.server import Blocking
from tests.test_daemon import Running, Watched, _signals, port_of, running
from tests.values import VIP, entry, instance, real, table_of

__all__ = ["_signals"]  # a fixture

OTHER = VirtualServerKey.by_address(Protocol.TCP, VIP, 81)
RECO, SHOP = (instance(1), instance(2)), (instance(11), instance(12))
TWO = '[virtual_server.reco]\naddress = "10.9.0.100:80"\n[virtual_server.shop]\naddress = "10.9.0.100:81"\n'
RECO_ALONE = TWO.partition("[virtual_server.shop]")[0]
IDLE = '[virtual_server.idle]\naddress = "10.9.0.100:99"\n'
FAST = TWO.replace(":80", ':80"\nscheduler = "rr').replace(":81", ':81"\nscheduler = "rr')
BOTH = table_of(entry(real(1), real(2)), entry(real(11), real(12), key=OTHER))
RR = table_of(entry(real(1), real(2), scheduler="rr"), entry(real(11), real(12), key=OTHER, scheduler="rr"))


@attrs.define
class Services:
    """A Consul with two services; others it has none of, or does not answer for."""

    silent: frozenset[str] = frozenset()
    has: dict[str, Blocking] = attrs.field(factory=lambda: {"reco": Blocking(RECO), "shop": Blocking(SHOP)})

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        name = request.path.rpartition("/")[2]
        if name in self.silent:
            return web.Response(status=500, text="No path to datacenter")
        return await self.has.setdefault(name, Blocking(()))(request)


async def order(daemon: Running, ask: Ask = Ask.RELOAD, **changes: object) -> Reloaded:
    """Return what became of `lvsctl reload`."""
    wish = attrs.evolve(Order(ask=ask), **changes)  # type: ignore[arg-type]
    return await asyncio.to_thread(control.reload, daemon.file.parent / "control.sock", wish)


def write(daemon: Running, virtual_servers: str) -> None:
    """Have other virtual servers in the daemon's file."""
    head = daemon.file.read_text().partition("[virtual_server.")[0]
    daemon.file.write_text(head + virtual_servers)


async def hang_up(daemon: Running) -> None:
    """Send SIGHUP, and wait until the daemon said what it made of it."""
    before = len(daemon.events("reloaded") + daemon.events("reload_refused"))
    os.kill(os.getpid(), signal.SIGHUP)
    while len(daemon.events("reloaded") + daemon.events("reload_refused")) == before:
        await daemon.status()


async def both_serve(daemon: Running) -> None:
    """Have both virtual servers in the file and in the kernel."""
    write(daemon, TWO)
    assert (await order(daemon)).became is Became.USED
    await daemon.until(BOTH)


def journal(directory: Path) -> list[str]:
    return [each.event for each in Reader(directory).read()]


async def test_it_shows_what_it_changes_and_is_used(tmp_path: Path) -> None:
    async with running(Services(), tmp_path) as daemon:
        await both_serve(daemon)
        write(daemon, FAST)
        seen = await order(daemon, dry_run=True)
        assert seen.became is Became.PLANNED
        assert [(each.sign, each.name, each.what, each.differs) for each in seen.lines] == [
            ("change", "reco", "scheduler wlc -> rr", True),
            ("change", "shop", "scheduler wlc -> rr", True),
        ]
        assert (seen.virtual_servers, seen.real_servers, seen.complete, seen.why) == (2, 4, True, "")
        assert daemon.kernel.observe().table == BOTH
        assert len(daemon.events("reloaded")) == 1
        assert await order(daemon) == attrs.evolve(seen, became=Became.USED)
        await daemon.until(RR)
        assert daemon.events("reloaded")[-1]["by"].endswith(f", pid {os.getpid()}")
        assert (await order(daemon)).lines == ()


async def test_what_is_new_is_asked_of_consul_before_it_is_shown(tmp_path: Path) -> None:
    async with running(Services(), tmp_path) as daemon:
        await daemon.until(table_of(entry(real(1), real(2))))
        write(daemon, TWO)
        seen = await order(daemon, dry_run=True)
        assert [(each.sign, each.real_server) for each in seen.lines if each.name == "shop"] == [
            ("add", None),
            ("add", "10.0.0.11:8080"),
            ("add", "10.0.0.12:8080"),
        ]


async def test_what_consul_does_not_answer_for_is_said_and_left_alone(tmp_path: Path) -> None:
    async with running(Services(silent=frozenset({"gone"})), tmp_path) as daemon:
        await both_serve(daemon)
        write(daemon, TWO + 'consul_service = "gone"\n')
        became = await order(daemon)
        assert (became.became, became.complete) == (Became.USED, False)
        (line,) = became.lines
        assert (line.name, line.what, line.cause) == ("shop", "unknown", "unknown")
        assert "No path to datacenter" in line.why
        assert daemon.kernel.observe().table == BOTH


async def test_what_may_be_a_mass_removal_for_all_that_consul_says_is_refused(tmp_path: Path) -> None:
    services = Services(silent=frozenset({"slow"}))
    async with running(services, tmp_path) as daemon:
        await both_serve(daemon)
        write(
            daemon,
            TWO.replace(':80"', ':80"\nconsul_service = "slow"').replace(':81"', ':81"\nconsul_service = "slow"'),
        )
        became = await order(daemon)
        assert became.became is Became.REFUSED
        assert became.why.startswith(
            "what becomes of 2 of 2 virtual servers (reco, shop) is not known, for Consul does "
        )
        assert became.why.endswith("; if that is meant: lvsctl reload --allow-remove")
        services.has["slow"], services.silent = Blocking((instance(50),)), frozenset()
        assert "2 virtual servers" not in (await order(daemon)).why, "it is known now"
        await order(daemon, dry_run=True)
        assert daemon.kernel.observe().table == BOTH
        services.silent = frozenset({"slow"})
        assert (await order(daemon, allow_remove=True)).became is Became.USED


async def test_consul_has_so_long_and_no_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preview, "PATIENCE", 0.2)
    services = Services()
    async with running(services, tmp_path) as daemon:
        await both_serve(daemon)
        services.has["slow"] = Blocking((), index=0)  # what is asked without an index waits for another one
        write(daemon, TWO + 'consul_service = "slow"\n')
        became = await order(daemon, dry_run=True)
        assert [each.what for each in became.lines] == ["unknown"]
        assert "did not answer within" in became.lines[0].why


async def test_a_bad_file_is_told_whole_and_the_good_one_stays(tmp_path: Path) -> None:
    async with running(Services(), tmp_path) as daemon:
        await both_serve(daemon)
        write(daemon, TWO + 'scheduler = "x"\nwieght = 3\n')
        for dry_run in (True, False):
            became = await order(daemon, dry_run=dry_run)
            assert became.became is Became.INVALID
            assert [each.split(": ")[1] for each in became.problems] == [
                "virtual_server.shop.scheduler",
                "virtual_server.shop.wieght",
            ]
            assert all(each.startswith(f"{daemon.file}:") for each in became.problems)
            assert (await daemon.status()).config_error == ("" if dry_run else "\n".join(became.problems))
        assert daemon.kernel.observe().table == BOTH


@pytest.mark.parametrize(
    ("virtual_servers", "said"),
    [
        (IDLE, "2 of 2 virtual servers (reco, shop) and 4 of 4 real servers"),
        (
            TWO.replace(':80"', ':80"\nconsul_service = "shop"').replace(':81"', ':81"\nconsul_service = "reco"'),
            "4 of 4",
        ),
    ],
)
async def test_a_mass_removal_is_refused_until_it_is_allowed(tmp_path: Path, virtual_servers: str, said: str) -> None:
    async with running(Services(), tmp_path) as daemon:
        await both_serve(daemon)
        daemon.kernel.writes.clear()
        write(daemon, virtual_servers)
        assert said in (await order(daemon, dry_run=True)).why
        assert (await daemon.status()).config_error == ""
        became = await order(daemon)
        assert became.became is Became.REFUSED
        assert said in became.why
        assert became.why.endswith("now serving; if that is meant: lvsctl reload --allow-remove")
        await hang_up(daemon)
        status = await daemon.status()
        assert (status.config_error, status.rolled_back) == (became.why, False)
        assert [each["problem"] for each in daemon.events("reload_refused")] == [became.why] * 2
    assert daemon.kernel.writes == []
    assert journal(tmp_path).count("reload_refused") == 2
    async with running(Services(), tmp_path, daemon.kernel) as daemon:  # with the first file again
        await both_serve(daemon)
        write(daemon, virtual_servers)
        assert (await order(daemon, allow_remove=True)).became is Became.USED
        assert (await daemon.status()).config_error == ""
        assert len(daemon.events("reload_refused")) == 0
        while any(key in daemon.kernel.observe().table and serving(daemon, key) & old for key, old in LEAVE):
            await daemon.status()


LEAVE = (((BOTH.keys() - {OTHER}).pop(), {real(1).key, real(2).key}), (OTHER, {real(11).key, real(12).key}))


def serving(daemon: Running, key: VirtualServerKey) -> set[object]:
    return {server.key for server in daemon.kernel.observe().table[key].real_servers.values() if server.weight}


async def test_half_may_go_unasked(tmp_path: Path) -> None:
    async with running(Services(), tmp_path) as daemon:
        await both_serve(daemon)
        write(daemon, RECO_ALONE)
        await hang_up(daemon)
        await daemon.until(table_of(entry(real(1), real(2))))
        assert daemon.events("reload_refused") == []


async def test_what_cannot_be_judged_is_refused(tmp_path: Path) -> None:
    class Broken(Watched):
        broken = False

        def observe(self, only: Iterable[VirtualServerKey] | None = None) -> Observed:
            """Fail, or not."""
            if self.broken:
                raise Interrupted("read", "the table", "changed all the time")
            return super().observe(only)

    kernel = Broken()
    async with running(Services(), tmp_path, kernel) as daemon:
        await both_serve(daemon)
        write(daemon, FAST)
        kernel.broken = True
        became = await order(daemon)
        kernel.broken = False
        assert became.became is Became.REFUSED
        assert became.why.startswith("what it would take away is not known: ")
        assert (await order(daemon)).became is Became.USED


async def test_another_file_than_the_daemons_is_not_what_it_reads(tmp_path: Path) -> None:
    async with running(Services(), tmp_path) as daemon:
        other, link = tmp_path / "other.toml", tmp_path / "link.toml"
        other.write_text(RECO_ALONE)
        link.symlink_to(daemon.file)
        with pytest.raises(DaemonError, match=r"started with .*/lvsctl.toml, not with .*/other.toml"):
            await order(daemon, file=str(other))
        with pytest.raises(DaemonError, match="started with"):
            await order(daemon, file="/no\0path")
        assert daemon.events("reloaded") == []
        assert (await order(daemon, file=str(link))).became is Became.USED


# ---- to be confirmed


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the time to confirm be short."""
    monkeypatch.setattr(reloading, "SHORTEST", 0.0)


def pending(status: Status) -> bool:
    return status.confirm_until is not None


async def test_what_is_confirmed_stays_over_a_restart(tmp_path: Path) -> None:
    async with running(Services(), tmp_path) as daemon:
        await both_serve(daemon)
        write(daemon, FAST)
        became = await order(daemon, confirm=60.0)
        status = await daemon.status()
        assert status.confirm_until == became.until
        assert became.until is not None
        assert 55 < became.until - status.time <= 60
        await daemon.until(RR)
        assert (await order(daemon, Ask.KEEP)).became is Became.CONFIRMED
        assert not pending(await daemon.status())
        with pytest.raises(DaemonError, match=r"^nothing is to be confirmed$"):
            await order(daemon, Ask.KEEP)
        file = daemon.file.read_text()
    events = journal(tmp_path)
    assert events.index("reloaded") < events.index("reload_confirmed")
    daemon.kernel.writes.clear()
    async with restarted(daemon, file) as daemon:
        assert not (await daemon.status()).config_error
    assert daemon.kernel.writes == []
    assert daemon.kernel.observe().table == RR


@pytest.mark.usefixtures("quick")
async def test_what_nobody_confirms_is_taken_back(tmp_path: Path) -> None:
    async with running(Services(), tmp_path) as daemon:
        await both_serve(daemon)
        write(daemon, FAST)
        assert pending(await daemon.status()) is False
        await order(daemon, confirm=0.5)
        await daemon.until(RR)
        await daemon.until(BOTH)
        status = await daemon.until_status(lambda status: status.rolled_back)
        assert status.confirm_until is None
        assert status.config_error.startswith("not confirmed within 0.5 s, taken back at ")
        assert status.config_error.endswith(f"; lvsctl reload takes {daemon.file} as it is then")
        with pytest.raises(DaemonError, match=r"^nothing is to be confirmed; the last one was rolled back: not conf"):
            await order(daemon, Ask.KEEP)
        (told,) = daemon.events("reload_rolled_back")
        assert told["why"] == status.config_error
        await hang_up(daemon)  # who asks for it again gets it
        await daemon.until(RR)
        status = await daemon.status()
        assert (status.config_error, status.rolled_back) == ("", False)
    assert "reload_rolled_back" in journal(tmp_path)


async def test_it_is_taken_back_at_once_where_somebody_says_so(tmp_path: Path) -> None:
    async with running(Services(), tmp_path) as daemon:
        await both_serve(daemon)
        write(daemon, RECO_ALONE)
        await order(daemon, confirm=60.0)
        await daemon.until(table_of(entry(real(1), real(2))))
        became = await order(daemon, Ask.REVERT)
        assert became.became is Became.REVERTED
        assert became.why.startswith("reverted by ")
        await daemon.until(BOTH)
        assert (await daemon.status()).rolled_back


async def test_while_it_is_to_be_confirmed_only_another_such_one_is_taken(tmp_path: Path) -> None:
    async with running(Services(), tmp_path) as daemon:
        await both_serve(daemon)
        write(daemon, FAST)
        first = await order(daemon, confirm=60.0)
        write(daemon, RECO_ALONE)
        with pytest.raises(DaemonError, match=r"is to be confirmed until .*: lvsctl reload --keep, or --revert"):
            await order(daemon)
        await hang_up(daemon)
        assert "is to be confirmed until" in daemon.events("reload_refused")[-1]["problem"]
        status = await daemon.status()
        assert (status.confirm_until, status.config_error) == (first.until, "")
        assert (await order(daemon, dry_run=True)).became is Became.PLANNED
        second = await order(daemon, confirm=120.0)
        assert second.until is not None
        assert first.until is not None
        assert second.until > first.until + 50
        await daemon.until(table_of(entry(real(1), real(2))))
        write(daemon, IDLE)
        assert (await order(daemon, confirm=60.0)).became is Became.REFUSED
        assert (await daemon.status()).confirm_until == second.until
        await order(daemon, Ask.REVERT)
        await daemon.until(BOTH)  # what was confirmed last, not what was tried first


async def test_who_answers_for_one_reload_neither_keeps_nor_reverts_another(tmp_path: Path) -> None:
    async with running(Services(), tmp_path) as daemon:
        await both_serve(daemon)
        write(daemon, FAST)
        mine = await order(daemon, confirm=60.0)
        write(daemon, RECO_ALONE)
        theirs = await order(daemon, confirm=60.0)
        assert mine.until is not None
        for ask in (Ask.KEEP, Ask.REVERT):
            with pytest.raises(
                DaemonError, match="that was for a reload before; somebody has reloaded since: the conf"
            ):
                await order(daemon, ask, of=mine.until)
        assert (await daemon.status()).confirm_until == theirs.until
        write(daemon, TWO)
        kept = await order(daemon, Ask.KEEP, of=theirs.until)
        assert (kept.became, kept.notes) == (Became.CONFIRMED, (reloading.CHANGED_SINCE,))


@pytest.mark.parametrize("seconds", [0.0, 4.9, 3601.0, float("nan"), -1.0])
async def test_the_time_to_confirm_has_bounds(tmp_path: Path, seconds: float) -> None:
    async with running(Services(), tmp_path) as daemon:
        with pytest.raises(DaemonError, match="s to confirm in; the time is 5 s to 3600 s"):
            await order(daemon, confirm=seconds)
        assert not pending(await daemon.status())


async def test_a_drain_that_is_shorter_than_the_time_to_confirm_is_noted(tmp_path: Path) -> None:
    async with running(Services(), tmp_path) as daemon:
        await both_serve(daemon)
        write(daemon, RECO_ALONE)
        became = await order(daemon, dry_run=True, confirm=60.0)
        assert became.notes == (
            "shop: drain_timeout is over before the time to confirm: what leaves may be gone by then",
        )
        assert (await order(daemon, dry_run=True, confirm=20.0)).notes == ()


async def test_what_there_is_to_go_back_to_is_on_disk_first(tmp_path: Path) -> None:
    async with running(Services(), tmp_path) as daemon:
        await both_serve(daemon)
        (tmp_path / FILE).unlink()
        (tmp_path / FILE).mkdir()
        write(daemon, FAST)
        with pytest.raises(DaemonError, match=r"cannot be written down, so nothing was changed: .*: is a directory"):
            await order(daemon, confirm=60.0)
        assert daemon.kernel.observe().table == BOTH
        (tmp_path / FILE).rmdir()
        await order(daemon, confirm=60.0)
        (tmp_path / FILE).unlink()
        (tmp_path / FILE).mkdir()
        with pytest.raises(DaemonError, match="not confirmed, for a restart would not know of it"):
            await order(daemon, Ask.KEEP)
        assert pending(await daemon.status())
        (tmp_path / FILE).rmdir()
        assert (await order(daemon, Ask.KEEP)).became is Became.CONFIRMED
        assert daemon.events("configuration_kept_failed")


async def test_what_orders_make_of_it_is_noted(tmp_path: Path) -> None:
    async with running(Services(), tmp_path) as daemon:
        await both_serve(daemon)
        for wish in (Wish(order="hold", target="reco"), Wish(order="pause", target="shop", reason="by hand")):
            await asyncio.to_thread(control.order, tmp_path / "control.sock", wish)
        write(daemon, FAST.replace("virtual_server.reco]", 'virtual_server.other]\nconsul_service = "reco"'))
        hold, pause = sorted((await order(daemon, dry_run=True)).notes)
        assert hold == "hold of reco does nothing any more: the file has no virtual server of that name"
        assert pause.startswith("shop: nothing is written yet: paused by root until ")
        await asyncio.to_thread(control.order, tmp_path / "control.sock", Wish(order="pause"))
        first, _ = (await order(daemon)).notes
        assert first.startswith("nothing is written yet: everything is paused by root until ")
        assert daemon.kernel.observe().table == BOTH


async def test_reloads_at_once_take_turns(tmp_path: Path) -> None:
    async with running(Services(), tmp_path) as daemon:
        await both_serve(daemon)
        write(daemon, FAST)
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGHUP)
        outcomes = await asyncio.gather(*(order(daemon) for _ in range(5)))
        assert {each.became for each in outcomes} == {Became.USED}
        await daemon.until(RR)
        await hang_up(daemon)
        assert 7 <= len(daemon.events("reloaded")) <= 9  # two signals in a row may be one


# ---- over a restart


def restarted(daemon: Running, text: str) -> AbstractAsyncContextManager[Running]:
    """Run a daemon again with the file `text`, on the kernel and the Consul of before."""
    file = daemon.file
    return running(
        Services(), file.parent, daemon.kernel, port=int(daemon.server.address.rpartition(":")[2]), text=text
    )


async def test_a_start_goes_back_to_what_was_confirmed(tmp_path: Path) -> None:
    async with running(Services(), tmp_path) as daemon:
        await both_serve(daemon)
        write(daemon, FAST)
        await order(daemon, confirm=60.0)
        await daemon.until(RR)
        file = daemon.file.read_text()
    for _ in range(2):
        async with restarted(daemon, file) as daemon:
            await daemon.until(BOTH)
            status = await daemon.status()
            assert (status.rolled_back, status.confirm_until) == (True, None)
            assert status.config_error == "not confirmed before lvsctl ended, so the start did not use it"
            assert len(daemon.events("reload_rolled_back")) == 1
    async with restarted(daemon, file) as daemon:
        await order(daemon)
        await daemon.until(RR)
    async with restarted(daemon, file) as daemon:
        assert (await daemon.status()).config_error == ""
    assert daemon.kernel.observe().table == RR


async def test_a_refusal_meanwhile_does_not_make_a_start_forget_what_was_to_be_confirmed(tmp_path: Path) -> None:
    async with running(Services(), tmp_path) as daemon:
        await both_serve(daemon)
        write(daemon, FAST)
        await order(daemon, confirm=60.0)
        write(daemon, IDLE)
        await order(daemon, confirm=60.0)
        write(daemon, FAST)
        file = daemon.file.read_text()
    async with restarted(daemon, file) as daemon:
        await daemon.until(BOTH)
        assert (await daemon.status()).rolled_back


async def test_a_start_with_nearly_nothing_left_in_the_file_keeps_what_was(tmp_path: Path) -> None:
    async with running(Services(), tmp_path) as daemon:
        await both_serve(daemon)
        write(daemon, IDLE)
        file = daemon.file.read_text()
    daemon.kernel.writes.clear()
    for _ in range(2):
        async with restarted(daemon, file) as daemon:
            await daemon.until_status(lambda status: status.kernel.in_sync_since is not None)
            status = await daemon.status()
            assert [row.name for row in status.virtual_servers] == ["reco", "shop"]
            assert "take away 2 of 2 virtual servers (reco, shop) and 4 of 4 real" in status.config_error
            assert not status.rolled_back
            assert len(daemon.events("reload_refused")) == 1
    assert daemon.kernel.writes == []
    async with restarted(daemon, file) as daemon:
        await daemon.until_status(lambda status: status.kernel.in_sync_since is not None)
        assert (await order(daemon)).became is Became.REFUSED
        assert (await order(daemon, allow_remove=True)).became is Became.USED
        await daemon.until(table_of(entry(key=VirtualServerKey.by_address(Protocol.TCP, VIP, 99))))


async def test_a_start_that_keeps_what_was_asks_the_consul_of_before(tmp_path: Path) -> None:
    async with running(Services(), tmp_path) as daemon:
        await both_serve(daemon)
        write(daemon, IDLE)
        file = daemon.file.read_text().replace(daemon.server.address, "http://127.0.0.1:1")
        address = daemon.server.address
    async with restarted(daemon, file) as daemon:
        await daemon.until_status(lambda status: status.kernel.in_sync_since is not None)
        status = await daemon.status()
        assert status.consul is not None
        assert (status.consul.address, status.consul.failing) == (address, 0)
        assert status.config_error


async def test_a_start_with_another_file_uses_it(tmp_path: Path) -> None:
    async with running(Services(), tmp_path) as daemon:
        await both_serve(daemon)
        write(daemon, RECO_ALONE.replace(":80", ':80"\nscheduler = "rr'))
        file = daemon.file.read_text()
    async with restarted(daemon, file) as daemon:
        await daemon.until(table_of(entry(real(1), real(2), scheduler="rr")))
        assert (await daemon.status()).config_error == ""


NOBODYS = tuple(attrs.evolve(each, tags=("v2",) if each is RECO[0] else ()) for each in RECO)
FEW = TWO.replace(':80"', ':80"\ntags = ["v2"]').replace(':81"', ':81"\nconsul_service = "few"')


async def test_a_start_whose_file_takes_most_away_is_judged_before_anything_is_written(tmp_path: Path) -> None:
    services = Services()
    services.has |= {"reco": Blocking(NOBODYS), "few": Blocking((instance(50),))}
    async with running(services, tmp_path) as daemon:
        await both_serve(daemon)
        write(daemon, FEW)
        file = daemon.file.read_text()
    daemon.kernel.writes.clear()
    port = port_of(daemon.server)
    for _ in range(2):
        async with running(services, tmp_path, daemon.kernel, port=port, text=file) as daemon:
            status = await daemon.until_status(lambda status: status.kernel.in_sync_since is not None)
            assert status.config_error == (
                "it would take away 3 of 4 real servers now serving; if that is meant: lvsctl reload --allow-remove"
            )
            assert [row.serving for row in status.virtual_servers] == [2, 2]
            assert len(daemon.events("reload_refused")) == 1
        assert daemon.kernel.writes == []
    async with running(services, tmp_path, daemon.kernel, port=port, text=file) as daemon:
        assert (await order(daemon, allow_remove=True)).became is Became.USED
        await daemon.until(table_of(entry(real(1)), entry(real(50), key=OTHER)))
    async with running(services, tmp_path, daemon.kernel, port=port, text=file) as daemon:
        assert (await daemon.until_status(lambda status: bool(status.virtual_servers))).config_error == ""


async def test_a_start_with_a_bad_file_goes_on_with_what_was(tmp_path: Path) -> None:
    services = Services()
    async with running(services, tmp_path) as daemon:
        await both_serve(daemon)
        good = daemon.file.read_text()
    port, bad = port_of(daemon.server), good + "wieght = 3\n"
    for kernel in (daemon.kernel, Watched()):  # as it was, and as after a reboot
        async with running(services, tmp_path, kernel, port=port, text=bad, begin=_config) as again:
            await again.until(BOTH)
            status = await again.status()
            assert "virtual_server.shop.wieght" in status.config_error
            (refused,) = again.events("reload_refused")
            assert refused["kept"] == "the old configuration"
            again.file.write_text(good)
            assert (await order(again)).became is Became.USED
            assert (await again.status()).config_error == ""
    typo = tmp_path / "lvsclt.toml"
    typo.write_text(bad)
    with pytest.raises(ConfigError, match="wieght"):
        _config(typo)
    (tmp_path / FILE).unlink()
    daemon.file.write_text(bad)
    with pytest.raises(ConfigError, match="wieght"):
        _config(daemon.file)


@pytest.mark.unexpected
async def test_an_error_that_nobody_expected_keeps_no_start_from_its_file(tmp_path: Path) -> None:
    async def broken(_config: Config, _before: Config) -> Preview:
        raise ZeroDivisionError("deep inside")

    file = tmp_path / "lvsctl.toml"
    file.write_text(f'[daemon]\nstate_directory = "{tmp_path}"\n{RECO_ALONE}')
    ConfigurationKept(tmp_path).take(f'[daemon]\nstate_directory = "{tmp_path}"\n{TWO}')
    begun = Reloading(
        file,
        load(file),
        look=broken,
        look_back=broken,
        served=dict,
        take=lambda: None,
        over=lambda: None,
        note=lambda _: None,
        dry_run=False,
    )
    assert not begun.start()
    assert begun.is_unjudged
    await begun.judge()
    assert (begun.is_unjudged, begun.error) == (False, "")


async def test_a_start_is_judged_as_soon_as_consul_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lvsctl.daemon, "WITH_SNAPSHOT", 0.1)
    services = Services()
    services.has |= {"reco": Blocking(NOBODYS), "few": Blocking((instance(50),))}
    async with running(services, tmp_path) as daemon:
        await both_serve(daemon)
        write(daemon, FEW)
        file = daemon.file.read_text()
    services.silent = frozenset({"reco", "few"})
    async with running(services, tmp_path, daemon.kernel, port=port_of(daemon.server), text=file) as daemon:
        await daemon.until_status(lambda _: bool(daemon.events("consul_incomplete")))
        assert (await daemon.status()).config_error == ""
        said = [(each.name, each.what, each.why) for each in (await order(daemon, dry_run=True)).lines]
        assert said[0] == ("reco", "unknown", "Consul has not answered for it since lvsctl was started")
        services.silent = frozenset()
        status = await daemon.until_status(lambda status: bool(status.config_error))
        assert "3 of 4 real servers" in status.config_error
        await daemon.until(BOTH)  # what the first answer took away is back, and counted for the second


@pytest.mark.parametrize("content", [b"", b"nonsense", b"lvsctl-configuration 1 0\n{}"])
async def test_without_what_was_kept_the_file_is_all_there_is(tmp_path: Path, content: bytes) -> None:
    async with running(Services(), tmp_path) as daemon:
        await both_serve(daemon)
        write(daemon, FAST)
        await order(daemon, confirm=60.0)
        await daemon.until(RR)
        file = daemon.file.read_text()
    (tmp_path / FILE).write_bytes(content)
    async with restarted(daemon, file) as daemon:
        await daemon.until_status(lambda status: status.kernel.in_sync_since is not None)
        assert (await daemon.status()).config_error == ""
        assert len(daemon.events("configuration_kept_ignored")) == 1
    assert daemon.kernel.observe().table == RR


async def test_a_dry_run_keeps_nothing_and_reloads(tmp_path: Path) -> None:
    async with running(Services(), tmp_path, dry_run=True) as daemon:
        write(daemon, FAST)
        os.kill(os.getpid(), signal.SIGHUP)
        while not daemon.events("reloaded"):
            await asyncio.to_thread(daemon.kernel.observe)  # a turn of the loop
    assert not (tmp_path / FILE).exists()
    assert daemon.kernel.writes == []
