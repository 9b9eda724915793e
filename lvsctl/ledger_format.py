"""The ledger as bytes: a file that has it whole, and a journal of what changed since that file was written.

Pure. `store` reads and writes the files. The journal's first line has the checksum of the file it goes on from, so the
journal of an older file is told apart. Each further line is one change, all of it or nothing: its checksum covers the
line before it too, so that a line counts only where every line before it does. A crash leaves at most one line that is
torn, the last, and that change was not made yet.
"""

import hashlib
import io
import json
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Final

from cattrs import BaseValidationError, Converter

from lvsctl.config import Declaration
from lvsctl.core.damping import Flaps
from lvsctl.core.nothing import NOTHING
from lvsctl.core.override import Override, parse_share
from lvsctl.core.ownership import Ledger, LedgerEntry
from lvsctl.core.peak import Peak
from lvsctl.core.provenance import UNKNOWN, Provenance
from lvsctl.core.ramp import NO_RAMPS, Ramp, Ramps
from lvsctl.core.served import NEVER, Served
from netlink.types import Address, RealServer, RealServerKey, TableEntry, VirtualServer, VirtualServerKey

VERSION: Final = 1
JOURNAL: Final = b"lvsctl-journal"

UNREADABLE: Final = (ValueError, KeyError, TypeError, AttributeError, RecursionError, BaseValidationError)
"""What `decode` raises for bytes that are no ledger."""

_converter = Converter()
_converter.register_unstructure_hook(IPv4Address, str)
_converter.register_unstructure_hook(IPv6Address, str)
_converter.register_structure_hook(Address, lambda text, _: ip_address(text))
_converter.register_structure_hook(Address | None, lambda text, _: None if text is None else ip_address(text))


def encode_one(key: VirtualServerKey, entry: LedgerEntry) -> str:
    """Return one entry as text, the JSON object that `_decode_one` takes."""
    encoded: dict[str, Any] = {
        "key": _converter.unstructure(key),
        "name": entry.name,
        "drain_timeout": entry.drain_timeout,
        "draining": [[str(server.address), server.port, since] for server, since in entry.draining.items()],
    }
    if entry.failed_over:
        encoded["failed_over"] = entry.failed_over
    if entry.peaks:
        encoded["peaks"] = [[name, peak.count, peak.fewer_since] for name, peak in entry.peaks.items()]
    if entry.served != NEVER:
        encoded["served"] = [entry.served.count, entry.served.earlier]
    if entry.declaration is not None:
        encoded["declaration"] = [entry.declaration.service, entry.declaration.values]
    if entry.disowned:
        encoded["disowned"] = True
    if entry.fallback is not None:
        encoded["fallback"] = [str(entry.fallback.address), entry.fallback.port]
    if entry.provenance != UNKNOWN:
        encoded["provenance"] = _encode_provenance(entry.provenance)
        if entry.provenance.filters:
            encoded["filters"] = entry.provenance.filters
    encoded |= _encode_comings(entry)
    written = _encode_entry(entry.written) if entry.written else "null"
    return f'{{"written":{written},{_json(encoded)[1:]}'


def encode(entries: Iterable[str]) -> tuple[bytes, str]:
    """Return the file that has `entries`, and its checksum.

    It is put together in its place: of thousands of entries each copy takes megabytes.
    """
    checksum, content = hashlib.sha256(), io.BytesIO()
    content.write(_opening(checksum.hexdigest()))  # as long as the one that is written over it
    for piece in _body(entries):
        checksum.update(piece.encode())
        content.write(json.dumps(piece).encode()[1:-1])  # as text in the JSON around it, without its quotes
    content.write(b'"}\n')
    content.seek(0)
    content.write(_opening(checksum.hexdigest()))
    return content.getvalue(), checksum.hexdigest()


def _opening(checksum: str) -> bytes:
    return f'{{"version": {VERSION}, "sha256": "{checksum}", "virtual_servers": "'.encode()


