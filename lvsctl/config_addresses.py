"""The types of value that name places: networks, virtual addresses, client prefixes, Consul's address.

Pure. As `config_types`, which has the plain ones: a type refuses a value by raising `Wrong`.
"""

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final
from urllib.parse import urlsplit

import attrs

from lvsctl.config_types import KeyType, Wrong, check_path, escaped, quoted, shown, string
from netlink.types import Address, endpoint

# --- networks and addresses -----------------------------------------------------------------------------------------


def network() -> KeyType[IPv4Network | IPv6Network]:
    """Return the type of networks in CIDR form."""

    def read(value: object) -> IPv4Network | IPv6Network:
        word = string(value, "10.0.0.0/8")
        address, slash, prefix = word.partition("/")
        try:
            host = _plain_address(address)
        except ValueError:
            raise Wrong(f"{shown(word)} is no network", 'write one in CIDR form, like "10.0.0.0/8"') from None
        bits = host.max_prefixlen
        if not slash:
            raise Wrong(f"{shown(word)} has no prefix length", f'write "{host}/{bits}" for the one address')
        if not re.fullmatch("[0-9]{1,3}", prefix) or int(prefix) > bits:
            raise Wrong(f"{shown(word)} has no prefix length from 0 to {bits}", f'write it like "{host}/{bits}"')
        found = ip_network(f"{host}/{int(prefix)}", strict=False)
        if found.network_address != host:
            raise Wrong(
                f"{shown(word)} has bits set after its prefix",
                f'write "{found}" for the network or "{host}/{bits}" for the one address',
            )
        if isinstance(host, IPv6Address) and host.ipv4_mapped and int(prefix) >= 96:
            raise Wrong(
                f"{shown(word)} is an IPv4 network written as IPv6", f'write "{host.ipv4_mapped}/{int(prefix) - 96}"'
            )
        return found

    return KeyType(name="network", between="CIDR form, no host bits", read=read, write=lambda net: quoted(str(net)))


@attrs.frozen
class Endpoint:
    """A virtual server's address and port, as written in one string."""

    address: Address
    port: int


def virtual_address() -> KeyType[Endpoint]:
    """Return the type of addresses with a port that a virtual server can have."""

    def read(value: object) -> Endpoint:
        word = string(value, "10.9.0.100:80")
        found = _endpoint(
            word,
            '"10.9.0.100:80" or "[fd00::1]:80"',
            port=80,
            no_port="for every port use a firewall mark: firewall_mark = 1",
        )
        _check_unicast(found, word, "write the address that clients connect to, one routed to this director")
        return found

    return KeyType(
        name="string",
        unit="address and port",
        between="unicast IPv4 ADDRESS:PORT or IPv6 [ADDRESS]:PORT, port 1 to 65535",
        read=read,
        write=lambda value: quoted(endpoint(value.address, value.port)),
    )


def real_server_address() -> KeyType[Endpoint]:
    """Return the type of addresses with a port that an operator gives a real server."""

    def read(value: object) -> Endpoint:
        word = string(value, "10.2.0.99:80")
        found = _endpoint(
            word, '"10.2.0.99:80" or "[fd00::99]:80"', port=80, no_port="write the port that it listens at"
        )
        _check_unicast(found, word, "write an address of the machine that it runs on, one that this director reaches")
        return found

    return KeyType(
        name="string",
        unit="address and port",
        between="unicast IPv4 ADDRESS:PORT or IPv6 [ADDRESS]:PORT, port 1 to 65535",
        read=read,
        write=lambda value: quoted(endpoint(value.address, value.port)),
    )


def listening_address(port: int) -> KeyType[Endpoint]:
    """Return the type of addresses with a port that a server of ours may listen on; `port` is the usual one."""

    def read(value: object) -> Endpoint:
        word = string(value, f"127.0.0.1:{port}")
        usual = f'"127.0.0.1:{port}" or "[::1]:{port}"'
        found = _endpoint(word, usual, port=port, no_port=f"write the port that is scraped, like {usual}")
        address = found.address
        if isinstance(address, IPv6Address) and address.ipv4_mapped:
            raise Wrong(
                f"{shown(word)} is an IPv4 address written as IPv6",
                f'write "{endpoint(address.ipv4_mapped, found.port)}"',
            )
        if address.is_multicast or address.is_link_local or address == IPv4Address("255.255.255.255"):
            raise Wrong(f"{shown(word)} is no address to listen on", f"write {usual}")
        return found

    return KeyType(
        name="string",
        unit="address and port",
        between="IPv4 ADDRESS:PORT or IPv6 [ADDRESS]:PORT of this machine, port 1 to 65535",
        read=read,
        write=lambda value: quoted(endpoint(value.address, value.port)),
    )


