"""A generic netlink socket: requests out, answers and dumps in, silence and permission as errors.

Shell around `framing`; `ipvs` knows what the messages mean. Generic netlink does its work inside sendmsg and has queued
every answer when that returns, and a dump goes on inside recvmsg. So nothing here ever waits: where there is no answer,
none will come. Source: net/netlink/af_netlink.c.
"""

import contextlib
import errno
import socket
import struct
from collections.abc import Callable, Sequence
from typing import Final

from netlink import framing
from netlink.errors import Malformed, NetlinkError, Refused, Unavailable

BATCH: Final = 512  # messages in one sendmsg at most; beyond a hundred, more gains little
_SEND_BUFFER: Final = 512 * BATCH  # bytes; a message has fewer than 300
_RECEIVE_BUFFER: Final = 2 * 1024 * BATCH  # bytes; a queued acknowledgement costs up to 896
DATAGRAM: Final = 65_536  # bytes; the kernel makes dump datagrams as long as it has seen us receive, up to 32 KiB

# include/uapi/linux/netlink.h and asm-generic/socket.h; the socket module has no names for them
_NETLINK_GENERIC: Final = 16
_SOL_NETLINK: Final = 270
_NETLINK_CAP_ACK: Final = 10
_SO_SNDBUFFORCE: Final = 32
_SO_RCVBUFFORCE: Final = 33

_ACKNOWLEDGEMENT: Final = struct.Struct("=IHHIIi")  # netlink's header and the errno

CLOSED: Final = "this client is closed"

Take = Callable[[bytes, int, bytes], int]
"""Reads the message at an offset of a datagram, and those after it that it can; returns where it stopped.

The third is the datagram in the same place of an earlier dump, empty where there is none, or not at the beginning.
"""

DUMPS: Final = 0  # the sequence number of every dump: two dumps of an unchanged table are the same bytes


class Disturbed(Exception):
    """A dump is not what the table was at any moment; `ipvs` takes it again."""


