"""The control socket: what the daemon says arrives as it was, and anything else is one clear error."""

import asyncio
import json
import os
import pwd
import socket
import stat
import tempfile
import threading
from pathlib import Path

import attrs
import pytest
from click.testing import CliRunner

from lvsctl.cli.status import command
from lvsctl.configfile import load
from lvsctl.control import as_json, ask, decode_status, order, release, serving
from lvsctl.core.order import Wish
from lvsctl.core.status import SCHEMA, OrderGiven, OrderStatus, Released, State, Status
from lvsctl.errors import DaemonError, StateError
from tests.statuses import FULL, Told, daemon

GIVEN = OrderGiven(
    order=OrderStatus(order="drain", target="node app1", by="alice", reason="", written=1.5, until=None),
    left=("10.0.0.1",),
)


async def test_what_the_daemon_says_arrives_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "run" / "control.sock"
    async with serving(path, Told(FULL)):
        assert await asyncio.to_thread(ask, path) == FULL
        assert await asyncio.to_thread(ask, path) == FULL
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert stat.S_ISSOCK(path.stat().st_mode)
    assert not path.exists()


async def test_a_socket_that_a_killed_daemon_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    async with serving(path, Told(FULL)):
        assert await asyncio.to_thread(ask, path) == FULL


async def test_a_file_in_the_way_is_an_error_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    path.write_text("precious")
    with pytest.raises(StateError, match=r"lvsctl must be able to make daemon\.control_socket"):
        async with serving(path, Told(FULL)):
            pytest.fail("served over a file")
    assert path.read_text() == "precious"


async def test_a_directory_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError):
        async with serving(tmp_path / "file" / "control.sock", Told(FULL)):
            pytest.fail("served nowhere")


async def test_a_daemon_in_trouble_is_an_error_that_points_to_its_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "control.sock"
    async with serving(path, Told()):
        with pytest.raises(DaemonError, match="answered 500; its log says why"):
            await asyncio.to_thread(ask, path)
    assert caplog.records


async def test_what_is_asked_about_arrives_as_it_was_typed(tmp_path: Path) -> None:
    path, told = tmp_path / "control.sock", Told(FULL)
    async with serving(path, told):
        for about in ("[fd00::1]:80", "re&co=?#/ é", ""):
            assert await asyncio.to_thread(ask, path, about) == FULL
    assert told.about == ["[fd00::1]:80", "re&co=?#/ é", ""]


async def test_a_release_says_whose_it_is_and_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    told = Told(FULL, {"re/co ?": Released(name="re/co ?", real_servers=("10.0.0.1:8080",), serving=2)})
    async with serving(path, told):
        assert await asyncio.to_thread(release, path, "re/co ?") == told.releases["re/co ?"]
        with pytest.raises(DaemonError, match=r"^no virtual server 'x'$"):
            await asyncio.to_thread(release, path, "x")
    me = pwd.getpwuid(os.geteuid()).pw_name
    assert told.asked == [("re/co ?", f"{me}, pid {os.getpid()}"), ("x", f"{me}, pid {os.getpid()}")]


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone can be somebody else for a moment")
def test_who_gives_an_order_is_who_the_kernel_says_and_behind_sudo_only_root_is_believed() -> None:
    told = Told(FULL, given=GIVEN)
    wish = Wish(order="drain", target="app1", user="alice")
    with tempfile.TemporaryDirectory() as directory, daemon(Path(directory), told=told):
        path = Path(directory) / "control.sock"
        assert order(path, wish) == GIVEN
        order(path, attrs.evolve(wish, user=""))
        order(path, attrs.evolve(wish, user="a\x1b\n" * 100), end=True)
        Path(directory).chmod(0o755)
        path.chmod(0o666)
        os.seteuid(65534)
        try:
            order(path, wish)
        finally:
            os.seteuid(0)
    names = [by for _, by, _ in told.wishes]
    assert names[:2] + names[3:] == ["alice as root", "root", "nobody"]
    assert (len(names[2]), names[2].isprintable()) == (100, True)


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone can be somebody else for a moment")
@pytest.mark.parametrize(
    ("group", "mode", "said"),
    [
        (65534, 0o755, "root may, and who is in the group 'nogroup': usermod -aG nogroup USER, and log in again"),
        (54321, 0o755, "root may, and who is in the group '54321'"),
        (0, 0o755, "only root may; to open it to others, create the group 'lvsctl' and restart the daemon"),
        (0, 0o700, "is closed to you: ask as root"),
    ],
)
def test_who_may_not_ask_is_told_who_may(group: int, mode: int, said: str) -> None:
    with (
        tempfile.TemporaryDirectory() as directory,
        tempfile.TemporaryDirectory() as elsewhere,
        socket.socket(socket.AF_UNIX) as listening,
    ):
        path = Path(directory) / "control.sock"
        listening.bind(str(path))
        listening.listen()
        file = Path(elsewhere) / "lvsctl.toml"
        file.write_text(f'[daemon]\ncontrol_socket = "{path}"\n[virtual_server.reco]\naddress = "10.9.0.100:80"\n')
        Path(elsewhere).chmod(0o755)
        load(file)
        os.chown(path, 0, group)
        path.chmod(0o660)
        Path(directory).chmod(mode)
        os.setegid(12345)
        os.seteuid(12345)
        try:
            with pytest.raises(DaemonError) as caught:
                ask(path)
            shown = CliRunner().invoke(command, ["-c", str(file)])
        finally:
            os.seteuid(0)
            os.setegid(0)
    assert str(caught.value).startswith(f"the daemon on {path} may not be asked: permission denied; ")
    assert said in str(caught.value)
    assert isinstance(shown.exception, DaemonError), "the kernel is not asked for it"


