"""A consent says what it says, on the day it is asked for; what is no consent is named as that."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.consent import PeoplePolicy, count_missing, missing, parse, withdrawn
from contracts.errors import Misuse, Reject
from contracts.manifest import row_from
from contracts.reasons import Reason

TODAY = date(2026, 11, 21)


def test_both_forms_say_the_same():
    line = "given; purpose=training, Generation; from=2026-01-01; until=2027-12-31; who=Ada Lovelace; evidence=box 7"
    table = (
        '{"state": "given", "purpose": ["training", "generation"], "from": "2026-01-01", "until": "2027-12-31",'
        ' "who": "Ada Lovelace", "evidence": "box 7"}'
    )
    assert parse(line) == parse(table)
    assert parse(line).purpose == ("training", "generation")


@pytest.mark.parametrize(
    ("text", "day", "purpose"),
    [
        ("given; purpose=training", TODAY, "training"),
        ("given; purpose=training; until=2026-11-21", TODAY, "training"),  # the last day counts
        ("given; purpose=training; from=2026-11-21", TODAY, "training"),
        ("given; purpose=generation,training", TODAY, "generation"),
        ("not needed: an invented person", TODAY, "training"),
    ],
)
def test_a_consent_that_holds_passes(text, day, purpose):
    parse(text).check(purpose, day)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("given; purpose=training; until=2026-11-20", "expired: given until 2026-11-20"),
        ("given; purpose=training; from=2026-11-22", "given from 2026-11-22 on"),
        ("given; purpose=research", "given for research, not for training"),
        ("withdrawn", "withdrawn"),
        ("withdrawn; on=2026-05-01", "withdrawn on 2026-05-01"),
    ],
)
def test_a_consent_that_does_not_hold_is_refused(text, says):
    with pytest.raises(Reject, match=says) as caught:
        parse(text).check("training", TODAY)
    assert caught.value.reason is Reason.NO_CONSENT


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no consent is stated"),
        (None, "no consent is stated"),
        ("yes", "begins with 'yes'"),
        ("given", "purpose is missing"),
        ("given; training", "'training' is not name=value"),
        ("given; purpose=training; purpose=more", "purpose stands twice"),
        ("given; purpose=training; untill=2027-01-01", "untill: Extra inputs"),
        ("given; purpose=training; until=31.12.2027", "until: '31.12.2027' is not a day"),
        ("given; purpose=training; until=2027-02-30", "until: "),
        ("given; purpose=training; from=2027-01-01; until=2026-01-01", "until 2026-01-01 is before"),
        ("given; purpose=training; evidence=sha256:12", "64 lower-case"),
        ("given; purpose=tr@ining", "'tr@ining' is not a purpose"),
        ("not needed", "say why none is needed"),
        ('{"state": "given", "purpose": ["training"], "purpose": ["research"]}', "a name stands twice"),
        ('{"state": "given", "purpose": 5}', "purpose must be words"),
        ('{"state": "given", "purpose": ["training"], "until": 4102444800}', "is not a day"),
        ("{" * 3000, "at most 2000"),
        ('{"a":' * 300, "not a consent"),
        ("given; purpose=training\u202e", "printable"),
    ],
)
def test_what_is_no_consent_is_refused_in_words(text, says):
    with pytest.raises(Reject, match=says) as caught:
        parse(text)
    assert caught.value.reason is Reason.NO_CONSENT


@given(st.text(max_size=200))
def test_any_text_is_a_consent_or_refused(text):
    policy = PeoplePolicy(require=("consent",), day=TODAY)
    refused = policy.verdict(row_from({"file": "a.mp4", "consent": text}))
    assert refused is None or (refused[0] is Reason.NO_CONSENT and refused[1])


def test_a_withdrawal_is_seen_in_any_form():
    assert all(map(withdrawn, ("withdrawn", "Withdrawn by mail, May 2026", '{"state":"withdrawn"}')))
    assert not any(map(withdrawn, ("given; purpose=training", None, "not withdrawn")))


def test_the_default_policy_refuses_nothing_but_a_withdrawal():
    policy = PeoplePolicy()
    assert policy.verdict(row_from({"file": "a.mp4"})) is None
    assert policy.verdict(row_from({"file": "a.mp4", "consent": "by phone", "licence": "unknown"})) is None
    assert policy.verdict(row_from({"file": "a.mp4", "consent": "withdrawn"})) == (Reason.NO_CONSENT, "withdrawn")


def test_a_policy_asks_in_order_and_names_what_is_missing():
    policy = PeoplePolicy(require=("speaker", "gender", "consent", "licence"), licences=("CC-BY-4.0",), day=TODAY)
    row = {"file": "a.mp4"}
    assert policy.verdict(row_from(row)) == (Reason.BAD_MANIFEST, "the policy requires speaker, gender")
    row |= {"speaker": "ada", "gender": "f"}
    assert policy.verdict(row_from(row)) == (Reason.NO_CONSENT, "no consent is stated")
    row |= {"consent": "given; purpose=training; until=2026-11-21"}
    assert policy.verdict(row_from(row)) == (Reason.LICENCE, "no licence is stated")
    assert policy.verdict(row_from(row | {"licence": "None stated"})) == (Reason.LICENCE, "no licence is stated")
    assert "'MIT' is not among the allowed" in policy.verdict(row_from(row | {"licence": "MIT"}))[1]
    assert policy.verdict(row_from(row | {"licence": "cc-by-4.0 "})) is None
    later = policy.model_copy(update={"day": date(2026, 11, 22)})
    assert later.verdict(row_from(row | {"licence": "CC-BY-4.0"}))[0] is Reason.NO_CONSENT


def test_the_day_is_frozen_where_something_depends_on_it():
    strict = PeoplePolicy(require=("consent",))
    first = strict.frozen(None, TODAY)
    assert first.day == TODAY
    assert strict.frozen(first, date(2030, 1, 1)) == first
    assert strict.model_copy(update={"day": date(2028, 1, 1)}).frozen(first, TODAY).day == date(2028, 1, 1)
    assert PeoplePolicy().frozen(None, TODAY).day is None


def test_a_typo_in_a_policy_is_an_error_with_its_path():
    with pytest.raises(Misuse, match=r"params.yaml: ingest.people: require.0"):
        PeoplePolicy.read({"require": ["concent"]}, "params.yaml: ingest.people")


def test_what_rows_lack_is_counted():
    rows = [
        row_from({"file": "a.mp4", "speaker": "ada", "gender": "f", "age": 30, "language": "en", "licence": "MIT"}),
        row_from({"file": "b.mp4", "consent": "by phone", "licence": "unknown"}),
    ]
    assert missing(rows[0]) == ["consent"]
    assert count_missing(rows) == {
        "speaker": 1, "gender": 1, "age": 1, "language": 1, "licence": 1, "consent": 1, "consent not in form": 1,
    }  # fmt: skip
