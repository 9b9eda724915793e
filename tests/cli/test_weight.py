"""`lvsctl weight` against a real Consul with ACLs: what it writes, says and refuses, with its exit codes."""

import asyncio
import base64
import json
import os
import pwd
import re
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from io import BytesIO, TextIOWrapper
from pathlib import Path

import attrs
import pytest
import structlog
from aiohttp import web

from lvsctl.cli import main
from lvsctl.cli.columns import clock
from lvsctl.cli.overriding import author, render, write
from lvsctl.config import ConsulConfig
from lvsctl.core.override import Ignored, Override, Overrides, Percent
from lvsctl.errors import ConsulError
from tests.consul.server import answer, consul
from tests.consul.test_acl import Guarded, guarded
from tests.values import NOW, answers_of, config_of, configured, instance

__all__ = ["guarded"]  # a fixture

OPERATOR = """node_prefix "" { policy = "read" }
service_prefix "" { policy = "read" }
key_prefix "lvsctl/weights/" { policy = "write" }
"""


@attrs.frozen(kw_only=True)
class Done:
    """What a command printed, and how it ended."""

    code: int
    out: list[str]
    err: str


@attrs.frozen(kw_only=True)
class Operator:
    """Somebody with a token, a file and a shell."""

    consul: Guarded
    file: Path
    token: str

    def weight(self, *arguments: str, **environment: str) -> Done:
        """Return what `lvsctl weight` did."""
        own = {"CONSUL_HTTP_TOKEN": self.token, "SUDO_USER": "alice", "USER": "root", **environment}
        out, err = (TextIOWrapper(BytesIO(), write_through=True) for _ in range(2))
        settings = structlog.get_config()
        try:
            with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
                for name, value in own.items():
                    patch.setenv(name, value)
                patch.setattr(sys, "argv", ["lvsctl", "weight", "-c", str(self.file), *arguments])
                with pytest.raises(SystemExit) as caught:
                    main()
        finally:
            structlog.configure(**settings)
        return Done(code=int(caught.value.code or 0), out=text(out).splitlines(), err=text(err).replace("\n", " "))

    def names(self) -> list[str]:
        """Return the keys that stand in Consul."""
        return [each["Key"] for each in self.consul.ask("GET", "/v1/kv/lvsctl/weights?recurse")]

    def keys(self) -> dict[str, dict[str, object]]:
        """Return what stands in Consul, by key."""
        listed = self.consul.ask("GET", "/v1/kv/lvsctl/weights?recurse")
        return {each["Key"]: json.loads(base64.b64decode(each["Value"])) for each in listed}


def text(stream: TextIOWrapper) -> str:
    """Return what was written."""
    stream.seek(0)
    return stream.read()


@pytest.fixture(scope="module")
def tokens(guarded: Guarded) -> dict[str, str]:
    """Register four instances of reco, one of them v2, and return an operator's token and a daemon's."""
    for number in (1, 2):
        guarded.ask("PUT", "/v1/catalog/deregister", {"Node": f"app{number}"})
    for number in (1, 2, 3, 4):
        tags = ["v2"] if number == 4 else ["v1"]
        service = {"Service": "reco", "ID": f"reco-{number}", "Port": 8080, "Tags": tags, "Meta": {"zone": "a"}}
        guarded.ask(
            "PUT",
            "/v1/catalog/register",
            {"Node": f"app{number}", "Address": f"10.0.0.{number}", "Service": service},
        )
    reads = OPERATOR.replace("write", "read")
    return {"operator": guarded.token("op", OPERATOR)["SecretID"], "daemon": guarded.token("d", reads)["SecretID"]}


