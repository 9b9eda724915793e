"""What the settings of net.ipv4.vs mean for a configuration.

Pure. What they do is told in the kernel's Documentation/networking/ipvs-sysctl.rst; that of those that lvsctl may set
is tried in `tests/kernel/test_kernel_settings.py`, that of synchronisation and of defence against floods is not.
"""

from collections.abc import Callable, Iterator
from typing import Final

import attrs

from lvsctl.config import Config
from lvsctl.core.facts import OF_IPVS, Facts, Grade, Reading, Row, Unread, unread
from lvsctl.core.needs import Needs, is_as_wished, wished
from netlink.types import Protocol, SyncRole

ALWAYS: Final = 3  # of drop_entry and drop_packet; 2: for now, as memory is short; 1: when it is


@attrs.frozen(kw_only=True)
class _Judged:
    """How one setting of IPVS is judged: it should be what is `good`, else `why`."""

    name: str
    relevant: bool
    good: Callable[[int], bool]
    should: str = ""
    why: str
    grade: Grade = Grade.FINDING


def _on(number: int) -> bool:
    return number != 0


def _off(number: int) -> bool:
    return number == 0


def _judged(needs: Needs, facts: Facts) -> tuple[_Judged, ...]:
    sync = facts.sync if isinstance(facts.sync, frozenset) else frozenset()
    tcp, backup = Protocol.TCP in needs.protocols, SyncRole.BACKUP in sync
    rate = facts.number(f"{OF_IPVS}am_droprate")
    return (
        _Judged(
            name="expire_nodest_conn",
            relevant=True,
            good=_on,
            should="1",
            why="clients of a deleted real server hang until the kernel forgets them; with 1 they are told",
        ),
        _Judged(
            name="expire_quiescent_template",
            relevant=needs.persistent,
            good=_on,
            should="1",
            why="persistence goes on sending clients to a quiesced real server, so one that fails is deleted at once",
        ),
        _Judged(
            name="conn_reuse_mode",
            relevant=bool(needs.protocols & {Protocol.TCP, Protocol.SCTP}),
            good=_on,
            should="1",
            why="a client that uses a source port again gets the real server it had, not the one that is its turn",
        ),
        _Judged(
            name="conn_reuse_mode",
            relevant=tcp and needs.past_the_director,
            good=lambda number: bool(number & 2),
            why="a client that uses a source port again within two minutes gets the real server it had, with "
            "direct-route and tunnel; 2 chooses anew",
            grade=Grade.NOTE,
        ),
        _Judged(
            name="conntrack",
            relevant=facts.number(f"{OF_IPVS}conntrack") != 0,
            good=_off,
            why="netfilter tracks every connection, too; 0 costs less where no firewall rule asks for their state",
            grade=Grade.NOTE,
        ),
        _Judged(
            name="sloppy_tcp",
            relevant=tcp and (facts.number(f"{OF_IPVS}sloppy_tcp") != 0 or backup),
            good=lambda number: not number or needs.hashing or backup,
            why="a packet of an unknown TCP connection goes to any real server; that helps with sh, mh or a "
            "synchronisation daemon only",
            grade=Grade.NOTE,
        ),
        _Judged(
            name="drop_packet",
            relevant=facts.number(f"{OF_IPVS}drop_packet") >= 2,
            good=lambda number: number < 2,
            should="0",
            why=f"one packet in {rate} is dropped" if facts.number(f"{OF_IPVS}drop_packet") >= ALWAYS
            else "memory is short, and packets are dropped for it",
        ),
        _Judged(
            name="drop_entry",
            relevant=facts.number(f"{OF_IPVS}drop_entry") >= 2,
            good=lambda number: number < 2,
            should="0",
            why="connections that are being set up are forgotten at random"
            + ("" if facts.number(f"{OF_IPVS}drop_entry") >= ALWAYS else ", for memory is short"),
        ),
        _Judged(
            name="pmtu_disc",
            relevant=needs.tunnels,
            good=_on,
            why="what does not fit into a tunnel is cut up instead of refused, so clients never learn of it",
            grade=Grade.NOTE,
        ),
        _Judged(
            name="run_estimation",
            relevant=True,
            good=_on,
            should="1",
            why="traffic is not counted: status and metrics show no rates",
        ),
        _Judged(
            name="backup_only",
            relevant=backup and needs.past_the_director,
            good=_on,
            why="a backup that is a real server, too, balances again what the master sent it; with 1 it does not",
            grade=Grade.NOTE,
        ),
        _Judged(
            name="sync_version",
            relevant=bool(sync),
            good=_on,
            should="1",
            why="the old format of synchronisation carries neither IPv6 nor firewall marks",
        ),
        _Judged(
            name="sync_persist_mode",
            relevant=bool(sync) and needs.persistent,
            good=_off,
            why="connections with persistence are not synchronised; only sloppy_tcp = 1 carries them over a takeover",
            grade=Grade.NOTE,
        ),
    )  # fmt: skip


