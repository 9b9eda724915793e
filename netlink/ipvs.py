"""The IPVS client: requests in batches, the table with its counters, errors that say what to do.

Shell: `codec` knows the bytes, `channel` the socket, `reader` the dumps. Nothing is retried but reading.
"""

import contextlib
import errno
import functools
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Final, Self

from netlink import codec, connections, framing, probe
from netlink.channel import BATCH, CLOSED, DATAGRAM, Channel, netlink_socket
from netlink.errors import NetlinkError, Refused, Unavailable
from netlink.glance import Glance
from netlink.namespace import Namespace, Pinned
from netlink.reader import SECOND_DATAGRAM, Reader
from netlink.requests import NOTHING_KNOWN, AddVirtualServer, Request, SetVirtualServer, StopSyncDaemon, refusal
from netlink.sockopt import Sockopt
from netlink.types import Connection, Info, Lacking, Observed, SyncDaemon, Timeouts, VirtualServerKey

_MODPROBE_SECONDS: Final = 30.0


class IPVS:
    """The IPVS table of a network namespace: the current one, or `namespace`. Not safe for two threads at once.

    The constructor opens the sockets, finds the family (loading ip_vs once where it is missing) and asks for the
    version, so that a missing module or permission is Unavailable here and not later. Nothing ever waits for the
    kernel: it has answered when it returns from a call. It stays in the network namespace in which it was opened,
    whatever becomes of that one's name, and keeps it there. `open_socket` makes the sockets, for who wants to see what
    goes through them; it is called again whenever an answer was lost.
    """

    def __init__(
        self, namespace: Namespace | None = None, *, open_socket: Callable[[], socket.socket] = netlink_socket
    ) -> None:
        self._make_socket = open_socket
        self._closed = False
        self._channels = contextlib.ExitStack()
        try:
            self._namespace = Pinned(namespace)
            self._channels.callback(self._namespace.close)
            self._channel = self._open(DATAGRAM)
            self._family = self._find_family()
            self._encoder = codec.Encoder(self._family)
            sockopt = Sockopt(self._open_plain_socket)
            self._channels.callback(sockopt.close)
            self._reader = Reader(self._channel, self._open(SECOND_DATAGRAM), self._family, sockopt)
            self._counting = Sockopt(self._open_plain_socket)
            self._channels.callback(self._counting.close)
            self.info()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the sockets; a second call does nothing, any other raises NetlinkError."""
        self._closed = True
        self._channels.close()

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
        return self._reader.sync_daemons()

    def observe(self, only: Iterable[VirtualServerKey] | None = None) -> Observed:
        """Return the table with its counters, or of it `only` some virtual servers; an empty table is a table.

        Of those asked for, one that is not in the table is not in the answer. Raises Interrupted when writers disturbed
        every attempt, Malformed, Unavailable or Refused otherwise. What is returned shares values with other answers,
        and is the same object as the last time where nothing at all has changed: it is to be read.
        """
        if only is None:
            return self._reader.observe()
        return self._reader.observe_only(tuple(dict.fromkeys(only)))

    def glance(self) -> Glance:
        """Return what the table looks like, to be compared with another glance: equal means unchanged but for counters.

        With IPv4 the tunnel options of a real server that no tunnel leads to do not count either. It costs a fraction
        of `observe`: no value is made. Where two differ, `changed` names the virtual servers.
        """
        return self._reader.glance()

    def census(self) -> Mapping[VirtualServerKey, int]:
        """Return how many real servers each virtual server of IPv4 has; the same object where that has not changed.

        Cheap enough for ten times a second: two system calls, whatever the table has. It sees what comes and goes, and
        no change of what stays. Alone of all methods it may be called while another thread uses the client. Unavailable
        where the kernel has no such interface, NetlinkError where it does not answer.
        """
        try:
            return self._counting.census()
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            unavailable = error.errno in (errno.ENOPROTOOPT, errno.EAFNOSUPPORT)
            raise (Unavailable if unavailable else NetlinkError)("count", "the real servers", reason) from error

    def forget(self) -> None:
        """Give back the memory that makes the next `observe` of the whole table cheap; that one makes all anew."""
        self._reader.forget()

    def connections(self) -> Generator[Connection, None, None]:
        """Yield the connections and templates of the kernel's connection table, as they are read.

        The table may be long, so nothing of it is kept. It is no snapshot. The file is opened at the first `next` and
        closed at the end, or when the iterator is closed. NetlinkError where the kernel does not show it, Malformed.
        """
        try:
            descriptor = self._open_file(connections.PATH)
            try:
                yield from connections.read(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise NetlinkError("read", "/proc/net/ip_vs_conn", (error.strerror or str(error)).lower()) from error

    def lacking(self, *, schedulers: Iterable[str] = (), persistence_engines: Iterable[str] = ()) -> Lacking:
        """Return which of these the kernel does not have, and finds no module for.

        They are tried, without touching the table: see `probe`. Unavailable where that cannot be done, Invalid for what
        cannot be a name.
        """
        return probe.lacking(self._errno_of, schedulers=schedulers, persistence_engines=persistence_engines)

    def apply(self, requests: Sequence[Request]) -> list[Refused | None]:
        """Send `requests` in order; return one result each, None where the kernel did it.

        A refused request does not stop those after it, and neither does one that no kernel should get: that is Invalid
        and not sent. Nothing is retried. ENOBUFS as a result means that the answer was lost and the request may have
        taken effect. Raises NetlinkError when a batch could not be sent: then observe again. Its `results` are those of
        the batches before.
        """
        results: list[Refused | None] = [None] * len(requests)
        lacking: Callable[[str, str | None], Lacking] | None = None
        start = 0
        while start < len(requests):
            first = self._channel.reserve(BATCH)
            packed, last, end, invalid = self._encoder.encode(requests, start, BATCH, first)
            try:
                errors = self._channel.batch(packed, first, last, requests[start:end]) if packed else {}
            except NetlinkError as error:
                error.results = results[:start]
                raise
            if errors:
                lacking = lacking or functools.cache(self._lacking)
                for sequence, number in errors.items():
                    place = start + sequence - first
                    results[place] = self._result(requests[place], number, lacking)
            for place, refused in invalid:
                results[place] = refused
            start = end
        return results

    def _result(self, request: Request, number: int, lacking: Callable[[str, str | None], Lacking]) -> Refused | None:
        """Return what the answer `number` to `request` means."""
        if number == errno.ENOENT and isinstance(request, AddVirtualServer | SetVirtualServer):
            wanted = request.virtual_server
            return refusal(request, number, lacking(wanted.scheduler, wanted.persistence_engine))
        if number == errno.EINTR and isinstance(request, StopSyncDaemon):
            # The kernel gives no acknowledgement for a thread that it stopped before that ever ran.
            running = {daemon.role for daemon in self.sync_daemons()}
            return refusal(request, number) if request.role in running else None
        return refusal(request, number)

    def _lacking(self, scheduler: str, engine: str | None) -> Lacking:
        """Return which of the two the kernel does not have, as far as that can be found out."""
        if engine is None:
            return NOTHING_KNOWN
        try:
            return self.lacking(schedulers=(scheduler,), persistence_engines=(engine,))
        except NetlinkError:
            return NOTHING_KNOWN

    def _errno_of(self, command: int, body: bytes) -> int:
        """Return the positive errno of a request, 0 when it was done."""
        sequence = self._channel.reserve(1)
        flags = framing.NLM_F_ACK
        packed = framing.request(
            self._family, command, version=codec.VERSION, flags=flags, sequence=sequence, body=body
        )
        return self._channel.batch(packed, sequence, sequence, ["a trial of what the kernel has"]).get(sequence, 0)

    # ---- opening

    def _open(self, datagram: int) -> Channel:
        channel = Channel(self._open_socket, datagram=datagram)
        self._channels.callback(channel.close)
        return channel

    def _open_socket(self) -> socket.socket:
        with self._namespace.entered():
            return self._make_socket()

    def _open_plain_socket(self) -> socket.socket:
        if self._closed:
            raise NetlinkError("read", "the real servers", CLOSED)
        with self._namespace.entered():
            return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def _open_file(self, path: str) -> int:
        if self._closed:
            raise NetlinkError("read", path, CLOSED)
        with self._namespace.entered():
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)

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
