"""The targets by name, with the inputs a fuzzer begins with."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import attrs

from tests.fuzz import answering, decoding, reading, recorded, talking, weighing, writing

Target = Callable[[bytes], None]


@attrs.frozen
class Fuzzed:
    """A target, raising only on a bug, and its seeds."""

    run: Target
    seeds: tuple[bytes, ...]


def _framing_seeds() -> list[bytes]:
    return [message for kind in reading.KINDS for message in kind.samples[:2]]


def _answer_seeds() -> list[bytes]:
    alone = [b"\x1c" + body for name in ("timeouts", "information", "family") for body in recorded.recordings(name)]
    return alone + [b"\x1c" + message[16:] for kind in reading.KINDS for message in kind.samples[:2]]


def _bulk_seeds() -> list[bytes]:
    dumps = [("virtual-servers",), ("real-servers-of-two-families", "real-servers-of-ipv6"), ("daemons",)]
    seeds = []
    for kind, names in enumerate(dumps):
        datagrams = [datagram for name in names for datagram in recorded.recordings(name)]
        seeds += [reading.bulk_input(kind, each) for each in datagrams] + [reading.bulk_input(kind, *datagrams)]
        samples = reading.KINDS[kind].samples
        seeds += [reading.bulk_input(kind, sample, times=17) for sample in samples]
        seeds += [reading.bulk_input(kind, sample, samples[0]) for sample in samples]
    return seeds


def _layout_seeds() -> list[bytes]:
    choices = ((kind, sample) for kind, each in enumerate(reading.KINDS) for sample in range(len(each.samples)))
    changes = bytes(range(1, 60))
    return [bytes([kind, sample]) + changes[sample:] for kind, sample in choices]


def _connection_seeds() -> list[bytes]:
    lines = recorded.connection_lines()
    return [bytes([place, 0, 1]) for place in range(len(lines))] + [
        bytes([place, 2, 30, 1, 48, 0, 9, 2, 65, 66, 1, 1]) for place in range(len(lines))
    ]


def _talk_seeds() -> list[bytes]:
    return [bytes([table]) + bytes(range(table, 120)) for table in range(12)] + [bytes(80), b"\1\1\0" * 40]


def _encoder_seeds() -> list[bytes]:
    return [bytes([0, 0, 0, 0, 0, 0, 0, 80, 0, 0, number]) + bytes(40) for number in range(11)] + [bytes(range(150))]


def _decoding_seeds() -> list[bytes]:
    whole = [bytes([number, style, 0]) for number in range(len(decoding.BODIES)) for style in range(4)]
    changes = [
        bytes([number, 0, 1, *(step * wild % 251 for step in range(1, 9))]) for number in range(2) for wild in range(40)
    ]
    return whole + changes + [bytes([number, 0, 11]) + bytes(range(200)) for number in range(len(decoding.BODIES))]


def _body_seeds() -> list[bytes]:
    return [*decoding.BODIES, b"[]", b"[1]", b'[{"Node":{"Node":"a","Address":"10.0.0.1"},"Service":{"ID":"b"}}]']


def _weight_seeds() -> list[bytes]:
    return [bytes([number % 9, *(step * number % 251 for step in range(1, 160))]) for number in range(1, 60)]


TARGETS: Final[Mapping[str, Fuzzed]] = MappingProxyType(
    {
        "framing": Fuzzed(reading.framing_target, tuple(_framing_seeds())),
        "answers": Fuzzed(reading.answers_target, tuple(_answer_seeds())),
        "bulk": Fuzzed(reading.bulk_target, tuple(_bulk_seeds())),
        "layouts": Fuzzed(reading.layouts_target, tuple(_layout_seeds())),
        "connections": Fuzzed(reading.connections_target, tuple(_connection_seeds())),
        "talk": Fuzzed(talking.talk_target, tuple(_talk_seeds())),
        "consul": Fuzzed(decoding.decoding_target, tuple(_decoding_seeds())),
        "consul-bytes": Fuzzed(decoding.bytes_target, tuple(_body_seeds())),
        "weights": Fuzzed(weighing.weights_target, tuple(_weight_seeds())),
        "http2": Fuzzed(answering.connection_target, tuple(answering.connection_seeds())),
        "http2-fields": Fuzzed(answering.fields_target, tuple(answering.fields_seeds())),
        "encoder": Fuzzed(writing.encoder_target, tuple(_encoder_seeds())),
    }
)
