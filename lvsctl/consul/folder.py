"""A folder of Consul's KV that directors share: how its keys are read, and what it is called.

Pure. `key_watch` reads and watches one, `lvsctl.key_file` keeps on disk what it had last. Those that there are:
`overrides` and `fleet_orders`.
"""

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from typing import Generic, TypeVar

import attrs

from lvsctl.consul.budget import Body
from lvsctl.core.override import Ignored

V = TypeVar("V")


@attrs.frozen(kw_only=True)
class Events:
    """What the log says of a folder."""

    ignored: str  # a key cannot be used
    doubted: str  # some are gone and Consul's index went back
    failed: str  # it cannot be read
    back: str  # it can again
    file_ignored: str  # what is on disk cannot be used
    file_failed: str  # nor be written


@attrs.frozen(kw_only=True)
class Folder(Generic[V]):
    """One folder, whose content is a V."""

    words: str  # what is in it: "fleet orders"
    events: Events
    nothing: V
    most: int  # keys
    path: Callable[[str], str]  # what its keys begin with, by kv_prefix
    decode: Callable[[Body, str], V]  # of Consul's list; raises ConsulError for what is none
    encode: Callable[[V, str], bytes]
    keys: Callable[[V, str], AbstractSet[str]]  # those that count
    ignored: Callable[[V], tuple[Ignored, ...]]  # and those that do not
    index: Callable[[V], int]  # the ModifyIndex of the youngest key that counts; 0 where none does
    joined: Callable[[V, V, str], V]  # the first, with what it lacks of the second
