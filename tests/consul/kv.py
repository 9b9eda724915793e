"""A Consul with keys that can be written: blocking queries, check-and-set, and what a test has it refuse."""

import asyncio
import json
from base64 import b64encode
from collections.abc import Callable

import attrs
from aiohttp import web

from tests.consul.server import Answering


@attrs.frozen
class Key:
    """One key's value, with Consul's indexes."""

    value: bytes
    created: int
    modified: int


@attrs.define
class KV:
    """Answers for `/v1/kv/` itself, and has `others` answer the rest."""

    others: Answering
    keys: dict[str, Key] = attrs.field(factory=dict)
    index: int = 10
    status: int = 200  # of reads
    write_status: int = 200
    deaf: bool = False  # what is written wakes nobody
    rival: Callable[["KV"], None] | None = None  # somebody who is faster: called before each write counts
    writes: int = 0
    _changed: asyncio.Condition = attrs.field(factory=asyncio.Condition)

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        if not request.path.startswith("/v1/kv/"):
            return await self.others(request)
        key = request.path.removeprefix("/v1/kv/")
        if request.method in ("PUT", "DELETE"):
            return await self._write(request, key)
        async with self._changed:
            await self._changed.wait_for(lambda: int(request.query.get("index", 0)) != self.index or self.status != 200)
        headers = {"X-Consul-Index": str(self.index)}
        if self.status != 200:
            text = "Permission denied" if self.status == 403 else "No cluster leader"
            return web.Response(status=self.status, text=text, headers=headers)
        folder = "recurse" in request.query
        found = [self._listed(name) for name in self.keys if (name.startswith(key) if folder else name == key)]
        return web.json_response(found, headers=headers) if found else web.Response(status=404, headers=headers)

    async def _write(self, request: web.Request, key: str) -> web.StreamResponse:
        if self.write_status != 200:
            return web.Response(status=self.write_status, text="Permission denied")
        if self.rival:
            self.rival(self)
        self.writes += 1
        there = self.keys.get(key)
        if int(request.query["cas"]) != (there.modified if there else 0):
            return web.json_response(data=False)
        if request.method == "DELETE":
            del self.keys[key]
            self.index += 1
        else:
            self.put(key, await request.read())
        await self.tell()
        return web.json_response(data=True)

    def put(self, key: str, value: bytes | str) -> None:
        """Have a key; who waits is woken by `tell`."""
        self.index += 1
        there = self.keys.get(key)
        created = there.created if there else self.index
        self.keys[key] = Key(value.encode() if isinstance(value, str) else value, created, self.index)

    async def tell(self) -> None:
        """Wake who waits for something new."""
        if not self.deaf:
            async with self._changed:
                self._changed.notify_all()

    async def hand(self, key: str, value: object) -> None:
        """Have a key as somebody writes it by hand, None: gone, and wake who waits."""
        if value is None:
            self.keys.pop(key, None)
            self.index += 1
        else:
            self.put(key, value if isinstance(value, (bytes, str)) else json.dumps(value))
        await self.tell()

    async def fail(self, status: int) -> None:
        """Refuse reads with `status` from now on, 200: no longer; whoever waits is told now."""
        self.status = status
        await self.tell()

    def _listed(self, name: str) -> dict[str, object]:
        key = self.keys[name]
        value = b64encode(key.value).decode()
        return {"Key": name, "Value": value, "CreateIndex": key.created, "ModifyIndex": key.modified, "Flags": 0}
