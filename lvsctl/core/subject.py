"""What an operator asks about: a virtual server by name, an instance by its id, either by address, all of a node.

Pure. `explain` and `events` take the same words, and so does the daemon where it is asked about one thing alone.
"""

from ipaddress import ip_address
from typing import Final

import attrs

from lvsctl.core.event import Event
from netlink.types import endpoint

LONGEST: Final = 1024  # characters; Consul's names have no more


@attrs.frozen
class Subject:
    """One NAME, ADDRESS, ADDRESS:PORT, INSTANCE or NODE as it was typed."""

    text: str
    place: str = attrs.field(init=False)  # the address and port as lvsctl spells them, `[fd00::1]:80`; empty: none
    host: str = attrs.field(init=False)  # the address alone, where no port was typed, as in places: `[fd00::1]`

    @place.default
    def _place(self) -> str:
        host, colon, port = self.text.rpartition(":")
        if not colon or not (port.isascii() and port.isdigit()) or int(port[:6]) > 65535:
            return ""
        bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        try:
            return endpoint(ip_address(bare), int(port[:6]))
        except ValueError:
            return ""

    @host.default
    def _host(self) -> str:
        try:
            return endpoint(ip_address(self.text.removeprefix("[").removesuffix("]")), 0).removesuffix(":0")
        except ValueError:
            return ""

    def is_virtual_server(self, name: str, key: str) -> bool:
        """Tell whether the virtual server called `name` is meant, with a key like `tcp 10.9.0.100:80` or `mark 7`."""
        return self.text in {name, key} or self._is_at(key.partition(" ")[2])

    def is_real_server(self, key: str, instance: str = "", node: str = "") -> bool:
        """Tell whether the real server at `key` is meant, or its `instance`, or all on its `node`."""
        return self._is_at(key) or self.is_whose(instance, node)

    def is_whose(self, instance: str, node: str) -> bool:
        """Tell whether it is this `instance` or this `node`; neither is empty."""
        return bool(self.text) and self.text in {instance, node}

    def is_of(self, event: Event) -> bool:
        """Tell whether `event` is about it."""
        instance, node = (event.evidence.instance, event.evidence.node) if event.evidence else ("", "")
        if event.address:
            return self.host.strip("[]") == event.address
        own = bool(event.name or event.virtual_server)
        return (own and self.is_virtual_server(event.name, event.virtual_server)) or self.is_real_server(
            event.real_server, instance, node
        )

    def _is_at(self, key: str) -> bool:
        return bool(key) and (self.place == key or bool(self.host and key.rpartition(":")[0] == self.host))
