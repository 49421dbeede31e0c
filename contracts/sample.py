"""A sample: what one talking-face clip is, member by member, and how frames are packed."""

from __future__ import annotations

import io
import json
import math
import struct
import tokenize
import wave
import zipfile
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from contracts.settings import canonical_json

FPS = 25
SAMPLE_RATE = 16_000
SAMPLES_PER_FRAME = SAMPLE_RATE // FPS  # 640
LANDMARKS = 478

# Where alignment puts a face in the stored crop, as fractions of its side.
EYES_MIDPOINT = (0.5, 0.42)
EYES_DISTANCE = 0.22  # between the eye centres of a face seen from the front: leaves a margin all round

MEMBERS = ("frames", "json", "npz", "wav")  # order inside the tar
# what zipfile and numpy raise over bytes that are none of theirs, beside ValueError
UNREADABLE = (zipfile.BadZipFile, tokenize.TokenError, struct.error, SyntaxError, RuntimeError, EOFError, MemoryError)
FRAMES_MAGIC = b"VXFRAME1"
FRAMES_HEADER = struct.Struct("<8sIHH")  # magic, count, side, reserved
ZIP_HEADER = struct.Struct("<4s5H3L2H")  # before each member of a zip, which .npz is; the last two: of name and extras
HEADER_MOST = 70_000  # bytes of an .npy file's header: numpy writes its length in 16 bits
ZIP_TAIL = 8192  # bytes at a zip's end in which its directory lies
WAV_HEADER = 44  # bytes, as encode_wav writes it


class Meta(BaseModel):
    """The ``.json`` member: everything about a sample that is not an array."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: str
    kind: Literal["clip", "face", "speech"]
    frames: int  # T; round(25 * seconds); 1 for a face, 0 for speech
    side: int  # of the stored crop, pixels; 0 for speech
    fps: int = FPS
    sample_rate: int = SAMPLE_RATE
    corpus: str
    native_id: str
    file: str
    source_sha256: str
    start_s: float  # of the span, on the container's clock
    end_s: float
    source_width: int = 0
    source_height: int = 0
    speaker: str | None = None
    gender: str = "unknown"
    age: float | None = None
    language: str | None = None
    licence: str | None = None
    consent: str | None = None
    split: str | None = None
    steps: str = ""  # digest of the steps that made it


class Features(dict[str, np.ndarray]):
    """The ``.npz`` member. Arrays by name (T frames; absent where the kind has none):

    ``landmarks`` float32 [T, 478, 3]: mediapipe points in the stored crop, x and y in 0..1
    (z in the same unit, relative); ``landmarks_found`` bool [T]: false where they were
    interpolated; ``crop_from_source`` float64 [T, 2, 3]: affine, source pixels (pixel centres at integer
    coordinates) to crop pixels (which system sees which view of the crop, and the way back to the source:
    preprocessing/views.py); ``pose`` float32 [T, 3]: yaw, pitch, roll in degrees;
    ``gaze`` float32 [T, 2]: irises between the corners of the eyes, across and down, 0 the middle;
    ``blink`` float32 [T]: eye opening over eye width; ``mouth`` float32 [T]: lip opening over
    the distance of the eyes; ``mel`` float16 [4 T, 80]: log-mel, hop 10 ms.
    """


def encode(
    meta: Meta, features: dict[str, np.ndarray], audio: np.ndarray | None, jpegs: Sequence[bytes]
) -> dict[str, bytes]:
    """Return the members of one sample by extension; equal inputs give equal bytes.

    ``audio`` is int16 [640 T]; ``jpegs`` one image of ``meta.side`` pixels per frame.
    """
    members = {"json": canonical_json(meta.model_dump(mode="json")).encode()}
    if features:
        if any(array.dtype.hasobject for array in features.values()):
            raise ValueError("features must be plain arrays: objects would be pickled")
        buffer = io.BytesIO()
        # numpy 1.26 would store its option allow_pickle as one more array
        np.savez(buffer, **{name: features[name] for name in sorted(features)})
        members["npz"] = buffer.getvalue()
    if audio is not None:
        members["wav"] = encode_wav(audio)
    if jpegs:
        members["frames"] = pack_frames(jpegs, meta.side)
    return members


def decode_meta(data: bytes) -> Meta:
    """Parse the ``.json`` member. Raises ``ValueError`` where it is not one."""
    return Meta.model_validate(json.loads(data))


def decode_features(data: bytes, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """Read arrays (all, or ``names`` alone) from the ``.npz`` member, never unpickling.

    Raises ``ValueError`` for what is no such member and ``KeyError`` for a name that it has not, before anything
    larger than the member is allocated: ``numpy.load`` would allocate what a header claims.
    """
    try:
        with _zip(data) as archive:
            infos = _stored(archive, len(data))
            found = {name: _array(name, archive.read(infos[name])) for name in (infos if names is None else names)}
            return {name: array.copy() for name, array in found.items()}  # frombuffer's may not be written to
    except UNREADABLE as error:
        raise ValueError(f"not a readable npz: {error}") from error


def view_features(data: memoryview, name: str) -> np.ndarray:
    """One array of the ``.npz`` member where it lies: of a mapped file only the pages that are touched are read.

    Nobody looks at the zip's checksum: the shard's digest vouches for the bytes. Raises as :func:`decode_features`.
    """
    try:
        tail = data[-ZIP_TAIL:]
        with _zip(tail) as archive:
            info = _stored(archive, len(data))[name]
            place = info.header_offset + len(data) - len(tail)
            *_, named, more = ZIP_HEADER.unpack_from(data, place)
            first = place + ZIP_HEADER.size + named + more
            return _array(name, data[first : first + info.file_size])
    except UNREADABLE as error:
        raise ValueError(f"not a readable npz: {error}") from error


def _zip(data: bytes | memoryview) -> zipfile.ZipFile:
    return zipfile.ZipFile(io.BytesIO(data))


def _stored(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """The arrays' places by name. Raises ``ValueError`` where one is not simply stored."""
    infos = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    for name, info in infos.items():
        if info.compress_type != zipfile.ZIP_STORED or info.file_size > size:
            raise ValueError(f"{name!r} is compressed, or larger than the file that it is in")
    return infos