class Channel:
    """One socket to the kernel. `open_socket` opens it, in the network namespace that is meant.

    `datagram` is the bytes that are received into, which decides how the kernel cuts a dump.
    """

    def __init__(self, open_socket: Callable[[], socket.socket], *, datagram: int = DATAGRAM) -> None:
        self._open_socket = open_socket
        self._sequence = 1
        self._closed = False
        self._end = b""  # the datagram that ended the last dump, and will end the next
        self._buffer = memoryview(bytearray(datagram))
        self._socket = self._open()

    def close(self) -> None:
        """Close the socket; a second call does nothing."""
        self._closed = True
        self._socket.close()

    def reserve(self, count: int) -> int:
        """Return the first of `count` sequence numbers that follow each other and belong to no earlier request."""
        if self._sequence + count > 0xFFFFFFFF:
            self._sequence = 1
        first = self._sequence
        self._sequence += count
        return first

    def ask(
        self, operation: str, family: int, command: int, version: int, body: bytes = b"", *, target: str = ""
    ) -> framing.Message:
        """Return the one answer to a request that is no dump."""
        sequence = self.reserve(1)
        packed = framing.request(family, command, version=version, flags=0, sequence=sequence, body=body)
        self._send(operation, target, packed)
        while True:
            for message in framing.messages(self._answer(operation, target)):
                if message.sequence != sequence:
                    continue  # of a request that was given up
                if message.kind != framing.NLMSG_ERROR:
                    return message
                raise_errno(operation, target, framing.errno_of(message))

    def dump(
        self, operation: str, target: object, packed: bytes, take: Take, known: Sequence[bytes] = ()
    ) -> list[bytes]:
        """Return the datagrams of a dump, after `take` has read every message in them.

        `packed` comes from `dump_request`. A datagram that is the same as the one in its place among `known`, which an
        earlier dump returned, is not read again. Raises Disturbed when the kernel says that the table changed
        meanwhile. What `take` has read is worthless when anything is raised.
        """
        datagrams: list[bytes] = []
        try:
            self._send(operation, target, packed)
            while True:
                datagram = self._answer(operation, target)
                place = len(datagrams)
                if place < len(known) and datagram == known[place]:
                    datagrams.append(datagram)
                elif datagram == self._end:
                    return datagrams
                else:
                    before = known[place] if place < len(known) else b""
                    read, ended = self._read(operation, target, datagram, before, take)
                    if read:
                        datagrams.append(datagram[:read])
                    elif ended:
                        self._end = datagram
                    if ended:
                        return datagrams
        except (NetlinkError, Disturbed):
            self._reopen()  # the rest of this dump would block the next one with EBUSY
            raise

    def _read(self, operation: str, target: object, datagram: bytes, before: bytes, take: Take) -> tuple[int, bool]:
        """Have `take` read the messages of a datagram; return how far that was, and whether the dump ended there.

        As IPVS dumps, the end has a datagram of its own, but no rule says so. Answers to other requests are not read.
        """
        offset = 0
        while offset < len(datagram):
            header = framing.header(datagram, offset)
            if header.sequence != DUMPS:
                if offset:
                    raise Malformed(operation, str(target), "an answer to another request is among its messages")
                return 0, False
            if header.flags & framing.NLM_F_DUMP_INTR:
                raise Disturbed("the kernel says so")
            if header.kind in (framing.NLMSG_DONE, framing.NLMSG_ERROR):
                payload = datagram[offset + framing.MESSAGE_HEADER : offset + header.length]
                number = framing.errno_of(framing.Message(header.kind, header.flags, DUMPS, payload))
                raise_errno(operation, str(target), number)
                return offset, True
            offset = take(datagram, offset, b"" if offset else before)
        return offset, False

    def batch(self, packed: bytes, first: int, last: int, what: Sequence[object]) -> dict[int, int]:
        """Send `packed`, requests numbered from `first` to `last`, of which the last asks for an acknowledgement.

        `what` they are is for errors. Return the positive errno of each that was not done, by its sequence number.
        ENOBUFS stands for every answer that got lost, EINTR for an acknowledgement that the kernel did not give. Raises
        NetlinkError when the requests could not be sent.
        """
        try:
            self._socket.send(packed)
        except OSError as error:
            raise NetlinkError("send", _words(what), self._why_unsent(error)) from error
        errors: dict[int, int] = {}
        answered: set[int] = set()
        lost = False
        while lost or last not in answered:
            try:
                answer = self._acknowledgement(what)
            except BlockingIOError:  # nothing is left
                if not lost:
                    return errors | {last: errno.EINTR}
                self._reopen()
                unknown = (number for number in range(first, last + 1) if number not in answered)
                return errors | dict.fromkeys(unknown, errno.ENOBUFS)
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    reason = f"receiving the answer: {error.strerror or error}"
                    raise NetlinkError("send", _words(what), reason) from error
                lost = True  # some were dropped, and nobody knows whose; the others are queued already
                continue
            if answer is not None and first <= answer[0] <= last:
                sequence, number = answer
                answered.add(sequence)
                if number:
                    errors[sequence] = -number
        return errors

    def _acknowledgement(self, what: Sequence[object]) -> tuple[int, int] | None:
        """Return sequence number and errno of the next answer, None when it is another thing; OSError as it comes."""
        size = self._socket.recv_into(self._buffer, 0, socket.MSG_DONTWAIT)
        if size < _ACKNOWLEDGEMENT.size:
            raise Malformed("send", _words(what), f"an answer has {size} bytes")
        _, kind, _, sequence, _, number = _ACKNOWLEDGEMENT.unpack_from(self._buffer)
        return (sequence, number) if kind == framing.NLMSG_ERROR else None

    def _open(self) -> socket.socket:
        try:
            opened = self._open_socket()
        except (AttributeError, OSError) as error:
            reason = f"this system offers no netlink sockets ({error}); IPVS needs Linux with generic netlink"
            raise Unavailable("open", "IPVS", reason) from error
        try:
            opened.bind((0, 0))
            opened.connect((0, 0))  # from now on nobody but the kernel, whose port is 0, can send us anything
            for force, plain, size in (
                (_SO_RCVBUFFORCE, socket.SO_RCVBUF, _RECEIVE_BUFFER),
                (_SO_SNDBUFFORCE, socket.SO_SNDBUF, _SEND_BUFFER),
            ):
                try:
                    opened.setsockopt(socket.SOL_SOCKET, force, size)
                except PermissionError:
                    opened.setsockopt(socket.SOL_SOCKET, plain, size)
            with contextlib.suppress(OSError):  # errors come back without the request, so more of them fit
                opened.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
        except OSError as error:
            opened.close()
            raise Unavailable("open", "IPVS", f"the netlink socket cannot be set up: {error.strerror}") from error
        return opened

    def _reopen(self) -> None:
        self._socket.close()
        if not self._closed:
            self._socket = self._open()
        self._end = b""

    def _send(self, operation: str, target: object, packed: bytes) -> None:
        try:
            self._socket.send(packed)
        except OSError as error:
            raise NetlinkError(operation, str(target), self._why_unsent(error)) from error

    def _why_unsent(self, error: OSError) -> str:
        return CLOSED if self._closed else f"sending: {error.strerror or error}"

    def _answer(self, operation: str, target: object) -> bytes:
        """Return the next datagram of the kernel."""
        try:
            size = self._socket.recv_into(self._buffer, 0, socket.MSG_DONTWAIT | socket.MSG_TRUNC)
        except BlockingIOError as error:
            raise NetlinkError(operation, str(target), "no answer from the kernel; the outcome is unknown") from error
        except OSError as error:
            raise NetlinkError(operation, str(target), f"receiving: {error.strerror or error}") from error
        if size > len(self._buffer):
            raise Malformed(operation, str(target), f"an answer has {size} bytes, more than {len(self._buffer)}")
        return bytes(self._buffer[:size])


def _words(what: Sequence[object]) -> str:
    return f"{what[0]}" + (f" and {len(what) - 1} more" if len(what) > 1 else "")


def dump_request(family: int, command: int, version: int, body: bytes = b"") -> bytes:
    """Return the request for a dump as bytes; `body` is encoded attributes."""
    flags = framing.NLM_F_DUMP
    return framing.request(family, command, version=version, flags=flags, sequence=DUMPS, body=body)


def netlink_socket() -> socket.socket:
    """Return a generic netlink socket of the current network namespace."""
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_GENERIC)


def raise_errno(operation: str, target: str, number: int) -> None:
    """Raise what `number`, a positive errno, means for reading; nothing for 0."""
    if number == errno.EPERM:
        reason = "IPVS needs CAP_NET_ADMIN in the initial user namespace: run as root, or give a container NET_ADMIN"
        raise Unavailable(operation, target, reason)
    if number:
        raise Refused(operation, target, number)
