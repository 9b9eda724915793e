"""The socket's bad days: answers that are lost, cut, late, foreign or lie, by a socket that replays datagrams.

A kernel cannot be made to say most of this. What it can is in test_ipvs.py; whole dumps are in test_reader.py.
"""

import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

import pytest

from netlink import codec, framing
from netlink.channel import DATAGRAM, Channel, Disturbed, dump_request, netlink_socket, raise_errno
from netlink.errors import Malformed, NetlinkError, Refused, Unavailable
from netlink.ipvs import IPVS
from netlink.requests import AddVirtualServer, DeleteVirtualServer, Request
from netlink.types import Timeouts, VirtualServer, VirtualServerKey
from tests.netlink.test_contract import TCP

FAMILY = 28
HEAD = struct.Struct("=IHHII")

Reply = bytes | OSError
Answer = Callable[[bytes], Sequence[Reply]]


def again() -> BlockingIOError:
    return BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")


class Replay(socket.socket):
    """Queues what `answer` says to each request, and gives it datagram by datagram; an OSError is raised instead."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.answer = answer
        self.queue: list[Reply] = []

    def bind(self, address: object) -> None:
        assert address == (0, 0)

    def connect(self, address: object) -> None:
        assert address == (0, 0)

    def setsockopt(self, *_: object) -> None:
        pass

    def send(self, data: object, flags: int = 0, /) -> int:
        packed = bytes(memoryview(data))  # type: ignore[arg-type]
        assert not flags
        replies = self.answer(packed)
        if len(replies) == 1 and isinstance(replies[0], BrokenPipeError):
            raise replies[0]
        self.queue += replies
        return len(packed)

    def recv_into(self, buffer: object, nbytes: int = 0, flags: int = 0) -> int:
        assert flags & socket.MSG_DONTWAIT, "nothing ever waits"
        if not self.queue:
            raise again()
        reply = self.queue.pop(0)
        if isinstance(reply, OSError):
            raise reply
        into = memoryview(buffer)[: nbytes or None]  # type: ignore[arg-type]
        into[: len(reply)] = reply[: len(into)]
        return len(reply) if flags & socket.MSG_TRUNC else min(len(reply), len(into))


class Kernel:
    """Opens replaying sockets and remembers what came; each socket in turn has its own answers."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.opened: list[Replay] = []
        self.asked: list[bytes] = []

    def open(self) -> socket.socket:
        answer = self.answers[min(len(self.opened), len(self.answers) - 1)]

        def noted(packed: bytes) -> Sequence[Reply]:
            self.asked.append(packed)
            return answer(packed)

        self.opened.append(Replay(noted))
        return self.opened[-1]


@pytest.fixture
def exits() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def sequence_of(packed: bytes) -> int:
    return int(HEAD.unpack_from(packed)[3])


def message(kind: int, sequence: int, payload: bytes = b"", *, flags: int = 2, length: int | None = None) -> bytes:
    whole = HEAD.size + len(payload) if length is None else length
    return HEAD.pack(whole, kind, flags, sequence, 0) + payload + bytes(-len(payload) % 4)


def acknowledgement(sequence: int, number: int = 0) -> bytes:
    return message(framing.NLMSG_ERROR, sequence, struct.pack("=i", -number) + bytes(16))


def finish(sequence: int = 0, number: int = 0) -> bytes:
    return message(framing.NLMSG_DONE, sequence, struct.pack("=i", -number))


def found(sequence: int, payload: bytes = b"\x01\x01\0\0") -> bytes:
    return message(FAMILY, sequence, payload)


def channel(exits: ExitStack, *answers: Answer) -> tuple[Channel, Kernel]:
    kernel = Kernel(*answers)
    made = Channel(kernel.open)
    exits.callback(made.close)
    return made, kernel


def ask(made: Channel) -> framing.Message:
    return made.ask("read", FAMILY, 15, 1, target="something")


def dump(made: Channel, known: Sequence[bytes] = ()) -> tuple[list[bytes], list[int]]:
    """Return the datagrams of a dump, and the kinds of its messages."""
    kinds: list[int] = []

    def take(datagram: bytes, offset: int, _before: bytes) -> int:
        header = framing.header(datagram, offset)
        kinds.append(header.kind)
        return offset + header.padded_length

    return made.dump("read", "things", dump_request(FAMILY, codec.GET_SERVICE, 1), take, known), kinds


