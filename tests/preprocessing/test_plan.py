"""Planning: numbers that never move, refusals in their places, files read once."""

import logging
from datetime import date

import pytest

from contracts.consent import PeoplePolicy
from contracts.errors import Misuse, Transient
from contracts.manifest import row_from
from contracts.plan import read_plan, read_policy
from contracts.reasons import Reason
from preprocessing import plan as planning
from preprocessing import sources
from preprocessing.corpora import BadLine
from preprocessing.plan import plan_dataset


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    for name in ("a", "b", "c", "d"):
        (root / f"{name}.mp4").write_bytes(name.encode())
    (root / "same.mp4").write_bytes(b"a")
    (root / "empty.mp4").write_bytes(b"")
    return root


def _rows(*names, **values):
    return [row_from({"file": name, **values}) for name in names]


def test_refusals_have_their_reasons_in_manifest_order(tmp_path, root):
    (root / "out.mp4").symlink_to("/etc/hostname")
    rows = [
        *_rows(
            "a.mp4", "same.mp4", "a.mp4", "gone.mp4", "empty.mp4", "../a.mp4", "http://x/a.mp4", "out.mp4", "a\n.mp4"
        ),
        BadLine(11, "line 11: broken"),
        *_rows("a.mp4", start_s=1.0),
        *_rows("b.mp4"),
    ]
    planned = plan_dataset(tmp_path / "D", rows, root, rows_per_shard=4)
    assert [row.reason for row in planned] == [
        None,
        Reason.DUPLICATE_CONTENT,
        Reason.DUPLICATE_ID,
        Reason.MISSING_FILE,
        Reason.EMPTY_FILE,
        Reason.BAD_ID,
        Reason.URL_REFUSED,
        Reason.PATH_ESCAPE,
        Reason.BAD_ID,
        Reason.BAD_MANIFEST,
        None,  # another span of the same file
        None,
    ]
    assert [row.row for row in planned] == list(range(12))
    assert [row.shard for row in planned] == [row // 4 for row in range(12)]
    assert len({row.key for row in planned}) == 12
    assert planned[9].detail == "line 11: broken"
    assert planned[0].key in planned[1].detail
    assert read_plan(tmp_path / "D") == (planned, 4)


def test_planning_again_changes_no_byte_and_reads_no_file(tmp_path, root, monkeypatch):
    rows = [*_rows("a.mp4", "b.mp4", "a.mp4", "gone.mp4"), BadLine(3, "x")]
    first = plan_dataset(tmp_path / "D", rows, root)
    before = (tmp_path / "D" / "plan.parquet").read_bytes()
    monkeypatch.setattr(sources, "sha256_file", lambda path: pytest.fail(f"{path} was read again"))
    assert plan_dataset(tmp_path / "D", rows, root) == first
    assert (tmp_path / "D" / "plan.parquet").read_bytes() == before


def test_new_rows_go_to_new_shards_and_old_ones_stay(tmp_path, root):
    first = plan_dataset(tmp_path / "D", _rows("a.mp4", "b.mp4", "c.mp4"), root, rows_per_shard=2)
    second = plan_dataset(tmp_path / "D", _rows("d.mp4", "c.mp4", "same.mp4", "a.mp4"), root, rows_per_shard=2)
    assert second[:3] == first
    assert [(row.values.file, row.row, row.shard, row.reason) for row in second[3:]] == [
        ("d.mp4", 4, 2, None),
        ("same.mp4", 5, 2, Reason.DUPLICATE_CONTENT),
    ]


def test_a_changed_file_keeps_its_planned_digest(tmp_path, root, caplog):
    first = plan_dataset(tmp_path / "D", _rows("a.mp4", "b.mp4"), root)
    (root / "a.mp4").write_bytes(b"other")
    with caplog.at_level(logging.WARNING):
        assert plan_dataset(tmp_path / "D", _rows("a.mp4", "b.mp4"), root) == first
    assert "a.mp4 has changed since it was planned" in caplog.text


def test_a_mended_file_fills_its_old_place(tmp_path, root):
    rows = _rows("late.mp4", "a.mp4")
    assert plan_dataset(tmp_path / "D", rows, root)[0].reason is Reason.MISSING_FILE
    (root / "late.mp4").write_bytes(b"here now")
    mended, other = plan_dataset(tmp_path / "D", rows, root)
    assert (mended.row, mended.reason, mended.bytes) == (0, None, 8)
    assert other.row == 1


def test_another_shard_size_is_misuse(tmp_path, root):
    plan_dataset(tmp_path / "D", _rows("a.mp4"), root, rows_per_shard=2)
    with pytest.raises(Misuse, match="2 rows a shard"):
        plan_dataset(tmp_path / "D", _rows("a.mp4"), root, rows_per_shard=3)


def test_progress_counts_every_row(tmp_path, root):
    told = []
    plan_dataset(tmp_path / "D", _rows("a.mp4", "gone.mp4"), root, progress=lambda *now: told.append(now))
    assert told == [(1, 2, "hashing"), (2, 2, "hashing")]


STRICT = PeoplePolicy(require=("consent",), licences=("MIT",), day=date(2026, 11, 21))
GIVEN = "given; purpose=training; until=2026-12-31"


def test_a_row_without_consent_is_never_opened(tmp_path, root, monkeypatch):
    opened = []
    real = sources.sha256_file
    monkeypatch.setattr(sources, "sha256_file", lambda path: opened.append(path.name) or real(path))
    monkeypatch.setattr(sources, "safe_path", lambda base, file: opened.append(f"path {file}") or base / file)
    rows = [
        *_rows("a.mp4", consent=GIVEN, licence="MIT"),
        *_rows("b.mp4", licence="MIT"),
        *_rows("c.mp4", consent=GIVEN),
        *_rows("gone.mp4", consent="given; purpose=art", licence="MIT"),  # people are asked before the file
        *_rows("../d.mp4"),  # and the id before people
    ]
    planned = plan_dataset(tmp_path / "D", rows, root, people=STRICT)
    assert [row.reason for row in planned] == [
        None, Reason.NO_CONSENT, Reason.LICENCE, Reason.NO_CONSENT, Reason.BAD_ID,
    ]  # fmt: skip
    assert opened == ["path a.mp4", "a.mp4"]
    assert [bool(row.sha256) for row in planned] == [True, False, False, False, False]


def test_a_consent_withdrawn_later_refuses_the_planned_row_and_given_again_brings_it_back(tmp_path, root):
    folder = tmp_path / "D"
    before = plan_dataset(folder, _rows("a.mp4", "b.mp4", consent=GIVEN), root)
    gone = plan_dataset(folder, [*_rows("a.mp4", consent="withdrawn"), *_rows("same.mp4", consent=GIVEN)], root)
    assert [(row.reason, row.sha256 == "") for row in gone] == [
        (Reason.NO_CONSENT, True),
        (None, False),
        (None, False),  # the same bytes, now that the first no longer counts
    ]
    assert gone[1] == before[1]
    again = plan_dataset(folder, _rows("a.mp4", "b.mp4", consent=GIVEN), root)
    assert [row.reason for row in again] == [Reason.DUPLICATE_CONTENT, None, None]


def test_what_a_manifest_says_of_people_is_taken_over(tmp_path, root):
    first = plan_dataset(tmp_path / "D", _rows("a.mp4", "b.mp4"), root)
    second = plan_dataset(tmp_path / "D", _rows("a.mp4", speaker="ada", gender="f"), root)
    assert (second[0].values.speaker, second[0].values.gender) == ("ada", "f")
    assert (second[0].sha256, second[0].reason, second[0].row) == (first[0].sha256, None, 0)
    assert second[1] == first[1]


def test_the_day_of_the_first_planning_stays(tmp_path, root, monkeypatch):
    policy = PeoplePolicy(require=("consent",))

    class Clock(date):
        now = (2026, 12, 31)

        @classmethod
        def today(cls):
            return date(*cls.now)

    monkeypatch.setattr(planning, "date", Clock)
    rows = _rows("a.mp4", consent=GIVEN)
    assert plan_dataset(tmp_path / "D", rows, root, people=policy)[0].reason is None
    before = (tmp_path / "D" / "plan.parquet").read_bytes()
    Clock.now = (2027, 1, 1)
    assert plan_dataset(tmp_path / "D", rows, root, people=policy)[0].reason is None
    assert (tmp_path / "D" / "plan.parquet").read_bytes() == before
    assert read_policy(tmp_path / "D").day == date(2026, 12, 31)
    later = policy.model_copy(update={"day": date(2027, 1, 1)})
    judged = plan_dataset(tmp_path / "D", rows, root, people=later)[0]
    assert (judged.reason, judged.detail) == (
        Reason.NO_CONSENT,
        "expired: given until 2026-12-31, asked for 2027-01-01",
    )


def test_names_that_lead_elsewhere_are_bad_ids(tmp_path, root):
    ids = ["../../etc/passwd", "/etc/passwd", "\\\\host\\share", "C:\\x", "a\\..\\b", "a\0b", "a\nb", "a\u2028b"]
    ids += ["a\u202eb", "a\u061cb", "x" * 513]
    rows = [row_from({"file": "a.mp4", "id": name, "start_s": n}) for n, name in enumerate(ids)]
    rows.append(row_from({"file": "http://x/a.mp4", "id": "../up"}))
    planned = plan_dataset(tmp_path / "D", rows, root)
    assert [row.reason for row in planned] == [Reason.BAD_ID] * len(rows)
    assert {path.name for path in tmp_path.iterdir()} == {"D", "root"}


def test_names_that_differ_in_case_form_or_script_are_two_names(tmp_path, root):
    ids = ["Twin", "twin", "n\u00e9", "ne\u0301", "clip.0", "clip.1", "\u05d0\u05d1", "\u0634.mp4", "y" * 512]
    rows = [row_from({"file": "a.mp4", "id": name, "start_s": n}) for n, name in enumerate(ids)]
    twins = [row_from({"file": f"{name}.mp4", "id": name}) for name in ("b", "B")]
    (root / "B.mp4").write_bytes(b"another")
    planned = plan_dataset(tmp_path / "D", rows + twins, root)
    assert [row.reason for row in planned] == [None] * (len(ids) + 2)
    assert len({row.key for row in planned}) == len(planned)


def test_of_rows_with_one_name_the_first_counts_also_where_its_file_is_missing(tmp_path, root):
    rows = [row_from({"file": name, "id": "one"}) for name in ("gone.mp4", "a.mp4", "b.mp4")]
    planned = plan_dataset(tmp_path / "D", rows, root)
    assert [row.reason for row in planned] == [Reason.MISSING_FILE, Reason.DUPLICATE_ID, Reason.DUPLICATE_ID]
    assert plan_dataset(tmp_path / "D", rows, root) == planned


def test_a_row_that_names_another_file_now_fills_its_old_place(tmp_path, root):
    plan_dataset(tmp_path / "D", [row_from({"file": "gone.mp4", "id": "one"})], root)
    (now,) = plan_dataset(tmp_path / "D", [row_from({"file": "a.mp4", "id": "one"})], root)
    assert (now.row, now.reason, now.values.file) == (0, None, "a.mp4")


def test_what_was_hashed_before_a_store_broke_off_is_not_hashed_again(tmp_path, root, monkeypatch):
    read = sources.sha256_file

    def breaks(path):
        if path.name == "d.mp4":
            raise Transient("the store broke off")
        return read(path)

    monkeypatch.setattr(sources, "sha256_file", breaks)
    with pytest.raises(Transient):
        plan_dataset(tmp_path / "D", _rows("a.mp4", "b.mp4", "d.mp4"), root)
    assert not (tmp_path / "D" / "plan.parquet").exists()
    monkeypatch.setattr(sources, "sha256_file", lambda path: pytest.fail(path) if path.name != "d.mp4" else read(path))
    assert [row.reason for row in plan_dataset(tmp_path / "D", _rows("a.mp4", "b.mp4", "d.mp4"), root)] == [None] * 3
