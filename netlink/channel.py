"""A generic netlink socket: requests out, answers and dumps in, silence and permission as errors.

Shell around `framing`; `ipvs` knows what the messages mean. Generic netlink answers inside sendmsg, so all
acknowledgements are queued when it returns. Source: net/netlink/af_netlink.c.
"""

import contextlib
import errno
import itertools
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, TypeVar

from netlink import framing
from netlink.errors import Malformed, NetlinkError, Refused, Unavailable

BATCH: Final = 256  # messages in one sendmsg; beyond a hundred, more gains nothing
_RECEIVE_BUFFER: Final = 2 * 1024 * BATCH  # bytes; a queued acknowledgement costs up to 896
_DATAGRAM: Final = 65_536  # bytes; the kernel makes dump datagrams as long as it has seen us receive, up to 32 KiB

# include/uapi/linux/netlink.h and asm-generic/socket.h; the socket module has no names for them
_NETLINK_GENERIC: Final = 16
_SOL_NETLINK: Final = 270
_NETLINK_CAP_ACK: Final = 10
_SO_RCVBUFFORCE: Final = 33

Item = TypeVar("Item")


class Disturbed(Exception):
    """A dump is not what the table was at any moment; `ipvs` takes it again."""


class Channel:
    """One socket to the kernel. Blocks; `timeout` is seconds of silence after which an answer counts as lost."""

    def __init__(self, *, timeout: float) -> None:
        self._timeout = timeout
        self._sequence = itertools.count(1)
        self._socket = self._open()

    def close(self) -> None:
        """Close the socket; a second call does nothing."""
        self._socket.close()

    def ask(self, operation: str, family: int, command: int, version: int, body: bytes = b"") -> framing.Message:
        """Return the one answer to a request that is no dump."""
        sequence = self._next()
        packed = framing.request(family, command, version=version, flags=0, sequence=sequence, body=body)
        self._send(operation, "", packed)
        while True:
            for message in self._answers(operation, "", sequence):
                if message.kind != framing.NLMSG_ERROR:
                    return message
                _raise_errno(operation, "", framing.errno_of(message))

    def dump(
        self,
        operation: str,
        target: str,
        request: tuple[int, int, int, bytes],
        decode: Callable[[framing.Message], Item],
    ) -> tuple[list[Item], int]:
        """Return what a dump holds, and in how many datagrams with content it came.

        `request` is family, command, version and attributes. Raises Disturbed when the kernel says that it was.
        """
        family, command, version, body = request
        sequence = self._next()
        flags = framing.NLM_F_DUMP
        items: list[Item] = []
        datagrams = 0
        try:
            packed = framing.request(family, command, version=version, flags=flags, sequence=sequence, body=body)
            self._send(operation, target, packed)
            while True:
                had = len(items)
                for message in self._answers(operation, target, sequence):
                    _raise_disturbed(message)
                    if message.kind in (framing.NLMSG_DONE, framing.NLMSG_ERROR):
                        _raise_errno(operation, target, framing.errno_of(message))
                        return items, datagrams + (len(items) > had)
                    items.append(decode(message))
                datagrams += len(items) > had
        except (NetlinkError, Disturbed):
            self._reopen()  # the rest of this dump would block the next one with EBUSY
            raise

    def batch(self, what: str, family: int, version: int, requests: Sequence[tuple[int, bytes]]) -> list[int]:
        """Send up to BATCH requests (command and attributes) at once; return the positive errno of each, 0 for done.

        Where answers got lost, ENOBUFS stands for each that did not come. NetlinkError when the kernel fell silent.
        """
        sequences = [self._next() for _ in requests]
        packed = [
            framing.request(
                family,
                command,
                version=version,
                flags=framing.NLM_F_ACK if sequence == sequences[-1] else 0,
                sequence=sequence,
                body=body,
            )
            for (command, body), sequence in zip(requests, sequences, strict=True)
        ]
        self._send("send", what, b"".join(packed))
        answers = self._acknowledgements(what, frozenset(sequences), sequences[-1])
        return [answers.get(sequence, 0) for sequence in sequences]

    def _acknowledgements(self, what: str, ours: frozenset[int], last: int) -> Mapping[int, int]:
        """Return the errno of each sequence number that has an answer, once `last` was answered."""
        answers: dict[int, int] = {}
        lost = False
        while lost or last not in answers:
            try:
                received = self._receive("send", what)
            except BlockingIOError:  # lost, and nothing is left
                self._reopen()
                return dict.fromkeys(ours, errno.ENOBUFS) | answers
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise NetlinkError("send", what, f"receiving the answer: {error.strerror or error}") from error
                # Some answers were dropped, and nobody knows whose. Those that were not are queued already.
                lost = True
                self._socket.settimeout(0)
                continue
            for message in received:
                if message.sequence in ours and message.kind == framing.NLMSG_ERROR:
                    answers[message.sequence] = framing.errno_of(message)
        return answers

    def _next(self) -> int:
        return next(self._sequence) & 0xFFFFFFFF

    def _open(self) -> socket.socket:
        try:
            opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_GENERIC)
        except (AttributeError, OSError) as error:
            reason = f"this system offers no netlink sockets ({error}); IPVS needs Linux with generic netlink"
            raise Unavailable("open", "IPVS", reason) from error
        try:
            opened.settimeout(self._timeout)
            opened.bind((0, 0))
            try:
                opened.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
            except PermissionError:
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
            with contextlib.suppress(OSError):  # errors come back without the request, so more of them fit
                opened.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
        except OSError as error:
            opened.close()
            raise Unavailable("open", "IPVS", f"the netlink socket cannot be set up: {error.strerror}") from error
        return opened

    def _reopen(self) -> None:
        self._socket.close()
        self._socket = self._open()

    def _send(self, operation: str, target: str, packed: bytes) -> None:
        try:
            self._socket.sendto(packed, (0, 0))
        except OSError as error:
            raise NetlinkError(operation, target, f"sending: {error.strerror or error}") from error

    def _receive(self, operation: str, target: str) -> list[framing.Message]:
        """Return the messages of the next datagram of the kernel; OSError but a timeout is the caller's."""
        while True:
            try:
                datagram, _, flags, sender = self._socket.recvmsg(_DATAGRAM)
            except TimeoutError as error:
                reason = f"no answer from the kernel within {self._timeout:g} s; the outcome is unknown"
                raise NetlinkError(operation, target, reason) from error
            if flags & socket.MSG_TRUNC:
                raise Malformed(operation, target, f"an answer is longer than {_DATAGRAM} bytes")
            if sender[0] == 0:  # anybody may send us messages; the kernel has port 0
                return list(framing.messages(datagram))

    def _answers(self, operation: str, target: str, sequence: int) -> Iterator[framing.Message]:
        """Yield the messages of the next datagram that answer `sequence`; those of requests given up are skipped."""
        try:
            received = self._receive(operation, target)
        except OSError as error:
            raise NetlinkError(operation, target, f"receiving: {error.strerror or error}") from error
        return (message for message in received if message.sequence == sequence)


def _raise_disturbed(message: framing.Message) -> None:
    if message.flags & framing.NLM_F_DUMP_INTR:
        raise Disturbed("the kernel says so")


def _raise_errno(operation: str, target: str, number: int) -> None:
    if number == errno.EPERM:
        reason = "IPVS needs CAP_NET_ADMIN in the initial user namespace: run as root, or give a container NET_ADMIN"
        raise Unavailable(operation, target, reason)
    if number:
        raise Refused(operation, target, number)