def _array(name: str, data: bytes | memoryview) -> np.ndarray:
    """The array of an ``.npy`` file, on its bytes; its header is believed only as far as there are bytes."""
    file = io.BytesIO(data[:HEADER_MOST])
    form: Any = np.lib.format  # without types of its own
    read = form.read_array_header_1_0 if form.read_magic(file) == (1, 0) else form.read_array_header_2_0
    shape, columns_first, kind = read(file)
    count = math.prod(shape)
    if kind.hasobject:
        raise ValueError(f"{name!r} has objects, which would have to be unpickled")
    if count < 0 or count * kind.itemsize != len(data) - file.tell():
        raise ValueError(f"{name!r} claims {kind} {list(shape)}, which its bytes are not")
    array: np.ndarray = np.frombuffer(data, kind, count, file.tell())
    return array.reshape(shape, order="F" if columns_first else "C")


def encode_wav(audio: np.ndarray) -> bytes:
    """WAV bytes of int16 mono samples [N] at 16 kHz."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(np.ascontiguousarray(audio, dtype="<i2").tobytes())
    return buffer.getvalue()


def decode_wav(data: bytes) -> np.ndarray:
    """Float32 samples [N] in [-1, 1) of the ``.wav`` member. Raises ``ValueError`` where it is none."""
    try:
        with wave.open(io.BytesIO(data)) as file:
            return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768.0
    except (wave.Error, EOFError) as error:
        raise ValueError(f"wav member: {error}") from None


def view_wav(data: memoryview) -> np.ndarray:
    """Int16 samples [N] of the ``.wav`` member where they lie. Raises ``ValueError``."""
    head = bytes(data[:WAV_HEADER])
    if head[:4] != b"RIFF" or head[36:] != b"data" + (len(data) - WAV_HEADER).to_bytes(4, "little"):
        raise ValueError("not a wav member as we write them")
    return np.frombuffer(data, "<i2", offset=WAV_HEADER)


def pack_frames(jpegs: Sequence[bytes], side: int) -> bytes:
    """The ``.frames`` member: header, offsets, then one JPEG per frame, so that any frame decodes alone."""
    offsets = np.concatenate([[0], np.cumsum([len(image) for image in jpegs])]).astype("<u8")
    header = FRAMES_HEADER.pack(FRAMES_MAGIC, len(jpegs), side, 0)
    return b"".join([header, offsets.tobytes(), *jpegs])


class Frames(Sequence[bytes]):
    """Read single JPEGs out of a ``.frames`` member without touching the others.

    Raises ``ValueError`` where the header or the offsets do not fit the data.
    """

    def __init__(self, data: bytes | memoryview) -> None:
        if len(data) < FRAMES_HEADER.size:
            raise ValueError("frames member is too short")
        magic, count, self.side, _ = FRAMES_HEADER.unpack_from(data)
        self._start = FRAMES_HEADER.size + 8 * (count + 1)
        if magic != FRAMES_MAGIC or self._start > len(data):
            raise ValueError("not a frames member")
        self._offsets = np.frombuffer(data, "<u8", count + 1, FRAMES_HEADER.size).astype(np.int64)
        if self._offsets[0] != 0 or (np.diff(self._offsets) <= 0).any() or self._start + self._offsets[-1] != len(data):
            raise ValueError("frame offsets do not fit the data")
        self._data = data

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        first, end = self._offsets[index : index + 2].tolist()
        return self._data[self._start + first : self._start + end]