# ---- one answer


def test_an_answer_is_told_from_those_to_others(exits: ExitStack) -> None:
    made, _ = channel(
        exits,
        lambda packed: [
            found(sequence_of(packed) + 1) + found(99),
            acknowledgement(77, errno.EPERM),
            found(sequence_of(packed) - 1) + found(sequence_of(packed), b"\x0e\x01\0\0mine"),
        ],
    )
    assert ask(made).payload == b"\x0e\x01\0\0mine"


@pytest.mark.parametrize(
    ("replies", "error", "says"),
    [
        ([], NetlinkError, "read something: no answer from the kernel; the outcome is unknown"),
        ([b""], NetlinkError, "no answer from the kernel"),
        ([OSError(errno.ENOBUFS, "No buffer space available")], NetlinkError, "receiving: No buffer space available"),
        ([OSError(errno.EIO, "")], NetlinkError, "receiving: "),
        ([BrokenPipeError(errno.EPIPE, "Broken pipe")], NetlinkError, "read something: sending: Broken pipe"),
        ([b"short"], Malformed, "5 bytes are left, a header has 16"),
        ([message(FAMILY, 1, length=15)], Malformed, "its length is 15"),
        ([message(FAMILY, 1, length=17)], Malformed, "its length is 17, 16 bytes are left"),
        ([found(9) + message(FAMILY, 1, length=400)], Malformed, "its length is 400, 16 bytes are left"),
        ([bytes(DATAGRAM + 1)], Malformed, f"an answer has {DATAGRAM + 1} bytes, more than {DATAGRAM}"),
        ([message(framing.NLMSG_ERROR, 1, b"\0\0")], Malformed, "2 bytes do not hold an errno"),
        ([acknowledgement(1, -5)], Malformed, "its errno is 5, the kernel sends negative ones"),
        ([acknowledgement(1, errno.EPERM)], Unavailable, "IPVS needs CAP_NET_ADMIN in the initial user namespace"),
        ([acknowledgement(1, errno.ENOENT)], Refused, "read something: No such file or directory (ENOENT)"),
        ([acknowledgement(1, 9999)], Refused, "(errno 9999)"),
    ],
)
def test_an_answer_that_is_none_is_an_error(
    exits: ExitStack, replies: list[Reply], error: type[NetlinkError], says: str
) -> None:
    made, _ = channel(exits, lambda _: replies)
    with pytest.raises(error) as caught:
        ask(made)
    assert says in str(caught.value)
    assert type(caught.value) is error


def test_a_mere_success_is_no_answer(exits: ExitStack) -> None:
    made, _ = channel(exits, lambda _: [acknowledgement(1)])
    with pytest.raises(NetlinkError, match="no answer"):
        ask(made)


# ---- dumps


def test_a_dump_ends_where_it_says(exits: ExitStack) -> None:
    one, two = found(0) * 3, found(0)
    made, kernel = channel(exits, lambda _: [one, two, finish(), found(0)])
    assert dump(made) == ([one, two], [FAMILY] * 4)
    assert len(kernel.opened) == 1
    (header,) = [framing.header(packed, 0) for packed in kernel.asked]
    assert header.flags == framing.NLM_F_REQUEST | framing.NLM_F_DUMP


def test_the_end_may_come_with_the_last_entries(exits: ExitStack) -> None:
    made, _ = channel(exits, lambda _: [found(0) + finish()])
    assert dump(made)[1] == [FAMILY]


def test_what_is_known_is_not_read_again(exits: ExitStack) -> None:
    one, two = found(0, b"\x01\x01\0\0one."), found(0, b"\x01\x01\0\0two.")
    made, _ = channel(exits, lambda _: [one, two, finish()])
    assert dump(made, [one, two]) == ([one, two], [])
    assert dump(made, [two]) == ([one, two], [FAMILY] * 2)
    assert dump(made, [one]) == ([one, two], [FAMILY])