def _endpoint(word: str, example: str, *, port: int, no_port: str) -> Endpoint:
    """Return the address and port that `word` is; an error offers `port`, and `no_port` where it is 0."""
    bracketed = re.fullmatch(r"\[([^\]]*)\](?::(.*))?", word, re.DOTALL)
    host, written = bracketed.groups() if bracketed else _split(word)
    try:
        address = _plain_address(host)
    except ValueError:
        meant = f'write "{_with_port(word)}"' if _with_port(word) else f"write them like {example}"
        raise Wrong(f"{shown(word)} is not an IP address and a port", meant) from None
    if bool(bracketed) != (address.version == 6):
        remedy = f'write "{endpoint(address, _port_or(written, port))}"'
        if other := "" if bracketed else _with_port(word):
            remedy = (
                f'write "{other}" if its end is the port, or "{endpoint(address, port)}" if all of it is the address'
            )
        raise Wrong(
            f"{shown(word)} has brackets where none belong" if bracketed else f"{shown(word)} lacks its brackets",
            remedy,
        )
    number = _port_or(written, -1)
    if number == 0:
        raise Wrong(f"{shown(word)} has port 0", no_port)
    if written is None or number < 0:
        wrong = "has no port" if not written else "has no port from 1 to 65535"
        raise Wrong(f"{shown(word)} {wrong}", f'write one, like "{endpoint(address, port)}"')
    return Endpoint(address, number)


def _split(word: str) -> tuple[str, str | None]:
    """Return address and port; more colons than one are an IPv6 address without brackets."""
    if word.count(":") == 1:
        host, port = word.split(":")
        return host, port
    return word, None


def _with_port(word: str) -> str:
    """Return `word` as it is meant where it is an IPv6 address without brackets and a port; empty where it is not."""
    host, _, port = word.rpartition(":")
    try:
        address = _plain_address(host)
    except ValueError:
        return ""
    return endpoint(address, int(port)) if address.version == 6 and _port_or(port, 0) else ""


def _port_or(port: str | None, otherwise: int) -> int:
    valid = port is not None and re.fullmatch("[0-9]{1,5}", port) and int(port) <= 65535
    return int(port) if port and valid else otherwise


def _plain_address(text: str) -> Address:
    """Return the address; ValueError too for a zone (`%eth0`), which IPVS has no place for."""
    address = ip_address(text)
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        raise ValueError(text)
    return address


def _check_unicast(found: Endpoint, word: str, instead: str) -> None:
    """Raise Wrong, with what to write `instead`, where no packet of a client gets to what `found` is."""
    address, port = found.address, found.port
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        raise Wrong(
            f"{shown(word)} is an IPv4 address written as IPv6", f'write "{endpoint(address.ipv4_mapped, port)}"'
        )
    kinds = {
        "the unspecified address": address.is_unspecified,
        "a loopback address": address.is_loopback,
        "a multicast address": address.is_multicast,
        "a link-local address": address.is_link_local,
        "the broadcast address": address == IPv4Address("255.255.255.255"),
        "a reserved address": isinstance(address, IPv4Address) and (address.is_reserved or int(address) >> 24 == 0),
    }
    for kind, applies in kinds.items():
        if applies:
            raise Wrong(f"{shown(word)} is {kind}", instead)


@attrs.frozen
class PortRange:
    """Ports from `first` to `last`."""

    first: int
    last: int

    def __contains__(self, port: int) -> bool:
        """Tell whether `port` is one of them."""
        return self.first <= port <= self.last


def port_range() -> KeyType[PortRange]:
    """Return the type of a port, or of several in a row."""
    remedy = 'write a port from 1 to 65535, or several like "8000-8999"'

    def read(value: object) -> PortRange:
        if isinstance(value, int) and not isinstance(value, bool):
            if 1 <= value <= 65535:
                return PortRange(value, value)
            raise Wrong(f"{shown(value)} is out of range", remedy)
        found = re.fullmatch("([0-9]{1,5})-([0-9]{1,5})", value) if isinstance(value, str) else None
        if not found or not 1 <= int(found[1]) <= int(found[2]) <= 65535:
            raise Wrong(f"{shown(value)} is no port and no range of ports", remedy)
        return PortRange(int(found[1]), int(found[2]))

    def write(ports: PortRange) -> str:
        return str(ports.first) if ports.first == ports.last else quoted(f"{ports.first}-{ports.last}")

    return KeyType(name="port", between='1 to 65535, or several like "8000-8999"', read=read, write=write)


