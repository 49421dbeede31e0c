"""What a threshold costs is counted as the rule counts it; the page says who is in a dataset, and what is not said."""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pytest

from contracts.consent import PeoplePolicy
from contracts.index import SCHEMA, read_index, samples
from contracts.plan import write_plan
from contracts.query import matching
from preprocessing.funnel import comparisons, costs, write_funnel
from preprocessing.page import survival
from preprocessing.people import people

FACES = [64.0, 100.0, 100.0, 256.0, 300.0, None]


def kept(values=FACES):
    lines = [{"level": "span", "state": "kept", "key": f"k{i}", "face_px": value} for i, value in enumerate(values)]
    return pa.Table.from_pylist(lines, schema=SCHEMA)


@pytest.mark.parametrize("rule", ["face_px >= 100", "face_px > 100", "face_px < 256", "face_px <= 256"])
def test_a_threshold_costs_what_the_selection_would_refuse(rule):
    taken = matching(kept(), f"not ({rule})").num_rows
    page = costs(kept(), [rule]).replace("&gt;", ">").replace("&lt;", "<")
    assert f"{rule} takes {taken} of 5" in page


def test_rules_without_numbers_have_no_curve():
    assert "No rule compares" in costs(kept(), ["copy_of is null"])
    assert comparisons("face_px", ["side > 3 and face_px>=2", "big_face_px > 9"]) == [(">=", 2.0)]


@pytest.mark.parametrize(("keep", "rises"), [(">", False), ("<", True)])
def test_the_curve_is_the_share_left(keep, rises):
    drawn = survival("x", np.arange(100.0), keep, [30.0])
    (points,) = re.findall(r'points="([^"]+)"', drawn)
    y = np.array([float(pair.split(",")[1]) for pair in points.split()])
    left = (100 - y) / 90
    assert (np.diff(left) >= 0).all() == rises
    assert left.max() - left.min() > 0.98
    at = left[round(120 * 30 / 99)]
    assert at == pytest.approx(0.3 if rises else 0.69, abs=0.02)


def test_one_value_is_drawn_too():
    assert "polyline" in survival("x", np.array([3.0]), ">", [])


def test_the_funnel_page_stands_alone(tmp_path):
    gates = [
        {"gate": "manifest", "took": 0, "left": 6, "minutes": None},
        {"gate": "NO_FACE", "took": 1, "left": 5, "minutes": 2.5},
    ]
    write_funnel(tmp_path / "funnel.html", "Funnel of <x>", gates, kept(), ["face_px >= 100"])
    page = (tmp_path / "funnel.html").read_text()
    assert "Funnel of &lt;x&gt;" in page
    assert "NO_FACE" in page
    assert "http" not in page.replace("http-equiv", "")


def test_people_are_counted_by_gender_and_what_rows_do_not_say_is_counted(small_dataset, tmp_path):
    index = read_index(small_dataset.dataset)
    page = people(tmp_path, index, small_dataset.selection)
    minutes = sum(line["frames"] for line in samples(index).to_pylist() if line["kind"] == "clip") / 25 / 60
    assert page.count(f">{round(minutes / 2, 2)}<") == 2  # women and men
    assert "Nothing is required" in page
    assert re.search(r"consent</td><td[^>]*>32</td><td[^>]*>32<", page)  # none of the rows states one
    assert re.search(r">speaker</td><td[^>]*>0</td>", page)


def test_the_page_tells_the_policy_and_its_day(small_dataset, tmp_path):
    policy = PeoplePolicy(require=("consent",), licences=("MIT",), day="2026-11-21")
    write_plan(tmp_path, [], 64, policy)
    page = people(tmp_path, read_index(small_dataset.dataset), None)
    assert "Required: consent, licence; licences MIT; consent for training on 2026-11-21." in page
