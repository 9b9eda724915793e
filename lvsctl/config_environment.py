"""What completes `[consul]` where the file is silent: systemd's credential, then Consul's own environment variables.

Pure, but for `current`, which looks at the process once. A variable counts only where the file does not say the same
thing, and only then is it read: what is wrong with one that does not count is nobody's problem. An empty one is not
set. The names and the order among them are those of Consul's own commands; their values are read as the file's are.
Source: Consul, Commands, Environment Variables; systemd.exec(5), Credentials.
"""

import os
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import attrs

from lvsctl.config import ConsulConfig, ConsulTable, Secret
from lvsctl.config_rules import Read
from lvsctl.config_types import Wrong, absolute_path, shown
from lvsctl.errors import Problem

T = TypeVar("T")

CREDENTIAL: Final = "consul.token"  # as LoadCredential= of the unit names it
CREDENTIALS: Final = "CREDENTIALS_DIRECTORY"
TOKEN_PATTERN: Final = r"[!-~]{1,4096}"  # noqa: S105  what a header can carry; Consul's own tokens are UUIDs
HTTPS: Final = "https://127.0.0.1:8501"  # where CONSUL_HTTP_SSL says no more

# As Go's strconv.ParseBool reads them, which is what Consul uses.
_TRUE: Final = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE: Final = frozenset({"0", "f", "F", "false", "FALSE", "False"})
_TYPES: Final = {field.name: field.metadata["type"] for field in attrs.fields(ConsulTable)}


@attrs.frozen(kw_only=True)
class Environment:
    """What of a process's environment counts here."""

    variables: Mapping[str, str] = attrs.field(factory=dict, repr=False)  # one may hold the token
    has_credential: bool = False  # whether there is a file CREDENTIAL in the directory of credentials


NO_ENVIRONMENT: Final = Environment()


@attrs.frozen(kw_only=True)
class Completed:
    """`[consul]` with what the environment adds; a key whose variable was wrong is refused like one of the file."""

    consul: Read[ConsulConfig]
    problems: tuple[Problem, ...] = ()


def current() -> Environment:
    """Return the environment of this process."""
    directory = os.environ.get(CREDENTIALS, "")
    return Environment(
        variables=dict(os.environ),
        has_credential=bool(directory) and os.path.lexists(os.path.join(directory, CREDENTIAL)),  # noqa: PTH118  any text
    )


def complete(written: Read[ConsulTable], environment: Environment) -> Completed:
    """Return what `written` means in `environment`."""
    variables = _Variables(environment.variables)
    values: dict[str, Any] = {}
    if "address" not in written.written:
        values |= _address(variables)
    address = values.get("address", written.table.address)
    if "token_file" not in written.written:
        values |= _token(variables, has_credential=environment.has_credential)
    if address.startswith("https:"):
        values |= _tls(variables, written.written)
    table = {field.name: getattr(written.table, field.name) for field in attrs.fields(ConsulTable)}
    consul = ConsulConfig(**{**table, **values, "from_environment": tuple(variables.used)})
    refused = written.refused | ({"address"} if variables.refused & {"CONSUL_HTTP_ADDR", "CONSUL_HTTP_SSL"} else set())
    return Completed(
        consul=Read(table=consul, written=written.written, refused=refused), problems=tuple(variables.problems)
    )


def with_operators_token(consul: ConsulConfig, environment: Environment) -> tuple[ConsulConfig, tuple[Problem, ...]]:
    """Return `consul` with the token of a person's own environment, where it has one; and what is wrong with that.

    For a command that writes: the token of the file is the daemon's, which may only read.
    """
    variables = _Variables(environment.variables)
    values = _token(variables, has_credential=False)
    if not values:
        return consul, tuple(variables.problems)
    return attrs.evolve(consul, **{"token_file": None, "token": None, **values}), tuple(variables.problems)


