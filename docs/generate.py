"""Writes what docs say of code from the code: `PYTHONPATH=. python docs/generate.py`.

That is docs/configuration.md, from the configuration's own metadata, and the tables of attributes in docs/netlink.md
and of metrics in docs/metrics.md. Tests compare the files on disk with what this writes, so neither a key, an attribute
nor a metric can change without its page.
"""  # noqa: INP001  a script beside the pages it writes, not a package

import re
import struct
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import attrs

from lvsctl.config import VirtualServerConfig, VirtualServerTable
from lvsctl.config_types import AnyKeyType
from lvsctl.configfile import TABLES
from lvsctl.core.measures import METRICS, Histogram
from netlink.compiler import problem_of
from netlink.layout import DAEMON, DESTINATION, INFORMATION, SERVICE, TIMEOUTS, Layout, Row
from netlink.types import (
    Family,
    Protocol,
    RealServer,
    RealServerKey,
    SyncDaemon,
    SyncRole,
    Timeouts,
    Traffic,
    VirtualServer,
    VirtualServerKey,
)

PAGE = Path(__file__).with_name("configuration.md")
NETLINK_PAGE = Path(__file__).with_name("netlink.md")
METRICS_PAGE = Path(__file__).with_name("metrics.md")

EXAMPLE = """\
# /etc/lvsctl/lvsctl.toml

[consul]
address = "http://127.0.0.1:8500"        # the agent on this director
token_file = "/etc/lvsctl/consul.token"  # read again when it changes

[safety]
allowed_networks = ["10.0.0.0/8"]        # an instance outside is rejected, the others serve
max_weight = 1000

[vip]
interface = "lvs0"                       # lvsctl creates it and keeps the virtual addresses on it

[daemon]
audit_interval = "10s"                   # how often the live table is read when nothing happens

[metrics]
listen = "127.0.0.1:9105"                # for Prometheus, /livez and /readyz

[defaults]                               # for every virtual server that does not say otherwise
scheduler = "wlc"
forwarding = "masquerade"
drain_timeout = "30s"

[virtual_server.reco]                    # the name is what `lvsctl status reco` takes
address = "10.9.0.100:80"
tags = ["v2"]                            # only instances that have this tag
scheduler = "wrr"
persistence = "5m"                       # a client stays with its real server
persistence_netmask = "255.255.255.0"    # and its neighbours with it

[virtual_server.dns]
address = "[fd00::53]:53"
protocol = "udp"
consul_service = "resolver"              # when it is not called like the table
one_packet = true                        # every datagram is scheduled anew

[virtual_server.search]
firewall_mark = 7                        # instead of an address: what the firewall marked
forwarding = "direct-route"
scheduler = "mh"
scheduler_flags = ["mh-port", "mh-fallback"]
upper_threshold = 1000                   # connections a real server gets at most
lower_threshold = 800
"""

INTRODUCTION = """\
# Configuration

<!-- Written by docs/generate.py from lvsctl/config.py. Change it there. -->

lvsctl reads one TOML file, `/etc/lvsctl/lvsctl.toml` unless the command line names another. Check it before
it is used:

    lvsctl check /etc/lvsctl/lvsctl.toml

A valid file is one line and exit status 0. Otherwise every problem of the file is printed, with file, line,
key, what is wrong and what would be right, and the exit status is 3:

    lvsctl.toml:8: virtual_server.reco.address: "10.9.0.100" has no port; write one, like "10.9.0.100:80"

## A complete example

```toml
{example}```

The shortest file that does something:

```toml
[virtual_server.reco]
address = "10.9.0.100:80"
```

## How it is read

**Unknown keys are refused.** A mistyped key would otherwise be a default nobody asked for. So are two virtual
servers with the same protocol, address and port, or the same firewall mark in the same family, and a file
without a virtual server and without `[discovery]`, with which the daemon would do nothing.

**Precedence.** A key in `[virtual_server.NAME]` counts before the same key in `[defaults]`, and that before
the default documented here. [The environment](#the-environment) completes `[consul]` alone. `tags`, `meta`,
`scheduler_flags` and all that identifies a virtual server belong to one virtual server and cannot be in `[defaults]`.

**Durations** are a number and a unit in quotes: `"250ms"`, `"30s"`, `"5m"`, `"1.5h"`. The units are `ms`, `s`,
`m` and `h`. A bare number is refused, for it does not say what it counts.

**Addresses** are addresses, never names: `"10.9.0.100:80"`, `"[fd00::1]:80"`. Loopback, link-local, multicast,
broadcast, reserved and unspecified addresses are refused, and so is port 0: for every port use a firewall mark.

**Secrets** are not in this file. A URL with credentials is refused; the token is in `token_file`, in a credential of
systemd's or in the environment.

**Files it names** are not opened by `lvsctl check`; the daemon says so when it cannot read one.

**Reload.** `lvsctl reload`, `systemctl reload lvsctl` or SIGHUP reads the file again as a whole: a valid one counts
from the next cycle on. One with problems is refused, all of which are told, and so is one that would take away most of
what serves; the configuration before it stays in force ([reload](operations.md#reload)).

## The environment

One rule: **what the file says wins; where it is silent, systemd's credential counts, then Consul's own environment
variable, then the default.** A variable that is empty is not set, and one that does not count is not read. What is
wrong with one that counts is an error like one of the file, and names the variable:

    environment: CONSUL_HTTP_SSL: "yes" is neither true nor false; write true or false, or unset it

| where the file has no | counts, the first that is set |
|---|---|
| `consul.address` | `CONSUL_HTTP_ADDR`, also without `http://`; `CONSUL_HTTP_SSL=true` makes it https |
| `consul.token_file` | the credential `consul.token` of systemd, `CONSUL_HTTP_TOKEN_FILE`, `CONSUL_HTTP_TOKEN` |
| `consul.ca_file` | `CONSUL_CACERT`, `CONSUL_CAPATH` (a directory; every file in it) |
| `consul.certificate_file`, `consul.key_file` | `CONSUL_CLIENT_CERT` and `CONSUL_CLIENT_KEY`, both or neither |
| `consul.server_name` | `CONSUL_TLS_SERVER_NAME` |

Those for TLS count when the address is https. `CONSUL_HTTP_SSL_VERIFY=false` is refused then: whoever answers would
get the token. Paths are absolute. Other variables of Consul's (`CONSUL_HTTP_AUTH`, `CONSUL_NAMESPACE` …) and proxies
(`HTTP_PROXY`) change nothing.

`lvsctl check` says which variables it used, and the daemon does in its first line of log (`started`). Both see their
own environment: that of a shell is not that of a unit, so write in the file what `lvsctl diff` and the daemon must
agree on.
"""

