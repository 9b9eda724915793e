"""An authority of our own with the certificates it signed, made anew for every run of the tests."""

import ssl
import subprocess
from pathlib import Path
from typing import Self

import attrs


@attrs.frozen(kw_only=True)
class Certificates:
    """An authority, a server certificate for 127.0.0.1 and a client certificate, each with its key."""

    ca: Path
    server_certificate: Path
    server_key: Path
    client: Path
    client_key: Path

    @classmethod
    def make(cls, directory: Path) -> Self:
        """Make them in `directory`."""

        def openssl(*arguments: str) -> None:
            subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)

        new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
        openssl("req", "-x509", *new_key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=authority", "-days", "2")
        for name, extension in (("server", "subjectAltName=IP:127.0.0.1"), ("client", "extendedKeyUsage=clientAuth")):
            openssl("req", *new_key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
            (directory / "extension").write_text(extension)
            openssl(
                "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
                "-out", f"{name}.pem", "-days", "2", "-extfile", "extension",
            )  # fmt: skip
        return cls(
            ca=directory / "ca.pem",
            server_certificate=directory / "server.pem",
            server_key=directory / "server.key",
            client=directory / "client.pem",
            client_key=directory / "client.key",
        )

    @property
    def server(self) -> ssl.SSLContext:
        """Return what a server uses that wants a client certificate."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=self.ca)
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(self.server_certificate, self.server_key)
        return context