class _Variables:
    """The variables, with which of them were used and what was wrong with the others."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values
        self.used: list[str] = []
        self.refused: set[str] = set()
        self.problems: list[Problem] = []

    def read(self, name: str, read: Callable[[str], T], *, used: str = "") -> T | None:
        """Return the value of variable `name`; None where it is not set or wrong."""
        if not self._values.get(name):
            return None
        try:
            value = read(self._values[name])
        except Wrong as wrong:
            self.wrong(name, wrong)
            return None
        self.used.append(used or name)
        return value

    def wrong(self, name: str, wrong: Wrong) -> None:
        """Record what is wrong with a variable."""
        self.refused.add(name)
        problem = Problem(line=None, key=name, wrong=wrong.wrong, remedy=wrong.remedy, in_environment=True)
        self.problems.append(problem)


def _address(variables: _Variables) -> dict[str, Any]:
    tls = variables.read("CONSUL_HTTP_SSL", _boolean)

    def read(text: str) -> str:
        scheme, separator, rest = text.partition("://")
        if not separator:
            scheme, rest = "http", text
        if tls and scheme.lower() == "http":
            scheme = "https"
        url: str = _TYPES["address"].read(f"{scheme}://{rest}")
        return url

    address = variables.read("CONSUL_HTTP_ADDR", read) or (HTTPS if tls else None)
    return {"address": address} if address else {}


def _token(variables: _Variables, *, has_credential: bool) -> dict[str, Any]:
    read_path = absolute_path(f"/run/credentials/lvsctl.service/{CREDENTIAL}", secret=True).read
    if has_credential:
        directory = variables.read(CREDENTIALS, read_path, used=f"credential {CREDENTIAL}")
        return {"token_file": directory / CREDENTIAL, "token_name": f"credential {CREDENTIAL}"} if directory else {}
    path = variables.read("CONSUL_HTTP_TOKEN_FILE", _TYPES["token_file"].read)
    if path:
        return {"token_file": path, "token_name": "CONSUL_HTTP_TOKEN_FILE"}
    token = variables.read("CONSUL_HTTP_TOKEN", _secret)
    return {"token": token, "token_name": "CONSUL_HTTP_TOKEN"} if token else {}


def _tls(variables: _Variables, written: frozenset[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    variables.read("CONSUL_HTTP_SSL_VERIFY", _verification)
    if "ca_file" not in written:
        values["ca_file"] = variables.read("CONSUL_CACERT", _TYPES["ca_file"].read)
        if not values["ca_file"]:
            values["ca_directory"] = variables.read("CONSUL_CAPATH", absolute_path("/etc/lvsctl/ca").read)
    if not written & {"certificate_file", "key_file"}:  # the two belong together, so they come from one place
        certificate = variables.read("CONSUL_CLIENT_CERT", _TYPES["certificate_file"].read)
        key = variables.read("CONSUL_CLIENT_KEY", _TYPES["key_file"].read)
        values |= {"certificate_file": certificate, "key_file": key}
        pair = {"CONSUL_CLIENT_CERT": certificate, "CONSUL_CLIENT_KEY": key}
        if not pair.keys() & variables.refused and bool(certificate) != bool(key):
            one, other = sorted(pair, key=lambda name: pair[name] is None)
            variables.wrong(one, Wrong(f"it is set without {other}", f"set {other} too, or neither"))
    if "server_name" not in written:
        values["server_name"] = variables.read("CONSUL_TLS_SERVER_NAME", _TYPES["server_name"].read)
    return values


def _boolean(text: str) -> bool:
    if text not in _TRUE | _FALSE:
        raise Wrong(f"{shown(text)} is neither true nor false", "write true or false, or unset it")
    return text in _TRUE


def _verification(text: str) -> bool:
    if not _boolean(text):
        raise Wrong(
            f"{shown(text)} would let anybody pass for Consul and take the token; lvsctl always verifies",
            "unset it, and name Consul's authority in CONSUL_CACERT or consul.ca_file",
        )
    return True


def _secret(text: str) -> Secret:
    if not re.fullmatch(TOKEN_PATTERN, text):
        raise Wrong(
            "it does not hold exactly one token (its value is not shown)",
            "write 1 to 4096 printable ASCII characters without spaces, or name a file in CONSUL_HTTP_TOKEN_FILE",
        )
    return Secret(text)