SECTIONS = {
    "consul": "How Consul is reached.",
    "safety": "What Consul may never do to the table, whatever it answers.",
    "vip": "Virtual addresses on this director. Without this table lvsctl leaves addresses alone, and `lvsctl status` "
    "says when a virtual address is nowhere on the machine.",
    "daemon": "The daemon itself.",
    "kernel": "Settings of the kernel's IPVS (`net.ipv4.vs`) that lvsctl sets in its network namespace, where foreign "
    "virtual servers have them, too. One that is not written is never touched, and none is set back when lvsctl stops "
    "or its key is taken out. `lvsctl doctor` says which of them matter to this file: see [operations]"
    "(operations.md#before-the-first-start-lvsctl-doctor).",
    "metrics": "The metrics endpoint for Prometheus, and two probes: see [metrics](metrics.md). Without this table "
    "nothing listens; the header alone is enough. It changes at the next start only.",
    "overrides": "Operators' overrides and orders in Consul's KV (`lvsctl weight`, `lvsctl drain --fleet`), which all "
    "directors share. Without this table lvsctl reads nothing there and needs no permission for it.",
    "discovery": "Virtual servers that Consul services declare themselves, beside those of this file. Without this "
    "table none may. With it the file needs no virtual server of its own. [Operating lvsctl]"
    "(operations.md#consul-services-that-declare-themselves) says how one declares itself, and whom you trust.",
    "defaults": "What virtual servers have in common. Each of these keys can be written in `[virtual_server.NAME]` "
    "too, where it counts for that one.",
    "virtual_server": "One virtual server. NAME is 1 to 63 of A-Z a-z 0-9 _ . - beginning with a letter, a digit or _; "
    "a name with a dot is written in quotes. Apart from the keys below it takes those of [`[defaults]`](#defaults).",
}


def configuration() -> str:
    """Return the text of docs/configuration.md."""
    parts = [INTRODUCTION.replace("{example}", EXAMPLE)]
    for name, table in TABLES.items():
        header = f"{name}.NAME" if name == "virtual_server" else name
        parts.append(f"## `[{header}]`\n\n{SECTIONS[name]}\n")
        own = [field for field in attrs.fields(table) if not (table is VirtualServerTable and field.inherited)]
        parts += [_key(field) for field in own]
    return "\n".join(parts)


def _key(field: "attrs.Attribute[Any]") -> str:
    key_type: AnyKeyType = field.metadata["type"]
    rows = {
        "type": key_type.name,
        "unit": key_type.unit,
        "default": _default(field),
        "range": key_type.between,
        "example": f"`{field.name} = {field.metadata['example']}`",
    }
    lines = [f"- {name}: {text}" for name, text in rows.items() if text]
    return f"### `{field.name}`\n\n{field.metadata['doc']}\n\n" + "\n".join(lines) + "\n"


def _default(field: "attrs.Attribute[Any]") -> str:
    """Return the default as it would be written in the file, or in words."""
    if field.metadata["default"]:
        return str(field.metadata["default"])
    default = field.default
    if default is attrs.NOTHING:
        return "none, it must be written"
    counterpart = attrs.fields_dict(VirtualServerConfig).get(field.name)
    if default is None and counterpart is not None:
        default = counterpart.default
    return "none" if default is None else f"`{field.metadata['type'].write(default)}`"


# ---- the attributes of netlink

