"""Reads the table by dumps, and remembers the last it has read.

Dumps are not snapshots. The kernel fills one datagram under its lock and lets writers in between two of them, and it
does not say so (no NLM_F_DUMP_INTR): an entry may be left out or come twice. So:

- a dump of real servers that came in one datagram is true; one that came in several is taken until two in a row agree;
- virtual servers are dumped before and after all their real servers; both dumps must have the same virtual servers.
  The second is cut into datagrams at other places. Cut at the same ones, a writer at the same place in both hides the
  same entries in both: that was seen, once in a thousand reads beside a busy writer.

Otherwise everything is read again, a few times, then Interrupted. What this cannot see is a virtual server deleted and
created again between the two dumps, whose real servers were read in between as none: a reader who finds something
absent looks a second time before writing. Source: net/netlink/af_netlink.c, net/netfilter/ipvs/ip_vs_ctl.c.

A table hardly differs from the one that was read before. Where a datagram is the same bytes as the last time, what it
means is known and the same values are given again. Where only counters differ, only counters are made anew.

A glance at the table takes its virtual servers from a dump as well, and real servers from `sockopt`, which is quicker;
where that does not show them, from dumps too.
"""

import errno
from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from typing import Final, TypeVar

import attrs

from netlink import codec
from netlink.bulk import Decoder, Piece
from netlink.channel import Channel, Disturbed, dump_request
from netlink.errors import Interrupted, NetlinkError, Refused, Unavailable
from netlink.glance import Glance
from netlink.sockopt import Hidden, RealServers, Sockopt, key_of
from netlink.types import (
    Family,
    Observed,
    RealServer,
    RealServerKey,
    RealServerUsage,
    SyncDaemon,
    TableEntry,
    Traffic,
    VirtualServer,
    VirtualServerKey,
)

SECOND_DATAGRAM: Final = 18_000  # bytes; no divisor of DATAGRAM, nor of the 32 KiB that the kernel makes of it
_ATTEMPTS: Final = 5

T = TypeVar("T")


@attrs.frozen
class _Services:
    """Virtual servers as they were read: the bytes, and what those mean, in one order."""

    datagrams: list[bytes]
    settings: list[bytes]
    virtual_servers: list[VirtualServer]
    traffic: list[Traffic]


@attrs.frozen
class _Destinations:
    """The real servers of one virtual server as they were read, likewise."""

    request: bytes
    datagrams: list[bytes]
    settings: list[bytes]
    real_servers: list[RealServer]
    entry: TableEntry
    usage: Mapping[RealServerKey, RealServerUsage]


