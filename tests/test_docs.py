"""The documentation names what the code has: no key of the JSON, no exit code and no event goes unmentioned.

And what docs/netlink.md shows is what happens: its examples run, in a kernel, and its table is the code's.
"""

import ast
import contextlib
import doctest
import errno
import importlib.util
import io
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import attrs
import pytest

import netlink
from lvsctl import announce, errors
from lvsctl.consul.choice import Reason as TransportReason
from lvsctl.consul.fleet_orders import FLEET_ORDERS
from lvsctl.consul.overrides import OVERRIDES
from lvsctl.core.cause import Kind
from lvsctl.core.measures import METRICS, REASONS
from lvsctl.core.status import (
    ConsulStatus,
    FleetPlan,
    FleetStatus,
    KernelStatus,
    OrderedRealServer,
    OrderGiven,
    OrderStatus,
    OverridesStatus,
    OverrideStatus,
    Place,
    RealServerStatus,
    State,
    Status,
    VirtualServerStatus,
)
from lvsctl.core.tally import WRITES
from tests.test_metrics import metrics_page, samples

ROOT = Path(__file__).parent.parent
JSON = (ROOT / "docs/json.md").read_text("utf-8")
OPERATIONS = (ROOT / "docs/operations.md").read_text("utf-8")
ARCHITECTURE = (ROOT / "docs/architecture.md").read_text("utf-8")
METRICS_PAGE = (ROOT / "docs/metrics.md").read_text("utf-8")
NETLINK = (ROOT / "docs/netlink.md").read_text("utf-8")
README = (ROOT / "README.md").read_text("utf-8")


@pytest.mark.parametrize(
    "shown",
    [
        Status,
        ConsulStatus,
        FleetPlan,
        FleetStatus,
        KernelStatus,
        OverridesStatus,
        OverrideStatus,
        OrderStatus,
        OrderedRealServer,
        OrderGiven,
        VirtualServerStatus,
        RealServerStatus,
    ],
)
def test_every_key_of_the_status_is_documented(shown: type[attrs.AttrsInstance]) -> None:
    missing = [field.name for field in attrs.fields(shown) if f"`{field.name}`" not in JSON]
    assert not missing


@pytest.mark.parametrize("words", [State, Place, Kind])
def test_every_word_of_the_status_is_documented(words: type[State] | type[Place] | type[Kind]) -> None:
    assert [word.value for word in words if f"`{word.value}`" not in JSON] == []


def test_every_exit_code_is_documented() -> None:
    codes = {
        error.exit_code for error in vars(errors).values() if isinstance(error, type) and hasattr(error, "exit_code")
    }
    documented = {int(code) for code in re.findall(r"^\| (\d) \|", OPERATIONS, re.MULTILINE)}
    assert codes - {errors.LvsctlError.exit_code} <= documented


def test_every_event_is_documented() -> None:
    """Events stand there whole, or as `_changed` behind the first of their row."""
    written = "".join(path.read_text("utf-8") for path in (ROOT / "lvsctl").rglob("*.py"))
    events = set(re.findall(r'log\.(?:info|warning|error)\(\s*"([a-z_]+)"', written)) | set(announce.EVENTS.values())
    events |= {name for folder in (OVERRIDES, FLEET_ORDERS) for name in attrs.astuple(folder.events)}
    documented: set[str] = set()
    for row in OPERATIONS.splitlines():
        names = re.findall(r"`(_?[a-z_]+)`", row.split("|")[1]) if row.startswith("| `") else []
        documented |= {names[0].rsplit("_", 1)[0] + name if name.startswith("_") else name for name in names}
    assert events - documented == set()


def test_every_module_has_its_place_in_the_architecture() -> None:
    modules = [path for folder in ("lvsctl", "netlink") for path in (ROOT / folder).rglob("*.py")]
    missing = [
        str(path.relative_to(ROOT))
        for path in modules
        if path.stem not in ("__init__", "__main__")
        and "cli" not in path.parts
        and not re.search(rf"`(core/|consul/|lvsctl/|netlink/)?{path.stem}(\.py)?`", ARCHITECTURE)
    ]
    assert not missing


def generate_module() -> ModuleType:
    specification = importlib.util.spec_from_file_location("generate", ROOT / "docs/generate.py")
    assert specification
    assert specification.loader
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


# ---- docs/metrics.md


def test_the_table_of_metrics_is_the_generated_one() -> None:
    assert generate_module().metrics_page(METRICS_PAGE) == METRICS_PAGE, "run: PYTHONPATH=. python docs/generate.py"
    assert "| `lvsctl_in_sync` | gauge |" in METRICS_PAGE


def test_every_word_of_a_label_is_documented() -> None:
    words = [*WRITES, *(each.value for words in (State, TransportReason, REASONS) for each in words)]
    assert [word for word in words if f"`{word}`" not in METRICS_PAGE] == []


def test_the_alerts_are_about_metrics_and_labels_that_there_are() -> None:
    labels = {each.name: {*each.labels} for each in METRICS}
    ((_, rules),) = blocks(METRICS_PAGE, "yaml")
    found = re.findall(r"\b(lvsctl_\w+)(?:\{(\w+)=)?", rules)
    assert len(found) > 10
    assert [(name, label) for name, label in found if label and label not in labels[name]] == []
    assert {name for name, _ in found} <= labels.keys()


