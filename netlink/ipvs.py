"""The IPVS client: requests in batches, dumps of the table, errors that say what to do.

Shell: `codec` knows the bytes, `channel` the socket. Nothing is retried but reading.

Dumps are not snapshots. The kernel fills one datagram under its lock and lets writers in between two of them, and it
does not say so (no NLM_F_DUMP_INTR): an entry may be left out or come twice. So:

- a dump of real servers that came in one datagram is true; one that came in several is taken until two in a row agree;
- virtual servers are dumped before and after all their real servers; both dumps must have the same virtual servers.

Otherwise everything is read again, a few times, then Interrupted. What this cannot see is a virtual server deleted and
created again between the two dumps, whose real servers were read in between as none: a reader who finds something
absent looks a second time before writing. Source: net/netlink/af_netlink.c, net/netfilter/ipvs/ip_vs_ctl.c.

A table hardly differs from the one read before, so the client remembers what it has read last: the bytes of each
virtual server's real servers, and the values that they meant. Where the bytes are the same, so are the values, and
nothing is made anew but the counters.
"""

import errno
import os
import shutil
import socket
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Final, Self

import attrs

from netlink import codec, glance
from netlink.bulk import Decoder, Piece
from netlink.channel import BATCH, Channel, Disturbed, netlink_socket
from netlink.errors import Interrupted, NetlinkError, Refused, Unavailable
from netlink.glance import Glance
from netlink.namespace import Namespace, entered
from netlink.requests import Request, StopSyncDaemon, refusal
from netlink.types import (
    Info,
    Observed,
    RealServerKey,
    RealServers,
    RealServerUsage,
    SyncDaemon,
    TableEntry,
    Timeouts,
    Traffic,
    VirtualServer,
    VirtualServerKey,
)

_ATTEMPTS: Final = 5
_MODPROBE_SECONDS: Final = 30.0


@attrs.frozen
class _Read:
    """The real servers of a virtual server as they were read: their bytes in order, and what those mean."""

    request: bytes  # the attribute that asks for them
    settings: list[bytes]
    real_servers: RealServers  # in the same order
    entry: TableEntry


