"""The daemon's answer to `lvsctl status`: HTTP over a Unix socket, so that `curl --unix-socket` works too.

`GET /v1/status` returns core.status.Status as JSON. The socket is 0660 and belongs to the group lvsctl where that
exists; it can only read. `ask` is the client's side, on the standard library, for a command that starts fast.
"""

import contextlib
import grp
import http.client
import json
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import cattrs.preconf.json

from lvsctl.core.status import SCHEMA, Status
from lvsctl.errors import DaemonError, StateError

GROUP: Final = "lvsctl"
ANSWER_TIMEOUT: Final = 5.0  # seconds
OTHER_VERSION: Final = "the daemon speaks another version of this interface; restart it after an upgrade"

converter = cattrs.preconf.json.make_converter()


@contextlib.asynccontextmanager
async def serving(path: Path, status: Callable[[], Awaitable[Status]]) -> AsyncIterator[None]:
    """Answer requests on the socket `path` with what `status` returns, while the context lasts.

    Raises StateError when the socket cannot be made.
    """
    from aiohttp import web  # the command-line client of this module does without it

    async def get_status(_request: web.Request) -> web.Response:
        return web.Response(body=json.dumps(converter.unstructure(await status())), content_type="application/json")

    application = web.Application()
    application.router.add_get("/v1/status", get_status)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        try:
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            previous = os.umask(0o117)
            try:
                await web.UnixSite(runner, str(path)).start()
            finally:
                os.umask(previous)
            _give_to_group(path)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise StateError(f"{path}: {reason}; lvsctl must be able to make daemon.control_socket") from error
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
    finally:
        await runner.cleanup()


def ask(path: Path) -> Status:
    """Return the status of the daemon that listens on `path`; raises DaemonError when there is none."""
    connection = _UnixConnection(path)
    try:
        connection.request("GET", "/v1/status")
        response = connection.getresponse()
        body = response.read()
    except PermissionError as error:
        raise DaemonError(f"the daemon on {path} may not be asked: permission denied; {_who_may(path)}") from error
    except (OSError, http.client.HTTPException) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or "no answer"
        raise DaemonError(f"no daemon answers on {path}: {reason.lower()}") from error
    finally:
        connection.close()
    if response.status != 200:
        raise DaemonError(f"the daemon on {path} answered {response.status}; its log says why")
    return decode_status(body)


def decode_status(body: bytes) -> Status:
    """Return a status from JSON; raises DaemonError for what another version of lvsctl may send."""
    try:
        status = converter.loads(body, Status)
    except (ValueError, TypeError, RecursionError, cattrs.BaseValidationError) as error:
        raise DaemonError(OTHER_VERSION) from error
    if status.schema != SCHEMA:
        raise DaemonError(OTHER_VERSION)
    return status


def as_json(status: Status) -> dict[str, Any]:
    """Return `status` as what json.dumps takes."""
    plain: dict[str, Any] = converter.unstructure(status)
    return plain


def _who_may(path: Path) -> str:
    """Return who may ask the daemon that listens on `path`, and how to become one of them."""
    try:
        number = path.stat().st_gid
    except OSError as error:
        return f"{error.filename or path} is closed to you: ask as root"
    try:
        group = grp.getgrgid(number).gr_name
    except KeyError:
        group = str(number)
    if number == 0:
        return f"only root may; to open it to others, create the group '{GROUP}' and restart the daemon"
    return f"root may, and who is in the group '{group}': usermod -aG {group} USER, and log in again"


def _give_to_group(path: Path) -> None:
    with contextlib.suppress(KeyError, PermissionError):
        os.chown(path, -1, grp.getgrnam(GROUP).gr_gid)


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=ANSWER_TIMEOUT)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(ANSWER_TIMEOUT)
        self.sock.connect(str(self._path))
