"""Operators' orders on disk: a drain outlives the daemon that was told of it.

Replaced as a whole and durably (`durable`), by the one writer. A file that is damaged is never taken for no orders in
silence: the writer keeps it aside, where it is seen until a person has looked and removed it. Blocking: the daemon
calls it in a thread.
"""

import contextlib
import os
import stat
from pathlib import Path
from typing import Final

from lvsctl.core.order import NO_ORDERS, Orders
from lvsctl.durable import replace, why
from lvsctl.errors import StateError
from lvsctl.order_format import MAX_SIZE, UnreadableOrdersError, decode_orders, encode_orders

FILE: Final = "orders.json"
ASIDE: Final = "orders.damaged"


class OrderFile:
    """The file in a state directory."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE
        self._aside = directory / ASIDE

    def load(self, *, set_aside_damage: bool) -> Orders:
        """Return the orders, none where there is no file; raises StateError for one that cannot be read.

        The writer has one that is damaged set aside first (`set_aside_damage`).
        """
        try:
            return decode_orders(_read(self._path))
        except FileNotFoundError:
            return NO_ORDERS
        except OSError as error:
            raise StateError(
                f"{self._path}: {why(error)}; no order that it keeps counts until it can be read"
            ) from error
        except UnreadableOrdersError as error:
            if set_aside_damage:
                with contextlib.suppress(OSError):  # it stays in its place then, and the next one who reads says so
                    self._path.replace(self._aside)
                    raise StateError(self._told(str(error))) from error
            raise StateError(f"{self._path}: {error}; no order that it keeps counts") from error

    def left_aside(self) -> str:
        """Return what is to be said of a damaged file that nobody has looked at yet; empty where there is none."""
        return self._told("it was damaged") if self._aside.exists() else ""

    def save(self, orders: Orders) -> None:
        """Have `orders` on disk when this returns; raises StateError."""
        try:
            if orders.entries or self._path.exists():
                replace(self._path, encode_orders(orders), durable=True, mode=0o600)
        except OSError as error:
            remedy = "make daemon.state_directory writable"
            raise StateError(f"{self._path}: {why(error)}; {remedy}") from error

    def _told(self, what: str) -> str:
        return (
            f"{self._path}: {what}; the orders it kept do not count, it is now {self._aside}: "
            "give them again, and remove that file"
        )


def _read(path: Path) -> bytes:
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise UnreadableOrdersError("it is no ordinary file")
        content = file.read(MAX_SIZE + 1)
    if len(content) > MAX_SIZE:
        raise UnreadableOrdersError(f"it is larger than {MAX_SIZE} bytes")
    return content
