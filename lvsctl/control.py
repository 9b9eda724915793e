"""What commands ask of the daemon: HTTP over a Unix socket, so that `curl --unix-socket` works too.

`GET /v1/status` returns core.status.Status as JSON, with `?about=INSTANCE` or an address also that instance where it is
not meant for a virtual server; `POST /v1/release/NAME` lets go of what is held of a virtual server and returns
core.status.Released, or an object with an `error`; `POST /v1/reload` takes a core.reload.Order and returns a
core.reload.Reloaded, or an object with an `error`; `POST /v1/orders` takes a core.order.Wish and has it stand, `POST
/v1/orders/end` ends it; both return core.status.OrderGiven, or such an object. The socket is 0660 and belongs to the
group lvsctl where that exists: whoever may ask may release, reload and give orders, and the log says who did. `ask`,
`release`, `reload` and `order` are the client's side, on the standard library, for a command that starts fast.
"""

import contextlib
import functools
import grp
import http.client
import os
import pwd
import socket
import struct
import urllib.parse
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

import attrs
import cattrs.preconf.json

from lvsctl.core.order import MAX_BY, Wish
from lvsctl.core.reload import Order, Reloaded
from lvsctl.core.status import SCHEMA, Moved, OrderGiven, Released, Status
from lvsctl.core.subject import LONGEST, Subject
from lvsctl.errors import DaemonError, OrderRefused, StateError
from lvsctl.text import visible

if TYPE_CHECKING:
    from aiohttp import web

T = TypeVar("T")

GROUP: Final = "lvsctl"
ANSWER_TIMEOUT: Final = 5.0  # seconds
RELEASE_TIMEOUT: Final = 60.0  # seconds; a cycle may be under way
LARGEST: Final = 1 << 16  # bytes of a request
RELOAD_TIMEOUT: Final = 60.0  # seconds; others' reloads and a cycle may be under way, and Consul is asked
PEER: Final = struct.Struct("3i")  # struct ucred (unix(7)): process, user, group
OTHER_VERSION: Final = "the daemon speaks another version of this interface; restart it after an upgrade"

converter = cattrs.preconf.json.make_converter()


class Asked(Protocol):
    """Who is asked."""

    async def status(self, about: Subject | None = None) -> Status:
        """Return how everything stands; with instances that `about` means and that are left out otherwise."""

    async def release(self, name: str, by: str) -> Released:
        """Let go of what is held of virtual server `name`; raises DaemonError."""

    async def order(self, wish: Wish, by: str, *, end: bool) -> OrderGiven:
        """Have an order stand, or `end` one, for `by`; raises OrderRefused."""

    async def move(self, name: str, *, adopt: bool, by: str, force: bool) -> Moved:
        """Take virtual server `name` over as it stands, or leave it to somebody else; raises DaemonError.

        Raises OrderRefused where most of what serves in it would go, unless by `force`.
        """

    async def reload(self, order: Order, by: str) -> Reloaded:
        """Do `order` about the configuration; raises DaemonError."""


@contextlib.asynccontextmanager
async def serving(path: Path, asked: Asked) -> AsyncIterator[None]:
    """Answer requests on the socket `path` with what `asked` says, while the context lasts.

    Raises StateError when the socket cannot be made.
    """
    from aiohttp import web  # the command-line client of this module does without it

    runner = web.AppRunner(_application(asked), access_log=None, shutdown_timeout=1.0)
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


