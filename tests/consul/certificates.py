"""An authority of our own with the certificates it signed, made anew for every run of the tests."""

import ssl
import subprocess
from pathlib import Path
from typing import Final, Self

import attrs

LONG_AGO: Final = ("-startdate", "20200101000000Z", "-enddate", "20200102000000Z")
AUTHORITY: Final = """\
[ca]
default_ca = authority
[authority]
database = issued
serial = ca.srl
new_certs_dir = .
default_md = sha256
policy = names
[names]
commonName = supplied
"""
"""What openssl needs to sign for a time of our choice; `openssl x509` can only from now on."""


@attrs.frozen(kw_only=True)
class Certificates:
    """An authority, a server certificate for 127.0.0.1 and a client certificate, each with its key."""

    ca: Path
    server_certificate: Path
    server_key: Path
    client: Path
    client_key: Path
    encrypted_key: Path  # the client's
    renewed: Path  # the client's next certificate, with a key of its own
    renewed_key: Path
    expired: Path  # the client's, of long ago

    @classmethod
    def make(cls, directory: Path) -> Self:
        """Make them in `directory`."""

        def openssl(*arguments: str) -> None:
            subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)

        new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
        openssl("req", "-x509", *new_key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=authority", "-days", "2")
        extensions = {
            "server": "subjectAltName=IP:127.0.0.1",
            "named": "subjectAltName=DNS:server.dc1.consul",
            "client": "extendedKeyUsage=clientAuth",
            "renewed": "extendedKeyUsage=clientAuth",
        }
        for name, extension in extensions.items():
            openssl("req", *new_key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
            (directory / "extension").write_text(extension)
            openssl(
                "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
                "-out", f"{name}.pem", "-days", "2", "-extfile", "extension",
            )  # fmt: skip
        (directory / "issued").touch()
        (directory / "ca.cnf").write_text(AUTHORITY)
        openssl(
            "ca", "-batch", "-notext", "-config", "ca.cnf", "-cert", "ca.pem", "-keyfile", "ca.key",
            "-in", "client.csr", "-out", "expired.pem", *LONG_AGO,
        )  # fmt: skip
        openssl("ec", "-in", "client.key", "-out", "encrypted.key", "-aes128", "-passout", "pass:secret")
        return cls(
            ca=directory / "ca.pem",
            server_certificate=directory / "server.pem",
            server_key=directory / "server.key",
            client=directory / "client.pem",
            client_key=directory / "client.key",
            encrypted_key=directory / "encrypted.key",
            renewed=directory / "renewed.pem",
            renewed_key=directory / "renewed.key",
            expired=directory / "expired.pem",
        )

    @property
    def server(self) -> ssl.SSLContext:
        """Return what a server at 127.0.0.1 uses that wants a client certificate."""
        return self._wanting_a_certificate("server")

    @property
    def named(self) -> ssl.SSLContext:
        """Return the same of a server that is called server.dc1.consul."""
        return self._wanting_a_certificate("named")

    def _wanting_a_certificate(self, name: str) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=self.ca)
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(self.ca.parent / f"{name}.pem", self.ca.parent / f"{name}.key")
        return context
