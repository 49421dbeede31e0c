"""Content credentials (C2PA): a signed statement inside the mp4 of what made it, written, and read back strictly."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Literal

from pydantic import BaseModel, ConfigDict

from contracts.errors import Misuse, Transient
from contracts.settings import Settings
from serving.certificate import TEST_ORGANISATION, Identity, Pair, pair_of

LABEL = "org.voxface.generation"  # our assertion, beside C2PA's own
MIME = "video/mp4"
UNHASHED = (b"ftyp", b"free", b"skip", b"mfra")  # boxes that c2pa.hash.bmff leaves out; we hash them ourselves
STORE = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")  # the uuid of the box that holds the credentials
STORE_HEAD = bytes(4) + b"manifest\0" + bytes(8)  # version and flags, purpose, no Merkle tree
TYPE_END = bytes.fromhex("00110010800000aa00389b71")  # of every type of box in the store, after its four letters
TYPES = {  # labels that follow from a type, and are not signed
    b"c2pa": b"c2pa\0",
    b"c2as": b"c2pa.assertions\0",
    b"c2cl": b"c2pa.claim.v2\0",
    b"c2cs": b"c2pa.signature\0",
}
STORE_LIMIT = 2**24  # bytes; a store has a few thousand
CHUNK = 1 << 20
# nothing is asked of a network, neither on writing nor on reading a stranger's file
OFFLINE: dict[str, Any] = {
    "verify": {"ocsp_fetch": False, "remote_manifest_fetch": False},
    "builder": {"thumbnail": {"enabled": False}},
}


class Statement(Settings):
    """Our own assertion: digests of what made the video, and nothing about people (no consent, no file names)."""

    system: str
    preset: str
    bundle: str  # digest
    audio: str  # SHA-256 of the sound file
    portrait: str | None = None  # SHA-256 of the portrait file
    video: str | None = None  # SHA-256 of the video file that was dubbed
    seed: int
    steps: int | None = None
    size: int | None = None
    frames: int


class Credentials(BaseModel):
    """What a file's credentials say, and whether they hold. ``valid`` is about bytes and signature, not about who."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    state: Literal["valid", "missing", "broken"]
    detail: str
    signer: str | None = None  # organisation and name of the certificate
    trust: Literal["test", "trusted", "unknown"] | None = None  # test: the local certificate, which proves nobody
    generator: str | None = None  # name and version
    source_type: str | None = None  # IPTC's digital source type
    statement: Statement | None = None  # none: the credentials are another program's


@dataclass
class Signer:
    """Signs videos with one certificate; checked when it is made, so that a bad one is found before any rendering."""

    pair: Pair
    version: str  # of voxface

    def __post_init__(self) -> None:
        movie = _box(b"ftyp", b"isom\0\0\2\0isomiso2mp41") + _box(b"mdat", b"\0")
        nothing = Statement(system="", preset="", bundle="", audio="", seed=0, frames=0)
        try:
            target = BytesIO()
            self._write(BytesIO(movie), target, nothing, "", "")
            found = _read(target, None)
        except Exception as error:
            raise Misuse(f"{self.pair.place}: no credentials can be signed with this certificate: {error}") from error
        if found.state != "valid":
            raise Misuse(f"{self.pair.place}: what this certificate signs is not valid: {found.detail}")

    def sign(self, source: Path, target: Path, statement: Statement, source_type: str, disclosure: str) -> None:
        """Write ``source`` (mp4) with credentials to ``target`` and read them back.

        Raises ``Transient`` where the signer fails or what it signed does not hold: the input is not at fault.
        """
        try:
            with source.open("rb") as file, target.open("w+b") as signed:
                self._write(file, signed, statement, source_type, disclosure)
            found = read_credentials(target)
        except OSError:
            raise
        except Exception as error:
            raise Transient(f"SIGNER: {self.pair.place}: nothing is published unsigned: {error}") from error
        if found.state != "valid" or found.statement != statement:
            raise Transient(f"SIGNER: {self.pair.place}: nothing is published unsigned: {found.detail}")

    def _write(self, source: Any, target: Any, statement: Statement, source_type: str, disclosure: str) -> None:
        import c2pa

        name = {"name": "voxface", "version": self.version}
        created = {
            "action": "c2pa.created",
            "digitalSourceType": source_type,
            "softwareAgent": name,
            "description": disclosure,
        }
        said = statement.model_dump(mode="json", exclude_none=True) | {"unhashed": _unhashed(source)}
        manifest = {
            "claim_generator_info": [name],
            "title": "talking face",  # never the file's name, which may be somebody's
            "assertions": [
                {"label": "c2pa.actions", "data": {"actions": [created]}},
                {"label": LABEL, "data": said},
            ],
        }
        source.seek(0)
        info = c2pa.C2paSignerInfo(self.pair.algorithm, self.pair.chain, self.pair.key, None)
        with c2pa.Context.from_dict(OFFLINE) as context, c2pa.Signer.from_info(info) as signer:
            c2pa.Builder(manifest, context=context).sign(signer, MIME, source, target)