def _application(asked: Asked) -> "web.Application":
    """Return what answers requests with what `asked` says."""
    import asyncio

    from aiohttp import web

    async def get_status(request: web.Request) -> web.Response:
        about = request.query.get("about")
        status = await asked.status(Subject(about[:LONGEST]) if about else None)
        return web.json_response(converter.unstructure(status))

    async def answered(asking: Awaitable[attrs.AttrsInstance]) -> web.Response:
        try:
            return web.json_response(converter.unstructure(await asking))
        except DaemonError as error:
            return web.json_response(_refusal(error), status=409)

    async def post_release(request: web.Request) -> web.Response:
        who = await asyncio.to_thread(_who, request)  # the directory of users may be a slow one
        return await answered(asked.release(request.match_info["name"], who))

    async def post_border(request: web.Request) -> web.Response:
        who, adopt = await asyncio.to_thread(_who, request), request.match_info["word"] == "adopt"
        name, force = request.match_info["name"], "force" in request.query
        return await answered(asked.move(name, adopt=adopt, by=who, force=force))

    async def post_reload(request: web.Request) -> web.Response:
        who, sent = await asyncio.to_thread(_who, request), await request.read()
        return await answered(_reloaded(asked, sent, who))

    async def post_order(request: web.Request, *, end: bool) -> web.Response:
        try:
            wish = _structured(await request.read(), Wish)
            who = await asyncio.to_thread(_whose, request, wish.user)
            given = await asked.order(wish, who, end=end)
        except OrderRefused as refused:
            return web.json_response(_refusal(refused), status=409)
        except DaemonError as error:
            return web.json_response({"error": str(error)}, status=400)
        return web.json_response(converter.unstructure(given))

    application = web.Application(client_max_size=LARGEST)
    application.router.add_get("/v1/status", get_status)
    application.router.add_post("/v1/release/{name}", post_release)
    application.router.add_post("/v1/{word:adopt|disown}/{name}", post_border)
    application.router.add_post("/v1/reload", post_reload)
    application.router.add_post("/v1/orders", functools.partial(post_order, end=False))
    application.router.add_post("/v1/orders/end", functools.partial(post_order, end=True))
    return application


def _refusal(error: DaemonError) -> dict[str, object]:
    """Return why something is not done, as an object."""
    said: dict[str, object] = {"error": str(error)}
    return said | ({"unknown": error.unknown, "empties": error.empties} if isinstance(error, OrderRefused) else {})


async def _reloaded(asked: Asked, sent: bytes, who: str) -> Reloaded:
    return await asked.reload(_structured(sent, Order), who)


def ask(path: Path, about: str = "") -> Status:
    """Return the status of the daemon that listens on `path`; raises DaemonError when there is none.

    With the instances that `about` means, also where they are not meant for a virtual server.
    """
    asked = urllib.parse.quote(about[:LONGEST], safe="", errors="surrogateescape")  # as it was typed, whatever that is
    query = f"?about={asked}" if about else ""
    status, body = _request(path, "GET", f"/v1/status{query}", ANSWER_TIMEOUT)
    if status != 200:
        raise DaemonError(f"the daemon on {path} answered {status}; its log says why")
    return decode_status(body)


def release(path: Path, name: str) -> Released:
    """Let go of what is held of virtual server `name`; raises DaemonError with the daemon's words where it refuses."""
    return _post(path, f"/v1/release/{urllib.parse.quote(name, safe='')}", b"", Released, RELEASE_TIMEOUT)


def move(path: Path, name: str, *, adopt: bool, force: bool = False) -> Moved:
    """Have virtual server `name` adopted as it stands, or disowned; raises DaemonError where the daemon refuses.

    Raises OrderRefused where most of what serves in it would go, unless by `force`.
    """
    target = f"/v1/{'adopt' if adopt else 'disown'}/{urllib.parse.quote(name, safe='')}{'?force=1' if force else ''}"
    return _post(path, target, b"", Moved, RELEASE_TIMEOUT)


def reload(path: Path, order: Order) -> Reloaded:
    """Return what became of `order`; raises DaemonError with the daemon's words where it cannot be done now."""
    body = converter.dumps(order).encode()
    return _post(path, "/v1/reload", body, Reloaded, RELOAD_TIMEOUT)


def _post(path: Path, target: str, sent: bytes, kind: type[T], patience: float) -> T:
    """Return the daemon's answer to `sent`; raises DaemonError, with its words where it says why not."""
    status, body = _request(path, "POST", target, patience, sent)
    if status == 409:
        refused = _structured(body, _Refused)
        if refused.empties:
            raise OrderRefused(refused.error, empties=True)
        raise DaemonError(refused.error)
    if status == 404:
        raise DaemonError(OTHER_VERSION)
    if status != 200:
        raise DaemonError(f"the daemon on {path} answered {status}; its log says why")
    return _structured(body, kind)


