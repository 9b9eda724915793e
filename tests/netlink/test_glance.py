"""What /proc/net/ip_vs shows, as text: connection counts do not matter, all else does."""

import pytest

from netlink.glance import HEADING, Glance

# printed by 6.1
TABLE = b"""\
TCP  [fd00:0001:0000:0000:0000:0000:0000:0100]:0050 wlc 
  -> [fd00:0001:0000:0000:0000:0000:0000:0001]:1F90      Masq    1      1          0         
UDP  0A010064:0035 wlc  
  -> 0A010001:1F90      Masq    1      0          1         
TCP  0A010064:0051 wlc  persistent 30000 FFFFFF00
FWM  00000007 wlc persistent 10000 FFFFFFFF
  -> 0A010001:1F90      Route   100    12345      99        
"""  # noqa: W291 -- as the kernel has it


@pytest.mark.parametrize(
    ("was", "now"),
    [
        (b"1      0          1 ", b"1      10         1 "),
        (b"12345      99  ", b"12345      0   "),
        (b"12345", b"0    "),
    ],
)
def test_connection_counts_do_not_matter(was: bytes, now: bytes) -> None:
    assert TABLE.count(was) == 1
    one, other = Glance(HEADING + TABLE), Glance(HEADING + TABLE.replace(was, now))
    assert one == other
    assert hash(one) == hash(other)


@pytest.mark.parametrize(
    ("was", "now"),
    [
        (b"Route   100", b"Route   101"),
        (b"Route ", b"Tunnel"),
        (b"FWM  00000007", b"FWM  00000008"),
        (b"0A010064:0051 wlc ", b"0A010064:0051 rr  "),
        (b"30000 FFFFFF00", b"30000 FFFFFFFF"),
        (b"persistent 10000", b"persistent 10100"),
        (b"0001]:1F90", b"0001]:1F91"),
    ],
)
def test_all_else_does(was: bytes, now: bytes) -> None:
    assert TABLE.count(was) == 1
    assert Glance(HEADING + TABLE) != Glance(HEADING + TABLE.replace(was, now))


def test_it_is_counted() -> None:
    glance = Glance(HEADING + TABLE)
    assert (glance.virtual_servers, glance.real_servers) == (4, 3)
    for nothing in (b"", HEADING):
        assert (Glance(nothing).virtual_servers, Glance(nothing).real_servers) == (0, 0)


def test_the_size_of_the_connection_table_is_no_part_of_it() -> None:
    assert Glance(HEADING) == Glance(HEADING.replace(b"4096", b"256"))