class Reader:
    """Reads the table of the namespace that the channels and `sockopt` are in; `family` is IPVS's number there.

    `second` receives into `SECOND_DATAGRAM` bytes. Without `sockopt` glances cost what dumps do.
    """

    def __init__(self, channel: Channel, second: Channel, family: int, sockopt: Sockopt | None = None) -> None:
        self._channel = channel
        self._second = second
        self._sockopt = sockopt
        self._family = family
        self._service = codec.service_decoder()
        self._destination = codec.destination_decoder()
        self._daemon = codec.daemon_decoder()
        self._request = dump_request(family, codec.GET_SERVICE, codec.VERSION)
        self._before = self._after = _Services([], [], [], [])
        self._read: dict[VirtualServerKey, _Destinations] = {}
        self._long: dict[VirtualServerKey, _Destinations] = {}  # the lists of several datagrams that were asked for
        self._whole: tuple[_Services, Observed] | None = None  # of `_after` and `_read`, the last that agreed
        self._hidden: dict[VirtualServerKey, _Destinations] = {}  # from `sockopt`, as the last glance read them

    def observe(self) -> Observed:
        """Return the whole table with its counters; the same object as the last time where nothing has changed."""
        return self._retried(self._observe_all)

    def observe_only(self, keys: Sequence[VirtualServerKey]) -> Observed:
        """Return those of `keys` that are in the table."""
        return self._retried(lambda: self._observe_some(keys))

    def glance(self) -> Glance:
        """Return what tells whether anything but counters has changed since another glance."""
        return self._retried(self._glance_at_all)

    def forget(self) -> None:
        """Forget what only makes the next `observe` cheaper; long lists that are asked for again are not forgotten."""
        self._after = _Services([], [], [], [])
        self._read = {}
        self._whole = None

    def sync_daemons(self) -> tuple[SyncDaemon, ...]:
        """Return the synchronisation daemons that run."""
        return self._retried(self._dump_daemons, "the synchronisation daemons")

    def _dump_daemons(self) -> tuple[SyncDaemon, ...]:
        request = dump_request(self._family, codec.GET_DAEMON, codec.VERSION)
        _, pieces = self._dump("read synchronisation daemons", "", request, self._daemon)
        return tuple(self._daemon.value(settings) for settings, _ in pieces)

    def _retried(self, read: Callable[[], T], what: str = "the IPVS table") -> T:
        """Return what `read` does; a dump that was raced, cut or lost is taken again."""
        last: Exception | None = None
        for _ in range(_ATTEMPTS):
            try:
                return read()
            except (Refused, Unavailable):
                raise  # the kernel's answer
            except (Disturbed, NetlinkError) as error:
                last = error
        if isinstance(last, NetlinkError):
            raise last
        raise Interrupted("read", what, f"others kept changing it in {_ATTEMPTS} attempts: {last}")

    def _observe_all(self) -> Observed:
        self._before = self._dump_services(self._channel, self._before)
        read: dict[VirtualServerKey, _Destinations] = {}
        for virtual_server in self._before.virtual_servers:
            read[virtual_server.key] = self._read_real_servers(virtual_server, self._read)
        self._after = self._dump_services(self._second, self._after)
        if read.keys() != {virtual_server.key for virtual_server in self._after.virtual_servers}:
            raise Disturbed("virtual servers came or went")
        if len(read) != len(self._after.virtual_servers):
            raise Disturbed("a virtual server was listed twice")
        last, self._read = self._read, read
        whole = self._whole
        same = (
            whole is not None and whole[0] is self._after and all(each is last.get(key) for key, each in read.items())
        )
        if whole is None or not same:
            self._whole = whole = (self._after, _observed(self._after, read))
        return whole[1]

    def _observe_some(self, keys: Sequence[VirtualServerKey]) -> Observed:
        before = self._ask_services(keys)
        known = {**self._read, **self._long} if self._long else self._read
        read = {each.key: self._read_real_servers(each, known) for each in before.virtual_servers}
        after = self._ask_services(keys)
        if read.keys() != {virtual_server.key for virtual_server in after.virtual_servers}:
            raise Disturbed("virtual servers came or went")
        for key in keys:
            self._long.pop(key, None)
        self._long |= {key: each for key, each in read.items() if len(each.datagrams) > 1}
        return _observed(after, read)

    def _glance_at_all(self) -> Glance:
        self._before = services = self._dump_services(self._channel, self._before)
        shown = self._shown_real_servers()
        hidden = {each.key for each in shown if isinstance(each, Hidden)}
        read = {
            each.key: self._read_real_servers(each, self._hidden)
            for each in services.virtual_servers
            if self._sockopt is None or each.key.family is not Family.IPV4 or each.key in hidden
        }
        if len(shown) - len(hidden) + len(read) != len(services.virtual_servers):
            raise Disturbed("virtual servers came or went")
        self._hidden = dict(read)
        names = self._sockopt.names if self._sockopt is not None else ()
        lists = [read.pop(each.key).settings if isinstance(each, Hidden) else each for each in shown]
        return Glance(
            services.settings,
            [*names, *read],
            [*lists, *(each.settings for each in read.values())],
            values=services.virtual_servers,
            key_of=_key_of,
        )

    def _shown_real_servers(self) -> list[RealServers | Hidden]:
        """Return the real servers of IPv4 that `sockopt` shows, of each virtual server; none where there is no such."""
        if self._sockopt is None:
            return []
        try:
            return self._sockopt.real_servers()
        except OSError as error:
            if error.errno == errno.ESRCH:
                raise Disturbed("a virtual server went") from error
            if error.errno not in (errno.ENOPROTOOPT, errno.EAFNOSUPPORT):  # the kernel has none, or we may not
                raise NetlinkError("read", "the real servers", (error.strerror or str(error)).lower()) from error
        self._sockopt = None
        return []

    def _dump_services(self, channel: Channel, last: _Services) -> _Services:
        """Return all virtual servers; `last` where they are the same, counters and all."""
        datagrams, pieces = self._dump(
            "read virtual servers", "", self._request, self._service, known=last, channel=channel
        )
        if datagrams == last.datagrams:
            return last
        known = dict(zip(self._before.settings, self._before.virtual_servers, strict=True))
        return self._services_of(datagrams, pieces, known)

    def _ask_services(self, keys: Sequence[VirtualServerKey]) -> _Services:
        """Return those of `keys` that are there."""
        pieces: list[Piece] = []
        for key in keys:
            packed = codec.encode_question(key)
            try:
                answer = self._channel.ask(
                    "read virtual server", self._family, codec.GET_SERVICE, codec.VERSION, packed, target=str(key)
                )
            except Refused as refused:
                if refused.errno != errno.ESRCH:
                    raise
            else:
                pieces.append(self._service.piece(answer))
        return self._services_of([], pieces, {})

    def _services_of(
        self, datagrams: list[bytes], pieces: Sequence[Piece], known: Mapping[bytes, VirtualServer]
    ) -> _Services:
        settings = [settings for settings, _ in pieces]
        return _Services(
            datagrams,
            settings,
            [known[each] if each in known else self._service.value(each) for each in settings],
            codec.traffic(pieces),
        )

    def _read_real_servers(
        self, virtual_server: VirtualServer, before: Mapping[VirtualServerKey, _Destinations]
    ) -> _Destinations:
        """Return the real servers of one virtual server; what it was `before` where that is the same."""
        key = virtual_server.key
        last = before.get(key)
        if last is None:
            request = dump_request(self._family, codec.GET_DEST, codec.VERSION, codec.encode_key(key))
            last = _Destinations(request, [], [], [], TableEntry(virtual_server=virtual_server, real_servers={}), {})
        for _ in range(_ATTEMPTS):
            datagrams, pieces = self._dump("read real servers of", key, last.request, self._destination, known=last)
            if datagrams != last.datagrams:
                # two dumps agree when they list the same: this one and the last, of now or of an earlier time
                other, last = last, self._destinations_of(last, datagrams, pieces)
                if len(datagrams) > 1 and [*last.entry.real_servers] != [*other.entry.real_servers]:
                    continue
            if len(last.entry.real_servers) < len(last.real_servers):
                continue  # one was listed twice
            if last.entry.virtual_server is not virtual_server:
                entry = TableEntry(virtual_server=virtual_server, real_servers=last.entry.real_servers)
                last = attrs.evolve(last, entry=entry)
            return last
        raise Disturbed(f"real servers of {key} came or went")

    def _destinations_of(self, last: _Destinations, datagrams: list[bytes], pieces: Sequence[Piece]) -> _Destinations:
        """Return what `pieces` mean, with the values of `last` where the bytes are the same."""
        settings = [settings for settings, _ in pieces]
        real_servers, entry = last.real_servers, last.entry
        if settings != last.settings:
            known = dict(zip(last.settings, real_servers, strict=True))
            real_servers = [known[each] if each in known else self._destination.value(each) for each in settings]
            by_key = {real_server.key: real_server for real_server in real_servers}
            entry = TableEntry(virtual_server=entry.virtual_server, real_servers=by_key)
        usage = dict(zip(entry.real_servers, codec.usage(pieces), strict=False))
        return _Destinations(last.request, datagrams, settings, real_servers, entry, usage)

    def _dump(
        self,
        operation: str,
        target: object,
        request: bytes,
        decoder: Decoder,
        *,
        known: "_Services | _Destinations | None" = None,
        channel: Channel | None = None,
    ) -> tuple[list[bytes], list[Piece]]:
        """Return the datagrams of a dump, and their pieces where they are not the same as those `known`."""
        old, settings = (known.datagrams, known.settings) if known else ((), ())
        pieces: list[Piece] = []
        taken = 0
        in_step = True  # the settings taken are those that were known, one for one

        def take(datagram: bytes, offset: int, before: bytes) -> int:
            nonlocal taken, in_step
            taken += offset == 0
            counters = decoder.again(datagram, before) if before and in_step else None
            if counters is not None:
                first = len(pieces)
                pieces.extend(zip(settings[first : first + len(counters)], counters, strict=True))
                return len(datagram)
            in_step = False
            some, end = decoder.split(datagram, offset)
            pieces.extend(some)
            return end

        datagrams = (channel or self._channel).dump(operation, target, request, take, old)
        if taken < len(datagrams) and datagrams != old:
            pieces.clear()  # some were as before, and not taken
            in_step = True
            for datagram, before in zip_longest(datagrams, old[: len(datagrams)], fillvalue=b""):
                offset = take(datagram, 0, before)
                while offset < len(datagram):
                    offset = take(datagram, offset, b"")
        return datagrams, pieces


def _key_of(name: VirtualServerKey | tuple[int, bytes, int, int, int]) -> VirtualServerKey:
    return name if isinstance(name, VirtualServerKey) else key_of(name)


def _observed(services: _Services, read: Mapping[VirtualServerKey, _Destinations]) -> Observed:
    table: dict[VirtualServerKey, TableEntry] = {}
    for virtual_server in services.virtual_servers:
        entry = read[virtual_server.key].entry
        if entry.virtual_server is not virtual_server:
            entry = TableEntry(virtual_server=virtual_server, real_servers=entry.real_servers)
        table[virtual_server.key] = entry
    return Observed(
        table=table,
        traffic=dict(zip(table, services.traffic, strict=True)),
        usage={key: read[key].usage for key in table},
    )
