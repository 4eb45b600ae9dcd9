"""Figures as SVG: where labels stand, and that outlines hold what their pieces hold."""

import random
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from reporting import hilly, planned, stored, trained

from scalesearch.ranking import Arm, rank
from scalesearch.report.contours import outlines
from scalesearch.report.figure import Axis, Figure, Line, Lines, Mark, Place, Spot, Spots
from scalesearch.report.page import figures
from scalesearch.report.ranked import ranking_figure
from scalesearch.report.svg import svg


def drawn(*marks: Mark) -> ElementTree.Element:
    """A figure of 240 x 100 units, a unit a pixel."""
    x, y = Axis(title="", low=0, high=240), Axis(title="", low=0, high=100)
    figure = Figure(id="f", title="f", caption="", x=x, y=y, marks=marks, height=100, is_square=True)
    return ElementTree.fromstring(svg(figure, 274))


def labels(root: ElementTree.Element) -> dict[str, tuple[float, float, str]]:
    """Label to where it stands and which part of it stands there."""
    return {
        str(one.text): (float(one.attrib["x"]), float(one.attrib["y"]), one.attrib["text-anchor"])
        for one in root.iter("text")
        if "label" in one.attrib["class"]
    }


def points(kind: str, *places: Place) -> Spots:
    return Spots(kind=kind, name="", spots=tuple(Spot(x=x, y=y, tip="") for x, y in places))


def named(label: str, side="right") -> Spots:
    return Spots(kind="reference", name="", spots=(Spot(x=120, y=50, tip="", label=label, side=side),))


def test_a_label_without_a_side_stands_where_it_covers_nothing():
    assert labels(drawn(named("here", None)))["here"][2] == "start"
    assert labels(drawn(named("here", None), points("tied", (135, 50))))["here"][2] == "end"
    around = points("tied", (135, 50), (105, 50), (120, 64))
    assert labels(drawn(named("here", None), around))["here"][1] > 50  # below


def test_a_label_covers_hollow_points_rather_than_a_full_one():
    beside = points("untrained", (135, 52), (145, 48)), points("tied", (105, 50), (120, 64), (120, 36))
    assert labels(drawn(named("here", None), *beside))["here"][2] == "start"


def test_a_label_with_a_side_keeps_it():
    assert labels(drawn(named("here"), points("tied", (135, 50))))["here"][2] == "start"


def test_a_label_stays_within_the_picture():
    at_the_end = Spots(kind="best", name="", spots=(Spot(x=235, y=50, tip="", label="effnetx-gpu", side=None),))
    assert labels(drawn(at_the_end))["effnetx-gpu"][2] == "end"
    held = Spots(kind="best", name="", spots=(Spot(x=235, y=50, tip="", label="effnetx-gpu", side="right"),))
    assert labels(drawn(held)) == {}


def test_labels_never_run_into_each_other():
    close = (Spot(x=100 + 10 * index, y=50, tip="", label=f"B{index}", side="above") for index in range(4))
    assert list(labels(drawn(Spots(kind="ours", name="", spots=tuple(close))))) == ["B0", "B2"]


@pytest.mark.parametrize(
    ("ends", "anchor", "is_level"),
    [((20, 120), "start", True), ((120, 230), "end", True), ((10, 230), "end", False)],
    ids=["behind", "before", "above"],
)
def test_the_label_of_an_interval_leaves_all_of_it_to_be_seen(ends: tuple[float, float], anchor: str, is_level: bool):
    root = drawn(Lines(kind="off", lines=(Line(places=((ends[0], 50), (ends[1], 50)), label="resolution"),)))
    (line,) = (one for one in root.iter("path") if one.attrib["class"] == "line off")
    (left, level), (right, _) = (map(float, place.split(",")) for place in line.attrib["d"][1:].split("L"))
    x, y, part = labels(root)["resolution"]
    assert part == anchor
    assert (y == level + 4) == is_level
    assert x > right if anchor == "start" else x < left if is_level else y < level


def test_the_ranking_says_why_a_row_is_tied_below_one_that_is_not():
    accuracies = {"first": [80.0, 80.3, 79.7, 80.1], "sure": [79.3, 79.6, 79.5, 79.3], "once": [79.35]}
    ranking = rank([Arm(id=name) for name in accuracies], accuracies)
    caption = ranking_figure(ranking, id="ranking", title="Ranking").caption
    assert "once cannot be told apart from the first although sure, above it, can" in caption


def is_inside(place: Place, line: list[Place]) -> bool:
    """Whether a closed line goes round a place: a ray from it crosses the line an odd number of times."""
    x, y = place
    edges = [(a, b) for a, b in zip(line, [*line[1:], line[0]], strict=True) if (a[1] > y) != (b[1] > y)]
    return sum(x < a[0] + (y - a[1]) * (b[0] - a[0]) / (b[1] - a[1]) for a, b in edges) % 2 == 1


def test_the_outlines_of_a_surface_hold_what_its_pieces_hold_and_no_seams(tmp_path: Path):
    plan, layout = planned()
    (simplex,) = figures(stored(tmp_path, plan, layout, trained(plan, layout, hilly(plan, layout))))["simplex"]
    (surface,) = [mark for mark in simplex.marks if mark.kind == "surface"]
    pieces = [[list(corners) for corners, at, _ in surface.cells if at == level] for level in range(6)]
    lines = [list(outlines(own)) for own in pieces]
    assert sum(map(len, lines)) < 0.01 * sum(map(len, pieces))
    chance = random.Random(0)
    for place in ((chance.random(), chance.random() * 0.87) for _ in range(300)):
        for own, around in zip(pieces, lines, strict=True):
            is_held = any(is_inside(place, piece) for piece in own)
            assert is_held == (sum(is_inside(place, line) for line in around) % 2 == 1)
