"""A processor of its own for each kernel of the lab, as long as there are any.

User-Mode Linux is a handful of processes that wake each other at every system call inside it. On one processor that is
a switch; across two it is an interrupt and a sleep, three to six times slower. So each kernel claims a processor, with
a lock that ends with the process that holds it, and stays there.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from tests.lab.kernels import STATE


@contextmanager
def claimed() -> Iterator[int | None]:
    """Yield the number of a processor that no other kernel of this checkout has; None when all are taken."""
    with ExitStack() as stack:
        for number in sorted(os.sched_getaffinity(0)):
            lock = stack.enter_context((STATE / f"processor-{number}.lock").open("w"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield number
            return
        yield None