@pytest.fixture
def operator(guarded: Guarded, tokens: dict[str, str], tmp_path: Path) -> Iterator[Operator]:
    """Return one whose file has the daemon's token, which may not write; no key is left behind."""
    (tmp_path / "token").write_text(tokens["daemon"])
    (tmp_path / "token").chmod(0o600)
    file = tmp_path / "lvsctl.toml"
    file.write_text(
        f'[consul]\naddress = "{guarded.address}"\ntoken_file = "{tmp_path}/token"\n'
        '[overrides]\nkv_prefix = "lvsctl"\n'
        '[virtual_server.reco]\naddress = "10.9.0.100:80"\nscheduler = "wrr"\n'
        '[virtual_server.plain]\naddress = "10.9.0.101:80"\nscheduler = "rr"\nconsul_service = "reco"\n'
    )
    yield Operator(consul=guarded, file=file, token=tokens["operator"])
    guarded.ask("DELETE", "/v1/kv/lvsctl?recurse")


def test_a_canary_gets_its_share_is_shown_and_cleared(operator: Operator) -> None:
    began = time.time()
    done = operator.weight("reco", "v2", "5%", "--for", "2h", "--reason", "canary of 1234")
    assert (done.code, done.err) == (0, "")
    (line,) = done.out
    said = r"reco: v2 gets 5% until \d\d:\d\d \((2 h 0 min|1 h 59 min)\); 1 of 4 instances, weight 3, the others 19"
    assert re.fullmatch(said, line), line
    (value,) = operator.keys().values()
    assert (value["share"], value["reason"]) == ("5%", "canary of 1234")
    assert str(value["by"]).startswith("alice@")
    assert abs(float(str(value["until"])) - began - 7200) < 30
    head, row = operator.weight("reco").out
    assert head.split() == ["VIRTUAL", "SERVER", "SELECTOR", "SHARE", "UNTIL", "BY", "EFFECT", "REASON"]
    assert re.split(r"\s{2,}", row)[:3] == ["reco", "v2", "5%"]
    assert re.split(r"\s{2,}", row)[5:] == ["1 of 4 instances, weight 3", "canary of 1234"]
    assert head.index("EFFECT") == row.index("1 of 4")
    changed = operator.weight("reco", "v2", "50%")
    assert changed.out == ["reco: v2 gets 50% until it is cleared; 1 of 4 instances, weight 3, the others 1"]
    cleared = operator.weight("reco", "v2", "--clear")
    assert cleared.code == 0
    assert cleared.out[0].startswith("reco: v2 is cleared (it was 50% of alice@")
    assert cleared.out[0].endswith("); every instance has its own weight")
    assert operator.weight().out == ["no overrides"]


def test_metadata_and_a_fixed_weight(operator: Operator) -> None:
    done = operator.weight("reco", "zone=a", "0")
    assert (done.code, done.out) == (2, [])
    assert "reco: 0 cannot work: nothing would serve" in done.err
    done = operator.weight("reco", "zone=a", "10")
    assert done.out == ["reco: zone=a gets 10 until it is cleared; 4 of 4 instances, weight 10"]
    assert list(operator.keys()) == ["lvsctl/weights/reco/zone=a"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nothing", "v2", "5%"), "no virtual server 'nothing'; there are: plain, reco"),
        (("nothing",), "no virtual server 'nothing'"),
        (("reco", "v2"), "write the share too, like 5% or 10, or --clear"),
        (("reco", "v2", "101%"), "'101%': it is not a share: 0% to 100%"),
        (("reco", "v2", "five"), "'five': it is not a share"),
        (("reco", "v2", "5%", "--for", "2"), '--for: "2" is no duration'),
        (("reco", "v2", "5%", "--for", "0s"), '--for: "0s" is out of range'),
        (("reco", "v2", "5%", "--reason", "x" * 201), "--reason has 201 characters"),
        (("reco", "x" * 256, "5%"), "a selector has 1 to 255 characters"),
        (("reco", "", "5%"), "a selector has 1 to 255 characters"),
        (("reco", "v9", "5%"), "reco: 'v9' is no tag or metadata of the 4 instances that may serve"),
        (("plain", "v2", "5%"), "plain: 5% cannot work: scheduler rr ignores weights other than 0"),
        (("reco", "v2", "--clear"), "reco has no override of 'v2'; it has none"),
        (("reco", "v2", "5%", "--clear"), "--clear goes with a virtual server and a selector alone"),
        (("--clear",), "these options go with a virtual server and a selector"),
        (("reco", "--for", "2h"), "these options go with a virtual server and a selector"),
    ],
)  # fmt: skip
def test_nonsense_is_refused_and_nothing_written(operator: Operator, arguments: tuple[str, ...], said: str) -> None:
    done = operator.weight(*arguments)
    assert (done.code, done.out) == (2, []), done
    assert said in re.sub(r"\s+", " ", done.err)
    assert operator.weight().out == ["no overrides"]