def _body(entries: Iterable[str]) -> Iterator[str]:
    yield "["
    comma = ""
    for entry in entries:
        yield f"{comma}{entry}"
        comma = ","
    yield "]"


def decode(content: bytes) -> tuple[Ledger, str]:
    """Return the ledger in a file, and its checksum; raises one of UNREADABLE."""
    document = json.loads(content.decode())
    body, checksum = document["virtual_servers"], document["sha256"]
    if document["version"] != VERSION or checksum != _checksum(body):
        raise ValueError("another version, or a wrong checksum")
    return dict(_decode_one(entry) for entry in json.loads(body)), checksum


def head(checksum: str) -> bytes:
    """Return the first line of the journal that goes on from the file with this checksum."""
    return b"%s %d %s\n" % (JOURNAL, VERSION, checksum.encode())


def encode_change(entries: Iterable[str], gone: Iterable[VirtualServerKey], before: bytes) -> bytes:
    """Return the journal's line that sets `entries` and removes `gone`, to be written behind the line `before`."""
    keys = _json([_converter.unstructure(key) for key in gone])
    text = f'{{"set":[{",".join(entries)}],"gone":{keys}}}'.encode()
    return b"%s %s\n" % (_link(before, text), text)


def replay(ledger: Ledger, checksum: str, journal: bytes) -> tuple[Ledger, bool]:
    """Return `ledger`, of the file with this checksum, as `journal` changed it; and whether no whole line was wrong."""
    first, newline, rest = journal.partition(b"\n")
    before = first + newline
    if before != head(checksum):
        return ledger, True  # of another file: all of it is in ours
    replayed = dict(ledger)
    while rest:
        line, newline, rest = rest.partition(b"\n")
        link, _, text = line.partition(b" ")
        if not newline:
            break  # torn
        if link != _link(before, text):
            return replayed, False
        change = json.loads(text)
        replayed |= dict(_decode_one(entry) for entry in change["set"])
        for key in change["gone"]:
            replayed.pop(_converter.structure(key, VirtualServerKey), None)
        before = line + newline
    return replayed, True


def _encode_entry(entry: TableEntry) -> str:
    virtual_server = _json(_converter.unstructure(entry.virtual_server))
    real_servers = ",".join(map(_encode_real_server, entry.real_servers.values()))
    return f'{{"virtual_server":{virtual_server},"real_servers":[{real_servers}]}}'


def _encode_real_server(each: RealServer) -> str:
    """Return what `_converter` would make of `each`, which takes several times as long: there may be ten thousand."""
    return (
        f'{{"key":{{"address":"{each.key.address}","port":{each.key.port}}},"forwarding":{each.forwarding.value},'
        f'"weight":{each.weight},"upper_threshold":{each.upper_threshold},"lower_threshold":{each.lower_threshold},'
        f'"tunnel_type":{each.tunnel_type.value},"tunnel_port":{each.tunnel_port},'
        f'"tunnel_flags":{each.tunnel_flags.value}}}'
    )


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def _decode_one(entry: Any) -> tuple[VirtualServerKey, LedgerEntry]:
    return _converter.structure(entry["key"], VirtualServerKey), LedgerEntry(
        name=entry["name"],
        drain_timeout=float(entry["drain_timeout"]),
        written=_decode_entry(entry["written"]) if entry["written"] else None,
        draining={
            RealServerKey(address=ip_address(address), port=port): since for address, port, since in entry["draining"]
        }
        or NOTHING,
        failed_over=str(entry.get("failed_over", "")),
        peaks={
            str(name): Peak(count=int(count), fewer_since=None if since is None else float(since))
            for name, count, since in entry.get("peaks", ())
        },
        served=_decode_served(*entry["served"]) if "served" in entry else NEVER,
        declaration=_decode_declaration(entry["declaration"]) if "declaration" in entry else None,
        disowned=bool(entry.get("disowned", False)),
        fallback=_decode_real_server(*entry["fallback"]) if "fallback" in entry else None,
        provenance=_decode_provenance(
            entry["name"], *entry.get("provenance", ("", "")), filters=entry.get("filters", "")
        ),
        ramps=_decode_ramps(*entry["ramps"]) if "ramps" in entry else NO_RAMPS,
        flapping=_decode_flapping(entry.get("flapping", ())) or NOTHING,
    )


