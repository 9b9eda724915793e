"""What all tests share: kernel tests run only inside the lab's kernel, some of them before the others."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from lvsctl.unexpected import told

pytest_plugins = ["tests.showing"]

CLAIMS: Final = os.environ.get("LVSCTL_CLAIMS", "")  # a directory; where set, several kernels share the tests


@pytest.fixture(autouse=True)
def environment_without_consul(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no variable of who runs the tests complete a configuration in them."""
    for name in [name for name in os.environ if name.startswith("CONSUL_") or name == "CREDENTIALS_DIRECTORY"]:
        monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def nothing_unexpected(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let no error of lvsctl itself go unseen because the daemon survives it, but where a test makes one."""
    before = told()
    yield
    if request.node.get_closest_marker("unexpected") is None:
        assert told() == before


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip kernel tests where there is no kernel for them; `tests.lab.kernel` sets LVSCTL_LAB inside.

    Inside, those that take a module out of the kernel come before those that use it, and all others before those that
    keep hosts for the whole session: beside the table of another namespace /proc/net/ip_vs leaves entries out.
    """
    keep_hosts = Path(__file__).parent / "kernel", Path(__file__).parent / "lab"
    items.sort(
        key=lambda item: (
            item.get_closest_marker("first") is None,
            any(item.path.is_relative_to(folder) for folder in keep_hosts),
        )
    )
    if os.environ.get("LVSCTL_LAB"):
        return
    outside = pytest.mark.skip(reason="needs the lab's kernel: make kernel")
    for item in items:
        if item.get_closest_marker("kernel"):
            item.add_marker(outside)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Leave the number of tests that were chosen for `tests.lab.kernel_tests`, which counts those that ran."""
    if CLAIMS:
        (Path(CLAIMS) / f"chosen-{uuid.uuid4()}").write_text(str(len(session.items)), encoding="ascii")


def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """Run the tests of the modules that no other kernel has claimed, where several share them."""
    if not CLAIMS:
        return None
    if session.testsfailed:
        raise session.Interrupted(f"{session.testsfailed} errors during collection")
    claimed: dict[Path, bool] = {}
    mine = (item for item in session.items if _claim(item, claimed))
    item = next(mine, None)
    while item is not None:
        following = next(mine, None)  # pytest keeps the fixtures that both need
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        item = following
    return True


def _claim(item: pytest.Item, claimed: dict[Path, bool]) -> bool:
    """Tell whether the module of `item` is ours; a directory is made once only, whoever tries."""
    if item.path not in claimed:
        name = str(item.path.relative_to(item.config.rootpath)).replace("/", "-")
        try:
            (Path(CLAIMS) / name).mkdir()
        except FileExistsError:
            claimed[item.path] = False
        else:
            claimed[item.path] = True
    return claimed[item.path]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, exitstatus: int) -> None:
    """Say why a run without tests is a failure: a wrong name or mark would pass for success."""
    if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
        terminalreporter.write_line("lvsctl: no test was chosen, and a run without tests is a failure", red=True)
