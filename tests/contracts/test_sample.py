"""Members of a sample: read back as written, equal bytes for equal inputs, damage named."""

from __future__ import annotations

import io

import numpy as np
import pytest

from contracts.sample import (
    Frames,
    Meta,
    decode_features,
    decode_meta,
    decode_wav,
    encode,
    encode_wav,
    pack_frames,
)


def meta() -> Meta:
    return Meta(
        key="k-s00", kind="clip", frames=2, side=64, corpus="c", native_id="n", file="f", source_sha256="0", start_s=0,
        end_s=0.08,
    )  # fmt: skip


def test_members_are_read_back() -> None:
    features = {"mouth": np.array([0.5, 1.0], np.float32), "blink": np.zeros(2, np.float32)}
    audio = np.array([0, 16384, -32768], np.int16)
    members = encode(meta(), features, audio, [b"one", b"three"])
    assert decode_meta(members["json"]) == meta()
    assert decode_features(members["npz"])["mouth"].tolist() == [0.5, 1.0]
    assert decode_features(members["npz"], ["blink"]).keys() == {"blink"}
    assert decode_wav(members["wav"]).tolist() == [0.0, 0.5, -1.0]
    frames = Frames(members["frames"])
    assert (frames[0], frames[-1], frames[0:2], len(frames), frames.side) == (
        b"one",
        b"three",
        [b"one", b"three"],
        2,
        64,
    )


def test_equal_inputs_give_equal_bytes() -> None:
    values = {"b": np.arange(3.0), "a": np.arange(2.0)}
    turned = dict(reversed(values.items()))
    assert encode(meta(), values, None, []) == encode(meta(), turned, None, [])


def test_a_face_has_no_sound_and_speech_no_frames() -> None:
    assert encode(meta(), {}, None, [b"x"]).keys() == {"json", "frames"}
    assert encode(meta(), {}, np.zeros(1, np.int16), []).keys() == {"json", "wav"}


@pytest.mark.parametrize("cut", [0, 5, 15, 20, 39, 41, 43])
def test_a_torn_frames_member_is_noticed(cut: int) -> None:
    whole = pack_frames([b"abc", b"defg"], 64)
    assert cut < len(whole)
    with pytest.raises(ValueError, match="frame"):
        Frames(whole[:cut])


def test_an_index_beyond_the_end_is_an_error() -> None:
    with pytest.raises(IndexError):
        Frames(pack_frames([b"a"], 64))[1]


def test_pickles_are_not_read() -> None:
    buffer = io.BytesIO()
    np.savez(buffer, evil=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="pickle"):
        decode_features(buffer.getvalue())


@pytest.mark.parametrize("data", [b"", b"RIFF", b"no sound at all, and that for 44 bytes or more"])
def test_what_is_no_wav_is_said_so(data: bytes) -> None:
    with pytest.raises(ValueError, match="wav member"):
        decode_wav(data)


def test_wav_is_16_khz_mono() -> None:
    data = encode_wav(np.zeros(640, np.int16))
    assert data[:4] == b"RIFF"
    assert int.from_bytes(data[24:28], "little") == 16_000