@pytest.mark.parametrize(
    ("selector", "options", "said"),
    [
        ("v2", ("--reason", "caf\udce9"), "reason is no text"),
        ("\udcff", ("--ahead",), "read as another one"),
        ("ü" * 200, ("--ahead",), "not spelled as lvsctl spells it"),
        ("v2", ("--reason", "\U0001f600" * 200), "more than 4096 bytes"),
    ],
)
def test_what_no_director_could_read_is_not_written(
    operator: Operator, selector: str, options: tuple[str, ...], said: str
) -> None:
    done = operator.weight("reco", selector, "0", *options, SUDO_USER="\U0001f600" * 200)
    assert done.code == 2, done
    assert said in re.sub(r"[\s│]+", " ", done.err)
    operator.consul.ask("PUT", "/v1/kv/lvsctl/weights/other", "x")
    assert all(key.endswith("/other") for key in operator.names())


@pytest.mark.parametrize("selector", [".", ".."])
def test_a_selector_of_dots_is_a_key_like_any_other(operator: Operator, selector: str) -> None:
    assert operator.weight("reco", selector, "5%", "--ahead").code == 0
    assert operator.names() == ["lvsctl/weights/reco/" + selector.replace(".", "!2E")]
    assert operator.weight("reco", selector, "--clear").code == 0


def test_another_datacenter_that_is_dead_keeps_nobody_from_a_canary(operator: Operator) -> None:
    with operator.file.open("a") as file:
        file.write(f'[daemon]\nstate_directory = "{operator.file.parent}"\n[discovery]\naddresses = ["10.9.1.0/24"]\n')
        file.write('[virtual_server.other]\naddress = "10.9.0.102:80"\ndatacenter = "nowhere"\n')
    assert operator.weight("reco", "v2", "0").code == 0
    assert operator.weight("reco", "v2", "--clear").code == 0


def test_what_a_consul_service_declares_has_weights_too(operator: Operator) -> None:
    meta = {"zone": "a", "lvs-address": "10.9.1.20:80"}
    service = {"Service": "shop", "ID": "shop-1", "Port": 8080, "Tags": ["lvs", "v2"], "Meta": meta}
    node = {"Node": "app9", "Address": "10.0.0.9"}
    operator.consul.ask("PUT", "/v1/catalog/register", {**node, "Service": service})
    try:
        unknown = operator.weight("shop", "v2", "10")
        assert (unknown.code, operator.weight("shop").code) == (2, 2)
        assert "no virtual server 'shop'; there are: plain, reco" in unknown.err
        with operator.file.open("a") as file:
            file.write(f'[daemon]\nstate_directory = "{operator.file.parent}"\n')
            file.write('[discovery]\naddresses = ["10.9.1.0/24"]\n')
        done = operator.weight("shop", "v2", "10")
        assert (done.code, done.err) == (0, "")
        assert done.out == ["shop: v2 gets 10 until it is cleared; 1 of 1 instance, weight 10"]
        assert "1 of 1 instance, weight 10" in operator.weight().out[1]
    finally:
        operator.consul.ask("PUT", "/v1/catalog/deregister", {"Node": "app9"})


def test_ahead_of_a_deployment_it_is_written_before_anything_matches(operator: Operator) -> None:
    done = operator.weight("reco", "v9", "5%", "--ahead")
    assert (done.code, done.out) == (0, ["reco: v9 gets 5% until it is cleared; nothing matches yet"])
    assert "none: no instance that may serve matches" in operator.weight().out[1]