def _encode_provenance(provenance: Provenance) -> list[object]:
    brief: list[object] = [provenance.service, provenance.datacenter]
    if not provenance.overrides and not provenance.left:
        return brief
    overrides = [[each.selector, str(each.share), each.by, each.until] for each in provenance.overrides]
    return [*brief, overrides, [[str(key.address), key.port, why] for key, why in provenance.left.items()]]


def _decode_provenance(
    name: str, service: str, datacenter: str, overrides: Any = (), left: Any = (), *, filters: Any
) -> Provenance:
    return Provenance(
        service=str(service),
        datacenter=str(datacenter),
        filters=str(filters),
        overrides=tuple(
            Override(
                virtual_server=name,
                selector=str(selector),
                share=parse_share(share),
                by=str(by),
                until=None if until is None else float(until),
            )
            for selector, share, by, until in overrides
        ),
        left={RealServerKey(address=ip_address(address), port=port): str(why) for address, port, why in left}
        or NOTHING,
    )


def _decode_real_server(address: Any, port: Any) -> RealServerKey:
    return RealServerKey(address=ip_address(address), port=int(port))


def _decode_served(count: Any, earlier: Any) -> Served:
    return Served(count=int(count), earlier=tuple((int(many), float(until)) for many, until in earlier))


def _encode_comings(entry: LedgerEntry) -> dict[str, Any]:
    """Return who ramps and who flaps; nothing where nobody does."""
    encoded: dict[str, Any] = {}
    if entry.ramps.of:
        encoded["ramps"] = _encode_ramps(entry.ramps)
    if entry.flapping:
        encoded["flapping"] = [
            [str(key.address), key.port, each.count, each.left, each.returned, each.passing]
            for key, each in entry.flapping.items()
        ]
    return encoded


def _encode_ramps(ramps: Ramps) -> list[object]:
    of = [[str(key.address), key.port, each.began, each.part, each.weight] for key, each in ramps.of.items()]
    return [ramps.times, of, ramps.most]


def _decode_ramps(times: Any, of: Any, most: Any = 0) -> Ramps:
    found = {
        RealServerKey(address=ip_address(address), port=port): Ramp(
            began=float(began), part=int(part), weight=int(weight)
        )
        for address, port, began, part, weight in of
    }
    if times < 1:
        raise ValueError("weights that are multiplied by nothing")
    return Ramps(of=found, times=int(times), most=int(most)) if found else NO_RAMPS


def _decode_flapping(flapping: Any) -> dict[RealServerKey, Flaps]:
    return {
        RealServerKey(address=ip_address(address), port=port): Flaps(
            count=int(count),
            left=float(left),
            returned=None if returned is None else float(returned),
            passing=None if passing is None else float(passing),
        )
        for address, port, count, left, returned, passing in flapping
    }


def _decode_declaration(encoded: Any) -> Declaration:
    service, values = encoded
    if not all(isinstance(text, str) for text in (service, *(text for pair in values for text in pair))):
        raise TypeError("a declaration that is no text")
    return Declaration(service=service, values=tuple((key, value) for key, value in values))


def _decode_entry(entry: Any) -> TableEntry:
    real_servers = [_converter.structure(each, RealServer) for each in entry["real_servers"]]
    return TableEntry(
        virtual_server=_converter.structure(entry["virtual_server"], VirtualServer),
        real_servers={real_server.key: real_server for real_server in real_servers},
    )


def _checksum(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()


def _link(before: bytes, text: bytes) -> bytes:
    """Return the checksum of `text` behind the line `before`."""
    return hashlib.sha256(before + text).hexdigest().encode()
