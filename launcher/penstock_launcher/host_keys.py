"""How hosts of one group know each other: a certificate for each, signed by one authority.

Either the operator gives a folder with ca.pem, host.pem and host.key, whose certificate is for the
name `penstock-host-<node-rank>`. Or all hosts are given one secret: each derives the authority's
key from it, and signs its own certificate. Whoever has the secret is a host of the group.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from penstock_launcher.certificates import derived_authority, issue
from penstock_launcher.errors import LauncherError
from penstock_launcher.options import Options

SHORTEST = 16  # characters of a secret


def host_name(node_rank: int) -> str:
    """What a host's certificate is for, whatever its address is."""
    return f"penstock-host-{node_rank}"


@dataclass(frozen=True, slots=True)
class HostKeys:
    """Files of this host."""

    certificate: Path
    key: Path
    authorities: Path

    def config(self) -> dict[str, str]:
        """As the router and the shards are told."""
        return {
            "certificate": str(self.certificate),
            "key": str(self.key),
            "authorities": str(self.authorities),
        }

    def server(self) -> ssl.SSLContext:
        """Takes connections of the group's hosts alone."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        return self._load(context)

    def client(self) -> ssl.SSLContext:
        """Connects to the group's hosts alone; `server_hostname` is the host's name."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        return self._load(context)

    def _load(self, context: ssl.SSLContext) -> ssl.SSLContext:
        try:
            context.load_cert_chain(self.certificate, self.key, password="")
            context.load_verify_locations(self.authorities)
        except OSError as error:
            folder = self.certificate.parent
            raise LauncherError(
                f"--hosts-certs {folder}: ca.pem, host.pem and host.key cannot be used: "
                f"{error.strerror or error}"
            ) from None
        return context


def host_keys(options: Options, folder: Path) -> HostKeys:
    """Those of this host; what is made lies in `folder`. Raises LauncherError."""
    if options.hosts_certs is not None:
        given = Path(options.hosts_certs).absolute()
        return HostKeys(given / "host.pem", given / "host.key", given / "ca.pem")
    assert options.hosts_secret_file is not None
    signer = derived_authority(_secret(Path(options.hosts_secret_file)))
    folder = folder / "host"
    folder.mkdir(mode=0o700)
    keys = HostKeys(folder / "host.pem", folder / "host.key", folder / "ca.pem")
    name = host_name(options.node_rank)
    issue(signer, name, [name]).write(keys.certificate, keys.key)
    keys.authorities.write_bytes(signer.certificate)
    return keys


def _secret(path: Path) -> bytes:
    try:
        secret = path.read_bytes().strip()
    except OSError as error:
        raise LauncherError(
            f"--hosts-secret-file {path} cannot be read: {error.strerror}"
        ) from None
    if len(secret) < SHORTEST:
        raise LauncherError(
            f"--hosts-secret-file {path} must hold at least {SHORTEST} characters: it has "
            f"{len(secret)}"
        )
    return secret
