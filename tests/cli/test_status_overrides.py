"""What `lvsctl status` says of overrides: who, until when, what they do, and when they cannot be read."""

import re

import attrs

from lvsctl.cli.status import exit_code
from lvsctl.cli.status_screen import render
from lvsctl.control import as_json, converter, decode_status
from lvsctl.core.status import OverridesStatus, OverrideStatus, Status
from tests.statuses import FULL, RECO, SHOP, TIME

FIVE = OverrideStatus(
    selector="v2",
    share="5%",
    by="alice@adm1",
    reason="canary \x1b[31m",
    until=TIME + 7200,
    written=TIME,
    matching=2,
    smallest=7,
    largest=8,
    why_not="",
)
NONE = attrs.evolve(
    FIVE, selector="v9", by="", reason="", until=None, matching=0, smallest=0, largest=0, why_not="no instance matches"
)
WELL = OverridesStatus(kv_prefix="lvsctl", data_age=3.0, error="", ignored={}, elsewhere=("other",))
WITH = attrs.evolve(
    FULL, overrides=WELL, virtual_servers=(attrs.evolve(RECO, overrides=(FIVE, NONE)), SHOP), config_error=""
)


def head(status: Status, *, wide: bool = False) -> list[str]:
    """Return the lines of the head that are about overrides, split into their words' columns."""
    lines = render(status, wide=wide)
    found = lines[: lines.index("")]
    at = next((number for number, line in enumerate(found) if line.startswith("overrides")), None)
    return [] if at is None else [line[11:] for line in found[at:] if line.startswith(("overrides", "  "))]


def test_a_virtual_servers_overrides_stand_below_its_real_servers() -> None:
    lines = render(attrs.evolve(WITH, virtual_servers=WITH.virtual_servers[:1]), with_real_servers=True)
    at = next(number for number, line in enumerate(lines) if "OVERRIDE" in line)
    assert lines[at - 1] == ""
    shown = [re.split(r"\s{2,}", line.strip()) for line in lines[at : at + 3]]
    assert shown[0] == ["OVERRIDE", "SHARE", "UNTIL", "BY", "INSTANCES", "WEIGHT", "REASON"]
    assert (shown[1][:2], shown[1][3:]) == (["v2", "5%"], ["alice@adm1", "2", "7 to 8", r"canary \x1b[31m"])
    assert re.fullmatch(r"\d\d:\d\d \(2 h 0 min\)", shown[1][2])
    assert shown[2] == ["v9", "5%", "cleared", "-", "0", "0", "no instance matches"]
    assert "OVERRIDE" not in "\n".join(render(FULL, with_real_servers=True))


def test_the_head_is_silent_while_all_is_well() -> None:
    assert head(FULL) == head(WITH) == []
    assert head(WITH, wide=True) == ["of lvsctl/weights/", "other is not in this configuration"]
    assert exit_code(WITH) == exit_code(FULL)


def test_the_head_says_that_they_cannot_be_read() -> None:
    failing = attrs.evolve(WITH, overrides=attrs.evolve(WELL, error="Consul answered 500: no leader", data_age=61.0))
    assert head(failing) == ["as of 1 min 1 s ago, for they cannot be read: Consul answered 500: no leader"]
    never = attrs.evolve(WITH, overrides=attrs.evolve(WELL, error="Consul answered 403: no", data_age=None))
    assert head(never) == ["as last known, for they cannot be read: Consul answered 403: no"]
    assert exit_code(failing) == exit_code(never) == 1


def test_the_head_names_a_key_that_is_none() -> None:
    ignored = {"lvsctl/weights/x\x1b": "its name is wrong", "lvsctl/weights/y": "its value is not JSON"}
    wrong = attrs.evolve(WITH, overrides=attrs.evolve(WELL, ignored=ignored))
    assert head(wrong) == ["2 keys below lvsctl/weights/ not used", r"lvsctl/weights/x\x1b: its name is wrong"]
    assert len(head(wrong, wide=True)) == 4
    assert exit_code(wrong) == 1


def test_they_go_over_the_socket() -> None:
    assert decode_status(converter.dumps(WITH).encode()) == WITH
    assert as_json(WITH)["virtual_servers"][0]["overrides"][0]["by"] == "alice@adm1"
