"""The snapshot of Consul's answers as bytes: one line that says what it is, then JSON.

Pure. `snapshot` reads and writes the file. The first line has the version of the format and the checksum of all that
follows, so bytes that were cut, changed or written by another version are told apart before anything is decoded. Checks
print pages, and only the first words are kept. One value that could not have come from Consul spoils it all.
"""

import hashlib
import io
import json
import math
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, Final

import attrs
import cattrs

from lvsctl.core.instance import Answer, Answers, Health, Query

MAGIC: Final = b"lvsctl-snapshot"
VERSION: Final = 1
MAX_OUTPUT: Final = 200  # characters kept of a check's output
LARGEST: Final = 65535  # port or weight

Texts = Mapping[Query, tuple[Answer, bytes]]
"""What was encoded before: an answer of the same instances has the same text. It is kept compressed."""


class Unusable(Exception):
    """These bytes are no snapshot for us; the text says why."""


def encode(address: str, answers: Answers, known: Texts | None = None, *, machine: str = "") -> tuple[bytes, Texts]:
    """Return the file that keeps `answers` of the Consul at `address`, each with its `snapshot`; and texts to reuse.

    `machine` is what the machine is known by, empty where it is not (machine-id(5)).
    """
    texts = dict(_texts(answers, known or {}))
    checksum, content = hashlib.sha256(), io.BytesIO()
    content.write(_head(checksum.hexdigest()))  # as long as the one that is written over it
    for piece in _body(address, answers, texts, machine):
        checksum.update(piece)
        content.write(piece)
    content.seek(0)
    content.write(_head(checksum.hexdigest()))
    return content.getvalue(), texts


def decode(content: bytes, address: str, *, machine: str = "") -> Answers:
    """Return the answers in `content`; raises Unusable unless it is a whole snapshot of the Consul at `address`.

    And of this `machine`, where both are known: one that came with a copied disk tells of another director's Consul.
    """
    head, newline, body = content.partition(b"\n")
    magic, _, rest = head.partition(b" ")
    version, _, checksum = rest.partition(b" ")
    if magic != MAGIC or not version.isdigit() or len(version) > 9 or not newline:
        raise Unusable("it is not a snapshot of lvsctl, or it is damaged")
    if int(version) != VERSION:
        age = "a newer" if int(version) > VERSION else "an older"
        raise Unusable(f"it has format {int(version)}, of {age} lvsctl; this one reads {VERSION}")
    if checksum != hashlib.sha256(body).hexdigest().encode():
        raise Unusable("it is damaged: its checksum is wrong")
    try:
        document = json.loads(body)
        consul, kept = _strict(document["consul"], str), document["answers"]
        if consul != address:
            raise Unusable(f"it is of another Consul ({consul}); consul.address is {address}")
        theirs = _strict(document.get("machine", ""), str)
        if theirs and machine and theirs != machine:
            raise Unusable("it is of another machine: /etc/machine-id is another one now")
        return {Query(**_query(each["query"])): _answer(each["answer"], said=each["said"]) for each in kept}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, cattrs.BaseValidationError) as error:
        raise Unusable(f"it is damaged: {type(error).__name__} in what it keeps") from error


def shortened(answer: Answer) -> Answer:
    """Return `answer` with no more of each check's output than is kept."""
    return attrs.evolve(
        answer,
        instances=tuple(
            attrs.evolve(
                each, checks=tuple(attrs.evolve(check, output=check.output[:MAX_OUTPUT]) for check in each.checks)
            )
            for each in answer.instances
        ),
    )


def same_content(one: Answer, other: Answer) -> bool:
    """Tell whether two answers differ in no more than when they were said; quick where they are the same objects."""
    return (one.instances, one.malformed, one.index, one.filtered) == (
        other.instances,
        other.malformed,
        other.index,
        other.filtered,
    )


def _texts(answers: Answers, known: Texts) -> Iterator[tuple[Query, tuple[Answer, bytes]]]:
    for query, answer in sorted(answers.items(), key=lambda pair: attrs.astuple(pair[0])):
        before = known.get(query)
        if before is not None and same_content(before[0], answer):
            yield query, before
        else:
            plain = attrs.evolve(shortened(answer), doubt="", snapshot=None)
            asked = json.dumps([query.service, query.datacenter, query.near])
            said = json.dumps(_converter.unstructure(plain), separators=(",", ":"))
            yield query, (answer, zlib.compress(f'"query":{asked},"answer":{said}'.encode(), 1))


def _query(names: Any) -> dict[str, str]:
    service, datacenter, near = names
    return {"service": _strict(service, str), "datacenter": _strict(datacenter, str), "near": _strict(near, str)}


def _answer(encoded: Any, *, said: Any) -> Answer:
    answer = _converter.structure(encoded, Answer)
    for instance in answer.instances:
        for number in (instance.port, instance.weight, instance.warning_weight):
            if not 0 <= number <= LARGEST:
                raise ValueError("a port or a weight that Consul could not have given")
    if not math.isfinite(_strict(said, float)):
        raise ValueError("a time that is no number")
    return attrs.evolve(answer, doubt="", snapshot=float(said))


def _strict(value: Any, kind: type) -> Any:
    """Return `value`, which must be of exactly that type: 1 is no text, true is no number."""
    if type(value) is not kind and not (kind is float and type(value) is int):
        raise TypeError(f"a {type(value).__name__} where a {kind.__name__} was expected")
    return value


def _head(checksum: str) -> bytes:
    return b"%s %d %s\n" % (MAGIC, VERSION, checksum.encode())


def _body(address: str, answers: Answers, texts: Texts, machine: str) -> Iterator[bytes]:
    """Yield what follows the head piece by piece; put together it would take its megabytes several times over."""
    yield f'{{"consul":{json.dumps(address)},"machine":{json.dumps(machine)},"answers":['.encode()
    comma = b""
    for query, (_, text) in texts.items():
        yield b'%s{"said":%s,%s}' % (comma, json.dumps(answers[query].snapshot).encode(), zlib.decompress(text))
        comma = b","
    yield b"]}\n"


_converter = cattrs.Converter(detailed_validation=False)
for _kind in (str, int, float, bool):
    _converter.register_structure_hook(_kind, _strict)
_converter.register_unstructure_hook(Health, lambda health: health.word)
_converter.register_structure_hook(Health, lambda word, _: Health[_strict(word, str).upper()])