def test_what_its_owner_quiesced_gets_no_share_and_nobody_says_so(operator: Operator) -> None:
    service = {"Service": "reco", "ID": "reco-5", "Port": 8080, "Tags": ["v5"], "Meta": {"lvs-weight": "0"}}
    operator.file.write_text(operator.file.read_text().replace('"wrr"', '"wrr"\nweight_meta = "lvs-weight"'))
    node = {"Node": "app5", "Address": "10.0.0.5"}
    operator.consul.ask("PUT", "/v1/catalog/register", {**node, "Service": service})
    try:
        refused = operator.weight("reco", "v5", "5%")
        assert (refused.code, refused.out) == (2, [])
        said = re.sub(r"[\s│]+", " ", refused.err)
        assert "5% would do nothing: the instances' own weight is 0, which no override raises" in said
        assert operator.weight().out == ["no overrides"]
        done = operator.weight("reco", "v5", "5%", "--ahead")
        (line,) = done.out
        assert line.startswith("reco: v5 5% is written until it is cleared and does nothing now: 1 of 5 instances, ")
        assert line.endswith("weight 0, for the instances' own weight is 0, which no override raises")
        assert "none: the instances' own weight is 0" in operator.weight().out[1]
    finally:
        operator.consul.ask("PUT", "/v1/catalog/deregister", {"Node": "app5"})


def test_more_than_all_is_refused(operator: Operator) -> None:
    assert operator.weight("reco", "v2", "60%").code == 0
    done = operator.weight("reco", "v1", "41%")
    assert done.code == 2
    assert "41% cannot work: more than 100% with those before it, which leave 40%" in re.sub(r"\s+", " ", done.err)
    assert operator.weight("reco", "v1", "40%").code == 0
    assert operator.weight("reco", "v2", "50%").code == 0, "its own share does not count twice"


def test_what_a_new_one_makes_of_the_others_is_told(operator: Operator) -> None:
    assert operator.weight("reco", "v2", "5%").code == 0
    assert operator.weight("reco", "v1", "0").out == [
        "reco: v1 gets 0 until it is cleared; 3 of 4 instances, weight 0, the others 1",
        "reco: v2 5% does not get what it says: nobody else may serve, so they have it all",
    ]


def test_a_scheduler_without_weights_can_still_quiesce(operator: Operator) -> None:
    done = operator.weight("plain", "v2", "0%")
    assert done.out == ["plain: v2 gets 0% until it is cleared; 1 of 4 instances, weight 0, the others 1"]


def test_the_daemons_token_may_not_write_and_the_rule_is_told(operator: Operator) -> None:
    done = operator.weight("reco", "v2", "5%", CONSUL_HTTP_TOKEN="")
    assert (done.code, done.out) == (4, [])
    assert done.err.startswith("lvsctl: Consul answered 403: Permission denied")  # from 1.11 on with what is lacking
    assert '; the token needs key_prefix "lvsctl/weights/" { policy = "write" }' in done.err
    assert operator.weight(CONSUL_HTTP_TOKEN="").out == ["no overrides"], "it may read them"


def test_a_token_that_may_not_even_read_is_told_so(operator: Operator) -> None:
    operator.weight("reco", "v2", "5%")
    secret = operator.consul.token("health", OPERATOR.replace("lvsctl/", "other/"))["SecretID"]
    done = operator.weight(CONSUL_HTTP_TOKEN=secret)
    assert (done.code, done.out) == (4, []), "no list that would look empty"
    assert 'key_prefix "lvsctl/weights/" { policy = "read" }' in done.err


def test_a_file_that_opens_no_overrides_is_code_3(operator: Operator) -> None:
    operator.file.write_text('[virtual_server.reco]\naddress = "10.9.0.100:80"\n')
    done = operator.weight("reco", "v2", "5%")
    assert done.code == 3
    assert f"{operator.file}: overrides: this file opens no overrides" in done.err


