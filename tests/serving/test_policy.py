"""Consent and limits are looked at before anything else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from contracts.errors import Reject
from contracts.files import sha256_file
from contracts.reasons import Reason
from serving.jobs import Consent, Job
from serving.policy import admit, read_consent


def test_consent_has_two_parts() -> None:
    assert read_consent(" Ada Lovelace ,  a greeting, in English ") == Consent(
        who="Ada Lovelace", purpose="a greeting, in English"
    )


@pytest.mark.parametrize(
    "text", [None, "", "  ", "Ada", "Ada,", ", a greeting", ",", "Ada, \n", "A\nB, c", "a," + "b" * 600]
)
def test_consent_that_says_too_little_or_too_much(text: str | None) -> None:
    with pytest.raises(Reject) as caught:
        read_consent(text)
    assert caught.value.reason is Reason.NO_CONSENT


def test_the_mend_is_told() -> None:
    with pytest.raises(Reject, match='--consent "who, purpose"'):
        read_consent(None)


def test_no_consent_comes_before_any_file(tmp_path: Path) -> None:
    job = Job(audio=tmp_path / "none.wav", out=tmp_path / "x.mp4", portrait=tmp_path / "none.png")
    with pytest.raises(Reject) as caught:
        admit(job, "b")
    assert caught.value.reason is Reason.NO_CONSENT


def test_files_that_are_none(tmp_path: Path, speech: Callable[..., Path]) -> None:
    (tmp_path / "empty.wav").touch()
    for name, reason in [
        ("none.wav", Reason.MISSING_FILE),
        ("http://example.org/x.wav", Reason.MISSING_FILE),
        (".", Reason.NOT_A_FILE),
        ("empty.wav", Reason.EMPTY_FILE),
    ]:
        with pytest.raises(Reject) as caught:
            admit(Job(audio=tmp_path / name, out=tmp_path / "x.mp4"), "b")
        assert caught.value.reason is reason, name
    sound = speech("fine.wav", 16_000)
    with pytest.raises(Reject) as caught:
        admit(Job(audio=sound, out=tmp_path / "x.mp4", portrait=tmp_path / "none.png", consent="A, test"), "b")
    assert caught.value.reason is Reason.MISSING_FILE


def test_identity_is_of_contents_not_of_names(tmp_path: Path, speech: Callable[..., Path]) -> None:
    one, two = speech("one.wav", 16_000), speech("two.wav", 16_000)
    first = admit(Job(audio=one, out=tmp_path / "x.mp4", seed=3, consent="nobody asked"), "b")
    assert first == admit(Job(audio=two, out=tmp_path / "y.mp4", seed=3), "b")
    assert first != admit(Job(audio=speech("three.wav", 16_001), out=tmp_path / "x.mp4", seed=3), "b")


def test_consent_in_the_form_of_manifests_holds_for_generation_only() -> None:
    assert read_consent("given; purpose=generation; who=Ada").who == "Ada"
    assert read_consent("not needed: an invented person").purpose == "not needed: an invented person"
    for wrong in (
        "given; purpose=training; who=Ada",
        "given; purpose=generation; who=Ada; until=2020-01-01",
        "given; purpose=generation",
        "withdrawn; on=2026-01-01",
        '{"state": "withdrawn"}',
    ):
        with pytest.raises(Reject) as caught:
            read_consent(wrong)
        assert caught.value.reason is Reason.NO_CONSENT


def test_b39_a_consent_given_for_another_picture(tmp_path: Path) -> None:
    for name in ("a.wav", "p.png"):
        (tmp_path / name).write_bytes(name.encode())
    job = Job(audio=tmp_path / "a.wav", portrait=tmp_path / "p.png", consent="Ada, a test", out=tmp_path / "x.mp4")
    digest = sha256_file(tmp_path / "p.png")
    assert admit(job.model_copy(update={"consent_for": digest}), "b").portrait == digest
    with pytest.raises(Reject) as caught:
        admit(job.model_copy(update={"consent_for": "0" * 64}), "b")
    assert caught.value.reason is Reason.NO_CONSENT
