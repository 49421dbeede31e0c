"""The demo corpus: voices that repeat, faces that detectors find, mouths that follow the sound, mended files."""

import csv
import hashlib
import json
import subprocess
import sys

import cv2
import numpy as np
import pytest

from contracts.errors import Misuse
from contracts.face import eye_opening, mouth_opening
from contracts.manifest import row_from
from contracts.reasons import Reason
from preprocessing.demo import make_demo_corpus, scene
from preprocessing.demo.cast import SENTENCES, cast
from preprocessing.demo.motion import Motion, loudness, move
from preprocessing.demo.voice import Voice, speak
from preprocessing.demo.warp import Field

SAYING = "Bob moved five maps."
VOICE = Voice("en-us", "f2", 60, 60, 165)


def digest(sound):
    return hashlib.sha256(sound.tobytes()).hexdigest()


def still(**values):
    """A motion of one frame at rest, but for ``values``."""
    every = dict.fromkeys(Motion.__dataclass_fields__, 0.0) | values
    return Motion(**{name: np.array([value]) for name, value in every.items()})


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A demo corpus of one speaker and two sentences."""
    out = tmp_path_factory.mktemp("demo") / "corpus"
    make_demo_corpus(out, speakers=1, sentences=2)
    return out


def lines(corpus):
    with (corpus / "manifest.csv").open(newline="") as file:
        return list(csv.DictReader(file))


class TestVoice:
    def test_the_same_words_give_the_same_samples_whatever_was_said_before(self):
        first = speak(SAYING, VOICE)
        speak("Something else altogether.", Voice("en", "m3", 30, 40, 140))
        again = speak(SAYING, VOICE)
        assert digest(first.sound) == digest(again.sound)
        assert first.phonemes == again.phonemes

    def test_a_new_process_says_the_same(self):
        code = (
            "import hashlib; from preprocessing.demo.voice import Voice, speak;"
            f"print(hashlib.sha256(speak({SAYING!r}, {VOICE!r}).sound.tobytes()).hexdigest())"
        )
        told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert told.stdout.strip() == digest(speak(SAYING, VOICE).sound)

    def test_phonemes_are_in_order_and_inside_the_sound(self):
        said = speak(SAYING, VOICE)
        starts = [start for start, _ in said.phonemes]
        assert starts == sorted(starts)
        assert 0 <= starts[0] < starts[-1] <= said.seconds
        assert {"b", "m", "f", "v", "p"} <= {name for _, name in said.phonemes}

    def test_voices_differ_and_are_neither_silent_nor_clipped(self):
        sounds = [speak(SAYING, person.voice).sound for person in cast(12, 0)]
        assert len({digest(sound) for sound in sounds}) == 12
        assert all(0.1 < np.abs(sound).max() < 1.0 for sound in sounds)

    def test_an_unknown_voice_is_named(self):
        with pytest.raises(RuntimeError, match="xx-none"):
            speak(SAYING, Voice("xx-none", "f2", 50, 50, 160))


class TestCast:
    def test_twelve_people_half_of_them_women(self):
        people = cast(12, 0)
        assert len({person.name for person in people}) == 12
        assert sorted(person.gender for person in people) == ["f"] * 6 + ["m"] * 6

    def test_more_people_can_be_mixed_and_stay_the_same(self):
        assert cast(15, 3) == cast(15, 3)
        assert cast(15, 3)[12:] != cast(15, 4)[12:]
        assert len({person.name for person in cast(15, 3)}) == 15

    def test_sentences_last_two_and_a_half_to_four_seconds(self):
        people = cast(12, 0)
        seconds = []
        for index, text in enumerate(SENTENCES):
            said = scene.spoken(text, people[index // 3].voice, np.random.default_rng(0))
            seconds.append(said.seconds)
        assert min(seconds) >= 2.5
        assert max(seconds) <= 4.0


class TestMotion:
    def test_lips_close_on_m_b_and_p(self):
        said = scene.spoken(SAYING, VOICE, np.random.default_rng(0))
        motion = move(said, 100, np.random.default_rng(1))
        for start, name in said.phonemes:
            if name == "m":
                assert motion.press[round((start + 0.03) * 100)] > 0.5

    def test_frames_fit_the_sound_at_any_rate(self):
        said = scene.spoken(SAYING, VOICE, np.random.default_rng(0))
        for fps in (24, 25, 30000 / 1001, 30):
            assert len(move(said, fps, np.random.default_rng(1))) == round(said.seconds * fps)

    def test_every_clip_has_a_blink_that_shuts(self):
        said = scene.spoken(SAYING, VOICE, np.random.default_rng(0))
        assert all(move(said, 25, np.random.default_rng(seed)).blink.max() > 0.8 for seed in range(20))

    def test_loudness_is_zero_in_silence_and_one_in_speech(self):
        sound = np.concatenate([np.zeros(8000), np.sin(np.arange(16000) * 0.1)]).astype(np.float32)
        level = loudness(sound)
        assert level[:70].max() == 0.0
        assert level[110:].min() > 0.9


class TestWarp:
    def test_points_land_on_their_sources(self):
        rng = np.random.default_rng(0)
        targets = rng.uniform(0, 100, (20, 2))
        sources = targets + rng.uniform(-4, 4, (20, 2))
        found = Field(targets, sources).at(*targets.T.astype(np.float32))
        assert np.abs(found - sources).max() < 0.75  # they give way a little where they contradict each other

    def test_an_affine_map_is_exact_everywhere(self):
        targets = np.random.default_rng(0).uniform(0, 100, (20, 2))
        sources = targets @ np.array([[1.1, 0.1], [-0.2, 0.9]]) + (3, -5)
        field = Field(targets, sources).over(64, 48, x0=10, y0=20)
        assert field.shape == (48, 64, 2)
        assert field[0, 0] == pytest.approx(
            np.array([10, 20]) @ np.array([[1.1, 0.1], [-0.2, 0.9]]) + (3, -5), abs=0.01
        )


class TestFaces:
    def test_detectors_find_everybody_and_mouth_follows_the_sound(self):
        import dlib
        import mediapipe

        hog = dlib.get_frontal_face_detector()
        for index in (1, 5):  # the fullest beard, the darkest skin
            person = cast(12, 0)[index]
            rng = np.random.default_rng([0, index])
            said = scene.spoken(SAYING, person.voice, rng)
            motion = move(said, 25, rng, person.vigour)
            mesh = mediapipe.solutions.face_mesh.FaceMesh(refine_landmarks=True)
            points = []
            for t, frame in enumerate(scene.performer(person, 0).frames(motion)):
                faces = mesh.process(frame).multi_face_landmarks
                assert faces, f"{person.name}: no mesh in frame {t}"
                points.append([(p.x * 512, p.y * 512, p.z * 512) for p in faces[0].landmark])
                if t % 16 == 0:
                    assert len(hog(frame, 0)) == 1, f"{person.name}: HOG in frame {t}"
            mesh.close()
            mouth, eyes = mouth_opening(np.array(points)), eye_opening(np.array(points))
            sound = np.pad(said.sound, (0, 640))[: 640 * len(mouth)]
            energy = np.sqrt((sound.reshape(-1, 640) ** 2).mean(axis=1))
            fits = {d: np.corrcoef(mouth[2 + d : len(mouth) - 2 + d], energy[2:-2])[0, 1] for d in range(-2, 3)}
            assert max(fits.values()) > 0.4, fits
            assert mouth.max() > 0.15 > 0.06 > mouth.min()
            assert eyes.min() < 0.6 * np.median(eyes)

    def test_speakers_do_not_look_alike(self):
        small = []
        for index in (0, 1, 5):
            frame = scene.performer(cast(12, 0)[index], 0).frame(still(), 0)
            small.append(cv2.resize(frame, (32, 32), interpolation=cv2.INTER_AREA).astype(float))
        gaps = [np.abs(a - b).mean() for a, b in ((small[0], small[1]), (small[0], small[2]), (small[1], small[2]))]
        assert min(gaps) > 20

    def test_an_open_mouth_is_dark_inside_and_changes_little_above_the_nose(self):
        stage = scene.performer(cast(12, 0)[0], 0)
        shut, wide = (stage.frame(still(jaw=value), 0).astype(int) for value in (0.0, 1.0))
        x, y = np.round(stage.rig.placed(stage.rig.spoken(still(jaw=1.0), 0), still(), 0)[stage.rig.inner_lips]).mean(0)
        patch = np.s_[round(y) : round(y) + 6, round(x) - 8 : round(x) + 8]
        assert wide[patch].mean() < 0.75 * shut[patch].mean()
        assert np.abs(wide[: round(stage.rig.eyes_y)] - shut[: round(stage.rig.eyes_y)]).mean() < 1.0


class TestCorpus:
    def test_every_line_is_a_good_row_with_an_expectation(self, corpus):
        rows = lines(corpus)
        assert [line["file"] for line in rows[:2]] == ["clips/ada-1.mp4", "clips/a name with spaces.mp4"]
        for line in rows:
            row_from(line).check_id()
            assert (corpus / line["file"]).is_file()
            if line["expected"] == "rejected":
                assert Reason(line["expected_reason"])
            else:
                assert (line["expected"], line["expected_reason"]) == ("kept", "")
        assert {line["kind"] for line in rows} == {"clip", "face"}
        assert {line["licence"] for line in rows} == {"public domain (NASA)"}

    def test_ingestion_does_with_every_line_what_the_manifest_expects(self, corpus, tmp_path):
        from preprocessing.build import IngestSettings, build_row
        from preprocessing.corpora import read_manifest
        from preprocessing.plan import plan_dataset
        from preprocessing.step import Tools

        expected = {line["file"]: (line["expected"], line["expected_reason"]) for line in lines(corpus)}
        tools, ended = Tools(), {}
        for planned in plan_dataset(tmp_path, read_manifest(corpus / "manifest.csv", corpus), corpus):
            samples, ledger = build_row(planned, corpus, tools, IngestSettings())
            (line,) = [line for line in ledger if line["level"] == "row"]
            assert bool(samples) == (line["state"] == "kept")
            ended[planned.values.file] = (line["state"], line["reason"] or "")
        assert ended == expected

    def test_a_complete_corpus_is_left_alone(self, corpus):
        before = {path: path.stat().st_mtime_ns for path in corpus.rglob("*")}
        assert make_demo_corpus(corpus, speakers=1, sentences=2) == corpus / "manifest.csv"
        assert {path: path.stat().st_mtime_ns for path in corpus.rglob("*")} == before

    def test_another_process_mends_a_damaged_and_a_lost_file_with_the_same_bytes(self, corpus):
        before = {path: path.read_bytes() for path in corpus.rglob("*") if path.is_file() and path.name != ".lock"}
        (corpus / "stills/ada-1.png").write_bytes(b"torn")
        (corpus / "clips/ada-1.mp4").unlink()
        code = (
            "from pathlib import Path; from preprocessing.demo import make_demo_corpus;"
            f"make_demo_corpus(Path({str(corpus)!r}), speakers=1, sentences=2)"
        )
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
        assert {path: path.read_bytes() for path in before} == before

    def test_what_a_killed_run_had_finished_is_kept(self, corpus):
        record = (corpus / "demo.json").read_bytes()
        (corpus / "demo.json").unlink()
        (corpus / "demo.part.json").write_text(json.dumps(json.loads(record)["recipe"]))
        clips = {path: path.stat().st_mtime_ns for path in corpus.rglob("*.*") if path.suffix in (".mp4", ".png")}
        make_demo_corpus(corpus, speakers=1, sentences=2)
        assert {path: path.stat().st_mtime_ns for path in clips} == clips
        assert (corpus / "demo.json").read_bytes() == record
        assert not (corpus / "demo.part.json").exists()

    def test_a_folder_with_other_things_is_refused(self, tmp_path):
        (tmp_path / "thesis.tex").write_text("mine")
        with pytest.raises(Misuse, match=r"thesis\.tex"):
            make_demo_corpus(tmp_path)

    def test_nobody_to_film_is_refused(self, tmp_path):
        with pytest.raises(Misuse, match="at least one speaker"):
            make_demo_corpus(tmp_path / "demo", speakers=0)
