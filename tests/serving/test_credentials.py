"""Content credentials hold for exactly the bytes that were signed, and a certificate that will not do is refused."""

from __future__ import annotations

import datetime
import json
import stat
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from contracts.errors import Misuse, Transient
from serving.certificate import Identity, pair_of
from serving.credentials import Signer, Statement, _read, read_credentials, signer_of
from serving.provenance import DISCLOSURE, SOURCE_TYPE

SAID = Statement(system="loud", preset="tiny", bundle="b" * 64, audio="a" * 64, portrait="c" * 64, seed=7, frames=30)
DAY = datetime.timedelta(days=1)


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return signer_of(Identity(folder=tmp_path / "credentials"), "1.2.3")


@pytest.fixture
def signed(tmp_path: Path, signer: Signer, movie: Callable[[bytes], bytes]) -> Path:
    return sign(signer, tmp_path, movie(bytes(range(256))))


def sign(signer: Signer, folder: Path, data: bytes) -> Path:
    source, target = folder / "source.mp4", folder / "signed.mp4"
    source.write_bytes(data)
    signer.sign(source, target, SAID, SOURCE_TYPE, DISCLOSURE)
    return target


def user(folder: Path, private: Any = None, *, days: int = 30, purpose: Any = None) -> Identity:
    """Certificate files of a user, with an authority of its own in ``authority.pem``."""
    root, own = ec.generate_private_key(ec.SECP256R1()), private or ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)

    def name(organisation: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation)])

    def build(subject: str, key: Any, authority: bool) -> x509.CertificateBuilder:
        builder = x509.CertificateBuilder(name("Root"), name(subject), key.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(now - 40 * DAY).not_valid_after(now + days * DAY)
        usage = dict.fromkeys(["content_commitment", "key_encipherment", "data_encipherment", "key_agreement"], False)
        more = {"key_cert_sign": authority, "crl_sign": authority, "encipher_only": False, "decipher_only": False}
        return (
            builder.add_extension(x509.BasicConstraints(authority, None), True)
            .add_extension(x509.KeyUsage(digital_signature=not authority, **usage, **more), True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root.public_key()), False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        )

    leaf = build("A Studio", own, False).add_extension(
        x509.ExtendedKeyUsage([purpose or ExtendedKeyUsageOID.EMAIL_PROTECTION]), False
    )
    pem = [
        each.sign(root, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        for each in (leaf, build("Root", root, True))
    ]
    plain = serialization.NoEncryption()
    key = own.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    for file, data in (("chain.pem", b"".join(pem)), ("authority.pem", pem[1]), ("key.pem", key)):
        (folder / file).write_bytes(data)
    return Identity(folder=folder / "none", certificate=folder / "chain.pem", key=folder / "key.pem")


def test_what_was_said_is_read_back(signed: Path) -> None:
    found = read_credentials(signed)
    assert (found.state, found.trust) == ("valid", "test")
    assert found.statement == SAID
    assert found.source_type == "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
    assert found.generator == "voxface 1.2.3"
    assert "local test certificate" in found.detail


def test_the_standard_action_and_digest_are_there_and_no_thumbnail(signed: Path) -> None:
    import c2pa

    store = json.loads(c2pa.Reader(str(signed)).json())
    manifest = store["manifests"][store["active_manifest"]]
    assert {each["label"] for each in manifest["assertions"]} == {
        "c2pa.actions.v2",
        "c2pa.hash.bmff.v3",
        "org.voxface.generation",
    }
    (action,) = next(each for each in manifest["assertions"] if each["label"] == "c2pa.actions.v2")["data"]["actions"]
    assert action["action"] == "c2pa.created"
    assert "ingredients" not in manifest
    assert "thumbnail" not in manifest


def test_flipped_bytes_are_reported(signed: Path) -> None:
    """In file type, credentials and data alike (every fifth byte); without any sidecar to compare with."""
    data = signed.read_bytes()
    held = []
    for at in range(0, len(data), 5):
        flipped = bytearray(data)
        flipped[at] ^= 1
        if _read(BytesIO(flipped), None).state == "valid":
            held.append(at)
    assert held == []


@pytest.mark.parametrize(
    "change", [lambda data: data + b"\0", lambda data: data[:-1], lambda data: b"", bytes.swapcase]
)
def test_other_changes_are_reported(signed: Path, change: Callable[[bytes], bytes]) -> None:
    signed.write_bytes(change(signed.read_bytes()))
    assert read_credentials(signed).state in ("broken", "missing")


def test_the_test_certificate_is_made_once_and_its_key_is_private(tmp_path: Path) -> None:
    identity = Identity(folder=tmp_path)
    first = pair_of(identity)
    assert pair_of(identity) == first
    assert stat.S_IMODE((tmp_path / "test" / "key.pem").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["test"]
    assert first.key.decode() not in repr(first)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ec.generate_private_key(ec.SECP384R1()),
        ed25519.Ed25519PrivateKey.generate,
        lambda: rsa.generate_private_key(65537, 2048),
    ],
    ids=["P-384", "Ed25519", "RSA"],
)
def test_a_users_certificate_signs_and_is_trusted_by_its_authority_alone(
    tmp_path: Path, movie: Callable[[bytes], bytes], make: Callable[[], Any]
) -> None:
    video = sign(signer_of(user(tmp_path, make()), "1"), tmp_path, movie(b"frames"))
    alone = read_credentials(video)
    assert (alone.state, alone.trust, alone.signer) == ("valid", "unknown", "A Studio")
    assert read_credentials(video, (tmp_path / "authority.pem").read_bytes()).trust == "trusted"
    other = tmp_path / "other"
    other.mkdir()
    user(other)
    assert read_credentials(video, (other / "authority.pem").read_bytes()).trust == "unknown"


def test_certificates_that_will_not_do_are_refused_with_the_mend(tmp_path: Path) -> None:
    good = user(tmp_path)
    with pytest.raises(Misuse, match="belong together"):
        signer_of(good.model_copy(update={"key": None}), "1")
    with pytest.raises(Misuse, match="valid from"):
        signer_of(user(tmp_path, days=-10), "1")
    with pytest.raises(Misuse, match="no credentials can be signed"):
        signer_of(user(tmp_path, purpose=ExtendedKeyUsageOID.SERVER_AUTH), "1")
    user(tmp_path)
    key = (tmp_path / "key.pem").read_bytes()
    user(tmp_path)
    (tmp_path / "key.pem").write_bytes(key)
    with pytest.raises(Misuse, match="is not the key of"):
        signer_of(good, "1")
    (tmp_path / "key.pem").write_bytes(b"-----BEGIN PRIVATE KEY-----\n")
    with pytest.raises(Misuse, match=r"key\.pem is no private key"):
        signer_of(good, "1")
    (tmp_path / "chain.pem").write_bytes(b"none")
    with pytest.raises(Misuse, match=r"chain\.pem is no certificate"):
        signer_of(good, "1")


def test_what_is_no_movie_is_not_signed(tmp_path: Path, signer: Signer) -> None:
    with pytest.raises(Transient, match="nothing is published unsigned"):
        sign(signer, tmp_path, b"no movie")
