"""What all tests share: kernel tests run only inside the lab's kernel, some of them before the others."""

import os
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def environment_without_consul(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no variable of who runs the tests complete a configuration in them."""
    for name in [name for name in os.environ if name.startswith("CONSUL_") or name == "CREDENTIALS_DIRECTORY"]:
        monkeypatch.delenv(name)


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


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, exitstatus: int) -> None:
    """Say why a run without tests is a failure: a wrong name or mark would pass for success."""
    if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
        terminalreporter.write_line("lvsctl: no test was chosen, and a run without tests is a failure", red=True)
