"""The last known overrides on disk, as `key_file` keeps what Consul's KV had."""

from pathlib import Path
from typing import Final

from lvsctl.consul.override_keys import MAX_KEYS, MAX_VALUE
from lvsctl.consul.overrides import OVERRIDES
from lvsctl.core.override import Overrides
from lvsctl.key_file import KeyFile

FILE: Final = "overrides.json"
MAX_SIZE: Final = MAX_KEYS * MAX_VALUE * 2


class OverrideFile(KeyFile[Overrides]):
    """The file in a state directory."""

    def __init__(self, directory: Path) -> None:
        super().__init__(OVERRIDES, directory / FILE, b"lvsctl-overrides 1")
