"""Refusals are problem documents that name a status, a code and no place on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.errors import Reject
from contracts.reasons import FailureCode, Reason
from serving.problems import problem_of, status_of, without_places


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (Reason.NO_CONSENT, 403),
        (Reason.BAD_CONTAINER, 415),
        (Reason.NO_AUDIO, 415),
        (Reason.TOO_LONG, 413),
        (Reason.TOO_SHORT, 422),
        (Reason.NO_FACE, 422),
        (FailureCode.INTERNAL, 500),
    ],
)
def test_status(code: Reason | FailureCode, status: int) -> None:
    assert status_of(code) == status


def test_a_refusal_of_an_item_names_it() -> None:
    problem = problem_of(Reject(Reason.NO_CONSENT, "none is stated"), "items.3")
    assert (problem.status_code, problem.code, problem.errors[0].place) == (403, "NO_CONSENT", "items.3")


def test_places_are_not_told() -> None:
    detail = "/srv/voxface/inputs/ab/abcd: not a sound (see /srv/voxface/x)"
    assert without_places(detail, [Path("/srv/voxface")]) == "the file: not a sound (see the file"
    told = "the portrait /srv/voxface/inputs/ab/abcd: no face"
    assert without_places(told, [Path("/srv/voxface")]) == "the portrait: no face"
    assert without_places(None, [Path("/srv")]) is None
