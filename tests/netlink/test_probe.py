"""What a kernel lacks is found by a request that no kernel carries out; the table stays what it is."""

import errno
import subprocess
import sys

import pytest

from netlink import codec, framing, probe
from netlink.errors import Invalid, Refused, Unavailable
from netlink.ipvs import IPVS
from netlink.requests import AddVirtualServer
from netlink.types import Family, Lacking, VirtualServer, VirtualServerKey
from tests.netlink.test_contract import done, entry, holds

LAST = VirtualServerKey.by_mark(2**32 - 1, Family.IPV6)


class Answers:
    """Answers each request with the next of some errnos, and remembers what was asked."""

    def __init__(self, *numbers: int) -> None:
        self.numbers = list(numbers)
        self.asked: list[tuple[int, VirtualServerKey]] = []

    def send(self, command: int, body: bytes) -> int:
        attributes = framing.attributes(framing.attributes(body)[1])
        mark = int.from_bytes(attributes[5], sys.byteorder)
        self.asked.append((command, VirtualServerKey.by_mark(mark, Family.IPV6)))
        if command == codec.NEW_SERVICE:
            assert attributes[9] == bytes(4), "a prefix of 0 bits, which no kernel takes"
        return self.numbers.pop(0)


def test_a_name_that_is_not_found_is_lacking() -> None:
    answers = Answers(errno.EINVAL, errno.ENOENT, errno.ENOENT, errno.EINVAL)
    assert probe.lacking(answers.send, schedulers=["a", "b"], persistence_engines=["c", "d"]) == Lacking(
        schedulers=frozenset({"b"}), persistence_engines=frozenset({"c"})
    )
    assert answers.asked == [(codec.NEW_SERVICE, LAST)] * 4


def test_nothing_is_asked_for_nothing() -> None:
    assert probe.lacking(Answers().send) == Lacking()


def test_a_mark_that_is_taken_is_left_alone() -> None:
    answers = Answers(errno.EEXIST, errno.ENOENT)
    assert probe.lacking(answers.send, schedulers=["a"]).schedulers == {"a"}
    other = VirtualServerKey.by_mark(2**32 - 2, Family.IPV6)
    assert answers.asked == [(codec.NEW_SERVICE, LAST), (codec.NEW_SERVICE, other)]
    with pytest.raises(Unavailable, match="the firewall marks for it, from 4294967288 on, are taken"):
        probe.lacking(Answers(*[errno.EEXIST] * 8).send, schedulers=["a"])


def test_what_a_kernel_made_all_the_same_is_deleted() -> None:
    answers = Answers(0, 0)
    assert probe.lacking(answers.send, schedulers=["a"]) == Lacking()
    assert answers.asked == [(codec.NEW_SERVICE, LAST), (codec.DEL_SERVICE, LAST)]


@pytest.mark.parametrize(
    ("number", "error", "says"),
    [
        (errno.EAFNOSUPPORT, Unavailable, "try what the kernel has: its IPVS was built without IPv6"),
        (errno.ENOMEM, Refused, "the kernel is out of memory"),
        (errno.EINTR, Refused, "the kernel gave no answer"),
    ],
)
def test_another_answer_is_an_error(number: int, error: type[Exception], says: str) -> None:
    with pytest.raises(error) as caught:
        probe.lacking(Answers(number).send, persistence_engines=["a"])
    assert says in str(caught.value)


@pytest.mark.parametrize("name", ["", "a b", "../x", "a" * 16, "é"])
def test_what_cannot_be_a_name_is_not_tried(name: str) -> None:
    answers = Answers()
    for names in ({"schedulers": [name]}, {"persistence_engines": [name]}):
        with pytest.raises(Invalid):
            probe.lacking(answers.send, **names)
    assert answers.asked == []


@pytest.mark.kernel
def test_the_table_is_not_touched(kernel: IPVS) -> None:
    taken = entry(VirtualServer(key=LAST, scheduler="rr"))
    for table in ([], [taken]):
        done(kernel, *(AddVirtualServer(virtual_server=each.virtual_server) for each in table))
        before = kernel.glance()
        found = kernel.lacking(schedulers=["rr", "mh", "nosuch"], persistence_engines=["sip", "nosuch"])
        assert found == Lacking(schedulers=frozenset({"nosuch"}), persistence_engines=frozenset({"nosuch"}))
        assert kernel.glance() == before
        assert holds(kernel, *table)


@pytest.mark.kernel
def test_it_takes_no_more_permission_than_ipvs(kernel: IPVS) -> None:
    program = (
        "from netlink import *\n"
        "key = VirtualServerKey.by_mark(1)\n"
        "unknown = VirtualServer(key=key, scheduler='rr', persistence=1, persistence_engine='y')\n"
        "with IPVS() as ipvs:\n"
        "    print(ipvs.apply([AddVirtualServer(virtual_server=unknown)])[0])\n"
    )
    command = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin", sys.executable, "-c", program]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    assert "the kernel has no persistence engine 'y', and found no module for it (ENOENT)" in said
    assert holds(kernel)