def test_a_daemon_that_is_there_and_silent_is_not_told_as_none(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        with pytest.raises(DaemonError, match=r"the daemon on .* did not answer within 5 s; it is stopped, stuck"):
            ask(path)


def test_no_daemon(tmp_path: Path) -> None:
    with pytest.raises(DaemonError, match=r"no daemon answers on .*: no such file or directory") as caught:
        ask(tmp_path / "none.sock")
    assert caught.value.exit_code == 8
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "dead.sock"))
        with pytest.raises(DaemonError, match="connection refused"):
            ask(tmp_path / "dead.sock")


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"\0\0\0\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
        b"HTTP/1.1 404 Not Found\r\n\r\n",
        b"x" * 100_000,
    ],
)
def test_garbage_is_no_daemon(tmp_path: Path, said: bytes) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def speak() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(said)

        thread = threading.Thread(target=speak)
        thread.start()
        with pytest.raises(DaemonError):
            ask(path)
        thread.join(5)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"null", b"3", b'"x"', b"[]", b"{}", b"[" * 10**5, b"\xff", json.dumps({"schema": SCHEMA}).encode()],
)
def test_another_version_is_told_from_a_status(body: bytes) -> None:
    with pytest.raises(DaemonError, match="speaks another version of this interface"):
        decode_status(body)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("schema",), "lvsctl.status/2"),
        (("virtual_servers", 0, "state"), "splendid"),
        (("virtual_servers", 0, "real_servers", 0, "place"), 7),
        (("virtual_servers",), None),
        (("kernel",), []),
        (("time",), "noon"),
    ],
)
def test_a_field_of_another_version_too(path: tuple[str | int, ...], value: object) -> None:
    document = json.loads(json.dumps(as_json(FULL)))
    inner = document
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    with pytest.raises(DaemonError, match="speaks another version of this interface"):
        decode_status(json.dumps(document).encode())


def test_the_schema_is_named_and_every_key_is_there() -> None:
    document = as_json(FULL)
    assert document["schema"] == "lvsctl.status/1"
    assert set(document) == {each.name for each in attrs.fields(Status)}
    assert document["virtual_servers"][0]["state"] == State.OK.value
    assert set(document["virtual_servers"][0]) == {
        "name", "consul_service", "address", "scheduler", "forwarding", "serving", "wanted", "state", "note",
        "active", "inactive", "rate", "real_servers", "data_age", "datacenter", "failed_over", "overrides",
        "doubt",
    }  # fmt: skip
    assert set(document["virtual_servers"][0]["real_servers"][0]) == {
        "real_server", "node", "instance", "check", "place", "weight", "active", "inactive", "rate", "why",
        "datacenter", "until", "filtered", "slow_start",
    }  # fmt: skip
    assert set(document["consul"]) == {
        "address", "reachable", "data_age", "failing_since", "failing", "error", "snapshot_age",
        "transport", "transport_why", "transport_remedy",
    }  # fmt: skip
    assert set(document["kernel"]) == {"in_sync_since", "pending", "error"}
