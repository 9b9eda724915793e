"""What the snapshot on disk may do while Consul has not answered since the start: fill what is empty, nothing else.

Pure. `snapshot` reads and writes the file. What serves in the kernel is newer than any file, so a virtual server that
has a real server, even a quiesced one, is left exactly as it is until Consul answers: a restart without Consul writes
nothing. After a reboot the table is empty, and the last thing that Consul said is the best that is known.
What was restored has real servers, so the next cycle already leaves it alone.
"""

from typing import Final

from lvsctl.core.instance import Answer, Answers
from netlink.types import TableEntry

OLD: Final = 7 * 86400.0  # seconds from which on a snapshot is still used, for it is the best that is known, but loudly


def usable(answer: Answer | None, observed: TableEntry | None) -> Answer | None:
    """Return `answer` where a virtual server that stands as `observed` may become what it makes of it."""
    if answer is None or answer.snapshot is None or observed is None or not observed.real_servers:
        return answer
    return None


def stands_alone(answers: Answers) -> bool:
    """Tell whether a snapshot is all there is, for Consul has answered nothing since the start: then nothing leaves."""
    return bool(answers) and all(answer.snapshot is not None for answer in answers.values())


def snapshot_age(answers: Answers, now: float) -> float | None:
    """Return seconds since Consul said the oldest of what a snapshot says for it now; None where nothing is needed.

    A clock that went back counts as no age.
    """
    times = [answer.snapshot for answer in answers.values() if answer.snapshot is not None]
    return max(0.0, now - min(times)) if times else None