def test_as_many_series_as_the_page_says() -> None:
    every = [each for each in samples(metrics_page()) if not each.name.startswith("process_")]
    own = [each for each in every if "virtual_server" in each.labels and "reason" not in each.labels]
    names = {each.labels["virtual_server"] for each in own}
    others = [each for each in every if "virtual_server" not in each.labels]
    assert f"There are {len(others)} series and those of the process, then {len(own) // len(names)} for each" in (
        METRICS_PAGE.replace("\n", " ")
    )


# ---- docs/netlink.md


def test_the_table_of_attributes_is_the_generated_one() -> None:
    generate = generate_module()
    assert generate.netlink_page(NETLINK) == NETLINK, "run: PYTHONPATH=. python docs/generate.py"
    assert "| WEIGHT | 4 |" in NETLINK


def test_every_errno_with_a_meaning_is_in_the_table() -> None:
    given = set(re.findall(r"\berrno\.(E[A-Z]+)\b", (ROOT / "netlink/requests.py").read_text("utf-8")))
    documented = {name for name in re.findall(r"^\| (E[A-Z]+) \|", NETLINK, re.MULTILINE) if hasattr(errno, name)}
    assert given == documented


def test_every_public_name_that_does_something_is_on_the_page() -> None:
    functions = [name for name in netlink.__all__ if name[0].islower()]
    requests = [request.__name__ for request in netlink.Request.__args__]
    methods = [name for name in vars(netlink.Client) if not name.startswith("_")]
    assert [name for name in [*functions, *requests, *methods] if not re.search(rf"\b{name}\b", NETLINK)] == ["close"]


def test_the_readme_leads_to_every_page_for_users() -> None:
    assert "](docs/netlink.md)" in README


def blocks(page: str, *languages: str) -> Iterator[tuple[str, str]]:
    """Yield language and text of every fenced block in one of `languages`."""
    for language, text in re.findall(r"^```(\w+)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
        if language in languages:
            yield language, text


def run(text: str, names: dict[str, object]) -> None:
    """Run `text`, statement by statement; what one prints must be in the comment that follows it."""
    lines = text.splitlines()
    for statement in ast.parse(text).body:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(ast.Module([statement], []), "docs/netlink.md", "exec"), names)  # noqa: S102 -- our own page
        said = []
        for line in lines[statement.end_lineno :]:
            if not line.startswith("# "):
                break
            said.append(line.removeprefix("# ") + "\n")
        want, got = "".join(said), printed.getvalue()
        fits = doctest.OutputChecker().check_output(want, got, doctest.ELLIPSIS) if got else not want
        assert fits, f"{ast.unparse(statement)}\nprints\n{got}and the page says\n{want}"


@pytest.mark.parametrize(
    "text",
    ["print(1)\n# 2\n", "print(1)\n", "x = 1\n# 1\n", "print(1)\n# 1\n# 2\n"],
    ids=["other", "none", "all", "more"],
)
def test_an_example_that_prints_something_else_is_found(text: str) -> None:
    run("print(1)\n# 1\nprint(23)\n# 2...\n", {})
    with pytest.raises(AssertionError):
        run(text, {})


@pytest.mark.kernel
def test_the_examples_do_what_the_page_says() -> None:
    names: dict[str, object] = {}
    try:
        for language, text in blocks(NETLINK, "python", "sh"):
            if language == "sh":
                subprocess.run(["sh", "-e", "-c", text], check=True)
            else:
                run(text, names)
    finally:
        client = names.get("ipvs")
        if isinstance(client, netlink.IPVS):
            client.apply([netlink.Flush(), netlink.SetTimeouts(timeouts=netlink.Timeouts())])
            client.close()
        subprocess.run(["ip", "link", "delete", "sync0"], check=True)
        subprocess.run(["ip", "netns", "delete", "blue"], check=True)


TRY_EXAMPLE = """
from ipaddress import IPv4Address
from netlink import codec, framing
from netlink.requests import AddRealServer
from netlink.types import RealServer, RealServerKey, VirtualServerKey

plain = RealServer(key=RealServerKey(address=IPv4Address("10.0.0.1"), port=80))
changed = RealServer(key=plain.key, example=5)
_, body = codec.encode_request(AddRealServer(virtual_server=VirtualServerKey.by_mark(1), real_server=changed))
found = framing.attributes(framing.attributes(body)[2])
decoder = codec.destination_decoder()
assert int.from_bytes(found[16], "little") == 5
assert decoder.build(found) == changed
assert decoder.build({number: payload for number, payload in found.items() if number != 16}) == plain
assert codec.differences(plain, changed) == ("example",)
wrong = RealServer(key=plain.key, example=-1)
print(codec.unsent(AddRealServer(virtual_server=VirtualServerKey.by_mark(1), real_server=wrong)))
"""


def test_an_attribute_is_added_as_the_page_says(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "netlink", tmp_path / "netlink", ignore=shutil.ignore_patterns("__pycache__"))
    changes = [text for _, text in blocks(NETLINK, "diff")]
    for file, change in zip(("types.py", "layout.py"), changes, strict=True):
        path = tmp_path / "netlink" / file
        before = "".join(line[1:] for line in change.splitlines(keepends=True) if not line.startswith("+"))
        after = "".join(line[1:] for line in change.splitlines(keepends=True))
        text = path.read_text("utf-8")
        assert text.count(before) == 1
        path.write_text(text.replace(before, after), "utf-8")
    command = [sys.executable, "-c", TRY_EXAMPLE]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "example -1 is not in 0..4294967295" in done.stdout