def order(path: Path, wish: Wish, *, end: bool = False) -> OrderGiven:
    """Have an order stand, or `end` one; raises DaemonError, OrderRefused with the words of a daemon that refuses."""
    body = converter.dumps(wish).encode()
    status, answer = _request(path, "POST", f"/v1/orders{'/end' if end else ''}", RELEASE_TIMEOUT, body)
    if status == 409:
        refused = _structured(answer, _Refused)
        raise OrderRefused(refused.error, unknown=refused.unknown, empties=refused.empties)
    if status in (400, 404):
        raise DaemonError(OTHER_VERSION)
    if status != 200:
        raise DaemonError(f"the daemon on {path} answered {status}; its log says why")
    return _structured(answer, OrderGiven)


@attrs.frozen(kw_only=True)
class _Refused:
    """Why the daemon does not take an order."""

    error: str
    unknown: bool = False
    empties: bool = False


def process_of(path: Path) -> int | None:
    """Return the process that listens on `path`, None where nobody does; raises DaemonError where it is not told."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
            asking.settimeout(ANSWER_TIMEOUT)
            asking.connect(str(path))
            pid: int = PEER.unpack(asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER.size))[0]
    except (FileNotFoundError, ConnectionRefusedError):
        return None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise DaemonError(f"the daemon on {path} cannot be seen: {reason}; {_who_may(path)}") from error
    if pid == 0:  # unix(7)
        raise DaemonError(f"the daemon on {path} is in a PID namespace that cannot be seen from here")
    return pid


def _request(path: Path, method: str, target: str, patience: float, sent: bytes = b"") -> tuple[int, bytes]:
    """Return status and body of the daemon's answer; raises DaemonError when there is none within `patience`."""
    connection = _UnixConnection(path, patience)
    try:
        connection.request(method, target, sent or None)
        response = connection.getresponse()
        return response.status, response.read()
    except TimeoutError as error:
        said = f"the daemon on {path} did not answer within {patience:g} s; it is stopped, stuck or very busy"
        raise DaemonError(said) from error
    except PermissionError as error:
        raise DaemonError(f"the daemon on {path} may not be asked: permission denied; {_who_may(path)}") from error
    except (OSError, http.client.HTTPException) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or "no answer"
        raise DaemonError(f"no daemon answers on {path}: {reason.lower()}") from error
    finally:
        connection.close()


def _structured(body: bytes, kind: type[T]) -> T:
    try:
        return converter.loads(body, kind)
    except (ValueError, TypeError, RecursionError, cattrs.BaseValidationError) as error:
        raise DaemonError(OTHER_VERSION) from error


def decode_status(body: bytes) -> Status:
    """Return a status from JSON; raises DaemonError for what another version of lvsctl may send."""
    status = _structured(body, Status)
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


def _who(request: "web.Request") -> str:
    """Return who asks, as the kernel knows them: `alice, pid 4242`."""
    asking = request.transport.get_extra_info("socket") if request.transport else None
    if asking is None:
        return "nobody"
    pid, uid, _ = PEER.unpack(asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER.size))
    return f"{_name_of(uid)}, pid {pid}"


def _whose(request: "web.Request", claimed: str) -> str:
    """Return whose an order is: `alice` as the kernel knows them, `alice as root` for who says so and is root."""
    asking = request.transport.get_extra_info("socket") if request.transport else None
    if asking is None:
        return "nobody"
    _, uid, _ = PEER.unpack(asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER.size))
    name = _name_of(uid)
    if uid == 0 and claimed and claimed != name:  # root need not lie to be believed
        return visible(f"{claimed} as {name}", MAX_BY)
    return visible(name, MAX_BY)


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def _give_to_group(path: Path) -> None:
    with contextlib.suppress(KeyError, PermissionError):
        os.chown(path, -1, grp.getgrnam(GROUP).gr_gid)


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path, patience: float) -> None:
        super().__init__("localhost", timeout=patience)
        self._path = path
        self._patience = patience

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self._patience)
        self.sock.connect(str(self._path))
