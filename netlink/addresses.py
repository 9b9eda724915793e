"""Virtual addresses on a dummy interface of the caller's own, and all addresses of the machine.

Shell, the only importer of pyroute2, which costs a quarter of a second and is therefore imported when first needed. It
changes addresses and does all with links; lists of addresses come from `address_reader`, which is 20 times as quick.
An interface belongs to whom its alias names (`ip link set NAME alias OWNER`); this file changes none that belongs to
somebody else, and of those that belong to nobody only one that is down and has no address. Everything blocks, and
pyroute2 drives an event loop of its own: under asyncio call these methods through `asyncio.to_thread`. Source: man
rtnetlink(7), ip-link(8), include/uapi/linux/if_link.h.
"""

# ruff: noqa: ANN401 -- pyroute2 has no types, and this file owns it
import asyncio
import errno
import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from netlink import address_reader
from netlink.errors import NetlinkError, Refused
from netlink.types import Address

_IFF_UP: Final = 1
_IFA_F_NODAD: Final = 0x02  # no duplicate address detection: the address is used at once


class Addresses:
    """The addresses of this network namespace. It keeps nothing: every call opens a connection and closes it."""

    def local_addresses(self) -> frozenset[Address]:
        """Return every address on every interface of this network namespace, link-local ones too."""
        _check_blocking("read", "the machine's addresses")
        return address_reader.read("read", "the machine's addresses")

    def interface_addresses(self, name: str) -> frozenset[Address]:
        """Return the addresses on interface `name`, without IPv6 link-local ones; none when it does not exist."""
        target = f"the addresses of {name}"
        with _routes("read", target) as routes:
            index = _index(routes, name)
        return frozenset() if index is None else _addresses_on("read", target, index)

    def owned_interfaces(self, owner: str) -> tuple[str, ...]:
        """Return the names of all dummy interfaces whose alias is `owner`, sorted."""
        with _routes("read", f"the interfaces of {owner}") as routes:
            links = [link for link in routes.get_links() if _kind(link) == "dummy" and _alias(link) == owner]
        return tuple(sorted(str(link.get_attr("IFLA_IFNAME")) for link in links))

    def ensure_interface(self, name: str, *, owner: str) -> None:
        """Have a dummy interface `name` that is up and carries the alias `owner`; create it when it is missing.

        One without an alias that is down and has no address has nothing to lose, and becomes `owner`'s. Raises
        NetlinkError when `name` is something else: then nothing was changed, and the text says what to do.
        """
        with _routes("create", f"interface {name}") as routes:
            link = _link(routes, name)
            if link is None:
                # Two requests, for the kernel ignores an alias at creation (6.1). Killed in between, we leave an
                # interface that is nobody's and unused: the next call takes it.
                routes.link("add", ifname=name, kind="dummy")
                link = _link(routes, name)
            if link is not None and _is_unused(name, link):
                routes.link("set", index=link["index"], IFLA_IFALIAS=owner)
                link = _link(routes, name)
            _check_owner("use", name, link, owner)
            if link is not None and not link["flags"] & _IFF_UP:
                routes.link("set", index=link["index"], state="up")

    def remove_interface(self, name: str, *, owner: str) -> None:
        """Remove interface `name`, which must be `owner`'s, with its addresses; do nothing when it is not there."""
        with _routes("remove", f"interface {name}") as routes:
            link = _link(routes, name)
            if link is None:
                return
            _check_owner("remove", name, link, owner)
            routes.link("del", index=link["index"])

    def add_address(self, name: str, address: Address) -> None:
        """Have `address` (as /32 or /128) on interface `name`; do nothing when it is there."""
        _raise_first(self.add_addresses(name, [address]))

    def add_addresses(self, name: str, addresses: Sequence[Address]) -> list[NetlinkError | None]:
        """Have each of `addresses` (as /32 or /128) on interface `name`; do nothing for one that is there.

        Return for each, in order, None or why it could not be added. Raises NetlinkError when none was tried.
        """
        if not addresses:
            return []
        target = f"{_words(addresses)} to interface {name}"
        with _routes("add", target) as routes:
            index = _index(routes, name)
            if index is None:
                raise NetlinkError("add", target, f"there is no interface {name}")

            def add(address: Address) -> None:
                routes.addr("add", index=index, **_specification(address))

            return [
                _outcome("add", f"{address} to interface {name}", functools.partial(add, address), errno.EEXIST)
                for address in addresses
            ]

    def remove_address(self, name: str, address: Address) -> None:
        """Have `address` no more on interface `name`; do nothing when it, or the interface, is not there."""
        _raise_first(self.remove_addresses(name, [address]))

    def remove_addresses(self, name: str, addresses: Sequence[Address]) -> list[NetlinkError | None]:
        """Have none of `addresses` on interface `name`; do nothing for one that is not there, or without interface.

        Return for each, in order, None or why it could not be removed. Raises NetlinkError when none was tried.
        """
        if not addresses:
            return []
        with _routes("remove", f"{_words(addresses)} from interface {name}") as routes:
            index = _index(routes, name)
            if index is None:
                return [None] * len(addresses)

            def remove(address: Address) -> None:
                routes.addr("del", index=index, **_specification(address))

            return [
                _outcome(
                    "remove",
                    f"{address} from interface {name}",
                    functools.partial(remove, address),
                    errno.EADDRNOTAVAIL,
                )
                for address in addresses
            ]


