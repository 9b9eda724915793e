"""systemd's notification protocol, the little of it a daemon needs. Does nothing outside systemd.

Source: sd_notify(3), systemd.service(5) on Type=notify and Type=notify-reload.
"""

import os
import socket
import time


def notify(*assignments: str) -> None:
    """Tell systemd `READY=1`, `STATUS=…` and the like; a manager that does not listen is no reason to stop."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    name = "\0" + address[1:] if address.startswith("@") else address
    kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK  # one that does not read must not stop us
    with socket.socket(socket.AF_UNIX, kind) as connection:
        try:
            connection.sendto("\n".join(assignments).encode(), name)
        except OSError:
            return


def reloading() -> None:
    """Tell systemd that a reload has begun; `notify("READY=1")` ends it."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")


def watchdog_interval() -> float | None:
    """Return how often to send `WATCHDOG=1`, in seconds, half of what systemd allows; None without a watchdog."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    if not microseconds.isdigit() or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(microseconds) / 2_000_000 or None
