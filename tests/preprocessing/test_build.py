"""Rows in, samples and ledger lines out: every kind, every state, one state each."""

import errno
import os
from typing import ClassVar

import cv2
import numpy as np
import pytest

from contracts import face
from contracts.errors import Reject, Transient
from contracts.files import sha256_file
from contracts.index import account, ledger
from contracts.limits import Limits
from contracts.manifest import KINDS, row_from
from contracts.plan import PlannedRow
from contracts.reasons import Reason
from contracts.sample import EYES_MIDPOINT, Frames, decode_features, decode_meta, decode_wav
from preprocessing import build, media, sources, steps
from preprocessing.build import IngestSettings, build_row
from preprocessing.costs import Costs
from preprocessing.step import Clip, Tools


@pytest.fixture(scope="module")
def tools() -> Tools:
    return Tools()


@pytest.fixture(scope="module")
def ingest(clip_folder, tools):
    """Build the row of a file in the clip folder, with manifest values and settings changed."""

    def run(name: str, settings: IngestSettings | None = None, sha256: str = "", **values):
        row = row_from({"file": name, "speaker": "s1", "mood": "calm", **values})
        path = clip_folder / name
        planned = PlannedRow(
            row=0, shard=0, key=row.key, sha256=sha256 or sha256_file(path), bytes=path.stat().st_size, values=row
        )
        return build_row(planned, clip_folder, tools, settings or IngestSettings())

    return run


def _ended(lines) -> list:
    table = ledger(lines)  # refuses undeclared columns
    account(table).check()
    return [(line["level"], line["state"], line["reason"]) for line in lines]


@pytest.fixture(scope="module")
def talk(ingest):
    return ingest("talk.mp4", gender="f")


def test_a_clip_becomes_one_sample(talk):
    (sample,), lines = talk
    key, members = sample
    assert _ended(lines) == [("row", "kept", None), ("span", "kept", None)]
    row, span = lines
    assert key == span["key"] == f"{row['key']}-s00"
    meta = decode_meta(members["json"])
    assert (meta.kind, meta.frames, meta.side, meta.speaker, meta.gender) == ("clip", 30, span["side"], "s1", "f")
    assert (meta.start_s, meta.end_s) == (0.0, 1.2)
    assert len(decode_wav(members["wav"])) == 640 * 30
    features = decode_features(members["npz"])
    assert {name: (array.dtype.str[1:], array.shape) for name, array in features.items()} == {
        "landmarks": ("f4", (30, 478, 3)),
        "landmarks_found": ("b1", (30,)),
        "crop_from_source": ("f8", (30, 2, 3)),
        "pose": ("f4", (30, 3)),
        "gaze": ("f4", (30, 2)),
        "blink": ("f4", (30,)),
        "mouth": ("f4", (30,)),
        "mel": ("f2", (120, 80)),
    }
    assert span["found"] == 1.0
    assert span["aligned"] == 1.0
    assert row["source_frames"] == span["source_frames"] == 30
    assert row["extra.mood"] == "calm"
    assert -40 < span["loudness_dbfs"] < 0


