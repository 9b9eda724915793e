"""The daemon and overrides: opened by a reload, kept when they cannot be read, over when they are closed."""

import asyncio
import json
import os
import signal
import time
from base64 import b64encode
from pathlib import Path

import attrs
import pytest
import structlog
from aiohttp import web

from lvsctl.daemon import FIRST_ANSWERS
from tests.consul.server import Blocking
from tests.test_daemon import Running, _signals, port_of, running
from tests.values import entry, instance, real, table_of

__all__ = ["_signals"]  # a fixture

LINES = ("[overrides]", 'kv_prefix = "lvsctl"', "")
OPENED = "\n".join(LINES)
VALUE = {"share": "5%", "by": "alice@adm1"}
POOL = (instance(1), instance(2, tags=("v2",)))
PLAIN, SHARED = table_of(entry(real(1), real(2))), table_of(entry(real(1, 19), real(2, 1)))


@attrs.define
class WithKeys:
    """A Consul with instances, and keys whose status a test chooses."""

    health: Blocking = attrs.field(factory=lambda: Blocking(POOL))
    status: int = 200
    asked: int = 0
    value: dict[str, object] = attrs.field(factory=lambda: dict(VALUE))
    open: asyncio.Event = attrs.field(factory=asyncio.Event)  # keys are answered for when it is set

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        if not request.path.startswith("/v1/kv/"):
            return await self.health(request)
        self.asked += 1
        await self.open.wait()
        if self.status != 200:
            return web.Response(status=self.status, text="Permission denied", headers={"X-Consul-Index": "1"})
        value = b64encode(json.dumps(self.value).encode()).decode()
        key = {"Key": "lvsctl/weights/reco/v2", "Value": value, "CreateIndex": 5, "ModifyIndex": 5}
        return web.json_response([key], headers={"X-Consul-Index": "7"})

    def __attrs_post_init__(self) -> None:
        """Answer from the beginning."""
        self.open.set()


def reload(daemon: Running, text: str) -> None:
    """Have the daemon use its file with `text` behind it."""
    before = daemon.file.read_text().partition("[overrides]")[0]
    daemon.file.write_text(before + text)
    os.kill(os.getpid(), signal.SIGHUP)


async def test_they_are_opened_and_closed_by_a_reload(tmp_path: Path) -> None:
    consul = WithKeys()
    async with running(consul, tmp_path) as daemon:
        await daemon.until(PLAIN)
        assert (consul.asked, (await daemon.status()).overrides) == (0, None), "not opened, so nothing is asked"
        reload(daemon, OPENED)
        await daemon.until(SHARED)
        status = await daemon.until_status(lambda status: bool(status.virtual_servers[0].overrides))
        assert status.overrides is not None
        assert (status.overrides.kv_prefix, status.overrides.error) == ("lvsctl", "")
        (shown,) = status.virtual_servers[0].overrides
        assert (shown.selector, shown.share, shown.by) == ("v2", "5%", "alice@adm1")
        (said,) = daemon.events("override")
        assert (said["name"], said["selector"], said["share"], said["until"]) == ("reco", "v2", "5%", "cleared")
        reload(daemon, "")
        await daemon.until(PLAIN)
        assert (await daemon.status()).overrides is None
        (over,) = daemon.events("override_over")
        assert over["why"] == "the configuration opens no overrides any more"
        await daemon.until_status(lambda _: any("counts no more" in each["why"] for each in _changed(daemon)))
        why = next(each["why"] for each in _changed(daemon) if "counts no more" in each["why"])
        assert (
            "for override 'v2' 5% of 'alice@adm1' counts no more: the configuration opens no overrides any more" in why
        )


def _changed(daemon: Running) -> list[structlog.typing.EventDict]:
    return daemon.events("real_server_changed")


async def test_what_cannot_be_read_any_more_stays_and_status_says_so(tmp_path: Path) -> None:
    consul = WithKeys()
    async with running(consul, tmp_path) as daemon:
        await daemon.until(PLAIN)
        reload(daemon, OPENED)
        await daemon.until(SHARED)
        consul.status = 500
        status = await daemon.until_status(lambda status: bool(status.overrides and status.overrides.error))
        assert daemon.kernel.observe().table == SHARED
        assert status.overrides is not None
        assert status.overrides.data_age is not None
        consul.status = 200
        await daemon.until_status(lambda status: bool(status.overrides and not status.overrides.error))
        assert daemon.kernel.observe().table == SHARED
    assert len(daemon.events("overrides_failed")) == 1
    assert len(daemon.events("real_server_changed")) == 1, "the first instance alone had another weight"


@pytest.mark.parametrize("status", [403, 500])
async def test_a_restart_obeys_what_was_known_when_the_keys_cannot_be_read(tmp_path: Path, status: int) -> None:
    consul = WithKeys()
    async with running(consul, tmp_path, lines=LINES) as daemon:
        await daemon.until(SHARED)
        assert not daemon.events("real_server_changed"), "it began with its share"
        port = port_of(daemon.server)
    assert (tmp_path / "overrides.json").exists()
    consul.status = status
    daemon.kernel.writes.clear()
    async with running(consul, tmp_path, daemon.kernel, port=port, lines=LINES) as again:
        shown = await again.until_status(lambda status: bool(status.overrides and status.overrides.error))
        await again.until_status(lambda status: status.kernel.in_sync_since is not None)
        assert shown.overrides is not None
        assert str(status) in shown.overrides.error
        assert again.kernel.observe().table == SHARED
        assert again.kernel.writes == []


async def test_a_token_that_may_not_read_them_keeps_nobody_waiting(tmp_path: Path) -> None:
    began = time.monotonic()
    async with running(WithKeys(status=403), tmp_path, lines=LINES) as daemon:
        await daemon.until(PLAIN)
        assert time.monotonic() - began < FIRST_ANSWERS
        (said,) = daemon.events("overrides_failed")
        assert 'key_prefix "lvsctl/weights/"' in said["error"]
        assert said["kept"] == "no overrides, as before"


async def test_the_first_write_waits_for_the_overrides(tmp_path: Path) -> None:
    consul = WithKeys()
    consul.open.clear()
    async with running(consul, tmp_path, lines=LINES) as daemon:
        await daemon.server.came(3)  # the instances were answered for, and are waited for again
        await daemon.status()  # a cycle that had begun is done by now
        assert daemon.kernel.observe().table == {}
        consul.open.set()
        await daemon.until(SHARED)
        assert not daemon.events("real_server_changed")


async def test_an_override_is_over_at_its_time_not_at_the_next_audit(tmp_path: Path) -> None:
    consul = WithKeys()
    consul.value["until"] = time.time() + 2.5
    async with running(consul, tmp_path, lines=LINES) as daemon:
        await daemon.until(SHARED)
        await daemon.until(PLAIN)
        assert 0 <= time.time() - float(str(consul.value["until"])) < 2
    (over,) = daemon.events("override_over")
    assert over["why"] == "its time is over"
    assert {said["cause"] for said in daemon.events("real_server_changed")} == {"override"}
