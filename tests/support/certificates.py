"""An authority, and files with certificates that it signed."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from penstock_launcher.certificates import Pair, authority, issue


@dataclass
class Signed:
    """Files of a certificate and its key."""

    certificate: Path
    key: Path


class Authority:
    """`file` is its own certificate."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder = folder
        self._name = name
        self._pair: Pair = authority(name)
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(self._pair.certificate)

    def sign(self, name: str, *hosts: str, into: Signed | None = None) -> Signed:
        """A certificate; hosts: 127.0.0.1 unless others are given."""
        stem = self._folder / f"{self._name}-{name}"
        files = into or Signed(stem.with_suffix(".crt"), stem.with_suffix(".key"))
        pair = issue(self._pair, name, hosts or ("127.0.0.1",))
        pair.write(files.certificate, files.key)
        return files

    def client(self, own: Signed | None = None) -> ssl.SSLContext:
        """Of a client that trusts this authority, and shows a certificate if it has one."""
        context = ssl.create_default_context(cafile=str(self.file))
        if own is not None:
            context.load_cert_chain(own.certificate, own.key)
        return context