def signer_of(identity: Identity, version: str) -> Signer:
    """A signer with the user's certificate, or with a test certificate that is made once in the identity's folder.

    Raises ``Misuse`` where the files are missing, do not belong together, have lapsed, or are not for signing media.
    """
    return Signer(pair_of(identity), version)


def read_credentials(video: Path, anchors: bytes | None = None) -> Credentials:
    """The credentials of ``video``; ``anchors`` (PEM) are the authorities whose certificates are trusted.

    Any byte of the file that was changed makes them broken (or missing, where the change hides them).
    """
    with video.open("rb") as file:
        return _read(file, anchors)


def _read(file: BinaryIO, anchors: bytes | None) -> Credentials:
    import c2pa

    settings = {**OFFLINE, "verify": {**OFFLINE["verify"], "verify_trust": anchors is not None}}
    if anchors is not None:
        settings["trust"] = {"trust_anchors": anchors.decode()}
    file.seek(0)
    try:
        with c2pa.Context.from_dict(settings) as context, c2pa.Reader(MIME, file, context=context) as reader:
            store, validity = json.loads(reader.json()), str(reader.get_validation_state())
    except c2pa.C2paError.ManifestNotFound:
        return Credentials(state="missing", detail="no content credentials: nothing in the file says what made it")
    except c2pa.C2paError as error:
        return Credentials(state="broken", detail=f"the content credentials cannot be read: {error}")
    try:
        return _judged(file, store, validity)
    except (LookupError, TypeError, AttributeError, ValueError) as error:  # a store that is damaged, or hostile
        return Credentials(state="broken", detail=f"the content credentials are not of the standard's form: {error!r}")


def _judged(file: BinaryIO, store: dict[str, Any], validity: str) -> Credentials:
    """What the reader's findings mean. A store of another form raises anything that its parsing may."""
    manifest = store["manifests"][store["active_manifest"]]
    told = _told(manifest)
    faults = store.get("validation_results", {}).get("activeManifest", {}).get("failure", [])
    codes = sorted({fault["code"] for fault in faults} - {"signingCredential.untrusted"})
    if validity == "Invalid" or codes:
        return Credentials(state="broken", detail=f"the content credentials do not hold: {', '.join(codes)}", **told)
    said = next((each["data"] for each in manifest["assertions"] if each["label"] == LABEL), None)
    if said is not None:
        unhashed = said.pop("unhashed", None)
        told["statement"] = Statement.model_validate(said)
        if unhashed != _unhashed(file):
            return Credentials(state="broken", detail="the file's header is not the one that was signed", **told)
        if not _neat(file):
            return Credentials(state="broken", detail="the box of the content credentials was changed", **told)
    told["trust"] = _trust(manifest, trusted=validity == "Trusted")
    return Credentials(state="valid", detail=_sentence(told), **told)