def test_without_consul_it_is_code_4(operator: Operator) -> None:
    text = operator.file.read_text()
    operator.file.write_text(text.replace(operator.consul.address, "http://127.0.0.1:1"))
    done = operator.weight("reco", "v2", "5%")
    assert done.code == 4
    assert "cannot reach http://127.0.0.1:1: connection refused" in done.err


def test_a_key_that_is_none_is_shown_and_can_be_replaced_and_cleared(operator: Operator) -> None:
    operator.consul.ask("PUT", "/v1/kv/lvsctl/weights/reco/v2", {"share": "5%", "untill": 1})
    assert operator.weight().out == [
        "no overrides",
        "",
        "not used (consul kv delete KEY removes one):",
        "  lvsctl/weights/reco/v2  its value says 'untill', which is not known here",
    ]
    assert operator.weight("reco", "v2", "5%").code == 0
    operator.consul.ask("PUT", "/v1/kv/lvsctl/weights/reco/v2", "x")
    assert operator.weight("reco", "v2", "--clear").out == [
        "reco: v2 is cleared (it was not used); every instance has its own weight"
    ]


def test_what_left_the_file_is_shown_and_can_be_cleared(operator: Operator) -> None:
    operator.consul.ask("PUT", "/v1/kv/lvsctl/weights/gone/v2", {"share": "5%", "by": "alice"})
    operator.consul.ask("PUT", "/v1/kv/lvsctl/weights/gone/version=two!20!27", {"share": "5%"})
    for arguments in ((), ("gone",)):
        _, *rows, blank, head, first, second = operator.weight(*arguments).out
        assert [re.split(r"\s{2,}", row)[5] for row in rows] == ["not in this file"] * 2
        assert (blank, head) == ("", "not in this file; unless another director has it, cleared by:")
        assert [shlex.split(first), shlex.split(second)] == [
            ["lvsctl", "weight", "gone", selector, "--clear"] for selector in ("v2", "version=two '")
        ]
    refused = operator.weight("gone", "v2", "10%")
    assert (refused.code, refused.out) == (2, [])
    assert "no virtual server 'gone'; there are: plain, reco" in refused.err
    none = operator.weight("gone", "v3", "--clear")
    assert (none.code, none.out) == (2, [])
    assert "there are: v2, version=two '" in re.sub(r"[\s│]+", " ", none.err)
    cleared = operator.weight("gone", "v2", "--clear")
    assert (cleared.code, cleared.err) == (0, "")
    assert cleared.out == ["gone: v2 is cleared (it was 5% of alice); gone is not in this file"]
    assert operator.weight("gone", "version=two '", "--clear").code == 0
    unknown = operator.weight("gone", "v2", "--clear")
    assert unknown.code == operator.weight("gone").code == 2
    assert "no virtual server 'gone'; there are: plain, reco" in unknown.err


def test_what_is_in_kv_can_be_cleared_whatever_else_consul_says(operator: Operator) -> None:
    operator.consul.ask("PUT", "/v1/kv/lvsctl/weights/gone/v2", {"share": "5%"})
    head = operator.file.read_text().partition("[virtual_server")[0]
    operator.file.write_text(
        f'{head}[discovery]\naddresses = ["10.9.1.0/24"]\n'
        '[virtual_server.reco]\naddress = "10.9.0.100:80"\ndatacenter = "nowhere"\n'
    )
    assert operator.weight().code == 4
    assert operator.weight("gone", "v2", "--clear").code == 0


def test_what_is_over_is_cleared_by_the_next_who_writes(operator: Operator) -> None:
    operator.consul.ask("PUT", "/v1/kv/lvsctl/weights/reco/v1", {"share": "5%", "until": 1})
    assert re.split(r"\s{2,}", operator.weight().out[1])[5] == "over"
    done = operator.weight("reco", "v2", "5%")
    assert done.out[1:] == ["reco: v1 5% was over, and is cleared"]
    assert list(operator.keys()) == ["lvsctl/weights/reco/v2"]


