"""Reading the configuration file: `load` returns a Config or raises ConfigError with every problem of the file.

Reads one file and the process's environment, nothing else: that a token or certificate file is readable is found out
when it is used. `config` says which keys there are, `config_types` judges each value, `config_environment` completes
`[consul]`, `config_rules` says what must hold between the keys; here problems get their lines and are put in the file's
order.
"""

import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

import attrs
from cattrs import AttributeValidationNote, ClassValidationError, Converter, ForbiddenExtraKeysError
from cattrs.gen import make_dict_structure_fn, override

from lvsctl import config_declared, config_environment, config_rules
from lvsctl.config import (
    Config,
    ConsulConfig,
    ConsulTable,
    DaemonConfig,
    DefaultsTable,
    DiscoveryConfig,
    DiscoveryTable,
    KernelConfig,
    MetricsConfig,
    OverridesConfig,
    SafetyConfig,
    VipConfig,
    VirtualServerTable,
)
from lvsctl.config_environment import NO_ENVIRONMENT, Environment
from lvsctl.config_rules import Merged, Read
from lvsctl.config_types import AnyKeyType, KeyPath, Wrong, closest, one_of, shown, shown_key
from lvsctl.errors import ConfigError, Problem
from lvsctl.toml_lines import lines

T = TypeVar("T", bound=attrs.AttrsInstance)

MAX_BYTES: Final = 4 * 2**20  # a file of a thousand virtual servers has 300 kB; more is the wrong file

TABLES: Final[dict[str, type[Any]]] = {
    "consul": ConsulTable,
    "safety": SafetyConfig,
    "vip": VipConfig,
    "daemon": DaemonConfig,
    "kernel": KernelConfig,
    "metrics": MetricsConfig,
    "overrides": OverridesConfig,
    "discovery": DiscoveryTable,
    "defaults": DefaultsTable,
    "virtual_server": VirtualServerTable,
}


def load(path: Path) -> Config:
    """Return the configuration in the file `path`; ConfigError has all that is wrong with it."""
    return read(path)[0]


def read(path: Path) -> tuple[Config, str]:
    """Return the configuration in the file `path`, and the text that it is; ConfigError has all that is wrong."""
    text = _text(path)
    return parse_here(text, path), text


def parse_here(text: str, path: Path) -> Config:
    """Return the configuration that is `text` in the environment of this process, as if it were in the file `path`."""
    return parse(text, path, config_environment.current())


def parse(text: str, path: Path, environment: Environment = NO_ENVIRONMENT) -> Config:
    """Return the configuration that is `text`; ConfigError, speaking of `path`, has all that is wrong with it."""
    if not text.strip():
        raise _whole_file(path, "the file is empty", "write at least one [virtual_server.NAME] table")
    reading = _Reading(*_toml(text, path), environment)
    config = reading.config()
    if config is None:
        raise ConfigError(path, reading.problems())
    return config


# --- from the file to TOML ------------------------------------------------------------------------------------------


def _whole_file(path: Path, wrong: str, remedy: str, line: int | None = None) -> ConfigError:
    return ConfigError(path, (Problem(line=line, key="", wrong=wrong, remedy=remedy),))


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise _whole_file(path, "there is no such file", "create it or name another one") from None
    except IsADirectoryError:
        raise _whole_file(path, "this is a directory", "name the file in it") from None
    except PermissionError:
        raise _whole_file(path, "permission denied", "run as root or make the file readable") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise _whole_file(path, f"it cannot be read: {reason}", "name a readable file") from error
    if len(content) > MAX_BYTES:
        raise _whole_file(path, f"it has more than {MAX_BYTES} bytes", "name a configuration file")
    if content.startswith(b"\xef\xbb\xbf"):
        raise _whole_file(path, "it begins with a byte order mark", "save it as UTF-8 without one", line=1)
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        byte = content[error.start]
        raise _whole_file(path, f"byte 0x{byte:02x} is not UTF-8", "save the file as UTF-8", line) from None