class IPVS:
    """The IPVS table of a network namespace: the current one, or `namespace`. Not safe for two threads at once.

    The constructor opens the socket, finds the family (loading ip_vs once where it is missing) and asks for the
    version, so that a missing module or permission is Unavailable here and not later. Nothing ever waits for the
    kernel: it has answered when it returns from a call.
    """

    def __init__(self, namespace: Namespace | None = None) -> None:
        self._namespace = namespace
        self._file: int | None = None
        self._services = codec.service_decoder()
        self._destinations = codec.destination_decoder()
        self._daemons = codec.daemon_decoder()
        self._virtual_servers: dict[bytes, VirtualServer] = {}
        self._read: dict[VirtualServerKey, _Read] = {}
        self._channel = Channel(self._open_socket)
        try:
            self._family = self._find_family()
            self.info()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the socket; a second call does nothing."""
        self._channel.close()
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def __enter__(self) -> Self:
        """Return the client."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the socket."""
        self.close()

    def info(self) -> Info:
        """Return the version and connection table size of the kernel's IPVS."""
        answer = self._channel.ask("read IPVS information", self._family, codec.GET_INFO, codec.VERSION)
        return codec.decode_info(answer)

    def timeouts(self) -> Timeouts:
        """Return the timeouts of idle connections."""
        answer = self._channel.ask("read timeouts", self._family, codec.GET_CONFIG, codec.VERSION)
        return codec.decode_timeouts(answer)

    def sync_daemons(self) -> tuple[SyncDaemon, ...]:
        """Return the synchronisation daemons that run, at most one of each role."""
        pieces, _ = self._dump("read synchronisation daemons", "", codec.GET_DAEMON, b"", self._daemons)
        return tuple(self._daemons.value(settings) for settings, _ in pieces)

    def observe(self, only: Iterable[VirtualServerKey] | None = None) -> Observed:
        """Return the table with its counters, or of it `only` some virtual servers; an empty table is a table.

        Of those asked for, one that is not in the table is not in the answer. Raises Interrupted when writers disturbed
        every attempt, Malformed, Unavailable or Refused otherwise. The mappings may be shared with other answers: they
        are to be read.
        """
        keys = None if only is None else tuple(dict.fromkeys(only))
        reason = ""
        for _ in range(_ATTEMPTS):
            try:
                return self._observe_once(keys)
            except Disturbed as disturbed:
                reason = str(disturbed)
        raise Interrupted("read", "the IPVS table", f"others kept changing it in {_ATTEMPTS} attempts: {reason}")

    def glance(self) -> Glance:
        """Return what /proc/net/ip_vs shows, to be compared with another: equal means unchanged in all it shows.

        That is everything but thresholds, tunnels, persistence engines and the scheduler's flags. NetlinkError where
        the kernel does not show it.
        """
        try:
            if self._file is None:
                with entered(self._namespace):
                    self._file = os.open(glance.PATH, os.O_RDONLY | os.O_CLOEXEC)
            return glance.read(self._file)
        except OSError as error:
            raise NetlinkError("read", "/proc/net/ip_vs", (error.strerror or str(error)).lower()) from error

    def apply(self, requests: Sequence[Request]) -> list[Refused | None]:
        """Send `requests` in order; return one result each, None where the kernel did it.

        A refused request does not stop those after it. Nothing is retried. ENOBUFS as a result means that the answer
        was lost and the request may have taken effect. Raises ValueError, before anything is sent, for a request that
        no kernel should get, and NetlinkError when a batch could not be sent: then observe again.
        """
        first = self._channel.reserve(len(requests))
        batches = [
            (start, end, codec.encode_batch(requests[start:end], self._family, first + start))
            for start, end in _batches(requests)
        ]
        results: list[Refused | None] = [None] * len(requests)
        for start, end, packed in batches:
            errors = self._channel.batch(packed, first + start, end - start, partial(_words, requests, start, end))
            for sequence, number in errors.items():
                results[sequence - first] = self._result(requests[sequence - first], number)
        return results

    def _result(self, request: Request, number: int) -> Refused | None:
        """Return what the answer `number` to `request` means."""
        if number == errno.EINTR and isinstance(request, StopSyncDaemon):
            # The kernel gives no acknowledgement for a thread that it stopped before that ever ran.
            running = {daemon.role for daemon in self.sync_daemons()}
            return refusal(request, number) if request.role in running else None
        return refusal(request, number)

    # ---- reading

    def _observe_once(self, keys: Sequence[VirtualServerKey] | None) -> Observed:
        before = self._services_there(keys)
        virtual_servers = self._values(before)
        read: dict[VirtualServerKey, _Read] = {}
        usage: dict[VirtualServerKey, Mapping[RealServerKey, RealServerUsage]] = {}
        for virtual_server in virtual_servers:
            key = virtual_server.key
            read[key], usage[key] = self._read_real_servers(virtual_server)
        after = self._services_there(keys)
        if [settings for settings, _ in before] != [settings for settings, _ in after]:
            virtual_servers = self._values(after)
            if read.keys() != {virtual_server.key for virtual_server in virtual_servers}:
                raise Disturbed("virtual servers came or went")
        if len(read) != len(virtual_servers):
            raise Disturbed("a virtual server was listed twice")
        self._read = read if keys is None else self._read | read
        table: dict[VirtualServerKey, TableEntry] = {}
        traffic: dict[VirtualServerKey, Traffic] = {}
        for virtual_server, (_, counters) in zip(virtual_servers, after, strict=True):
            key = virtual_server.key
            entry = read[key].entry
            if entry.virtual_server is not virtual_server:
                entry = attrs.evolve(entry, virtual_server=virtual_server)
            table[key] = entry
            traffic[key] = codec.traffic(counters)
        return Observed(table=table, traffic=traffic, usage=usage)

    def _services_there(self, keys: Sequence[VirtualServerKey] | None) -> list[Piece]:
        """Return the virtual servers, those of `keys` or all, as bytes with their counters."""
        if keys is None:
            return self._dump("read virtual servers", "", codec.GET_SERVICE, b"", self._services)[0]
        found: list[Piece] = []
        for key in keys:
            body = codec.encode_key(key)
            try:
                answer = self._channel.ask(
                    "read virtual server", self._family, codec.GET_SERVICE, codec.VERSION, body, target=str(key)
                )
            except Refused as refused:
                if refused.errno != errno.ESRCH:
                    raise
            else:
                found.append(self._services.piece(answer))
        return found

    def _values(self, pieces: Sequence[Piece]) -> list[VirtualServer]:
        """Return the virtual servers that `pieces` are, the same objects for the same bytes as the last time."""
        known = self._virtual_servers
        self._virtual_servers = {
            settings: known[settings] if settings in known else self._services.value(settings) for settings, _ in pieces
        }
        return [self._virtual_servers[settings] for settings, _ in pieces]

    def _read_real_servers(
        self, virtual_server: VirtualServer
    ) -> tuple[_Read, Mapping[RealServerKey, RealServerUsage]]:
        key = virtual_server.key
        before = self._read.get(key)
        request = codec.encode_key(key) if before is None else before.request
        for _ in range(_ATTEMPTS):
            pieces, datagrams = self._dump("read real servers of", key, codec.GET_DEST, request, self._destinations)
            settings = [settings for settings, _ in pieces]
            if before is not None and settings == before.settings:
                # as it was read before, in this attempt or at an earlier time: two that agree
                read = before if before.entry.virtual_server is virtual_server else _with(before, virtual_server)
                return read, _usage(read.real_servers, pieces)
            known = {} if before is None else dict(zip(before.settings, before.real_servers.values(), strict=True))
            values = [known.get(each) or self._destinations.value(each) for each in settings]
            real_servers = {real_server.key: real_server for real_server in values}
            if len(real_servers) < len(values):
                continue  # one was listed twice
            entry = TableEntry(virtual_server=virtual_server, real_servers=real_servers)
            before = _Read(request, settings, real_servers, entry)
            if datagrams <= 1:
                return before, _usage(real_servers, pieces)
        raise Disturbed(f"real servers of {key} came or went")

    def _dump(
        self, operation: str, target: object, command: int, body: bytes, decoder: Decoder
    ) -> tuple[list[Piece], int]:
        """Return the pieces of a dump, and in how many datagrams they came."""
        pieces: list[Piece] = []

        def take(datagram: bytes, offset: int) -> int:
            some, end = decoder.split(datagram, offset)
            pieces.extend(some)
            return end

        request = (self._family, command, codec.VERSION, body)
        return pieces, self._channel.dump(operation, target, request, take)

    # ---- opening

    def _open_socket(self) -> socket.socket:
        with entered(self._namespace):
            return netlink_socket()

    def _find_family(self) -> int:
        """Return the number of the family IPVS; load ip_vs once where the kernel does not know it."""
        try:
            return self._ask_family()
        except Refused as refused:
            if refused.errno != errno.ENOENT:
                raise
        said = _load_module()
        try:
            return self._ask_family()
        except Refused as refused:
            reason = (
                f"the kernel has no IPVS and `modprobe ip_vs` did not help ({said}); "
                "install or build the ip_vs module for this kernel, and load it"
            )
            raise Unavailable("open", "IPVS", reason) from refused

    def _ask_family(self) -> int:
        body = codec.encode_family_name()
        answer = self._channel.ask("look up", codec.CONTROL_FAMILY, codec.GET_FAMILY, 1, body)
        return codec.decode_family(answer)