@pytest.mark.parametrize(
    ("replies", "error", "says"),
    [
        ([message(FAMILY, 0, flags=2 | framing.NLM_F_DUMP_INTR)], Disturbed, "the kernel says so"),
        ([found(0), message(framing.NLMSG_DONE, 0, bytes(4), flags=0x10)], Disturbed, "the kernel says so"),
        ([], NetlinkError, "read things: no answer from the kernel"),
        ([found(0)], NetlinkError, "no answer from the kernel"),
        ([found(0), OSError(errno.ENOBUFS, "No buffer space available")], NetlinkError, "No buffer space available"),
        ([finish(0, errno.ENOMEM)], Refused, "read things: Cannot allocate memory (ENOMEM)"),
        ([found(0), finish(0, errno.EPERM)], Unavailable, "CAP_NET_ADMIN"),
        ([acknowledgement(0, errno.EBUSY)], Refused, "(EBUSY)"),
        ([message(framing.NLMSG_DONE, 0)], Malformed, "0 bytes do not hold an errno"),
        ([found(0) + b"rest"], Malformed, "4 bytes are left, a header has 16"),
        ([found(0) + message(FAMILY, 0, length=5000)], Malformed, "its length is 5000"),
        ([bytes(DATAGRAM + 4)], Malformed, "more than"),
        ([BrokenPipeError(errno.EPIPE, "Broken pipe")], NetlinkError, "sending: Broken pipe"),
    ],
)
def test_a_dump_that_is_cut_or_lies_is_an_error_and_leaves_nothing_behind(
    exits: ExitStack, replies: list[Reply], error: type[Exception], says: str
) -> None:
    made, kernel = channel(exits, lambda _: replies, lambda _: [found(0), finish()])
    with pytest.raises(error) as caught:
        dump(made)
    assert says in str(caught.value)
    assert len(kernel.opened) == 2, "the rest of a dump would be in the way of the next"
    assert kernel.opened[0].fileno() == -1
    assert dump(made)[1] == [FAMILY]


def test_what_cannot_be_read_is_an_error_of_the_reader(exits: ExitStack) -> None:
    made, kernel = channel(exits, lambda _: [found(0), finish()])

    def take(_datagram: bytes, _offset: int, _before: bytes) -> int:
        raise Malformed("read", "thing", "a test said so")

    with pytest.raises(Malformed, match="a test said so"):
        made.dump("read", "things", dump_request(FAMILY, codec.GET_SERVICE, 1), take)
    assert len(kernel.opened) == 2


def test_answers_of_another_request_are_no_part_of_a_dump(exits: ExitStack) -> None:
    made, _ = channel(exits, lambda _: [acknowledgement(5) + found(5), found(7), finish(3), found(0), finish()])
    assert dump(made)[1] == [FAMILY]


def test_an_answer_of_another_request_amid_a_dump_is_an_error(exits: ExitStack) -> None:
    made, _ = channel(exits, lambda _: [found(0) + found(7), finish()])
    with pytest.raises(Malformed, match="an answer to another request is among its messages"):
        dump(made)


# ---- batches

THREE = [DeleteVirtualServer(key=VirtualServerKey.by_mark(mark)) for mark in (1, 2, 3)]


def batch(made: Channel, first: int = 1) -> dict[int, int]:
    return made.batch(b"packed", first, first + 2, THREE)


@pytest.mark.parametrize(
    ("replies", "errors"),
    [
        ([acknowledgement(3)], {}),
        ([acknowledgement(1, 2), acknowledgement(3)], {1: 2}),
        ([acknowledgement(1, 2), acknowledgement(2, 3), acknowledgement(3, 17)], {1: 2, 2: 3, 3: 17}),
        # silence
        ([], {3: errno.EINTR}),
        ([acknowledgement(2, 3)], {2: 3, 3: errno.EINTR}),
        # others' answers
        ([acknowledgement(0, 1), acknowledgement(4, 1), found(3), acknowledgement(3)], {}),
        # lost answers
        ([OSError(errno.ENOBUFS, "")], {1: errno.ENOBUFS, 2: errno.ENOBUFS, 3: errno.ENOBUFS}),
        ([acknowledgement(1, 2), OSError(errno.ENOBUFS, ""), acknowledgement(3)], {1: 2, 2: errno.ENOBUFS}),
        ([OSError(errno.ENOBUFS, ""), acknowledgement(2, 3)], {1: errno.ENOBUFS, 2: 3, 3: errno.ENOBUFS}),
        (
            [OSError(errno.ENOBUFS, ""), acknowledgement(3, 17), OSError(errno.ENOBUFS, "")],
            {1: errno.ENOBUFS, 2: errno.ENOBUFS, 3: 17},
        ),
    ],
)
def test_a_batch_says_what_became_of_each(exits: ExitStack, replies: list[Reply], errors: dict[int, int]) -> None:
    made, kernel = channel(exits, lambda _: replies, lambda _: [acknowledgement(6)])
    assert batch(made) == errors
    lost = any(isinstance(reply, OSError) for reply in replies)
    assert len(kernel.opened) == 1 + lost, "after a loss there may be answers that nobody waits for"
    if lost:
        assert batch(made, 4) == {}


