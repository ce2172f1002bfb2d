"""Certificates of a private authority, for processes that talk to each other between hosts."""

from __future__ import annotations

import datetime
import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAYS = 365  # that a certificate is valid
SKEW = datetime.timedelta(hours=1)  # by which a host's clock may be behind


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key, as PEM."""

    certificate: bytes
    key: bytes

    def write(self, certificate: Path, key: Path) -> None:
        """Into two files; only this user may read the key."""
        certificate.write_bytes(self.certificate)
        descriptor = os.open(key, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(self.key)


def authority(name: str) -> Pair:
    """A new authority, which signs itself."""
    return _pair(name, None, ())


def derived_authority(secret: bytes) -> Pair:
    """The authority of a secret: whoever has it makes the same key, and so trusts what the others
    sign. Its certificate differs from time to time, its name and key do not."""
    seed = HKDF(hashes.SHA512(), 64, None, b"penstock: authority of a group of hosts").derive(
        secret
    )
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # of P-256
    key = ec.derive_private_key(int.from_bytes(seed) % (order - 1) + 1, ec.SECP256R1())
    return _pair("penstock hosts", None, (), key)


def issue(signer: Pair, name: str, hosts: Sequence[str]) -> Pair:
    """A certificate for a server or client that is reached at these addresses or names."""
    return _pair(name, signer, hosts)


def _pair(
    name: str,
    signer: Pair | None,
    hosts: Sequence[str],
    key: ec.EllipticCurvePrivateKey | None = None,
) -> Pair:
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issuer, signing_key = subject, key
    if signer is not None:
        issuer = x509.load_pem_x509_certificate(signer.certificate).subject
        loaded = serialization.load_pem_private_key(signer.key, None)
        assert isinstance(loaded, ec.EllipticCurvePrivateKey)
        signing_key = loaded
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + datetime.timedelta(days=DAYS))
        .add_extension(x509.BasicConstraints(ca=signer is None, path_length=None), critical=True)
    )
    if signer is not None:
        usage = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        names = x509.SubjectAlternativeName([_name(host) for host in hosts])
        builder = builder.add_extension(names, critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage(usage), critical=False)
    return Pair(
        builder.sign(signing_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )


def _name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