COMMANDS = {
    SERVICE: "A virtual server: `IPVS_CMD_ATTR_SERVICE`, number 1.",
    DESTINATION: "A real server: `IPVS_CMD_ATTR_DEST`, number 2.",
    DAEMON: "A synchronisation daemon: `IPVS_CMD_ATTR_DAEMON`, number 3.",
    TIMEOUTS: "Timeouts: not nested.",
    INFORMATION: "What GET_INFO answers: not nested, and only read.",
}
SAMPLES = {
    SERVICE: VirtualServer(key=VirtualServerKey.by_mark(1)),
    DESTINATION: RealServer(key=RealServerKey(address=IPv4Address("10.0.0.1"), port=80)),
    DAEMON: SyncDaemon(role=SyncRole.MASTER, interface="lo"),
    TIMEOUTS: Timeouts(),
}
MEMBERS = {"family": Family, "protocol": Protocol}  # numbers that are members of these
HEADING = "| {prefix}… | number | form | field of `{made}` | range | note |\n|---|---|---|---|---|---|"
ATTRIBUTES = re.compile(r"(<!-- attributes: [^\n]*-->\n).*(<!-- end of attributes -->)", re.DOTALL)


def netlink_page(page: str) -> str:
    """Return the text `page` of docs/netlink.md with the attributes that there are."""
    tables = "\n\n".join(map(_attributes, COMMANDS))
    return ATTRIBUTES.sub(lambda match: f"{match[1]}\n{tables}\n\n{match[2]}", page)


def _attributes(layout: Layout) -> str:
    lines = [COMMANDS[layout], "", HEADING.format(prefix=layout.prefix, made=layout.make.__name__)]
    lines += [_attribute(layout, row) for row in layout.rows]
    lines += [_line(row, f"`RealServerUsage.{row.name}`", "", "only read") for row in layout.counters]
    if layout.traffic is not None:
        wide, narrow = layout.traffic
        names = ", ".join(Traffic._fields)
        lines.append(f"| STATS64 | {wide} | nested | its counters | | u64 each, numbered from 1: {names} |")
        lines.append(f"| STATS | {narrow} | nested | the same | | mostly u32, for a kernel without the other |")
    return "\n".join(lines)


def _attribute(layout: Layout, row: Row) -> str:
    absent = "" if row.absent in (None, 0) else f"{row.absent} where the kernel does not send it"
    notes = [row.note, "may be missing" if row.optional else "", absent]
    return _line(row, _fields(layout, row), _range(layout, row), "; ".join(filter(None, notes)))


def _fields(layout: Layout, row: Row) -> str:
    """Return the fields that are made of an attribute."""
    if row.key:
        keys = {field.name for field in attrs.fields(type(SAMPLES[layout].key))}
        return f"`key.{row.name}`" if row.name in keys else "`key`"
    made = [field.name for field in layout.fields if row.name in field.reads]
    return ", ".join(f"`{name}`" for name in made or [row.name])


def _range(layout: Layout, row: Row) -> str:
    """Return the numbers that are sent; what depends on other fields is in a note."""
    if row.name in MEMBERS:
        return ", ".join(str(int(member)) for member in MEMBERS[row.name])
    if row.allowed:
        return ", ".join(str(int(number)) for number in row.allowed)
    if row.form.description not in ("u8", "u16", "u32", "be16") or layout not in SAMPLES:
        return ""
    high = 256 ** struct.calcsize(f"={row.form.code}") - 1 if row.high is None else int(row.high)
    own = not row.key and row.name in {field.name for field in attrs.fields(layout.make)}
    low = 1 if own and problem_of(layout, attrs.evolve(SAMPLES[layout], **{row.name: 0})) is not None else 0
    return f"{low}..{high}"


def _line(row: Row, names: str, values: str, note: str) -> str:
    cells = (row.kernel, str(row.number), row.form.description, names, values, note)
    return f"| {' | '.join(cells)} |".replace("  ", " ")


# ---- the metrics

MEASURES = re.compile(r"(<!-- metrics: [^\n]*-->\n).*(<!-- end of metrics -->)", re.DOTALL)


def metrics_page(page: str) -> str:
    """Return the text `page` of docs/metrics.md with the metrics that there are."""
    lines = ["| metric | kind | labels | what it says |", "|---|---|---|---|"]
    for each in METRICS:
        kind = "histogram" if isinstance(each, Histogram) else "counter" if each.only_grows else "gauge"
        labels = ", ".join(f"`{label}`" for label in each.labels)
        lines.append(f"| `{each.name}` | {kind} | {labels} | {each.doc} |".replace("|  |", "| |"))
    table = "\n".join(lines)
    return MEASURES.sub(lambda match: f"{match[1]}\n{table}\n\n{match[2]}", page)


def write() -> None:
    """Write all pages."""
    PAGE.write_text(configuration(), encoding="utf-8")
    METRICS_PAGE.write_text(metrics_page(METRICS_PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    NETLINK_PAGE.write_text(netlink_page(NETLINK_PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    write()