def _told(manifest: dict[str, Any]) -> dict[str, Any]:
    info = manifest.get("claim_generator_info") or [{}]
    signature = manifest.get("signature_info") or {}
    names = [signature.get("issuer"), signature.get("common_name")]
    actions = [
        action
        for each in manifest.get("assertions", [])
        if each["label"].startswith("c2pa.actions")
        for action in each["data"].get("actions", [])
    ]
    types = [action["digitalSourceType"] for action in actions if "digitalSourceType" in action]
    return {
        "signer": ", ".join(name for name in names if name) or None,
        "generator": " ".join(filter(None, [info[0].get("name"), info[0].get("version")])) or None,
        "source_type": types[0] if types else None,
    }


def _trust(manifest: dict[str, Any], *, trusted: bool) -> Literal["test", "trusted", "unknown"]:
    if (manifest.get("signature_info") or {}).get("issuer") == TEST_ORGANISATION:
        return "test"
    return "trusted" if trusted else "unknown"


def _sentence(told: dict[str, Any]) -> str:
    worth = {
        "test": "a local test certificate: the file is unchanged, but this proves nothing about who made it",
        "trusted": f"{told['signer']}, whose authority is trusted",
        "unknown": f"{told['signer']}, whose authority is on no list that was given",
    }
    return f"signed by {worth[told['trust']]}"


def _box(kind: bytes, content: bytes) -> bytes:
    return (len(content) + 8).to_bytes(4, "big") + kind + content


def _boxes(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and size of each top-level box (ISO/IEC 14496-12, 4.2), as far as they can be followed."""
    size = file.seek(0, 2)
    at = 0
    while at + 8 <= size:
        file.seek(at)
        head = file.read(16)
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:], "big")
        length = length or size - at
        if length < 8 or at + length > size:
            return
        yield head[4:8], at, length
        at += length


def _unhashed(file: BinaryIO) -> str:
    """SHA-256 of the boxes that the standard's own hash leaves out."""
    digest = hashlib.sha256()
    for kind, at, length in _boxes(file):
        if kind in UNHASHED:
            file.seek(at)
            while length:
                data = file.read(min(length, CHUNK))
                digest.update(data)
                length -= len(data)
    return digest.hexdigest()


def _neat(file: BinaryIO) -> bool:
    """Whether what the standard leaves unsigned in the box of the credentials is as it is always written.

    That are the box's header, the boxes' types (ISO/IEC 19566-5) and the room that the signature did not need.
    """
    for kind, at, length in _boxes(file):
        file.seek(at + 8)
        if kind != b"uuid" or file.read(16) != STORE or length > STORE_LIMIT:
            continue
        data = file.read(length - 24)
        if not data.startswith(STORE_HEAD) or not _nested(data, len(STORE_HEAD), len(data)):
            return False
        found = data.rfind(b"\x63pad")  # in COSE's unprotected header: a text of three letters, then bytes
        if found < 0:
            return False
        head, rest = data[found + 4], data[found + 5 :]
        width = {0x58: 1, 0x59: 2, 0x5A: 4}.get(head, 0)
        count = int.from_bytes(rest[:width], "big") if width else head - 0x40
        pad = rest[width : width + count]
        if len(pad) != count or pad.strip(b"\0") or rest[width + count : width + count + 1] != b"\xf6":  # no payload
            return False
    return True


def _nested(data: bytes, at: int, end: int) -> bool:
    """Whether the boxes from ``at`` fill the room until ``end`` exactly, to the innermost, with known types."""
    while at < end:
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if length < 8 or at + length > end:
            return False
        if kind == b"jumb" and not _nested(data, at + 8, at + length):
            return False
        if kind == b"jumd":
            named = TYPES.get(data[at + 8 : at + 12])
            if data[at + 12 : at + 24] != TYPE_END or named not in (None, data[at + 25 : at + length]):
                return False
        at += length
    return at == end
