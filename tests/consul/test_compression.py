"""Fields as HPACK has them: hpack reads what we write, and we read what it writes, as long as a connection lasts."""

import random

import pytest
from hpack import Decoder, Encoder, HeaderTuple, HPACKError, NeverIndexedHeaderTuple, OversizedHeaderListError
from hpack.table import HeaderTable
from hypothesis import given
from hypothesis import strategies as st

from lvsctl.consul.compression import PlainEncoder, QuickDecoder

Field = tuple[bytes, bytes]

names = st.sampled_from([name for name, _ in HeaderTable.STATIC_TABLE]) | st.binary(max_size=300)
fields = st.sampled_from(HeaderTable.STATIC_TABLE) | st.tuples(names, st.binary(max_size=300))
sent = st.tuples(fields, st.booleans())  # a field, and whether a table may keep it
blocks = st.lists(st.lists(sent, max_size=8), max_size=8)


def tuples(block: list[tuple[Field, bool]]) -> list[HeaderTuple]:
    return [(HeaderTuple if indexable else NeverIndexedHeaderTuple)(*field) for field, indexable in block]


def plain(found: object) -> list[Field]:
    assert isinstance(found, list)
    return [(bytes(name), bytes(value)) for name, value in found]


@given(blocks)
def test_what_is_written_is_read(many: list[list[tuple[Field, bool]]]) -> None:
    encoder, decoder = PlainEncoder(), Decoder()
    for block in many:
        assert plain(decoder.decode(encoder.encode(tuples(block)), raw=True)) == [field for field, _ in block]
    assert not decoder.header_table.dynamic_entries, "what we ask leaves nothing in a table"


@given(st.lists(sent, max_size=8))
def test_the_same_fields_are_written_the_same(block: list[tuple[Field, bool]]) -> None:
    encoder = PlainEncoder()
    assert encoder.encode(tuples(block)) == encoder.encode(tuples(block)) == PlainEncoder().encode(tuples(block))


@given(st.text(max_size=300))
def test_a_secret_is_written_as_what_no_table_may_keep(secret: str) -> None:
    written = PlainEncoder().encode([NeverIndexedHeaderTuple(b"x-consul-token", secret.encode())])
    (field,) = Decoder().decode(written, raw=True)
    assert isinstance(field, NeverIndexedHeaderTuple)


def test_of_fields_that_differ_few_are_kept() -> None:
    encoder = PlainEncoder()
    for number in range(1000):
        name = b"%d" % number
        encoder.encode([HeaderTuple(b":path", b"/" + name), NeverIndexedHeaderTuple(b"x-consul-token", name)])
    assert len(encoder._written) <= 16  # noqa: SLF001  # what is kept cannot be seen otherwise


@pytest.mark.parametrize("sizes", [[0], [100], [0, 4096]])
def test_a_peer_with_another_table_is_told_that_it_was_heard(sizes: list[int]) -> None:
    encoder, decoder = PlainEncoder(), Decoder()
    block = [(b":path", b"/v1"), (b"accept-encoding", b"identity")]
    for size in sizes:
        encoder.header_table_size = size
    decoder.max_allowed_table_size = sizes[-1]
    for _ in range(3):
        assert plain(decoder.decode(encoder.encode([HeaderTuple(*field) for field in block]), raw=True)) == block


@given(blocks, st.booleans(), st.lists(st.integers(0, 4096), max_size=8))
def test_what_a_peer_writes_is_read_as_hpack_does(
    many: list[list[tuple[Field, bool]]],
    huffman: bool,  # noqa: FBT001
    sizes: list[int],
) -> None:
    encoder, ours, theirs = Encoder(), QuickDecoder(), Decoder()
    for block in many:
        if sizes:
            encoder.header_table_size = sizes.pop()
        written = encoder.encode(tuples(block), huffman=huffman)
        assert plain(ours.decode(written)) == plain(theirs.decode(written, raw=True)) == [field for field, _ in block]
        assert ours.header_table.dynamic_entries == theirs.header_table.dynamic_entries


def attempt(decoder: Decoder, block: bytes) -> list[Field] | None:
    """Return what is read, None for one of the errors that h2 expects."""
    try:
        return plain([*decoder.decode(block, raw=True)])
    except (HPACKError, IndexError):
        return None


def wrong(block: bytes, chance: random.Random) -> bytes:
    """Return `block` with a few bytes changed, doubled or left out."""
    changed = bytearray(block)
    for _ in range(chance.randrange(4)):
        at = chance.randrange(len(changed) + 1)
        match chance.randrange(3):
            case 0:
                changed[at : at + 1] = chance.randbytes(1)
            case 1:
                changed[at:at] = chance.randbytes(chance.randrange(3))
            case 2:
                del changed[at : at + chance.randrange(8)]
    return bytes(changed)


@given(blocks, st.randoms(use_true_random=False))
def test_what_is_wrong_is_wrong_for_both(many: list[list[tuple[Field, bool]]], chance: random.Random) -> None:
    encoder, ours, theirs = Encoder(), QuickDecoder(), Decoder()
    for block in many:
        written = wrong(encoder.encode(tuples(block)), chance)
        found, expected = attempt(ours, written), attempt(theirs, written)
        assert found == expected
        if found is None:  # the connection is lost
            return


@given(st.binary(max_size=64))
def test_any_bytes_are_read_as_hpack_does(block: bytes) -> None:
    assert attempt(QuickDecoder(), block) == attempt(Decoder(), block)


@pytest.mark.parametrize("first", [b"\x40\x01x\x7f\xa1\x1e" + bytes(4000), b"\x00\x01x\x7f\xa1\x1e" + bytes(4000)])
def test_a_small_block_makes_no_large_list(first: bytes) -> None:
    decoder = QuickDecoder(max_header_list_size=1 << 16)
    decoder.decode(b"\x40\x01x\x7f\xa1\x1e" + bytes(4000))
    assert attempt(decoder, b"\xbe" * 10) is not None
    assert attempt(decoder, b"\xbe" * 17) is None
    assert attempt(decoder, first + b"\xbe" * 16) is None


@pytest.mark.parametrize("filler", [b"\x20", b"\x3f\xe1\x1f", b"\xff"])
def test_a_block_longer_than_any_list_is_not_read(filler: bytes) -> None:
    """A million changes of the table's size say nothing, and take seconds; so does a long tail behind short fields."""
    decoder = QuickDecoder(max_header_list_size=1 << 16)
    with pytest.raises(OversizedHeaderListError):
        decoder.decode(filler * (1 << 18) + b"\x88")
    assert plain(decoder.decode(b"\x88")) == [(b":status", b"200")]
