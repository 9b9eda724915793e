"""The documentation names what the code has: no key of the JSON, no exit code and no event goes unmentioned."""

import re
from pathlib import Path

import attrs
import pytest

from lvsctl import announce, errors
from lvsctl.core.cause import Kind
from lvsctl.core.status import (
    ConsulStatus,
    KernelStatus,
    Place,
    RealServerStatus,
    State,
    Status,
    VirtualServerStatus,
)

ROOT = Path(__file__).parent.parent
JSON = (ROOT / "docs/json.md").read_text("utf-8")
OPERATIONS = (ROOT / "docs/operations.md").read_text("utf-8")
ARCHITECTURE = (ROOT / "docs/architecture.md").read_text("utf-8")


@pytest.mark.parametrize("shown", [Status, ConsulStatus, KernelStatus, VirtualServerStatus, RealServerStatus])
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