# What tomllib says (its message begins so), and what that means to a person.
_SYNTAX: Final = (
    ("Expected '=' after a key", "a key without an equals sign", "write key = value"),
    ("Cannot overwrite a value", "this key is here for the second time", "keep one of the two"),
    ("Duplicate inline table key", "this key is here for the second time", "keep one of the two"),
    ("Cannot declare", "this table is here for the second time", "put all its keys under one header"),
    ("Cannot redefine namespace", "this key is already a table", "keep one of the two"),
    ("Cannot mutate immutable namespace", "this table was complete in its braces", "put all its keys in one place"),
    ("Expected newline or end of document", "there is more after the value", "write one key = value a line"),
    ("Invalid value", "the value cannot be understood", 'write strings in quotes: key = "value"'),
    ("Invalid statement", "this is neither a key nor a [table]", "write key = value, [table] or # comment"),
    ("Invalid initial character for a key", "a key is missing or unquoted", "write it of A-Z a-z 0-9 _ - or in quotes"),
    ("Unclosed array", "a list is not closed", "write ] after its last element"),
    ("Unclosed inline table", "an inline table is not closed", "write } after its last key"),
    ("Expected ']", "a table header is not closed", "write [table]"),
    ("Unterminated string", "a string is not closed", "write the closing quote"),
    ('Expected "\'"', "a string is not closed", "write the closing quote"),
    ("Expected \"'''\"", "a string is not closed", "write the closing three quotes"),
    ("Unescaped '\\'", "a backslash in a string", r"write \\ for one, or the string in single quotes"),
    ("Illegal character", "a string is not closed, or has a control character", "write the closing quote or an escape"),
    ("Found invalid character", "a control character", "remove it"),
    ("Escaped character is not", "an escape that is no character", "write another one"),
    ("Invalid hex value", "an escape that is no character", "write \\u and four hexadecimal digits"),
    ("Invalid date", "a date that does not exist", "write another one"),
)


def _toml(text: str, path: Path) -> tuple[dict[str, Any], dict[KeyPath, int]]:
    """Return what the TOML text says, and the line of every key in it."""
    try:
        return tomllib.loads(text), lines(text)
    except tomllib.TOMLDecodeError as error:
        said = str(error)
        place = re.search(r" \(at (?:line (\d+), column (\d+)|end of document)\)$", said)
        line = int(place[1]) if place and place[1] else text.rstrip("\n").count("\n") + 1
        for begins, wrong, remedy in _SYNTAX:
            if said.startswith(begins):
                raise _whole_file(path, f"not valid TOML: {wrong}", remedy, line) from None
        wrong = shown(said[: place.start()] if place else said)
        raise _whole_file(path, f"not valid TOML: {wrong}", "write TOML 1.0 (https://toml.io)", line) from None
    except ValueError as error:  # Python's limit of digits in a decimal number
        raise _whole_file(path, "not valid TOML: a number has too many digits", "write a shorter one") from error
    except RecursionError:
        raise _whole_file(path, "its lists and tables are nested too deep", "write the keys documented") from None


# --- from TOML to values --------------------------------------------------------------------------------------------


def _converter() -> Converter:
    """Return a converter that reads each key with the type in its metadata and refuses keys it does not know."""
    converter = Converter(forbid_extra_keys=True, detailed_validation=True)
    for table in TABLES.values():
        keys: dict[str, Any] = {
            field.name: override(struct_hook=_hook(field.metadata["type"])) for field in attrs.fields(table)
        }
        converter.register_structure_hook(table, make_dict_structure_fn(table, converter, **keys))
    return converter


def _hook(key_type: AnyKeyType) -> Callable[[object, object], Any]:
    return lambda value, _: key_type.read(value)


