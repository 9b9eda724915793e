"""Of [kernel] exactly what is named is set, when it differs, and told once."""

from collections.abc import Iterator

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from lvsctl.config import KernelConfig
from lvsctl.core.event import Event
from lvsctl.core.event_words import sentence
from lvsctl.core.needs import is_as_wished, wished
from lvsctl.kernel_settings import Change, KernelSettings
from netlink.errors import NetlinkError

NAMES = ("expire_nodest_conn", "expire_quiescent_template", "conn_reuse_mode", "conntrack", "sloppy_tcp")


class Kernel:
    """Settings in memory; those in `refused` cannot be set."""

    def __init__(self, **settings: int) -> None:
        self.settings = settings
        self.refused: dict[str, str] = {}
        self.written: list[tuple[str, int]] = []
        self.told: list[Event] = []
        self.keeper = KernelSettings(self.read, self.write, self.told.append)

    def read(self, name: str) -> int | None:
        return self.settings.get(name)

    def write(self, name: str, number: int) -> None:
        if name in self.refused:
            raise NetlinkError("set", f"setting {name}", self.refused[name])
        self.written.append((name, number))
        self.settings[name] = number


@pytest.fixture
def logs() -> Iterator[list[structlog.typing.EventDict]]:
    """Return what is logged."""
    with capture_logs() as captured:
        yield captured


WANTED = KernelConfig(expire_nodest_conn=True)


def test_what_differs_is_set_once_and_told_with_what_it_was(logs: list[structlog.typing.EventDict]) -> None:
    kernel = Kernel(expire_nodest_conn=0, conntrack=1)
    change = Change(setting="net.ipv4.vs.expire_nodest_conn", was=0, now=1, why="[kernel] in the configuration")
    assert kernel.keeper.keep(WANTED) == (change,)
    assert kernel.keeper.keep(WANTED) == ()
    assert kernel.settings == {"expire_nodest_conn": 1, "conntrack": 1}
    assert [(each["event"], each["log_level"], each["was"], each["now"]) for each in logs] == [
        ("setting_changed", "info", 0, 1)
    ]


def test_the_journal_is_told_what_was_set_and_why() -> None:
    kernel = Kernel(expire_nodest_conn=0)
    kernel.keeper.keep(WANTED)
    kernel.settings["expire_nodest_conn"] = 0
    kernel.keeper.keep(WANTED)
    kernel.settings["expire_nodest_conn"], kernel.refused = 0, {"expire_nodest_conn": "read-only file system"}
    kernel.keeper.keep(WANTED)
    trouble = kernel.keeper.trouble
    kernel.keeper.keep(WANTED)
    kernel.refused = {}
    kernel.keeper.keep(WANTED)
    assert trouble == "set setting expire_nodest_conn: read-only file system"
    assert kernel.keeper.trouble == ""
    assert [sentence(each) for each in kernel.told] == [
        "net.ipv4.vs.expire_nodest_conn was set (0 -> 1): [kernel] in the configuration",
        "net.ipv4.vs.expire_nodest_conn was set (0 -> 1): changed by hand",
        f"net.ipv4.vs.expire_nodest_conn could not be set: {trouble}",
        "net.ipv4.vs.expire_nodest_conn was set (0 -> 1): changed by hand",
        "net.ipv4.vs.expire_nodest_conn is as wished",
    ]
    assert [each.cause for each in kernel.told[:2]] == ["configuration", "drift"]
    planned = Kernel(expire_nodest_conn=0)
    planned.keeper.keep(WANTED, write=False)
    assert planned.told == []


def test_what_a_hand_undoes_is_put_right_and_said_so(logs: list[structlog.typing.EventDict]) -> None:
    kernel = Kernel(expire_nodest_conn=1)
    assert kernel.keeper.keep(WANTED) == ()
    kernel.settings["expire_nodest_conn"] = 0
    assert [each.why for each in kernel.keeper.keep(WANTED)] == ["changed by hand"]
    assert [(each["event"], each["why"]) for each in logs] == [("setting_changed", "changed by hand")]
    assert [each.why for each in kernel.keeper.keep(KernelConfig(expire_nodest_conn=False))] == [
        "[kernel] in the configuration"
    ]


