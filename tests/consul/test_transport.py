"""How a request's query is written."""

from urllib.parse import parse_qsl, urlencode

from hypothesis import given
from hypothesis import strategies as st

from lvsctl.consul.transport import _encoded

texts = st.sampled_from(["index", "17", "wait", "25s", "dc", "dc-1", "äß", "²", "a b&c=d", ""]) | st.text(max_size=8)


@given(st.lists(st.tuples(texts, texts), min_size=1))
def test_a_query_is_written_as_urllib_does(params: list[tuple[str, str]]) -> None:
    assert _encoded(params) == urlencode(params)
    assert _encoded(dict(params)) == urlencode(dict(params))
    assert parse_qsl(_encoded(params), keep_blank_values=True) == params
