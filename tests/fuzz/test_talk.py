"""What talking to a made-up kernel found."""

import pytest

from netlink.errors import Interrupted, Malformed
from netlink.reader import Reader
from tests.fuzz.recorded import single_messages
from tests.fuzz.talking import FAMILY, Kernel, channel

SERVICE = single_messages("virtual-servers")[0]
END = bytes.fromhex("1400000003000200000000000000000000000000")
FOREIGN = SERVICE[:8] + b"\x07" + SERVICE[9:]


def dump(*datagrams: bytes) -> Kernel:
    """Return a kernel that dumps virtual servers in `datagrams`, and no real servers."""
    numbered = [_of_dump(each) for each in datagrams]
    return Kernel(lambda packed: [*numbered] if packed[16] == 4 else [END])


def _of_dump(datagram: bytes) -> bytes:
    """Return a datagram of `SERVICE` with the sequence number that dumps have."""
    return datagram.replace(SERVICE[:16], SERVICE[:8] + bytes(4) + SERVICE[12:16])


@pytest.mark.parametrize("datagrams", [(SERVICE, END), (SERVICE + END,)], ids=["as IPVS does", "in one"])
def test_the_end_of_a_dump_may_come_with_messages(datagrams: tuple[bytes, ...]) -> None:
    kernel = dump(*datagrams)
    reader = Reader(channel(kernel), channel(kernel), FAMILY)
    first = reader.observe()
    assert len(first.table) == 1
    assert reader.observe() is first


def test_daemons_that_changed_while_they_were_read_are_read_again() -> None:
    changed = END[:6] + bytes([0x12]) + END[7:]  # NLM_F_DUMP_INTR
    answers = [[changed], [END]]
    kernel = Kernel(lambda _: list(answers.pop(0) if len(answers) > 1 else answers[0]))
    assert Reader(channel(kernel), channel(kernel), FAMILY).sync_daemons() == ()
    answers[:] = [[changed]]
    with pytest.raises(Interrupted, match="read the synchronisation daemons"):
        Reader(channel(kernel), channel(kernel), FAMILY).sync_daemons()


def test_an_answer_to_another_request_is_no_part_of_a_dump() -> None:
    kernel = dump(FOREIGN, SERVICE, END)
    assert len(Reader(channel(kernel), channel(kernel), FAMILY).observe().table) == 1
    mixed = dump(SERVICE + FOREIGN, END)
    with pytest.raises(Malformed, match="another request"):
        Reader(channel(mixed), channel(mixed), FAMILY).observe()