class _Reading:
    """One file on its way to a Config, with the problems so far."""

    def __init__(self, data: dict[str, Any], found_lines: dict[KeyPath, int], environment: Environment) -> None:
        self._data = data
        self._lines = found_lines
        self._environment = environment
        self._converter = _converter()
        self._problems: dict[Problem, None] = {}  # in the order found, each once

    def problems(self) -> tuple[Problem, ...]:
        """Return all problems in the file's order, what is about the whole file last."""
        return tuple(sorted(self._problems, key=lambda problem: (problem.line is None, problem.line)))

    def config(self) -> Config | None:
        """Return the configuration, or None when there are problems."""
        for name in self._data.keys() - TABLES.keys():
            self._unknown((), name, list(TABLES), "tables")
        consul = self._consul()
        safety = self._table(SafetyConfig, "safety")
        vip = self._table(VipConfig, "vip") if "vip" in self._data else None
        daemon = self._table(DaemonConfig, "daemon")
        kernel = self._table(KernelConfig, "kernel")
        metrics = self._table(MetricsConfig, "metrics") if "metrics" in self._data else None
        overrides = self._table(OverridesConfig, "overrides") if "overrides" in self._data else None
        defaults = self._table(DefaultsTable, "defaults")
        discovery = self._table(DiscoveryTable, "discovery") if "discovery" in self._data else None
        if discovery:
            self._add(config_declared.discovery_rules(discovery, defaults or Read(table=DefaultsTable())))
        servers = self._virtual_servers(defaults or Read(table=DefaultsTable()))
        if self._problems or not (consul and safety and daemon and kernel):
            return None
        return Config(
            consul=consul,
            safety=safety.table,
            vip=vip.table if vip else None,
            daemon=daemon.table,
            kernel=kernel.table,
            metrics=metrics.table if metrics else None,
            overrides=overrides.table if overrides else None,
            discovery=_discovery(discovery.table, defaults) if discovery else None,
            virtual_servers={merged.name: config_rules.virtual_server(merged) for merged in servers},
        )

    def _consul(self) -> ConsulConfig | None:
        written = self._table(ConsulTable, "consul")
        if written is None:
            return None
        completed = config_environment.complete(written, self._environment)
        self._problems.update(dict.fromkeys(completed.problems))
        self._add(config_rules.consul_rules(completed.consul))
        return completed.consul.table

    def _virtual_servers(self, defaults: Read[DefaultsTable]) -> list[Merged]:
        tables = self._data.get("virtual_server", {})
        root = ("virtual_server",)
        if not isinstance(tables, dict):
            self._wrong(Wrong(f"{shown(tables)} where tables belong", "write [virtual_server.NAME]", root))
            return []
        if not tables and "discovery" not in self._data:
            at = root if "virtual_server" in self._data else ()
            remedy = "write at least one [virtual_server.NAME] table; without one there is nothing to do"
            self._wrong(Wrong("no virtual server is configured", remedy, at))
        servers = []
        for name, value in tables.items():
            if not isinstance(value, dict):
                is_key = name in attrs.fields_dict(VirtualServerTable)
                remedy = "write it under [virtual_server.NAME]" if is_key else "write [virtual_server.NAME]"
                self._wrong(Wrong(f"{shown(value)} where a virtual server's table belongs", remedy, (*root, name)))
                continue
            self._add(config_rules.name_rules(name))
            own = self._read(VirtualServerTable, value, (*root, name))
            if own:
                servers.append(Merged(name=name, own=own, defaults=defaults))
        for merged in servers:
            self._add(config_rules.virtual_server_rules(merged))
            self._add(config_rules.slow_start_rules(merged))
        identities = {merged.name: config_rules.key_of(merged) for merged in servers}
        at_lines = {name: self._line(("virtual_server", name)) or 0 for name in identities}
        self._add(config_rules.duplicates(identities, at_lines))
        self._add(config_rules.misplaced_fallbacks(servers))
        return servers

    def _table(self, table: type[T], name: str) -> Read[T] | None:
        """Return the top-level table `name`, with what was wrong in it left out; None when nothing can be read."""
        value = self._data.get(name, {})
        if not isinstance(value, dict):
            self._wrong(Wrong(f"{shown(value)} where a table belongs", f"write [{name}] and its keys below", (name,)))
            return None
        return self._read(table, value, (name,))

    def _read(self, table: type[T], value: dict[str, Any], at: KeyPath) -> Read[T] | None:
        refused: set[str] = set()
        read: T | None = None
        try:
            read = self._converter.structure(value, table)
        except ClassValidationError as error:
            for key, wrong in _wrongs(error):
                refused.add(key)
                if isinstance(wrong, Wrong):
                    self._wrong(attrs.evolve(wrong, at=(*at, key, *wrong.at)))
                elif key in value:
                    self._unknown(at, key, list(attrs.fields_dict(table)), "keys")
                else:
                    example = attrs.fields_dict(table)[key].metadata["example"]
                    self._wrong(Wrong(f"{key} is missing", f"write {key} = {example}", at))
            required = {field.name for field in attrs.fields(table) if field.default is attrs.NOTHING}
            if not required & refused:
                good = {key: one for key, one in value.items() if key not in refused}
                read = self._converter.structure(good, table)
        if read is None:
            return None
        return Read(table=read, written=frozenset(value), refused=frozenset(refused))

    def _unknown(self, at: KeyPath, key: str, known: list[str], what: str) -> None:
        """Record a key that does not exist: what it was meant to be, or where it belongs, or what there is."""
        meant = closest(key, known)
        homes = [name for name, table in TABLES.items() if key in attrs.fields_dict(table)]
        if not meant and homes:
            headers = ["[virtual_server.NAME]" if name == "virtual_server" else f"[{name}]" for name in homes]
            remedy = f"it belongs in {' or '.join(headers)}"
        elif meant:
            remedy = f"did you mean {meant}?"
        else:
            remedy = f"the {what} here are {one_of(known)}"
        self._wrong(Wrong("there is no such " + what[:-1], remedy, (*at, key)))

    def _add(self, wrongs: Iterator[Wrong]) -> None:
        for wrong in wrongs:
            self._wrong(wrong)

    def _wrong(self, wrong: Wrong) -> None:
        key = shown_key(wrong.at)
        problem = Problem(line=self._line(wrong.at), key=key, wrong=wrong.wrong, remedy=wrong.remedy)
        self._problems.setdefault(problem)

    def _line(self, at: KeyPath) -> int | None:
        """Return the line of a key; of one that is not there, that of the table it is missing in."""
        while at and at not in self._lines:
            at = at[:-1]
        return self._lines.get(at)


def _discovery(table: DiscoveryTable, defaults: Read[DefaultsTable] | None) -> DiscoveryConfig:
    """Return what may be declared, with what counts for the keys that are not."""
    keys = attrs.asdict(table, recurse=False)
    return DiscoveryConfig(**keys, defaults=defaults.table if defaults else DefaultsTable())


def _wrongs(error: ClassValidationError) -> Iterator[tuple[str, Wrong | None]]:
    """Yield key and mistake of everything that cattrs collected; None for a key that is unknown or missing."""
    with_notes, others = error.group_exceptions()
    for exception, note in with_notes:
        assert isinstance(note, AttributeValidationNote)  # noqa: S101  for mypy
        leaves = exception.exceptions if isinstance(exception, ExceptionGroup) else (exception,)
        for leaf in leaves:
            if isinstance(leaf, KeyError):
                yield note.name, None
            elif isinstance(leaf, Wrong):
                yield note.name, leaf
            else:
                raise leaf
    for exception in others:
        if not isinstance(exception, ForbiddenExtraKeysError):
            raise exception
        for key in sorted(exception.extra_fields):
            yield key, None