@pytest.mark.parametrize(
    ("replies", "error", "says"),
    [
        ([BrokenPipeError(errno.EPIPE, "Broken pipe")], NetlinkError, "sending: Broken pipe"),
        ([OSError(errno.EIO, "Input/output error")], NetlinkError, "receiving the answer: Input/output error"),
        ([b"short"], Malformed, "an answer has 5 bytes"),
        ([b""], Malformed, "an answer has 0 bytes"),
    ],
)
def test_a_batch_whose_outcome_is_unknown_is_an_error(
    exits: ExitStack, replies: list[Reply], error: type[NetlinkError], says: str
) -> None:
    made, _ = channel(exits, lambda _: replies)
    with pytest.raises(error) as caught:
        batch(made)
    assert str(caught.value).startswith("send delete virtual server mark 1 and 2 more: ")
    assert says in str(caught.value)


def test_sequence_numbers_begin_again_before_they_end(exits: ExitStack) -> None:
    made, _ = channel(exits, lambda packed: [found(sequence_of(packed))])
    assert made.reserve(10) == 1
    assert made.reserve(1) == 11
    assert made.reserve(0xFFFFFFF0) == 12
    assert made.reserve(10) == 1, "0 is for dumps"
    assert ask(made).sequence == 11


# ---- opening