def test_what_is_named_no_more_is_left_as_it_is() -> None:
    kernel = Kernel(expire_nodest_conn=0)
    kernel.keeper.keep(WANTED)
    assert kernel.keeper.keep(KernelConfig()) == ()
    kernel.settings["expire_nodest_conn"] = 0
    assert kernel.keeper.keep(KernelConfig()) == ()
    assert kernel.written == [("expire_nodest_conn", 1)]
    assert [each.why for each in kernel.keeper.keep(WANTED)] == ["[kernel] in the configuration"]


@pytest.mark.parametrize("missing", [False, True])
def test_a_refusal_is_a_warning_told_once_and_hinders_no_other(
    logs: list[structlog.typing.EventDict], *, missing: bool
) -> None:
    kernel = Kernel(conn_reuse_mode=1) if missing else Kernel(expire_nodest_conn=0, conn_reuse_mode=1)
    kernel.refused = {"expire_nodest_conn": "read-only file system"}
    wanted = KernelConfig(expire_nodest_conn=True, conn_reuse_mode=2)
    for _ in range(3):
        kernel.keeper.keep(wanted)
    assert kernel.settings["conn_reuse_mode"] == 2
    failed = [each for each in logs if each["event"] == "setting_failed"]
    assert [(each["setting"], each["log_level"]) for each in failed] == [("net.ipv4.vs.expire_nodest_conn", "warning")]
    assert ("no such setting" if missing else "read-only file system") in failed[0]["error"]
    kernel.refused, kernel.settings["expire_nodest_conn"] = {}, 0
    kernel.keeper.keep(wanted)
    assert kernel.settings["expire_nodest_conn"] == 1
    assert [each["event"] for each in logs[-2:]] == ["setting_changed", "trouble_over"]
    assert logs[-2]["why"] == "[kernel] in the configuration"


def test_a_dry_run_sets_nothing_and_says_once_what_would_be(logs: list[structlog.typing.EventDict]) -> None:
    kernel = Kernel(expire_nodest_conn=0)
    for _ in range(3):
        assert [each.now for each in kernel.keeper.keep(WANTED, write=False)] == [1]
    assert (kernel.written, kernel.settings) == ([], {"expire_nodest_conn": 0})
    assert [(each["event"], each["setting"]) for each in logs] == [("would_change", "net.ipv4.vs.expire_nodest_conn")]


BOOLEANS = st.sampled_from([None, True, False])
KERNELS = st.builds(
    KernelConfig,
    expire_nodest_conn=BOOLEANS,
    expire_quiescent_template=BOOLEANS,
    conn_reuse_mode=st.sampled_from([None, 0, 1, 2, 3]),
    conntrack=BOOLEANS,
    sloppy_tcp=BOOLEANS,
)


@given(
    wishes=st.lists(KERNELS, min_size=1, max_size=4),
    settings=st.fixed_dictionaries({name: st.integers(-1, 5) for name in NAMES}),
    write=st.booleans(),
)
def test_after_each_wish_all_is_as_wished_and_the_rest_as_it_was(
    wishes: list[KernelConfig], settings: dict[str, int], *, write: bool
) -> None:
    kernel = Kernel(**settings)
    for wanted in wishes:
        before, wish = dict(kernel.settings), wished(wanted)
        changes = kernel.keeper.keep(wanted, write=write)
        assert all(kernel.settings[name] == before[name] for name in NAMES if name not in wish or not write)
        if write:
            assert all(is_as_wished(name, kernel.settings[name], number) for name, number in wish.items())
            assert kernel.keeper.keep(wanted) == ()
        differing = {name for name in wish if not is_as_wished(name, before[name], wish[name])}
        assert {each.setting for each in changes} == {f"net.ipv4.vs.{name}" for name in differing}
    assert (kernel.written == []) or write
