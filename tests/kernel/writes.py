"""What the daemon says it did to the kernel, and when it says that nothing is left to do."""

from typing import Final

from lvsctl.core.status import Status
from lvsctl.errors import DaemonError
from tests.kernel.director import START, Director
from tests.lab.waiting import eventually

WRITES: Final = (
    *("virtual_server_added", "virtual_server_changed", "virtual_server_deleted"),
    *("real_server_added", "real_server_changed", "real_server_quiesced", "real_server_deleted"),
)


def writes(director: Director) -> list[str]:
    """Return the changes to the kernel that the log tells of: `real_server_added 10.2.0.11:80`."""
    return [f"{event['event']} {event.get('real_server', '')}".strip() for event in director.events(*WRITES)]


def wait_until_in_sync(director: Director) -> Status:
    """Return the status of a daemon that may only just have been started, once the kernel is as wanted."""

    def in_sync() -> Status:
        try:
            status = director.status()
        except DaemonError as error:
            raise AssertionError(str(error)) from None
        assert status.kernel.in_sync_since is not None, f"not in sync; {director.log[-2000:]}"
        return status

    return eventually(in_sync, within=START)