class Unbindable(Replay):
    """A socket that nothing can be done with."""

    def bind(self, _: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")


class Plain(Replay):
    """A socket whose buffers may not be forced."""

    options: list[object]

    def setsockopt(self, *given: object) -> None:
        self.options = [*getattr(self, "options", []), given[1]]
        if given[1] in (32, 33):  # SO_SNDBUFFORCE, SO_RCVBUFFORCE
            raise PermissionError(errno.EPERM, "Operation not permitted")
        if given[0] == 270:  # an old kernel
            raise OSError(errno.ENOPROTOOPT, "Protocol not available")


def test_a_system_without_netlink_is_unavailable() -> None:
    def refuse() -> socket.socket:
        raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")

    with pytest.raises(Unavailable, match=r"this system offers no netlink sockets .*Address family not supported"):
        Channel(refuse)
    with pytest.raises(Unavailable, match="this system offers no netlink sockets"):
        IPVS(open_socket=refuse)


def test_a_socket_that_cannot_be_set_up_is_closed() -> None:
    made: list[Replay] = []

    def unbindable() -> socket.socket:
        made.append(Unbindable(lambda _: []))
        return made[-1]

    with pytest.raises(Unavailable, match="the netlink socket cannot be set up: Operation not permitted"):
        Channel(unbindable)
    assert [each.fileno() for each in made] == [-1]


def test_what_may_not_be_forced_is_asked_for(exits: ExitStack) -> None:
    made = Plain(lambda packed: [found(sequence_of(packed))])
    plain = Channel(lambda: made)
    exits.callback(plain.close)
    assert made.options == [33, socket.SO_RCVBUF, 32, socket.SO_SNDBUF, 10]
    assert ask(plain).kind == FAMILY


def test_a_real_socket_is_a_netlink_socket_that_no_child_inherits() -> None:
    with netlink_socket() as made:
        assert made.family == socket.AF_NETLINK
        assert not os.get_inheritable(made.fileno())


def test_success_raises_nothing() -> None:
    raise_errno("read", "", 0)


# ---- the whole client over it


def attribute(number: int, payload: bytes) -> bytes:
    return framing.attribute(number, payload)


def u32(number: int) -> bytes:
    return struct.pack("=I", number)


def kernel_with(**changed: Answer) -> Answer:
    """Return answers of a kernel with an empty table; `changed` has those of some commands instead."""
    answers: dict[str, Answer] = {
        "family": lambda packed: [
            message(0x10, sequence_of(packed), b"\x01\x02\0\0" + attribute(1, struct.pack("=H", FAMILY)))
        ],
        "information": lambda packed: [
            found(sequence_of(packed), b"\x0e\x01\0\0" + attribute(1, u32(0x10201)) + attribute(2, u32(4096)))
        ],
        "timeouts": lambda packed: [
            found(sequence_of(packed), b"\x0d\x01\0\0" + b"".join(attribute(n, u32(n)) for n in (4, 5, 6)))
        ],
        "dump": lambda _: [finish()],
        "change": lambda packed: [acknowledgement(sequence_of(packed))],
    } | changed

    def answer(packed: bytes) -> Sequence[Reply]:
        _, kind, flags, *_ = HEAD.unpack_from(packed)
        command = packed[HEAD.size]
        if kind == 0x10:
            return answers["family"](packed)
        if flags & framing.NLM_F_DUMP:
            return answers["dump"](packed)
        return answers.get({15: "information", 13: "timeouts"}.get(command, "change"), answers["change"])(packed)

    return answer


def client(exits: ExitStack, **changed: Answer) -> IPVS:
    return exits.enter_context(IPVS(open_socket=Kernel(kernel_with(**changed)).open))


def test_a_client_works_over_any_socket(exits: ExitStack) -> None:
    ipvs = client(exits)
    assert ipvs.observe().table == {}
    assert ipvs.timeouts() == Timeouts(tcp=4, tcp_fin=5, udp=6)
    assert ipvs.sync_daemons() == ()
    requests: list[Request] = [AddVirtualServer(virtual_server=VirtualServer(key=TCP))]
    assert ipvs.apply(requests) == [None]


def refused(number: int) -> Answer:
    return lambda packed: [acknowledgement(sequence_of(packed), number)]


@pytest.mark.parametrize(
    ("changed", "error", "says"),
    [
        ({"family": refused(errno.EPERM)}, Unavailable, "CAP_NET_ADMIN"),
        ({"family": refused(errno.ENOMEM)}, Refused, "look up: Cannot allocate memory"),
        ({"information": refused(errno.EPERM)}, Unavailable, "read IPVS information: IPVS needs CAP_NET_ADMIN"),
        ({"information": lambda packed: [found(sequence_of(packed))]}, Malformed, "it has no version"),
        ({"family": lambda packed: [found(sequence_of(packed))]}, Malformed, "generic netlink family"),
        ({"information": lambda _: []}, NetlinkError, "no answer from the kernel"),
    ],
)
def test_what_is_missing_is_said_when_it_is_opened(
    changed: dict[str, Answer], error: type[NetlinkError], says: str
) -> None:
    kernel = Kernel(kernel_with(**changed))
    with pytest.raises(error) as caught:
        IPVS(open_socket=kernel.open)
    assert says in str(caught.value)
    assert all(each.fileno() == -1 for each in kernel.opened), "nothing stays open"


def test_silence_to_one_of_many_is_told_for_that_one(exits: ExitStack) -> None:
    ipvs = client(exits, change=lambda _: [])
    results = ipvs.apply(THREE)
    assert [each.errno if each else 0 for each in results] == [0, 0, errno.EINTR]
    assert "whether it took effect is unknown: read the table again" in str(results[2])


def test_lost_answers_are_told_for_each(exits: ExitStack) -> None:
    ipvs = client(exits, change=lambda _: [OSError(errno.ENOBUFS, "No buffer space available")])
    results = ipvs.apply(THREE)
    assert [each.errno if each else 0 for each in results] == [errno.ENOBUFS] * 3
    assert ipvs.observe().table == {}


def test_where_it_cannot_be_found_out_an_error_names_both_names(exits: ExitStack) -> None:
    answers = [errno.ENOENT, errno.EAFNOSUPPORT]
    ipvs = client(exits, change=lambda packed: [acknowledgement(sequence_of(packed), answers.pop(0))])
    wanted = VirtualServer(key=TCP, scheduler="x", persistence=1, persistence_engine="y")
    (result,) = ipvs.apply([AddVirtualServer(virtual_server=wanted)])
    assert "the kernel has no scheduler 'x' or persistence engine 'y', and found no module" in str(result)
    assert not answers
