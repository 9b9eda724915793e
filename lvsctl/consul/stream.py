"""One request on an HTTP/2 connection (RFC 9113): the fields it is sent as, and what has come of its answer.

Does no I/O: `http2` sends the fields and passes on what h2 makes of the listener's frames. Whether the fields of an
answer may be (8.2, 8.3) is looked at here, for h2 takes several times as long for it; a field that was seen lately is
known.
"""

import asyncio
import functools
import re
from collections.abc import Iterator, Sequence
from typing import Final

import attrs
from h2.errors import ErrorCodes
from h2.events import ResponseReceived, StreamEnded, StreamReset
from hpack import HeaderTuple, NeverIndexedHeaderTuple
from multidict import CIMultiDict, CIMultiDictProxy, MultiMapping

from lvsctl.consul.budget import Share, TooMuch
from lvsctl.consul.pool import Request, RequestFailed, Response, TooLarge

SECRET: Final = frozenset({"x-consul-token"})  # fields that no table of HPACK may keep (RFC 7541, 7.1.3)
NO_HEADERS: Final[MultiMapping[str]] = CIMultiDictProxy(CIMultiDict())
SHORT: Final = 128  # bytes of a value that is remembered; Consul's have 50
OF_CONNECTIONS: Final = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"})
_NAME: Final = re.compile(rb"[!-9;-@\[-~]+")  # no capital, and nothing of the kind of `:status`, which is taken apart
_VALUE: Final = re.compile(rb"(?![ \t])[^\0\r\n]*(?<![ \t])")


@attrs.define(kw_only=True, eq=False)
class Stream:
    """A request under way; `answer` is done when there is nothing more to wait for."""

    most_bytes: int
    body: Share
    answer: asyncio.Future[Response]
    sent: bool = False  # our side has ended
    ended: bool = False  # the other side has
    _status: int = 0
    _headers: MultiMapping[str] = NO_HEADERS

    def fail(self, error: RequestFailed) -> None:
        """End the request without an answer."""
        if not self.answer.done():
            self.answer.set_exception(error)
            self.answer.exception()  # counts as seen, should the request be cancelled in this moment

    def take(self, event: ResponseReceived | StreamEnded | StreamReset) -> None:
        """Take what has come, but for the body."""
        match event:
            case ResponseReceived():
                try:
                    self._status, self._headers = answered_by(event.headers)
                except RequestFailed as error:
                    self.fail(error)
            case StreamEnded():
                self.ended = True
                if not self.answer.done():
                    try:
                        body = self.body.take()
                    except TooMuch as error:
                        self.fail(RequestFailed(str(error)))
                        return
                    self.answer.set_result(Response(status=self._status, headers=self._headers, body=body))
            case StreamReset():
                self.sent = self.ended = True
                self.fail(RequestFailed(f"the listener reset the request (RST_STREAM, {word(event.error_code)})"))

    def take_data(self, data: bytes) -> bool:
        """Take a piece of the body; False, once, when it is too much and the stream is to be reset."""
        if self.answer.done():
            return True
        error: RequestFailed = TooLarge(f"answer is larger than {self.most_bytes} bytes")
        if len(self.body) + len(data) <= self.most_bytes:
            try:
                self.body.add(data)
            except TooMuch as too_much:
                error = RequestFailed(str(too_much))
            else:
                return True
        self.sent = self.ended = True
        self.fail(error)
        return False


def fields_of(request: Request, authority: str) -> Iterator[HeaderTuple]:
    """Yield the header fields as HTTP/2 has them; raises RequestFailed, without the value, for one that cannot be."""
    plain = {":method": request.method, ":scheme": "https", ":authority": authority, ":path": request.target}
    if request.body:
        plain["content-length"] = str(len(request.body))
    for name, value in (plain | {name.lower(): value for name, value in request.headers.items()}).items():
        if not value.isprintable():
            raise RequestFailed(f"the header {name} has a character that none may have")
        kind = NeverIndexedHeaderTuple if name in SECRET else HeaderTuple
        yield kind(name.encode(), value.encode())


def answered_by(fields: Sequence[tuple[bytes, bytes]]) -> tuple[int, CIMultiDict[str]]:
    """Return the status that `fields` begin with, 0 for one that is none, and the others; raises RequestFailed."""
    if not fields or fields[0][0] != b":status":
        raise RequestFailed("its answer does not begin with a status")
    (_, status), *others = fields
    headers = CIMultiDict([_known(*field) if len(field[1]) <= SHORT else _read(*field) for field in others])
    return int(status) if re.fullmatch(rb"[1-9][0-9]{2}", status) else 0, headers


def _read(name: bytes, value: bytes) -> tuple[str, str]:
    """Return one field; raises RequestFailed where no answer may have it."""
    if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value) or name in OF_CONNECTIONS:
        raise RequestFailed("its answer has a header that none may have")
    return name.decode("latin-1"), value.decode("latin-1")


_known = functools.lru_cache(1024)(_read)


def word(code: ErrorCodes | int | None) -> str:
    """Return the name of an error code, or its number when it has none."""
    return code.name if isinstance(code, ErrorCodes) else str(code)
