"""The policy of docs/operations.md on a real Consul with ACLs: it is enough, and with less the answer is empty."""

import asyncio
import contextlib
import json
import os
import re
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from lvsctl.config import ConsulConfig
from lvsctl.consul import watch
from lvsctl.consul.choice import Way
from lvsctl.consul.client import Capacity, Client
from lvsctl.core.instance import Answer, Query
from lvsctl.errors import ConsulRefused
from tests.lab.consul import no_grpc, program
from tests.lab.waiting import eventually

OPERATIONS = (Path(__file__).parents[2] / "docs/operations.md").read_text("utf-8")
POLICIES = re.findall(r"^```hcl\n(.*?)^```$", OPERATIONS, re.MULTILINE | re.DOTALL)
RECO = Query(service="reco")
LIMIT = 100  # connections that its agent takes, half of what is usual
PORTS = ("http", "dns", "server", "serf_lan", "serf_wan")


def free_ports(number: int) -> list[int]:
    """Return ports of 127.0.0.1 that nobody uses, as far as TCP goes; all different."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)]
        return [each.getsockname()[1] for each in sockets]


@attrs.frozen(kw_only=True)
class Guarded:
    """A Consul that lets nobody read anything without a token, and its first token, which may do everything."""

    address: str
    management: str = attrs.field(default="", repr=False)

    def ask(self, method: str, path: str, body: object = None) -> Any:  # noqa: ANN401  Consul's JSON
        """Return Consul's answer to a request that may do everything."""
        text = self.send(method, path, None if body is None else json.dumps(body).encode())
        return json.loads(text) if text.strip() else None

    def send(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """Return the bytes of such an answer."""
        request = urllib.request.Request(
            self.address + path,
            data=body,
            headers={"X-Consul-Token": self.management} if self.management else {},
            method=method,
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=10) as answer:
            text: bytes = answer.read()
        return text

    def token(self, name: str, rules: str) -> dict[str, str]:
        """Return a new token with a policy of these rules: its AccessorID and its SecretID."""
        self.ask("PUT", "/v1/acl/policy", {"Name": name, "Rules": rules})
        made: dict[str, str] = self.ask("PUT", "/v1/acl/token", {"Policies": [{"Name": name}]})
        return made


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """Run a Consul on free ports of 127.0.0.1 with two instances of reco and one of other."""
    directory = tmp_path_factory.mktemp("consul")
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    configuration = {
        "server": True,
        "bootstrap_expect": 1,
        "node_name": "alone",
        "bind_addr": "127.0.0.1",
        "client_addr": "127.0.0.1",
        "data_dir": str(directory / "data"),
        "ports": {**ports, "https": -1, **no_grpc()},
        "acl": {"enabled": True, "default_policy": "deny"},
        "performance": {"raft_multiplier": 1},
        "disable_update_check": True,
        "limits": {"http_max_conns_per_client": LIMIT},
    }
    (directory / "consul.json").write_text(json.dumps(configuration))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CONSUL_")}
    with (
        (directory / "log").open("wb") as log,
        subprocess.Popen(
            [program(), "agent", f"-config-file={directory / 'consul.json'}"], stdout=log, stderr=log, env=environment
        ) as process,
    ):
        try:
            consul = Guarded(address=f"http://127.0.0.1:{ports['http']}")

            def bootstrapped() -> str:
                assert process.poll() is None, (directory / "log").read_text()[-3000:]
                with contextlib.suppress(urllib.error.URLError, ConnectionError):
                    return str(consul.ask("PUT", "/v1/acl/bootstrap")["SecretID"])
                return ""

            consul = attrs.evolve(consul, management=eventually(bootstrapped, within=60.0, every=0.1))
            for service, number in (("reco", 1), ("reco", 2), ("other", 3)):
                instance = {"Service": service, "ID": f"{service}-{number}", "Port": 8080}
                node = {"Node": f"app{number}", "Address": f"10.0.0.{number}", "Service": instance}
                consul.ask("PUT", "/v1/catalog/register", node)
            yield consul
        finally:
            process.terminate()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "consul.token"
    path.touch(0o600)
    return path


def hold(file: Path, token: dict[str, str]) -> None:
    """Put a token in the place of the file, as a person who changes it would."""
    new = file.with_suffix(".new")
    new.write_text(token["SecretID"])
    new.chmod(0o600)
    new.replace(file)


async def read(guarded: Guarded, file: Path | None, query: Query = RECO) -> Answer:
    async with Client(ConsulConfig(address=guarded.address, token_file=file)) as client:
        return await client.instances(query)


def ids(answer: Answer) -> set[str]:
    return {each.instance_id for each in answer.instances}


def test_the_page_has_the_whole_policy_and_a_narrower_one() -> None:
    whole, narrower = POLICIES
    assert (
        re.sub(r"\s+", " ", whole).strip() == 'node_prefix "" { policy = "read" } service_prefix "" { policy = "read" }'
    )
    assert 'service "reco"' in narrower


@pytest.mark.parametrize(("number", "others"), [(0, {"other-3"}), (1, set())])
async def test_the_policy_of_the_page_is_enough(guarded: Guarded, file: Path, number: int, others: set[str]) -> None:
    hold(file, guarded.token(f"page-{number}", POLICIES[number]))
    answer = await read(guarded, file)
    assert ids(answer) == {"reco-1", "reco-2"}
    assert {each.address for each in answer.instances} == {"10.0.0.1", "10.0.0.2"}
    assert answer.index > 0
    assert not answer.malformed
    assert ids(await read(guarded, file, Query(service="other"))) == others


async def test_the_policy_of_the_page_may_write_nothing(guarded: Guarded) -> None:
    own = attrs.evolve(guarded, management=guarded.token("no-writer", POLICIES[0])["SecretID"])
    for path in ("/v1/catalog/register", "/v1/kv/lvsctl/x"):
        with pytest.raises(urllib.error.HTTPError) as caught:
            own.ask("PUT", path, {"Node": "x", "Address": "10.0.0.9"})
        caught.value.close()
        assert caught.value.code == 403


@pytest.mark.parametrize("line", [0, 1])
async def test_with_less_than_the_policy_the_answer_is_empty(guarded: Guarded, file: Path, line: int) -> None:
    rules = POLICIES[0].splitlines()[line]
    hold(file, guarded.token(f"less-{line}", rules))
    assert ids(await read(guarded, file)) == set()
    assert ids(await read(guarded, None)) == set(), "nor may the anonymous token"


async def test_a_deleted_token_is_refused_and_a_new_one_in_its_file_works_without_a_restart(
    guarded: Guarded, file: Path
) -> None:
    token = guarded.token("short-lived", POLICIES[0])
    hold(file, token)
    async with Client(ConsulConfig(address=guarded.address, token_file=file)) as client:
        assert ids(await client.instances(RECO)) == {"reco-1", "reco-2"}
        guarded.ask("DELETE", f"/v1/acl/token/{token['AccessorID']}")
        error = await refusal(client)
        assert error.status == 403
        assert "ACL not found" in str(error)
        assert token["SecretID"] not in str(error)
        hold(file, guarded.token("next", POLICIES[0]))
        assert ids(await client.instances(RECO)) == {"reco-1", "reco-2"}


async def refusal(client: Client) -> ConsulRefused:
    """Return how Consul refuses; a deleted token counts until the agent's cache of it is renewed."""
    for _ in range(1000):
        try:
            await client.instances(RECO)
        except ConsulRefused as error:
            return error
    raise AssertionError("never refused")


# --- what it takes to learn the agent's limit -------------------------------------------------------------------------

AGENT = 'agent "alone" { policy = "read" }'


async def capacity(guarded: Guarded, file: Path) -> Capacity | None:
    async with Client(ConsulConfig(address=guarded.address, token_file=file)) as client:
        return await client.capacity()


async def test_the_agents_limit_is_read_with_the_rule_of_the_page_and_nothing_is_lost_without(
    guarded: Guarded, file: Path
) -> None:
    assert AGENT.replace("alone", "NODE") in OPERATIONS
    hold(file, guarded.token("agent", POLICIES[0] + AGENT))
    told = await capacity(guarded, file)
    assert told is not None
    assert told.limit == LIMIT
    hold(file, guarded.token("no-agent", POLICIES[0]))
    told = await capacity(guarded, file)
    assert told is not None
    assert told.limit is None, "it answers, and does not tell"
    assert ids(await read(guarded, file)) == {"reco-1", "reco-2"}


async def test_a_limit_that_may_not_be_read_any_more_still_holds(
    guarded: Guarded, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It leaves 45 connections for us; what is usual would leave 90, and the queries would be polls."""
    monkeypatch.setattr(watch, "CHOOSE_AGAIN", 0.2)
    hold(file, guarded.token("limit", POLICIES[0] + AGENT))
    (policy,) = (each for each in guarded.ask("GET", "/v1/acl/policies") if each["Name"] == "limit")
    async with Client(ConsulConfig(address=guarded.address, token_file=file)) as client:
        watches = watch.Watches(client, lambda: None)
        watches.watch([RECO])
        task = asyncio.create_task(watches.run(), name="watches")

        async def until(happened: Callable[[], bool]) -> None:
            await asyncio.to_thread(eventually, happened, within=20.0)

        await until(lambda: watches.choice is not None and "limit of 100" in watches.choice.why)
        await until(lambda: watches.heard.complete)
        changed = {"Name": "limit", "Rules": POLICIES[0]}
        await asyncio.to_thread(guarded.ask, "PUT", f"/v1/acl/policy/{policy['ID']}", changed)

        async def is_refused() -> bool:
            told = await client.capacity()
            return told is not None and told.limit is None

        async with asyncio.timeout(20.0):
            while not await is_refused():  # noqa: ASYNC110  # each is a question, and nothing tells of it
                await asyncio.sleep(0.05)
        watches.watch([RECO, *(Query(service=f"absent-{number}") for number in range(59))])
        await until(lambda: watches.choice is not None and watches.choice.way is Way.SIGNALS)
        assert watches.choice is not None
        assert "limit of 100" in watches.choice.why
        assert ids(watches.heard.answers[RECO]) == {"reco-1", "reco-2"}
        task.cancel()
        await asyncio.wait({task})