@attrs.frozen
class ClientPrefix:
    """How much of a client's address counts for persistence; a dotted mask is IPv4's alone."""

    length: int
    dotted: bool


def client_prefix() -> KeyType[ClientPrefix]:
    """Return the type of a persistence netmask: a dotted IPv4 mask or a prefix length."""
    remedy = 'write a mask like "255.255.255.0" or a prefix length like 24 (IPv6: 1 to 128)'

    def read(value: object) -> ClientPrefix:
        if isinstance(value, int) and not isinstance(value, bool):
            if 1 <= value <= 128:
                return ClientPrefix(value, dotted=False)
            raise Wrong(f"{shown(value)} is out of range", remedy)
        try:
            mask = int(IPv4Address(value)) if isinstance(value, str) else 0
        except ValueError:
            mask = 0
        host = ~mask & 0xFFFF_FFFF
        if not mask or host & (host + 1):  # ones from the left only
            raise Wrong(f"{shown(value)} is no netmask", remedy)
        return ClientPrefix(mask.bit_count(), dotted=True)

    def write(prefix: ClientPrefix) -> str:
        return quoted(str(ip_network(f"0.0.0.0/{prefix.length}").netmask)) if prefix.dotted else str(prefix.length)

    return KeyType(
        name="string or integer",
        between="IPv4: dotted mask or 1 to 32; IPv6: 1 to 128",
        read=read,
        write=write,
    )


# --- Consul's address -----------------------------------------------------------------------------------------------

_HOST: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252})")


def consul_address() -> KeyType[str]:
    """Return the type of the Consul agent's URL; it is read with its port, and a Unix socket with its path."""
    example = '"http://127.0.0.1:8500", "https://consul.example:8501" or "unix:///run/consul/http.sock"'

    def read(value: object) -> str:
        word = string(value, "http://127.0.0.1:8500")
        if not word.isprintable() or " " in word:
            raise Wrong(f"{shown(word)} has spaces or control characters", f"write {example}")
        try:
            url = urlsplit(word)
            port = url.port
        except ValueError:
            raise Wrong(f"{_without_secrets(word)} is no URL with a port from 1 to 65535", f"write {example}") from None
        if "@" in word or url.query or url.fragment:  # not repeated: it may be a secret
            raise Wrong(
                f"{_without_secrets(word)} has credentials, a query or a fragment",
                "write only scheme, host and port; the token belongs in token_file",
            )
        match url.scheme:
            case "unix":
                if url.netloc:
                    raise Wrong(f"{shown(word)} is not an absolute path", 'write three slashes: "unix:///PATH"')
                check_path(url.path, word, "unix:///run/consul/http.sock", socket=True)
                return f"unix://{url.path}"
            case "http" | "https":
                if url.path not in {"", "/"}:
                    raise Wrong(
                        f"{shown(word)} has a path", f'write it without: "{url.scheme}://{escaped(url.netloc)}"'
                    )
                if port == 0:
                    raise Wrong(f"{shown(word)} has port 0", f"write {example}")
                return f"{url.scheme}://{_host(url.hostname, word, example)}:{port or _default_port(url.scheme)}"
            case _:
                raise Wrong(f"{shown(word)} is not http, https or unix", f"write {example}")

    return KeyType(
        name="string",
        unit="URL",
        between="http://HOST[:PORT] (8500), https://HOST[:PORT] (8501) or unix:///PATH",
        read=read,
        write=quoted,
    )


def _default_port(scheme: str) -> int:
    return 8501 if scheme == "https" else 8500


def _host(host: str | None, word: str, example: str) -> str:
    if host and ":" in host:
        try:
            return f"[{_plain_address(host)}]"
        except ValueError:
            host = None
    if not host or not _HOST.fullmatch(host):
        raise Wrong(f"{shown(word)} has no host", f"write {example}")
    return host


def _without_secrets(word: str) -> str:
    """Return the URL as it may be shown: without what stands before an @ or after a ? or #."""
    scheme, _, rest = word.rpartition("@")[2].partition("?")[0].partition("#")[0].rpartition("://")
    return shown(f"{scheme}://{rest}" if scheme else rest)
