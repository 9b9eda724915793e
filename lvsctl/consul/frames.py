"""What a peer sends over HTTP/2, cut into its frames (RFC 9113, 4.1), and which of them bring nothing.

Pure. h2 takes bytes and tells what they mean, but not which frame was wrong, and takes however many come at once. Here
they are cut, so that one stream can be blamed and work be done in portions.
"""

from collections.abc import Iterator
from typing import Final

import attrs

HEADER: Final = 9  # bytes
LARGEST: Final = 1 << 14  # bytes of a frame's payload, as we never allow more; of a larger one the header is passed on
DATA: Final = 0
HEADERS: Final = 1
RST_STREAM: Final = 3
GOAWAY: Final = 7
CONTINUATION: Final = 9
END_STREAM: Final = 1


@attrs.frozen
class Frame:
    """One frame as it came."""

    content: bytes

    @property
    def stream(self) -> int:
        """Return the number of its stream, 0 for the connection."""
        return int.from_bytes(self.content[5:HEADER], "big") & 0x7FFFFFFF

    @property
    def is_idle(self) -> bool:
        """Tell whether it carries no part of an answer and ends nothing: a few are good manners, many a flood."""
        kind, flags = self.content[3], self.content[4]
        if kind == DATA:
            return len(self.content) == HEADER and not flags & END_STREAM
        return kind not in (HEADERS, RST_STREAM, GOAWAY, CONTINUATION)


@attrs.define
class Frames:
    """Cuts what comes."""

    _rest: bytes = b""

    def cut(self, data: bytes) -> Iterator[Frame]:
        """Yield every frame that is complete with `data`; the beginning of the next one is kept."""
        data = self._rest + data
        at = 0
        while len(data) - at >= HEADER:
            length = int.from_bytes(data[at : at + 3], "big")
            end = at + HEADER + (length if length <= LARGEST else 0)
            if end > len(data):
                break
            yield Frame(data[at:end])
            at = end
        self._rest = data[at:]
