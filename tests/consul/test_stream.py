"""The fields of an answer over HTTP/2: those that none may have are refused, by the same rule as h2's."""

import pytest
from h2.exceptions import ProtocolError
from h2.utilities import HeaderValidationFlags, validate_headers
from hypothesis import example, given
from hypothesis import strategies as st

from lvsctl.consul.pool import RequestFailed
from lvsctl.consul.stream import OF_CONNECTIONS, answered_by

RESPONSE = HeaderValidationFlags(is_client=True, is_trailer=False, is_response_header=True, is_push_promise=False)
STATUS = (b":status", b"200")

Field = tuple[bytes, bytes]

names = st.sampled_from([b":status", b":path", b"x-consul-index", b"X-Consul-Index", *OF_CONNECTIONS]) | st.binary(
    max_size=4
)
values = st.sampled_from([b"", b"7", b" 7", b"7\t"]) | st.binary(max_size=200)


@given(st.sampled_from([[], [STATUS]]), st.lists(st.tuples(names, values)))
@example([STATUS], [(b"a", b"x\ny")])
@example([STATUS], [(b"a:", b"")])
@example([STATUS], [(b"", b"")])
def test_what_may_be_is_what_h2_lets_through(begin: list[Field], others: list[Field]) -> None:
    fields = begin + others
    try:
        expected = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in _through(fields)]
    except ProtocolError:
        expected = None
    try:
        status, headers = answered_by(fields)
    except RequestFailed:
        assert expected is None
    else:
        assert expected is not None
        assert [(":status", fields[0][1].decode("latin-1")), *headers.items()] == expected
        assert status in (200, 0)


def _through(fields: list[Field]) -> list[Field]:
    found = []
    for name, value in validate_headers(fields, RESPONSE):
        assert isinstance(name, bytes)
        assert isinstance(value, bytes)
        found.append((name, value))
    return found


@pytest.mark.parametrize("length", [1, 200])
def test_a_header_is_found_in_any_case(length: int) -> None:
    _, headers = answered_by([STATUS, (b"x-consul-index", b"7" * length)])
    assert headers.get("X-Consul-Index") == "7" * length
