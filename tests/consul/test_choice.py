"""How news are waited for: by what the agent can, its limit and the number of queries."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvsctl.consul.choice import SPARE_FILES, Reason, Way, choose, most_connections

MANY = 1 << 20  # open files, more than any of these takes


@pytest.mark.parametrize(
    ("queries", "http2", "limit", "way", "reason"),
    [
        (3, False, 200, Way.POLLS, Reason.WITHIN_LIMIT),
        (90, False, 200, Way.POLLS, Reason.WITHIN_LIMIT),
        (91, False, 200, Way.SIGNALS, Reason.BEYOND_LIMIT),
        (90, False, None, Way.POLLS, Reason.WITHIN_LIMIT),
        (91, False, None, Way.SIGNALS, Reason.BEYOND_LIMIT),
        (5000, False, 0, Way.POLLS, Reason.NO_LIMIT),
        (5000, False, 12_000, Way.POLLS, Reason.WITHIN_LIMIT),
        (5000, True, 200, Way.STREAMS, Reason.HTTP2),
        (2, False, 1, Way.SIGNALS, Reason.BEYOND_LIMIT),
    ],
)
def test_the_way(queries: int, http2: object, limit: int | None, way: Way, reason: Reason) -> None:
    choice = choose(queries=queries, http2=bool(http2), limit=limit, files=MANY)
    assert (choice.way, choice.reason) == (way, reason)
    assert bool(choice.remedy) == choice.way.signalled


@pytest.mark.parametrize(
    ("queries", "streams", "limit", "way"),
    [
        (5000, 240, 200, Way.STREAMS),
        (90, 1, 200, Way.STREAMS),
        (91, 1, 200, Way.STREAM_SIGNALS),
        (900, 10, None, Way.STREAMS),
        (901, 10, None, Way.STREAM_SIGNALS),
        (5000, 1, 0, Way.STREAMS),
        (5000, 1, 12_000, Way.STREAMS),
    ],
)
def test_over_http2_the_connections_count(queries: int, streams: int, limit: int | None, way: Way) -> None:
    assert choose(queries=queries, http2=True, limit=limit, files=MANY, streams=streams).way is way


@given(
    queries=st.integers(1, 10_000),
    streams=st.integers(1, 250),
    limit=st.none() | st.integers(0, 100_000),
    files=st.integers(0, 20_000),
)
def test_streams_never_take_more_connections_than_there_are_for_us(
    queries: int, streams: int, limit: int | None, files: int
) -> None:
    choice = choose(queries=queries, http2=True, limit=limit, files=files, streams=streams)
    most, _ = most_connections(limit=limit, files=files)
    assert (choice.way is Way.STREAMS) == (queries <= most * streams)
    assert bool(choice.remedy) == choice.way.signalled


def test_the_words_of_http2() -> None:
    few = choose(queries=300, http2=True, limit=200, files=MANY, streams=1)
    assert few.why == (
        "300 queries, 1 on a connection, take 300 connections, and the agent's limit of 200 connections leaves us 90"
    )
    assert "MAX_CONCURRENT_STREAMS" in few.remedy
    assert choose(queries=300, http2=True, limit=200, files=MANY, streams=240).why == (
        "the TLS listener speaks HTTP/2, where 240 queries share a connection"
    )


@given(queries=st.integers(0, 100_000), limit=st.integers(1, 100_000))
def test_what_the_remedy_says_is_enough(queries: int, limit: int) -> None:
    choice = choose(queries=queries, http2=False, limit=limit, files=MANY)
    if choice.way is Way.SIGNALS:
        needed = int(choice.remedy.split("http_max_conns_per_client = ")[1].split()[0])
        assert needed > limit
        assert choose(queries=queries, http2=False, limit=needed, files=MANY).way is Way.POLLS
        assert choose(queries=queries, http2=False, limit=needed - 3, files=MANY).way is Way.SIGNALS


def test_the_words() -> None:
    assert choose(queries=3, http2=False, limit=200, files=MANY).why == (
        "3 fit into the 90 that the agent's limit of 200 connections leaves us"
    )
    signals = choose(queries=300, http2=False, limit=None, files=MANY)
    assert signals.why == "300 do not fit into the 90 that Consul's usual limit of 200 leaves us"
    assert signals.remedy == (
        "set limits { http_max_conns_per_client = 667 } in the Consul agent's configuration and run `consul reload`, "
        "or use HTTP/2: an https consul.address and the extra lvsctl[http2]"
    )


@given(queries=st.integers(1, 10_000), files=st.integers(0, 20_000), limit=st.none() | st.integers(0, 100_000))
def test_our_own_limit_of_open_files_is_never_passed(queries: int, files: int, limit: int | None) -> None:
    choice = choose(queries=queries, http2=False, limit=limit, files=files)
    if choice.way is Way.POLLS:
        assert queries <= max(1, files - SPARE_FILES)
    else:
        words = choice.remedy
        enough = int(words.split("lvsctl have ")[1].split()[0]) if "lvsctl have" in words else files
        agents = int(words.split("per_client = ")[1].split()[0]) if "per_client" in words else limit
        assert choose(queries=queries, http2=False, limit=agents, files=enough).way is Way.POLLS


def test_the_words_of_few_open_files_and_of_what_http2_needs() -> None:
    few = choose(queries=3000, http2=False, limit=0, files=1024, http2_needs="install the extra lvsctl[http2]")
    assert few.why == "3000 do not fit into the 824 that our own limit of 1024 open files leaves us"
    assert few.remedy == (
        "let lvsctl have 3200 files open (LimitNOFILE in its systemd service), "
        "or use HTTP/2: install the extra lvsctl[http2]"
    )
