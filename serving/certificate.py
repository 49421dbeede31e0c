"""Whose name the content credentials are signed with: a user's certificate and key, or a local test certificate."""

from __future__ import annotations

import datetime
import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.errors import Misuse
from contracts.files import TEMPORARY
from contracts.settings import Settings

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

CERTIFICATE, KEY, FOLDER = "VOXFACE_CERTIFICATE", "VOXFACE_KEY", "VOXFACE_CREDENTIALS"  # environment variables
TEST_ORGANISATION = "voxface local test"  # what it is recognised by, wherever the video goes
TEST_DAYS = 3650
DAY = datetime.timedelta(days=1)  # clocks differ
EMAIL_PROTECTION = "1.3.6.1.5.5.7.3.4"  # C2PA 2.x, 14.5.1: a purpose must be named; this one is on every list
CHAIN_FILE, KEY_FILE = "chain.pem", "key.pem"


class Identity(Settings):
    """Where certificate and key are: ``folder`` holds the local test certificate, which is made on first use."""

    folder: Path
    certificate: Path | None = None  # PEM, the signer's own certificate first, then its authorities
    key: Path | None = None  # PEM, PKCS 8, not encrypted

    @classmethod
    def own(cls) -> Identity:
        """The files that ``VOXFACE_CERTIFICATE`` and ``VOXFACE_KEY`` name; ``VOXFACE_CREDENTIALS`` is the folder."""
        named = [Path(value).absolute() if (value := os.environ.get(name)) else None for name in (CERTIFICATE, KEY)]
        folder = Path(os.environ.get(FOLDER) or "work/credentials").absolute()
        return cls(folder=folder, certificate=named[0], key=named[1])


@dataclass(frozen=True)
class Pair:
    """A certificate chain and its private key, as PEM; ``repr`` shows no key."""

    chain: bytes
    key: bytes
    algorithm: str  # as C2PA names it
    place: Path

    def __repr__(self) -> str:
        return f"Pair({self.place}, {self.algorithm})"


def pair_of(identity: Identity) -> Pair:
    """Certificate and key of ``identity``, checked.

    Raises ``Misuse`` where a file is missing or unreadable, the two do not belong together, or the certificate has
    lapsed or is not valid yet. A test certificate that has lapsed is made again.
    """
    if (identity.certificate is None) != (identity.key is None):
        raise Misuse(f"{CERTIFICATE} and {KEY} belong together: name both files, or neither for a test certificate")
    if identity.certificate is not None and identity.key is not None:
        return _load(identity.certificate, identity.key)
    folder = identity.folder / "test"
    if not (folder / CHAIN_FILE).is_file():
        _make(folder)
    try:
        return _load(folder / CHAIN_FILE, folder / KEY_FILE)
    except _Lapsed:
        shutil.rmtree(folder)
        _make(folder)
        return _load(folder / CHAIN_FILE, folder / KEY_FILE)


class _Lapsed(Misuse):
    pass


def _load(certificate: Path, key: Path) -> Pair:
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    read: dict[Path, bytes] = {}
    for path in (certificate, key):
        try:
            read[path] = path.read_bytes()
        except OSError as error:
            mend = f"name the signer's files by {CERTIFICATE} and {KEY}"
            raise Misuse(f"{path} cannot be read ({error.strerror}): {mend}") from error
    try:
        own: Certificate = x509.load_pem_x509_certificates(read[certificate])[0]
    except ValueError as error:
        raise Misuse(f"{certificate} is no certificate chain in PEM: {error}") from error
    try:
        private: Any = serialization.load_pem_private_key(read[key], password=None)
    except (ValueError, TypeError) as error:
        raise Misuse(f"{key} is no private key in PEM without a password") from error
    if own.public_key() != private.public_key():
        raise Misuse(f"{key} is not the key of the first certificate in {certificate}")
    now = datetime.datetime.now(datetime.UTC)
    if not own.not_valid_before_utc <= now <= own.not_valid_after_utc:
        span = f"{own.not_valid_before_utc:%Y-%m-%d} to {own.not_valid_after_utc:%Y-%m-%d}"
        raise _Lapsed(f"{certificate} is valid from {span}: nothing can be signed with it today")
    return Pair(read[certificate], read[key], _algorithm(private, key), certificate)


def _algorithm(private: Any, path: Path) -> str:
    """C2PA 2.x, 13.2: ES256, ES384, ES512, PS256 or Ed25519, after the kind of key."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if isinstance(private, ed25519.Ed25519PrivateKey):
        return "ed25519"
    if isinstance(private, rsa.RSAPrivateKey):
        return "ps256"
    if isinstance(private, ec.EllipticCurvePrivateKey):
        named = {256: "es256", 384: "es384", 521: "es512"}.get(private.curve.key_size)
        if named:
            return named
    raise Misuse(f"{path}: content credentials are signed with keys on P-256, P-384 or P-521, Ed25519 or RSA")


def _make(folder: Path) -> None:
    """An authority, thrown away at once, and one certificate of it; whoever is first to make them is taken."""
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.x509.oid import NameOID

    def name(common: str) -> x509.Name:
        organisation = x509.NameAttribute(NameOID.ORGANIZATION_NAME, TEST_ORGANISATION)
        return x509.Name([organisation, x509.NameAttribute(NameOID.COMMON_NAME, common)])

    def usage(**named: bool) -> x509.KeyUsage:
        kinds = "digital_signature content_commitment key_encipherment data_encipherment key_agreement key_cert_sign"
        every = dict.fromkeys([*kinds.split(), "crl_sign", "encipher_only", "decipher_only"], False)
        return x509.KeyUsage(**(every | named))

    now = datetime.datetime.now(datetime.UTC)
    root, own = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    authority = name("test authority, proves nobody")

    def build(subject: x509.Name, public: Any, ends: bool) -> x509.CertificateBuilder:
        builder = x509.CertificateBuilder(authority, subject, public, x509.random_serial_number())
        builder = builder.not_valid_before(now - DAY).not_valid_after(now + TEST_DAYS * DAY)
        builder = builder.add_extension(x509.BasicConstraints(ca=not ends, path_length=None if ends else 0), True)
        return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(public), False)

    top = build(authority, root.public_key(), False).add_extension(usage(key_cert_sign=True, crl_sign=True), True)
    leaf = (
        build(name("test certificate, proves nobody"), own.public_key(), True)
        .add_extension(usage(digital_signature=True), True)
        .add_extension(x509.ExtendedKeyUsage([x509.ObjectIdentifier(EMAIL_PROTECTION)]), False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root.public_key()), False)
    )
    chain = [each.sign(root, None).public_bytes(serialization.Encoding.PEM) for each in (leaf, top)]
    private = own.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = folder.with_name(f"{TEMPORARY}{folder.name}.{os.getpid()}-{secrets.token_hex(4)}")
    draft.mkdir(mode=0o700)
    try:
        (draft / CHAIN_FILE).write_bytes(b"".join(chain))
        with open(os.open(draft / KEY_FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(private)
        try:
            draft.rename(folder)
        except OSError:  # another process was first: its certificate is ours too
            if not (folder / CHAIN_FILE).is_file():
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
