"""What the C library does with memory that Python gives back: it is to go back to the kernel.

glibc keeps what was freed for later. After one large block it serves large ones from its heap, where a small one above
them keeps all of them, and each thread gets a heap of its own. A daemon that now and then reads megabytes would look
as if it needed them for ever. Eight Consul services with 25 MB of instances each took 254 MiB at most so, and 205
otherwise; with other large answers beside them 264 and 172. Source: mallopt(3).
"""

import contextlib
import ctypes
import gc
import sys
from asyncio.sslproto import SSLProtocol
from typing import Final

M_TRIM_THRESHOLD: Final = -1
M_MMAP_THRESHOLD: Final = -3
M_ARENA_MAX: Final = -8
LARGE: Final = 4 << 20  # bytes of a block that is the kernel's alone
KEPT: Final = 16 << 20  # bytes at the end of the heap that are not given back, for they are wanted again at once
PASSES: Final = (500, 2, 500)  # objects more than before, young passes, middle passes: until the collector's next
TLS_BUFFER: Final = 32 << 10  # bytes
TURN: Final = 0.0005  # seconds that a thread goes on computing while another one waits to


def give_back() -> None:
    """Have large blocks go back to the kernel when they are freed; does nothing where there is another C library.

    But not what is at the end of the heap, `KEPT` bytes of it: a look at ten thousand real servers takes so much, and
    the next one takes it again. To get it a page at a time cost the kernel as much as the look itself.

    And have a connection with TLS keep `TLS_BUFFER` bytes for what comes, which is two records, and not 256 KiB: all of
    that is written to when the connection is made, and stays. With 5,000 queries over HTTP/2 that was 5 MB.
    """
    SSLProtocol.max_size = TLS_BUFFER
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, LARGE)
        mallopt(M_ARENA_MAX, 1)
        mallopt(M_TRIM_THRESHOLD, KEPT)


def seldom() -> None:
    """Have everything stop as seldom and as shortly as can be while others compute.

    A pass of the collector over what 5,000 queries keep waiting takes 0.1 to 0.4 s, in which no news are heard. Hardly
    anything that is kept for long is in a cycle, so such a pass comes 10 times as seldom, each 11 minutes with 5,000;
    passes over what is young come as ever. What fails while Consul is in trouble must not be in cycles, then. A cycle
    over everything computes in a thread, and each time that the loop has waited for the network it gets its turn after
    `TURN` instead of 5 ms.
    """
    gc.set_threshold(*PASSES)
    sys.setswitchinterval(TURN)


def without_frames(error: BaseException | None) -> None:
    """Have everything go at once that took part in `error`, and in what led to it; the error itself stays.

    The frames of a traceback and the futures in them keep each other until a whole pass of the collector, which comes
    seldom: a TLS handshake that failed would keep 600 kB.
    """
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


def trim() -> None:
    """Give back at once what is free: after what took much memory once, as the first cycle does.

    What is left is there to stay, so the collector need not look at it again and again: with 5,000 virtual servers that
    would stop everything for a tenth of a second each time.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
