"""What an https address is reached with, and why a connection to Consul failed, in words."""

import os
import ssl
from pathlib import Path
from typing import Final

import aiohttp

from lvsctl.config import ConsulConfig
from lvsctl.errors import ConsulError

TLS_VARIABLES: Final = ("CONSUL_CACERT", "CONSUL_CAPATH", "CONSUL_CLIENT_CERT", "CONSUL_CLIENT_KEY")


def tls_context(config: ConsulConfig, *protocols: str) -> ssl.SSLContext:
    """Return what an https address is reached with; `protocols` are offered by ALPN, the best first.

    Raises ConsulError for a file that cannot be used.
    """
    try:
        if config.ca_directory and not config.ca_file:
            context = ssl.create_default_context(cadata="\n".join(map(_text_of, sorted(config.ca_directory.iterdir()))))
        else:
            context = ssl.create_default_context(cafile=config.ca_file)
        if config.certificate_file and config.key_file:
            context.load_cert_chain(config.certificate_file, config.key_file, password=_no_passphrase)
    except (OSError, ValueError) as error:
        used = ", ".join(name for name in config.from_environment if name in TLS_VARIABLES)
        names = used or "consul.ca_file, certificate_file or key_file"
        raise ConsulError(f"{names} cannot be used: {reason(error)}") from error
    if protocols:
        context.set_alpn_protocols(protocols)
    return context


def _text_of(path: Path) -> str:
    return path.read_text("ascii")


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
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError):
        if error.errno and error.errno > 0:
            return os.strerror(error.errno).lower()
        if error.strerror:
            return error.strerror.lower()
    return str(error) or type(error).__name__
