"""How a command ends: one message on standard error and an exit code, whatever went wrong, its own output included.

Exit code 1 means that something differs or wants attention, so nothing that kept lvsctl from finding out may end with
it: not Ctrl-C, not a reader that went away, not a disk that is full, not an error of lvsctl's own.
"""

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from typing import Final

import click

from lvsctl.errors import KernelError, LvsctlError
from netlink.errors import NetlinkError

INTERRUPTED: Final = 130  # 128 and the signal's number, as a shell says it
READER_GONE: Final = 141
OUTPUT: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF})


def open_streams() -> None:
    """Have the three standard streams, of nothing where they are closed: the next file or socket would become one."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "r" if number == 0 else "w", encoding="utf-8", closefd=False))  # noqa: SIM115


@contextlib.contextmanager
def ending() -> Iterator[None]:
    """Turn every error into a message and the exit code of its class."""
    try:
        yield
    except LvsctlError as error:
        fail(str(error), error.exit_code)
    except NetlinkError as error:
        fail(str(error), KernelError.exit_code)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except (click.ClickException, click.exceptions.Exit, click.Abort):
        raise
    except OSError as error:
        _nothing_more_to_say()
        if error.errno == errno.EPIPE:
            sys.exit(READER_GONE)
        if error.errno not in OUTPUT or error.filename is not None:
            _own_error(error)
        fail(f"the output cannot be written: {(error.strerror or '').lower()}", LvsctlError.exit_code)
    except Exception as error:  # noqa: BLE001  # whatever it is, its code must not read as an answer
        _own_error(error)


def fail(message: str, exit_code: int) -> None:
    """Say `message` on standard error, if that can be written, and exit."""
    from lvsctl.text import visible

    with contextlib.suppress(OSError):  # the exit code is honest even where nothing can be said
        for line in message.splitlines():
            click.echo(f"lvsctl: {visible(line)}", err=True)
    sys.exit(exit_code)


def _own_error(error: Exception) -> None:
    from lvsctl.unexpected import place_of

    fail(place_of(error), LvsctlError.exit_code)


def _nothing_more_to_say() -> None:
    """Lead standard output to nowhere: what its buffer still has would fail again at exit, and change the code."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