def _batches(requests: Sequence[Request]) -> Iterator[tuple[int, int]]:
    """Yield start and end of each batch: BATCH requests, fewer where one must be the last, which is acknowledged.

    The kernel says nothing of a daemon that it could not stop unless it is asked for an acknowledgement.
    """
    start = 0
    for place, request in enumerate(requests, 1):
        if place - start == BATCH or place == len(requests) or type(request) is StopSyncDaemon:
            yield start, place
            start = place


def _words(requests: Sequence[Request], start: int, end: int) -> str:
    """Return what errors call the requests from `start` to `end`."""
    return str(requests[start]) + (f" and {end - start - 1} more" if end - start > 1 else "")


def _usage(real_servers: RealServers, pieces: Sequence[Piece]) -> Mapping[RealServerKey, RealServerUsage]:
    return dict(zip(real_servers, [codec.usage(counters) for _, counters in pieces], strict=True))


def _with(read: _Read, virtual_server: VirtualServer) -> _Read:
    return attrs.evolve(read, entry=attrs.evolve(read.entry, virtual_server=virtual_server))


def _load_module() -> str:
    """Run `modprobe ip_vs`; return what it said, in one line."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
    program = shutil.which("modprobe", path=path)
    if program is None:
        return "there is no modprobe"
    try:
        done = subprocess.run(  # noqa: S603 -- a fixed command line
            [program, "ip_vs"], capture_output=True, text=True, timeout=_MODPROBE_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return " ".join(done.stderr.split()) or f"it exited with {done.returncode}"
