"""What an https address is reached with, and why a connection to Consul failed, in words.

Certificates are renewed while the daemon runs, so their files are read again when they change, as the token's is. A
certificate and its key are two files, and whoever renews them replaces one after the other: what cannot be used now is
said once, and what could be used last goes on.
"""

import contextlib
import os
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import aiohttp
import structlog

from lvsctl.config import ConsulConfig
from lvsctl.consul.token import Version, version_of
from lvsctl.errors import ConsulError
from lvsctl.text import visible

LONGEST_LINE: Final = 100  # characters
ALERTS: Final = ("alert_bad_certificate", "alert_certificate", "certificate_required", "alert_unknown_ca")
"""How OpenSSL's names for a peer's refusal of our certificate go on, in lower case; which one is the peer's choice."""

log = structlog.get_logger()


class Tls:
    """The TLS context of a configuration; `protocols` are offered by ALPN, the best first."""

    def __init__(self, config: ConsulConfig, *protocols: str) -> None:
        self._config = config
        self._protocols = protocols
        self._context: ssl.SSLContext | None = None
        self._versions: Mapping[Path, Version | None] = {}
        self.unusable = ""  # why the files as they are cannot be used, while those read before are

    def context(self) -> ssl.SSLContext:
        """Return the context of the files as they are; of those that could be used last where these cannot be.

        Raises ConsulError where none could be used yet.
        """
        versions = _versions(self._config)
        if self._context is None or versions != self._versions:
            self.unusable = ""
            try:
                self._context = tls_context(self._config, *self._protocols)
            except ConsulError as error:
                if self._context is None:
                    raise
                self.unusable = str(error)
                log.warning("certificate_unusable", why=self.unusable, kept="the certificates read before")
            self._versions = versions
        return self._context


def _versions(config: ConsulConfig) -> Mapping[Path, Version | None]:
    """Return the version of every file that the context is made of; None for one that is not there."""
    found: dict[Path, Version | None] = {}
    for path in (config.ca_file, config.ca_directory, config.certificate_file, config.key_file):
        if path is not None:
            try:
                found[path] = version_of(path.stat())
            except OSError:
                found[path] = None
    return found


def tls_context(config: ConsulConfig, *protocols: str) -> ssl.SSLContext:
    """Return what an https address is reached with; `protocols` are offered by ALPN, the best first.

    The system's authorities are trusted only where none are configured. Raises ConsulError for a file that cannot be
    used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # it verifies, and trusts nobody yet
    if config.ca_file:
        with _naming(config, "CONSUL_CACERT", "consul.ca_file", config.ca_file):
            context.load_verify_locations(cafile=config.ca_file)
            _trusts_somebody(context)
    elif config.ca_directory:
        with _naming(config, "CONSUL_CAPATH", "CONSUL_CAPATH", config.ca_directory):
            files = sorted(path for path in config.ca_directory.iterdir() if path.is_file())
        for path in files:
            with _naming(config, "CONSUL_CAPATH", "CONSUL_CAPATH", path):
                if b"CERTIFICATE-----" in path.read_bytes():  # a README is none
                    context.load_verify_locations(cafile=path)
        with _naming(config, "CONSUL_CAPATH", "CONSUL_CAPATH", config.ca_directory):
            _trusts_somebody(context)
    else:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    if config.certificate_file and config.key_file:
        with _naming(config, "CONSUL_CLIENT_KEY", "consul.key_file", config.key_file):
            config.key_file.open("rb").close()
        with _naming(config, "CONSUL_CLIENT_CERT", "consul.certificate_file", config.certificate_file):
            context.load_cert_chain(config.certificate_file, config.key_file, password=_no_passphrase)
    if protocols:
        context.set_alpn_protocols(protocols)
    return context


def _trusts_somebody(context: ssl.SSLContext) -> None:
    if not context.cert_store_stats()["x509"]:
        raise ValueError("there is no certificate of an authority in it, so no server could be trusted")


@contextlib.contextmanager
def _naming(config: ConsulConfig, variable: str, key: str, path: Path) -> Iterator[None]:
    """Have what goes wrong inside name the variable or key, and the file."""
    try:
        yield
    except (OSError, ValueError) as error:
        name = variable if variable in config.from_environment else key
        raise ConsulError(f"{name} {path} cannot be used: {reason(error)}") from error


def _no_passphrase() -> str:
    """Refuse a key that wants one; OpenSSL itself would ask for it on the terminal, and wait."""
    raise OSError("the private key is encrypted, and nobody is there to type its passphrase")


def reason(error: Exception) -> str:
    """Return an error's own words, without the addresses and objects that aiohttp wraps around them."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return reason(error.certificate_error)
    if isinstance(error, aiohttp.ClientConnectorError):
        return reason(error.os_error)
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error}"
    if words := _broken(error) or _refusal(error):
        return words
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError):
        if error.errno and error.errno > 0:
            return os.strerror(error.errno).lower()
        if error.strerror:
            return error.strerror.lower()
    return str(error) or type(error).__name__


def _broken(error: Exception) -> str:
    """Return that an answer came and is no HTTP, or only a part of it; empty when it is something else."""
    if isinstance(error, aiohttp.ClientPayloadError):
        return f"its answer is not complete: {_first_line(error.__cause__ or error)}"
    if isinstance(error, aiohttp.ClientResponseError):  # its status is aiohttp's invention
        return f"its answer is not HTTP: {_first_line(error)}"
    return ""


def _first_line(error: BaseException) -> str:
    """Return what is wrong with an answer, without the pieces of it that follow."""
    words = getattr(error, "message", "") or str(error)
    line = words.strip().split("\n", 1)[0].split(": b'", 1)[0].split(': b"', 1)[0].rstrip(" :.")
    return visible(line[:1].lower() + line[1:], LONGEST_LINE)


def _refusal(error: Exception) -> str:
    """Return that the peer does not take our certificate; empty when it is something else.

    In TLS 1.3 the client hears of it after the handshake, with the first answer, and aiohttp makes an OSError of it
    whose number is not the kernel's.
    """
    words = str(error)
    if "[SSL" not in words.upper():
        return ""
    if any(alert in words.lower() for alert in ALERTS):
        return (
            "it does not accept our client certificate, or wants one and there is none; "
            f"see consul.certificate_file and key_file: {words}"
        )
    return words