def of_ipvs(config: Config, needs: Needs, facts: Facts) -> Iterator[Row]:
    """Yield a row for each setting of IPVS that is judged and that this kernel has, or that is named in [kernel]."""
    opted = wished(config.kernel)
    rows: dict[str, Row] = {}
    for judged in _judged(needs, facts):
        reading = facts.settings.get(OF_IPVS + judged.name)
        if judged.name in opted:
            row = _by_lvsctl(judged, reading, opted[judged.name], facts)
        elif reading is not None:
            row = _row(judged, reading)
        else:
            continue
        known = rows.get(judged.name)
        if known is None or (known.grade is Grade.FINE and row.relevant):
            rows[judged.name] = row
    yield from rows.values()


def _row(judged: _Judged, reading: int | str | Unread) -> Row:
    name = OF_IPVS + judged.name
    if not isinstance(reading, int):
        return unread(name, reading, relevant=judged.relevant)
    if judged.good(reading) or not judged.relevant:
        return Row(setting=name, value=str(reading), relevant=judged.relevant)
    return Row(setting=name, value=str(reading), should=judged.should, why=judged.why, grade=judged.grade)


def _by_lvsctl(judged: _Judged, reading: Reading, wanted: int, facts: Facts) -> Row:
    """Return the row of a setting that is named in [kernel]: what is written there counts, and is judged, too."""
    name = OF_IPVS + judged.name
    if reading is None:
        why = "[kernel] names it, and this kernel has no such setting"
        return Row(setting=name, value="", should=str(wanted), why=why, grade=Grade.FINDING, by_lvsctl=True)
    if not isinstance(reading, int):
        return attrs.evolve(unread(name, reading, relevant=True), should=str(wanted), by_lvsctl=True)
    bad = judged.relevant and not judged.good(wanted)
    but = f"; but {judged.why}" if bad else ""
    row = Row(setting=name, value=str(reading), should=str(wanted), by_lvsctl=True, grade=Grade.NOTE)
    if not is_as_wished(judged.name, reading, wanted):
        if facts.read_only and not facts.daemon:
            why = f"[kernel] names it, and /proc/sys is read-only here, so lvsctl run could not set it{but}"
            return attrs.evolve(row, why=why, grade=Grade.FINDING)
        if not facts.daemon:
            return attrs.evolve(row, why=f"lvsctl run sets it ([kernel]){but}")
        why = f"lvsctl sets it ([kernel]) within an audit; where it cannot, its log has setting_failed{but}"
        return attrs.evolve(row, why=why, grade=Grade.FINDING)
    grade = Grade.NOTE if bad else Grade.FINE
    return attrs.evolve(row, should=str(reading), why=f"set by lvsctl ([kernel]){but}", grade=grade)


def others_of_ipvs(needs: Needs, facts: Facts) -> Iterator[Row]:
    """Yield what else there is; of synchronisation it matters where that runs."""
    judged = {OF_IPVS + each.name for each in _judged(needs, facts)}
    synced = isinstance(facts.sync, frozenset) and bool(facts.sync)
    match facts.sync:
        case Unread(why=why):
            yield Row(setting="synchronisation daemon", value="", why=f"it cannot be read: {why}", grade=Grade.NOTE)
        case roles:
            names = ", ".join(sorted(role.name.lower() for role in roles))
            yield Row(setting="synchronisation daemon", value=names or "none", relevant=synced)
    for name in sorted(facts.settings):
        if name.startswith(OF_IPVS) and name not in judged:
            reading, relevant = facts.settings[name], synced and name.startswith(f"{OF_IPVS}sync_")
            if isinstance(reading, Unread):
                yield unread(name, reading, relevant=relevant)
            else:
                yield Row(setting=name, value=" ".join(str(reading).split()), relevant=relevant)