def _outcome(operation: str, target: str, change: Callable[[], None], done: int) -> NetlinkError | None:
    """Make one change; return None, or why it was not made. An errno of `done` says that nothing was left to do."""
    try:
        with _explained(operation, target):
            change()
    except Refused as error:
        return None if error.errno == done else error
    except NetlinkError as error:
        return error
    return None


def _raise_first(errors: Sequence[NetlinkError | None]) -> None:
    for error in errors:
        if error is not None:
            raise error


def _words(addresses: Sequence[Address]) -> str:
    return f"{addresses[0]}" + (f" and {len(addresses) - 1} more" if len(addresses) > 1 else "")


def _specification(address: Address) -> dict[str, Any]:
    if address.version == 4:
        return {"address": str(address), "prefixlen": 32}
    return {"address": str(address), "prefixlen": 128, "flags": _IFA_F_NODAD}


def _check_blocking(operation: str, target: str) -> None:
    """Raise RuntimeError where an event loop runs: it would stand still."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError(f"{operation} {target}: this blocks; call it through asyncio.to_thread")


@contextmanager
def _routes(operation: str, target: str) -> Iterator[Any]:
    """Give an rtnetlink connection; what it raises inside becomes a NetlinkError about `operation` and `target`."""
    _check_blocking(operation, target)
    from pyroute2 import IPRoute  # noqa: PLC0415 -- a quarter of a second, for those who need it

    with _explained(operation, target), IPRoute() as routes:
        yield routes


@contextmanager
def _explained(operation: str, target: str) -> Iterator[None]:
    try:
        yield
    except _pyroute2_error() as error:
        raise Refused(operation, target, error.code, _meaning(error.code)) from error
    except OSError as error:
        raise NetlinkError(operation, target, error.strerror or str(error)) from error


def _pyroute2_error() -> Any:
    from pyroute2.netlink.exceptions import NetlinkError as Pyroute2Error  # noqa: PLC0415 -- as above

    return Pyroute2Error


def _meaning(number: int) -> str | None:
    return {
        errno.EPERM: "not permitted: changing links and addresses needs CAP_NET_ADMIN; run as root",
        errno.EOPNOTSUPP: "the kernel has no dummy interfaces, and found no module for them (modprobe dummy)",
        errno.EACCES: "IPv6 is switched off on this interface (sysctl net.ipv6.conf.*.disable_ipv6)",
    }.get(number)


def _link(routes: Any, name: str) -> Any | None:
    """Return the link message of `name`, None when there is no such interface."""
    try:
        return routes.link("get", ifname=name)[0]
    except _pyroute2_error() as error:
        if error.code != errno.ENODEV:
            raise
        return None


def _index(routes: Any, name: str) -> int | None:
    link = _link(routes, name)
    return None if link is None else int(link["index"])


def _kind(link: Any) -> str | None:
    information = link.get_attr("IFLA_LINKINFO")
    return information.get_attr("IFLA_INFO_KIND") if information is not None else None


def _alias(link: Any) -> str | None:
    alias: str | None = link.get_attr("IFLA_IFALIAS")
    return alias


def _is_unused(name: str, link: Any) -> bool:
    """Tell whether `link` is a dummy interface as one is just after its creation: no alias, down, no address."""
    if _kind(link) != "dummy" or _alias(link) or link["flags"] & _IFF_UP:
        return False
    return not _addresses_on("create", f"interface {name}", link["index"])


def _check_owner(operation: str, name: str, link: Any | None, owner: str) -> None:
    if link is None:
        raise NetlinkError(operation, f"interface {name}", "it vanished while it was made")
    kind, alias = _kind(link), _alias(link)
    if kind != "dummy":
        reason = f"it is not a dummy interface but {kind or 'a device'}; choose another name"
        raise NetlinkError(operation, f"interface {name}", reason)
    if alias != owner:
        belongs = f"belongs to {alias!r}" if alias else "belongs to nobody (it has no alias)"
        reason = f"it {belongs}; if {owner} may have it, `ip link set {name} alias {owner}`, else choose another name"
        raise NetlinkError(operation, f"interface {name}", reason)


def _addresses_on(operation: str, target: str, index: int) -> frozenset[Address]:
    """Return the addresses on the interface `index`, without the IPv6 link-local ones that the kernel gives it."""
    found = address_reader.read(operation, target, index=index)
    return frozenset(address for address in found if address.version == 4 or not address.is_link_local)