def test_the_stored_crop_shows_the_face_where_the_landmarks_say(talk, portrait, tools):
    members = talk[0][0][1]
    frames, features = Frames(members["frames"]), decode_features(members["npz"])
    assert frames.side % 64 == 0
    for t in (0, 29):
        crop = cv2.imdecode(np.frombuffer(frames[t], np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
        assert crop.shape == (frames.side, frames.side, 3)
        tools.mesh.reset()
        points = tools.mesh.find(np.ascontiguousarray(crop))
        away = np.linalg.norm((points[:, :2] + 0.5) / frames.side - features["landmarks"][t, :, :2], axis=1)
        assert away.mean() < 0.01
        assert face.eyes_midpoint(features["landmarks"][t])[:2] == pytest.approx(EYES_MIDPOINT, abs=0.02)


def test_the_crop_can_be_pasted_back(talk, clip_folder):
    from preprocessing import media

    members = talk[0][0][1]
    frames, features = Frames(members["frames"]), decode_features(members["npz"])
    with media.decode(media.probe(clip_folder / "talk.mp4")) as decoding:
        source = list(decoding)[11].astype(float)
    crop = cv2.imdecode(np.frombuffer(frames[11], np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    back = cv2.warpAffine(
        crop, features["crop_from_source"][11], (400, 400), flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    ).astype(float)
    middle = np.s_[60:190, 140:260]  # the face
    assert np.abs(back - source)[middle].mean() < 4.0


def test_equal_rows_give_equal_bytes(talk, ingest):
    ingest("face.png")  # what came before must not matter
    assert ingest("talk.mp4", gender="f") == talk


def test_a_still_is_one_frame(ingest):
    (sample,), lines = ingest("face.png")
    assert _ended(lines) == [("row", "kept", None), ("span", "kept", None)]
    meta = decode_meta(sample[1]["json"])
    assert (meta.kind, meta.frames) == ("face", 1)
    assert set(sample[1]) == {"json", "npz", "frames"}
    assert decode_features(sample[1]["npz"])["landmarks"].shape == (1, 478, 3)


def test_speech_has_no_face(ingest):
    (sample,), lines = ingest("speech.wav")
    assert _ended(lines) == [("row", "kept", None), ("span", "kept", None)]
    assert set(sample[1]) == {"json", "wav"}
    assert decode_meta(sample[1]["json"]).frames == 0
    assert len(decode_wav(sample[1]["wav"])) == 640 * 30


def test_no_face(ingest):
    samples, lines = ingest("wall.mp4")
    assert samples == []
    assert _ended(lines) == [("row", "rejected", Reason.NO_FACE), ("span", "rejected", Reason.NO_FACE)]
    assert lines[0]["source_frames"] == 30


def test_two_faces_need_a_point(ingest):
    _, lines = ingest("two.mp4")
    assert _ended(lines)[0] == ("row", "rejected", Reason.MANY_FACES)
    assert "give face_x, face_y or box" in lines[0]["detail"]
    for x in (0.25, 0.75):
        (sample,), lines = ingest("two.mp4", face_x=x, face_y=0.3)
        assert lines[1]["faces"] >= 2
        middle = decode_features(sample[1]["npz"])["crop_from_source"][0]
        nose = np.linalg.inv(middle[:, :2]) @ (np.array(EYES_MIDPOINT) * lines[1]["side"] - middle[:, 2])
        assert nose[0] == pytest.approx(800 * x, abs=40)
    (sample,), lines = ingest("two.mp4", box="0.6 0.1 0.9 0.5")
    assert lines[1]["state"] == "kept"


def test_a_cut_makes_two_spans(ingest, clip_folder, moving, noise):
    from preprocessing.media import encode_video

    frames = [*moving(20), *noise(15, 400, 400), *(frame[:, ::-1].copy() for frame in moving(25))]
    sound = (0.3 * np.sin(np.arange(640 * 60) / 9)).astype(np.float32)
    encode_video(clip_folder / "cut.mp4", frames, sound)
    samples, lines = ingest("cut.mp4")
    assert _ended(lines) == [
        ("row", "kept", None),
        ("span", "kept", None),
        ("span", "rejected", Reason.NO_FACE),
        ("span", "kept", None),
    ]
    assert [line["frames"] for line in lines[1:]] == [20, 15, 25]
    assert [key[-3:] for key, _ in samples] == ["s00", "s02"]
    assert [line["start_s"] for line in lines[1:]] == pytest.approx([0, 0.8, 1.4])
    for (_, members), line in zip(samples, (lines[1], lines[3])):
        assert len(Frames(members["frames"])) == line["frames"]
        assert len(decode_wav(members["wav"])) == 640 * line["frames"]


def test_a_small_face_is_refused(ingest):
    _, lines = ingest("talk.mp4", IngestSettings(limits=Limits(face_px=200)))
    assert _ended(lines) == [("row", "rejected", Reason.FACE_SMALL), ("span", "rejected", Reason.FACE_SMALL)]
    assert lines[1]["face_px"] < 200


def test_short_speech_is_refused(ingest):
    _, lines = ingest("speech.wav", end_s=0.3)
    assert _ended(lines) == [("row", "rejected", Reason.TOO_SHORT)]


def test_other_bytes_than_planned(ingest):
    _, lines = ingest("talk.mp4", sha256="0" * 64)
    assert _ended(lines) == [("row", "rejected", Reason.HASH_MISMATCH)]


def test_a_change_that_was_put_back_is_seen(ingest, clip_folder, monkeypatch):
    path, real = clip_folder / "speech.wav", media.decode_sound

    def other(found, *rest, **more):
        data = path.read_bytes()
        path.write_bytes(data[:44] + bytes(len(data) - 44))
        try:
            return real(found, *rest, **more)
        finally:
            path.write_bytes(data)

    monkeypatch.setattr(media, "decode_sound", other)
    samples, lines = ingest("speech.wav")
    assert samples == []
    assert _ended(lines) == [("row", "rejected", Reason.HASH_MISMATCH)]


def test_a_change_while_decoding_is_seen(ingest, clip_folder, monkeypatch):
    monkeypatch.setattr(build, "sha256_file", lambda path: "changed")  # sources look before, build afterwards
    samples, lines = ingest("speech.wav", sha256=sha256_file(clip_folder / "speech.wav"))
    assert samples == []
    assert _ended(lines) == [("row", "rejected", Reason.HASH_MISMATCH)]


def _failing(error: OSError, times: int, real):
    """``real``, which raises ``error`` so many times first."""
    left = times

    def read(*given, **more):
        nonlocal left
        left -= 1
        if left >= 0:
            raise error
        return real(*given, **more)

    return read


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.ESTALE])
def test_a_disk_that_fails_stops_the_run_and_blames_no_clip(ingest, clip_folder, monkeypatch, number):
    """Before, while and after the source is decoded; the last also where a decoder took what it got for damage."""
    digest, error = sha256_file(clip_folder / "speech.wav"), OSError(number, os.strerror(number))
    damage = Reject(Reason.DECODE_ERROR, "what a decoder says of half a file")
    monkeypatch.setattr(sources, "WAIT_S", 0.001)
    for module, name in ((sources, "sha256_file"), (media, "decode_sound"), (build, "sha256_file")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, _failing(error, 99, None))
            with pytest.raises(Transient, match=r"speech\.wav cannot be read: .*: look at its disk"):
                ingest("speech.wav", sha256=digest)
    with monkeypatch.context() as patch:
        patch.setattr(media, "decode_sound", _failing(damage, 1, None))
        assert _ended(ingest("speech.wav")[1]) == [("row", "rejected", Reason.DECODE_ERROR)]
        patch.setattr(media, "decode_sound", _failing(damage, 1, None))
        patch.setattr(build, "sha256_file", _failing(error, 1, None))
        with pytest.raises(Transient):
            ingest("speech.wav", sha256=digest)


def test_a_disk_that_fails_once_is_read_again(ingest, clip_folder, monkeypatch):
    digest = sha256_file(clip_folder / "speech.wav")
    monkeypatch.setattr(sources, "WAIT_S", 0.001)
    monkeypatch.setattr(sources, "sha256_file", _failing(OSError(errno.EIO, "x"), 2, sha256_file))
    assert _ended(ingest("speech.wav", sha256=digest)[1])[0] == ("row", "kept", None)


def test_a_file_that_goes_while_it_is_decoded(ingest, clip_folder, monkeypatch):
    data = (clip_folder / "speech.wav").read_bytes()
    (clip_folder / "going.wav").write_bytes(data)

    def gone(path, *_, **__):
        path.unlink()
        return path.stat()

    monkeypatch.setattr(media, "decode_sound", gone)
    assert _ended(ingest("going.wav")[1]) == [("row", "rejected", Reason.HASH_MISMATCH)]


def test_our_own_errors_are_failures_with_a_traceback(ingest, monkeypatch):
    def broken(*_):
        raise ZeroDivisionError("a fault of ours")

    monkeypatch.setattr(steps, "align", broken)
    samples, lines = ingest("face.png")
    assert samples == []
    assert _ended(lines) == [("row", "failed", "INTERNAL")]
    assert "ZeroDivisionError: a fault of ours" in lines[0]["detail"]


def test_a_full_disk_stops_the_run(ingest, monkeypatch):
    def full(*_):
        raise Transient("NO_SPACE: /somewhere")

    monkeypatch.setattr(steps, "align", full)
    with pytest.raises(Transient):
        ingest("face.png")


def test_a_row_refused_in_planning_keeps_its_reason(tools, tmp_path):
    row = row_from({"file": "gone.mp4"})
    planned = PlannedRow(row=3, shard=0, key=row.key, reason=Reason.MISSING_FILE, detail="not there", values=row)
    samples, lines = build_row(planned, tmp_path, tools, IngestSettings())
    assert (samples, _ended(lines)) == ([], [("row", "rejected", Reason.MISSING_FILE)])


def _digests(settings: IngestSettings) -> tuple[str, ...]:
    return tuple(settings.steps_digest(kind) for kind in KINDS)


def _changed(before: tuple[str, ...], after: tuple[str, ...]) -> set[str]:
    return {kind for kind, old, new in zip(KINDS, before, after) if old != new}


def test_the_steps_digest_knows_what_shapes_a_sample(monkeypatch):
    digests = _digests(IngestSettings())
    assert _digests(IngestSettings(rows_per_shard=8)) == digests
    assert _changed(digests, _digests(IngestSettings(jpeg_quality=90))) == {"clip", "face", "speech"}
    assert _changed(digests, _digests(IngestSettings(limits=Limits(face_px=32)))) == {"clip", "face"}
    assert _changed(digests, _digests(IngestSettings(limits=Limits(still_pixels=1000)))) == {"face"}
    assert _changed(digests, _digests(IngestSettings(limits=Limits(duration_s=60)))) == {"clip", "speech"}
    for step, kinds in ((steps.Align, {"clip", "face"}), (steps.Look, {"face"}), (steps.Listen, {"speech"})):
        with monkeypatch.context() as patch:
            patch.setattr(step, "version", step.version + 1)
            assert _changed(digests, _digests(IngestSettings())) == kinds


class Spying(Limits):
    """Limits that know which of them were read."""

    read: ClassVar[set[str]] = set()

    def __getattribute__(self, name):
        if name in Limits.model_fields:
            Spying.read.add(name)
        return super().__getattribute__(name)


@pytest.mark.parametrize("name", ["talk.mp4", "face.png", "speech.wav"])
def test_a_step_reads_no_limit_that_it_does_not_name(name, clip_folder, tools):
    row = row_from({"file": name})
    path = clip_folder / name
    planned = PlannedRow(row=0, shard=0, key=row.key, sha256=sha256_file(path), bytes=path.stat().st_size, values=row)
    todo = build.steps(tools, IngestSettings(limits=Spying()))
    spans = [Clip(planned, path)]
    for step in todo:
        if row.kind in step.kinds:
            Spying.read.clear()
            spans = [each for span in spans for each in step(span)]
            assert Spying.read <= step.reads, type(step).__name__
    spans[0].close()


def test_every_setting_is_named_by_a_step():
    named = frozenset().union(*(step.reads for step in build.STEPS))
    sources = {"fetched_bytes"}  # of a file on its way here, before any step
    assert named == {*Limits.model_fields, "jpeg_quality"} - sources


def test_what_each_step_costs_is_told(clip_folder, tools):
    costs = Costs()
    row = row_from({"file": "talk.mp4"})
    path = clip_folder / "talk.mp4"
    planned = PlannedRow(row=0, shard=0, key=row.key, sha256=sha256_file(path), bytes=path.stat().st_size, values=row)
    build_row(planned, clip_folder, tools, IngestSettings(), costs)
    spent = costs.take()
    assert list(spent) == ["hashing", "Watch", "Align", "Measure", "Store"]
    assert spent["Watch"].cpu_s > 0.01  # detectors, and ffmpeg in its own process
    assert costs.take() == {}
