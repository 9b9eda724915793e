"""The fingerprint of a table: equal where tables are, whatever the order, another one where anything differs."""

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvsctl.core.fingerprint import BITS, combined, fingerprint
from netlink.types import Forwarding, SchedulerFlag, Table, TableEntry, Tunnel, TunnelFlag, VirtualServerKey
from tests.strategies import tables
from tests.values import entry, real


def of(table: Table) -> int:
    return combined(map(fingerprint, table.values()))


@given(one=tables(), other=tables(), data=st.data())
def test_equal_tables_have_the_same_and_others_another(one: Table, other: Table, data: st.DataObject) -> None:
    shuffled = {
        key: attrs.evolve(one[key], real_servers={server: one[key].real_servers[server] for server in servers})
        for key in data.draw(st.permutations(list(one)))
        for servers in [data.draw(st.permutations(list(one[key].real_servers)))]
    }
    assert of(shuffled) == of(one)
    assert (of(one) == of(other)) == (one == other)
    assert 0 <= of(one) < 1 << BITS
    assert float(of(one)) == of(one)


ONE = entry(real(1), real(2))


@pytest.mark.parametrize(
    "other",
    [
        entry(real(1)),
        entry(real(1), real(3)),
        entry(real(1), real(2), key=VirtualServerKey.by_mark(7)),
        entry(real(1), real(2), scheduler="rr"),
        entry(real(1), real(2), scheduler_flags=SchedulerFlag.FLAG_1),
        entry(real(1), real(2), one_packet=True),
        entry(real(1), real(2), persistence=300),
        entry(real(1), real(2), persistence_prefix=24),
        entry(real(1), real(2), persistence_engine="sip"),
        entry(real(1), real(2, 0)),
        entry(real(1), real(2, forwarding=Forwarding.TUNNEL)),
        entry(real(1), real(2, upper_threshold=9)),
        entry(real(1), real(2, lower_threshold=9)),
        entry(real(1), real(2, tunnel_type=Tunnel.GUE)),
        entry(real(1), real(2, tunnel_port=9)),
        entry(real(1), real(2, tunnel_flags=TunnelFlag.CHECKSUM)),
    ],
)
def test_every_field_counts(other: TableEntry) -> None:
    assert fingerprint(other) != fingerprint(ONE)


def test_every_field_is_tried_above() -> None:
    """A field that is new in `netlink.types` needs its place in the fingerprint and in the list above."""
    assert len(attrs.fields(type(ONE.virtual_server))) == 7
    assert len(attrs.fields(type(real(1)))) == 8


def test_directors_of_different_versions_agree() -> None:
    """What one prints must be what the next release prints: a pair is upgraded one after the other."""
    assert fingerprint(ONE) == 217041211490831
    assert combined([]) == 0