def test_somebody_elses_words_are_shown_harmless(operator: Operator) -> None:
    value = {"share": "5%", "by": "\x1b[31m", "reason": "a\r\nb"}
    operator.consul.ask("PUT", "/v1/kv/lvsctl/weights/reco/v2", value)
    shown = operator.weight("reco").out
    assert len(shown) == 2
    assert r"\x1b[31m" in shown[1]
    assert shown[1].endswith(r"a\r\nb")
    assert operator.weight("reco", "v2", "--clear").out[0].isprintable()


def test_the_screen_says_what_each_does() -> None:
    config = config_of(configured(scheduler="wrr"))
    answers = answers_of(config, instance(1), instance(2, tags=("v2",)))
    made = [
        Override(virtual_server=name, selector=selector, share=Percent(500), until=until, created=at)
        for at, (name, selector, until) in enumerate(
            (("reco", "v2", NOW + 60), ("reco", "v3", None), ("shop", "v2", None), ("reco", "old", NOW))
        )
    ]
    overrides = Overrides(entries=tuple(made), ignored=(Ignored(key="a\x1b", why="w"),))
    effects = [re.split(r"\s{2,}", line)[5] for line in render(config, overrides, answers, NOW)[1:5]]
    assert effects == [
        "1 of 2 instances, weight 1",
        "none: no instance that may serve matches",
        "over",
        "not in this file",
    ]
    assert "Consul does not answer" in render(config, overrides, {}, NOW)[1]
    assert render(config, overrides, answers, NOW, "shop")[0].split()[0] == "VIRTUAL"
    shop = render(config, overrides, answers, NOW, "shop")
    assert [line[:4] for line in shop] == ["VIRT", "shop", "", "not ", "  lv"]
    assert render(config, overrides, answers, NOW)[-1] == r"  a\x1b  w"


def test_who_asks_is_the_user_behind_sudo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "alice")
    monkeypatch.setenv("USER", "root")
    assert author().startswith("alice@")
    monkeypatch.delenv("SUDO_USER")
    assert author().startswith("root@")
    monkeypatch.setenv("USER", "\x1b[31m")
    assert author().startswith(r"\x1b[31m@")
    for name in ("USER", "LOGNAME"):
        monkeypatch.delenv(name, raising=False)
    assert author().startswith(f"{pwd.getpwuid(os.getuid()).pw_name}@"), "a service or a container may have no such"


def test_a_clock_has_a_date_when_it_is_far() -> None:
    assert re.fullmatch(r"\d\d:\d\d", clock(NOW + 60, NOW))
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d", clock(NOW + 86400, NOW))


async def test_who_is_slower_than_somebody_else_is_told_what_stands_there() -> None:
    """A stand-in, for the two requests of a real Consul are too quick to come between."""
    value = base64.b64encode(b'{"share": "10%", "by": "bob@adm2"}').decode()
    listing: list[object] = []

    async def answering(request: web.Request) -> web.StreamResponse:
        headers = {"X-Consul-Index": "7"}
        if request.method == "PUT":
            listing.append({"Key": "lvsctl/weights/reco/v2", "Value": value, "CreateIndex": 7, "ModifyIndex": 7})
            assert request.query["cas"] == "0"
            return web.Response(text="false")
        if not request.path.startswith("/v1/kv/"):
            return answer(instance(1), instance(2, tags=("v2",)))
        if "recurse" in request.query and listing:
            return web.json_response(listing, headers=headers)
        return web.Response(status=404, headers=headers)

    async with consul(answering) as server:
        config = attrs.evolve(config_of(configured(scheduler="wrr")), consul=ConsulConfig(address=server.address))
        wanted = Override(virtual_server="reco", selector="v2", share=Percent(500))
        with pytest.raises(ConsulError) as caught:
            await asyncio.to_thread(write, config, "lvsctl", wanted, ahead=False)
    assert str(caught.value) == (
        "reco: v2 was changed by somebody else at the same time, it is 10% of bob@adm2 now; "
        "nothing was written, look and try again"
    )
