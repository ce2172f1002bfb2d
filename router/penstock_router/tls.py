"""HTTPS: certificate, key and authorities, read again when their files change.

Connections that stand keep what they began with. A file that cannot be used changes nothing, and is
named in the log, so that a certificate that is being replaced cannot end a server.
"""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass

from penstock_router.logs import log
from penstock_router.pulse import Pulse

LOOK_SECONDS = 5.0  # between two looks at the files
HANDSHAKE_SECONDS = 15.0  # for a client, from its connection

Stamp = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Paths of PEM files."""

    certificate: str  # with those that lead to the authority
    key: str | None  # None: in the same file
    authorities: str | None  # whose certificates clients must show; None: clients need none

    def load(self) -> ssl.SSLContext:
        """Raises OSError (of which ssl.SSLError is one) for what cannot be used."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        # An empty password: OpenSSL would ask the terminal for that of an encrypted key.
        context.load_cert_chain(self.certificate, self.key, password="")
        context.set_alpn_protocols(["http/1.1"])
        if self.authorities is not None:
            context.load_verify_locations(self.authorities)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def stamps(self) -> list[Stamp | None]:
        """What changes with the files, through links too."""
        return [_stamp(p) for p in (self.certificate, self.key, self.authorities) if p is not None]


class Tls:
    """The context for new connections. Belongs to the event loop's thread.

    Raises OSError where the files cannot be used.
    """

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._stamps = files.stamps()
        self.context = files.load()
        self._look = Pulse(LOOK_SECONDS, lambda late: self.look())

    def stop(self) -> None:
        """Look no more."""
        self._look.stop()

    def look(self) -> None:
        """Read the files again if they have changed."""
        stamps = self._files.stamps()
        if stamps == self._stamps:
            return
        self._stamps = stamps
        try:
            self.context = self._files.load()
        except OSError as error:
            log("WARNING", f"the certificate stays as it was: its files changed, but {error}")
        else:
            log("INFO", "the certificate was read again: its files have changed")


def _stamp(path: str) -> Stamp | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
