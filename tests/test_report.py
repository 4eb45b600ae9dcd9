"""The report from its data: what the page shows is what the run holds, whatever state the run is in."""

import html
import json
import re
import shutil
import signal
import threading
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import yaml
from calling import Call
from conftest import Program
from reporting import alone, failed, flat, hilly, interrupted, planned, stored, trained, write_family

from scalesearch.cli.reporting import reported
from scalesearch.errors import SearchFailedError
from scalesearch.plan import read_plan
from scalesearch.report import write_figures
from scalesearch.report.again import study_file
from scalesearch.report.facts import Facts
from scalesearch.report.figure import Figure, Missing
from scalesearch.report.kin import PUBLISHED
from scalesearch.report.live import LiveReport
from scalesearch.report.page import figures, page
from scalesearch.report.sentences import headline
from scalesearch.report.sources import bibtex
from scalesearch.request import read_request, resolve
from scalesearch.runfolder import write_plan
from scalesearch.stopping import Asked, CtrlCError, TerminatedError, noting, raising
from scalesearch.stored import read_run
from scalesearch.trials import TrialResult, TrialState

SECTIONS = [
    *("verdict", "ranking", "simplex", "compute", "curves"),
    *("fidelity", "family", "explorer", "cost", "provenance"),
]
COLUMNS = Path(__file__).parents[1] / "docs" / "columns.md"
PRINTED = Path(__file__).parents[1] / "studies" / "paper-tables" / "printed.yaml"
HOSTILE = (
    "</script><script>window.bad = 1</script>\"'><img src=x onerror='window.bad = 1'>\u2028ä☃\x1b\x07\ufffe"
    + 5_000 * "x"
)


class Elements(HTMLParser):
    """The elements of a page, with the ids of its sections and the text outside of scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.sections: list[str] = []
        self.links: list[str] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        found = dict(attrs)
        if tag == "section":
            self.sections.append(str(found.get("id")))
        self.links += [str(found[name]) for name in ("href", "src", "srcset", "action", "data") if name in found]

    def handle_data(self, data: str) -> None:
        if self.names and self.names[-1] not in ("script", "style"):
            self.words += data


def embedded(text: str) -> dict:
    """The values that the page's scripts read."""
    return json.loads(re.findall(r'<script type="application/json" id="data">(.*?)</script>', text)[0])


def spots(figure: dict) -> dict[str, float]:
    """Candidate to what is drawn of it, of the ranking."""
    marks = [mark for mark in figure["marks"] if mark["form"] == "spots"]
    return {spot["tip"].split(":")[0]: spot["x"] for mark in marks for spot in mark["spots"]}


@pytest.fixture(scope="session")
def written(finished: tuple[Path, Program]) -> str:
    """The report that a real run has written."""
    return (finished[0] / "report.html").read_text()


# ---- of a real run


def test_every_run_ends_with_a_report_of_all_sections_below_8_megabytes(written: str):
    assert Elements(written).sections == SECTIONS
    assert len(written.encode()) <= 8_000_000


def test_a_report_needs_nothing_from_outside(written: str):
    assert [link for link in Elements(written).links if not link.startswith("#")] == []
    for closed in ("default-src", "base-uri", "form-action"):
        assert f"{closed} 'none'" in html.unescape(written[:2_000])


def test_the_ranking_is_drawn_at_the_numbers_of_ranking_json(finished: tuple[Path, Program], written: str):
    ranking = json.loads((finished[0] / "ranking.json").read_text())
    drawn = spots(embedded(written)["figures"]["ranking"])
    assert drawn == pytest.approx({row["id"]: row["estimate"] for row in ranking["candidates"]}, abs=1e-4)
    assert all(sentence in Elements(written).words for sentence in ranking["findings"])


def test_the_family_is_listed_with_the_costs_of_its_manifest(finished: tuple[Path, Program], written: str):
    members = json.loads((finished[0] / "family" / "manifest.json").read_text())["members"]
    words = Elements(written).words
    assert members
    assert all(row["name"] in words and f"{row['params'] / 1e6:.2f}" in words for row in members)
    explorer = embedded(written)["explorer"]
    assert [mark["name"] for mark in explorer["marks"]] == ["b0", *(row["name"] for row in members)]


def test_a_report_of_a_finished_run_says_so(finished: tuple[Path, Program], written: str):
    assert "Finished: 8 of 8 trials done" in Elements(written).words


def test_report_writes_where_it_is_told_and_every_figure_as_svg_of_its_own(
    finished: tuple[Path, Program], call: Call, tmp_path: Path
):
    told = call("report", finished[0], "--out", tmp_path / "here.html", "--figures", tmp_path / "figures", "--json")
    assert told.code == 0
    document = json.loads(told.out)
    assert Path(document["report"]).read_text().startswith("<!doctype html>")
    names = {Path(one).name for one in document["figures"]}
    assert names >= {"ranking.svg", "simplex.svg", "compute.svg", "curves.svg", "cost.svg", "family-macs.svg"}
    for one in document["figures"]:
        text = Path(one).read_text()
        assert ElementTree.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"
        assert "var(" not in text  # programs that read SVG know no variables


def test_a_figure_that_is_missing_by_now_leaves_no_older_file_and_other_files_stay(tmp_path: Path):
    plan, layout = planned()
    place = tmp_path / "figures"
    place.mkdir()
    drawn = write_figures(stored(tmp_path, plan, layout, trained(plan, layout, hilly(plan, layout))), place)
    assert place / "simplex.svg" in drawn
    (place / "mine.svg").write_bytes((place / "simplex.svg").read_bytes())
    (place / "curves.svg").write_text("<svg/>")
    (place / "ranking.svg").write_bytes(b"\xff")
    left = write_figures(stored(tmp_path, plan, layout, []), place)
    kept = {"mine.svg", "curves.svg", "ranking.svg"}
    assert {path.name for path in place.iterdir()} == {path.name for path in left} | kept


def test_report_of_what_is_no_run_is_refused_in_a_line(call: Call, tmp_path: Path):
    told = call("report", tmp_path / "nowhere")
    assert (told.code, len(told.err.splitlines())) == (2, 1)


def test_report_to_a_place_that_cannot_be_written_is_refused_in_a_line(
    finished: tuple[Path, Program], call: Call, tmp_path: Path
):
    (tmp_path / "file").write_text("")
    assert call("report", finished[0], "--out", tmp_path / "file" / "report.html").code == 2
    assert call("report", finished[0], "--out", tmp_path / "r.html", "--figures", tmp_path / "file").code == 2
    assert not (tmp_path / "r.html").exists()


@pytest.mark.parametrize("table", ["trials.csv", "candidates.csv"])
def test_every_column_of_a_table_is_documented_in_its_order(finished: tuple[Path, Program], table: str):
    head = (finished[0] / table).read_text().splitlines()[0].split(",")
    section = COLUMNS.read_text().partition(f"## {table}")[2].partition("\n## ")[0]
    assert head == re.findall(r"^\| `([^`]+)` \|", section, flags=re.MULTILINE)


def test_the_study_file_of_a_report_leads_to_the_same_plan(finished: tuple[Path, Program], tmp_path: Path):
    plan = read_plan(finished[0])
    (tmp_path / "study.yaml").write_text(study_file(plan))
    assert resolve(read_request(tmp_path / "study.yaml"))[0].digest == plan.digest
    limited, _ = planned(budget="1.5x", policy="fit", max_params="9M", max_memory="16G@64", confirm=2, check_phi=2.0)
    (tmp_path / "study.yaml").write_text(study_file(limited))
    assert resolve(read_request(tmp_path / "study.yaml"))[0].digest == limited.digest


# ---- of every kind of run


def test_a_run_that_has_trained_nothing_says_what_is_missing(tmp_path: Path):
    plan, layout = planned()
    facts = stored(tmp_path, plan, layout, [])
    text = page(facts)
    assert headline(facts) == "Nothing is ranked yet."
    assert Elements(text).sections == SECTIONS
    missing = [one.id for group in figures(facts).values() for one in group if isinstance(one, Missing)]
    assert {"shares", "ranking", "simplex", "curves", "fidelity", "cost"} <= set(missing)
    assert "The family is not written yet" in text
    assert "not begun: the same command starts it" in text
    assert "interrupted" not in Elements(text).words


def test_a_run_that_was_interrupted_says_so(tmp_path: Path):
    plan, layout = planned()
    facts = stored(tmp_path, plan, layout, interrupted(plan, layout))
    words = Elements(page(facts)).words
    assert headline(facts).endswith(", so far.")
    assert "interrupted: the same command goes on" in words
    assert "of them trained so far; the other" in words
    assert "The search has not ended" in words


def test_a_run_whose_trials_failed_names_them_and_why(tmp_path: Path):
    plan, layout = planned(candidates=3)
    results = failed(plan, layout)
    facts = stored(tmp_path, plan, layout, results)
    words = Elements(page(facts)).words
    assert headline(facts) == f"All {len(results)} trials failed: nothing can be ranked."
    assert "Why each trial failed stands under Learning curves; tracebacks are in logs/." in words
    assert "No family: nothing was ranked." in words
    assert " yet" not in words.replace("Not known yet", "")
    assert f"{len(results)} trials failed" in words
    assert "failed: out of memory" in words


def test_a_run_with_one_candidate_compares_it_with_nothing(tmp_path: Path):
    plan, layout = planned(candidates=2)
    facts = stored(tmp_path, plan, layout, alone(plan, layout))
    assert headline(facts) == "One candidate has results: there is nothing to compare it with, so far."
    assert Elements(page(facts)).sections == SECTIONS


def test_a_flat_run_shows_no_preference(tmp_path: Path):
    plan, layout = planned()
    facts = stored(tmp_path, plan, layout, flat(plan, layout))
    count = len(facts.outcome.ranking.on_budget)
    assert headline(facts) == f"No preference shown: all {count} candidates are tied."
    assert "these images cannot tell them apart" in Elements(page(facts)).words


def test_a_surface_flatter_than_the_margin_is_one_level_without_a_top(tmp_path: Path):
    plan, layout = planned(margin=0.5)
    noise = np.random.default_rng(0)
    results = trained(plan, layout, lambda proxy, seed, epoch: 80.0 + noise.normal(0, 0.05))
    facts = stored(tmp_path, plan, layout, results)
    assert facts.terrain is not None
    (simplex,) = figures(facts)["simplex"]
    (surface,) = [mark for mark in simplex.marks if mark.kind == "surface"]
    assert surface.levels == ("flat: less than 0.5 points between highest and lowest",)
    assert "optimum" not in {mark.kind for mark in simplex.marks}
    assert surface.levels[0] in simplex.caption


def test_a_network_off_budget_says_why(tmp_path: Path):
    plan, layout = planned()
    drawn = figures(stored(tmp_path, plan, layout, trained(plan, layout, hilly(plan, layout))))["ranking"][0]
    (off,) = [spot.tip for mark in drawn.marks if mark.kind == "off" and hasattr(mark, "spots") for spot in mark.spots]
    one = layout.candidate("d16-w1.000-r312")
    assert off.startswith(one.id)
    assert off.endswith(f"off budget: {one.scaled.growth:.3f}x the base, its proxy {one.proxy.growth:.3f}x")
    assert abs(one.proxy.growth / 2 - 1) > 0.03 > abs(one.scaled.growth / 2 - 1)


def test_a_clear_winner_is_named(tmp_path: Path):
    plan, layout = planned(candidates=4)
    best = next(name for name in layout.trained if not layout.candidate(name).off_budget)
    results = trained(plan, layout, lambda proxy, seed, epoch: 70.0 + 9 * (proxy == best) + 0.01 * seed)
    assert headline(stored(tmp_path, plan, layout, results)).startswith(f"{best} is the best of ")


def test_two_that_are_tied_are_counted_in_the_singular(tmp_path: Path):
    plan, layout = planned(candidates=4)
    own = [name for name in layout.trained if not layout.candidate(name).off_budget]
    results = trained(plan, layout, lambda proxy, seed, epoch: 70.0 + 9 * (proxy in own[:2]) + 0.01 * seed)
    said = headline(stored(tmp_path, plan, layout, results))
    assert said.startswith(f"The first of {len(own)} candidates cannot be told apart from 1 other.")


@pytest.mark.slow
def test_a_run_of_500_candidates_is_drawn_by_its_first_and_listed_whole(tmp_path: Path):
    plan, layout = planned(budget="8x", step=0.05, tolerance=0.3, candidates=500, seeds=3, epochs=16)
    assert len(layout.trained) == 500
    facts = stored(tmp_path, plan, layout, trained(plan, layout, hilly(plan, layout)))
    text = page(facts)
    drawn = spots(embedded(text)["figures"]["ranking"])
    assert len(drawn) < 60
    (curves,) = figures(facts)["curves"]
    assert "1503 trainings" in curves.caption
    assert "300 of them are drawn; the table has all." in curves.caption
    assert sum(len(mark.lines) for mark in curves.marks) == 300
    assert set(layout.trained) <= set(re.findall(r'<th scope="row">([^<]+)</th>', text))
    assert len(text.encode()) <= 8_000_000


def test_shorter_trainings_are_marked_as_stopped_and_compared_with_the_long_ones(tmp_path: Path):
    plan, layout = planned()
    full = trained(plan, layout, hilly(plan, layout))
    short = [
        replace(one, key=replace(one.key, rung=1), state=TrialState.PRUNED, epochs=one.epochs[:1])
        for one in full
        if one.key.proxy in layout.trained
    ]
    facts = stored(tmp_path, plan, layout, full + short)
    drawn = {one.id: one for group in figures(facts).values() for one in group}
    agreement = facts.outcome.fidelity.agreements[0]
    assert f"τ {agreement.tau:.2f} ({agreement.low:.2f} to {agreement.high:.2f})" in drawn["fidelity-1-3"].title
    stopped = [mark for mark in drawn["curves"].marks if mark.kind == "stopped"]
    assert [len(mark.spots) for mark in stopped] == [len(short)]
    assert drawn["fidelity-1-3"].x.title == "place after 1 epoch"
    places = [
        place for mark in drawn["curves"].marks if hasattr(mark, "lines") for one in mark.lines for place in one.places
    ]
    assert min(x for x, _ in places) == drawn["curves"].x.low < 1  # single epochs are seen, within the axes


def test_each_training_length_is_compared_with_the_next_in_a_figure_and_a_table(tmp_path: Path):
    plan, layout = planned()
    full = trained(plan, layout, hilly(plan, layout))
    searched = [one for one in full if one.key.proxy in layout.trained]
    shorter = [
        replace(one, key=replace(one.key, rung=rung), state=TrialState.PRUNED, epochs=one.epochs[:rung])
        for one in searched
        for rung in (1, 2)
    ]
    facts = stored(tmp_path, plan, layout, full + shorter)
    assert [one.id for one in figures(facts)["fidelity"]] == ["fidelity-1-2", "fidelity-2-3"]
    text = page(facts)
    assert "after 1, then 2 epochs" in text
    assert "after 2, then 3 epochs" in text
    on_budget = [name for name in layout.trained if not layout.candidate(name).off_budget]
    assert len(re.findall(r"<td>[\d.]+, then [\d.]+</td>", text)) == 2 * len(on_budget)


def test_the_surface_is_drawn_within_the_triangle_with_its_top(tmp_path: Path):
    plan, layout = planned()
    facts = stored(tmp_path, plan, layout, trained(plan, layout, hilly(plan, layout)))
    (simplex,) = figures(facts)["simplex"]
    assert isinstance(simplex, Figure)
    (surface,) = [mark for mark in simplex.marks if mark.kind == "surface"]
    corners = [place for places, _, _ in surface.cells for place in places]
    assert all(0 <= y <= 0.8661 and y <= 3**0.5 * min(x, 1 - x) + 1e-4 for x, y in corners)
    (top,) = [mark for mark in simplex.marks if mark.kind == "optimum"]
    depth, _, side = facts.outcome.ranking.surface.optimum.shares
    assert (top.spots[0].x, top.spots[0].y) == pytest.approx((side + depth / 2, depth * 3**0.5 / 2))


def test_levelling_brings_every_point_of_the_grid_to_the_budget(tmp_path: Path):
    plan, layout = planned()
    (drawn,) = figures(stored(tmp_path, plan, layout, []))["compute"]
    growths = {mark.kind: [spot.y for spot in mark.spots] for mark in drawn.marks if hasattr(mark, "spots")}
    assert len(growths["before"]) == layout.nominal_points == 108
    assert (round(min(growths["before"]), 2), round(max(growths["before"]), 2)) == (1.93, 3.33)
    assert all(1.94 <= growth <= 2.06 for growth in growths["tied"])


@pytest.mark.parametrize(
    "asked",
    [
        {"base": "resnet18", "budget": "4x"},
        {"base": "mobilenet_v2", "budget": "0.5x"},
        {"base": "b0", "rounding": "paper"},
    ],
)
def test_other_bases_budgets_and_roundings_have_pages_of_their_own(tmp_path: Path, asked: dict[str, str]):
    plan, layout = planned(candidates=3, **asked)
    facts = stored(tmp_path, plan, layout, trained(plan, layout, hilly(plan, layout)))
    text = page(facts)
    assert Elements(text).sections == SECTIONS
    assert embedded(text)["explorer"]["network"] == plan.scalable.network.to_dict()
    published = isinstance(figures(facts)["family"][0], Figure)
    assert published == (asked["base"] == "b0")


def test_the_methods_that_a_run_used_are_cited(tmp_path: Path):
    plan, layout = planned()
    facts = stored(tmp_path, plan, layout, trained(plan, layout, hilly(plan, layout)))
    assert "tan2019efficientnet" in bibtex(plan, facts.outcome)
    assert "scheffe1958experiments" in bibtex(plan, facts.outcome)
    assert "scheffe1958experiments" not in bibtex(plan, None)


def test_the_published_accuracies_are_those_of_the_paper():
    tables = yaml.safe_load(PRINTED.read_text())["tables"]
    rows = {row["name"].lower(): row for row in tables[0]["rows"]}
    assert {name: f"{top1}" for name, top1 in PUBLISHED.items()} == {name: rows[name]["top1"] for name in PUBLISHED}


def test_no_accuracy_is_shown_for_members_that_nobody_trained(tmp_path: Path):
    plan, layout = planned()
    results = trained(plan, layout, hilly(plan, layout))
    write_family(tmp_path, plan, layout, results)
    for drawn in figures(stored(tmp_path, plan, layout, results))["family"]:
        (ours,) = [mark for mark in drawn.marks if mark.kind == "ours" and hasattr(mark, "spots")]
        assert len(ours.spots) == 7
        assert {spot.y for spot in ours.spots} < {
            y / 100 for y in range(7500, 7700)
        }  # on the axis, below all of theirs
        assert all("not trained" in spot.tip and "%" not in spot.tip for spot in ours.spots)


def test_a_live_report_is_written_beside_a_run_when_it_is_asked_for(tmp_path: Path):
    plan, _ = planned()
    write_plan(tmp_path, plan)
    with LiveReport(tmp_path) as live:
        assert not (tmp_path / "report.html").exists()
        live.renew()
        end = time.monotonic() + 120
        while not (tmp_path / "report.html").exists():
            assert time.monotonic() < end
            time.sleep(0.05)
    assert "Nothing is ranked yet." in (tmp_path / "report.html").read_text()


def test_a_run_that_is_interrupted_leaves_a_page_that_says_so_and_the_curves_of_its_trials(
    program: Callable[..., Program], tiny_options: tuple[str, ...], tmp_path: Path
):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    folder = tmp_path / "run"
    more = ("--seeds", 12, "--live", "--log", "tensorboard")  # long enough to be still at work when a page is written
    run = program("run", *tiny_options, *more, "--out", folder)
    run.wait_for("1/48 ")
    end = time.monotonic() + 120
    while not (folder / "report.html").exists():
        assert time.monotonic() < end
        time.sleep(0.02)
    meanwhile = Elements((folder / "report.html").read_text()).words
    run.interrupt()
    assert run.wait(60) == 130
    assert re.search(r"Was running when this was written, [\d: -]+ UTC: \d+ of 48 trials done", meanwhile)
    assert f"scalesearch report {folder} tells how it stands now" in meanwhile
    stored = read_run(folder)
    words = Elements((folder / "report.html").read_text()).words
    assert f"{stored.standing.capitalize()}, as of " in words
    assert stored.state == "interrupted"
    assert "interrupted: the same command goes on" in words
    assert "was running" not in words.lower()
    trained = [one for one in stored.results if one.epochs]
    assert trained
    for one in trained:
        curves = accumulator.EventAccumulator(str(folder / "tensorboard" / str(one.key)))
        curves.Reload()
        for name in ("accuracy", "loss", "train_loss"):
            told = [(epoch.epoch, pytest.approx(getattr(epoch, name))) for epoch in one.epochs]
            assert [(point.step, point.value) for point in curves.Scalars(name)] == told


def test_a_second_ctrl_c_waits_for_no_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    writes, is_over = threading.Event(), threading.Event()
    monkeypatch.setattr("scalesearch.report.live.write_report", lambda _: writes.set() or is_over.wait(300))
    main = threading.main_thread().ident

    def press() -> None:
        writes.wait(60)
        signal.pthread_kill(main, signal.SIGINT)

    def interrupted() -> None:
        with LiveReport(tmp_path):
            threading.Thread(target=press).start()
            raise CtrlCError

    with raising(), pytest.raises(CtrlCError) as raised:
        interrupted()
    assert isinstance(raised.value.__context__, CtrlCError)  # the first; the second has ended the wait
    is_over.set()


def stopped_by(number: signal.Signals) -> BaseException:
    """What a signal raises that came a fifth of a second before the work was put away."""
    try:
        with noting(Asked()):
            signal.raise_signal(number)
            time.sleep(0.2)
    except (CtrlCError, TerminatedError) as error:
        return error
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize(("number", "most"), [(signal.SIGINT, 5), (signal.SIGTERM, 25)])
def test_a_run_should_end_so_long_behind_the_signal(number: signal.Signals, most: float):
    begun, error = time.monotonic(), stopped_by(number)
    assert isinstance(error, CtrlCError | TerminatedError)
    assert begun + most <= error.end < time.monotonic() + most - 0.19


@pytest.mark.parametrize(("ago", "least"), [(3, 1.9), (4, 0.9), (7, 0.4)])
def test_an_interrupted_run_waits_for_its_last_page_no_longer_than_it_may(
    ago: int, least: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    is_over = threading.Event()
    monkeypatch.setattr("scalesearch.report.live.write_report", lambda _: is_over.wait(300))
    begun = time.monotonic()
    with pytest.raises(CtrlCError), LiveReport(tmp_path):
        raise CtrlCError(begun - ago)  # its trials took so many seconds to stop, of the five there are
    assert least < time.monotonic() - begun < least + 1
    is_over.set()


def test_a_live_report_that_cannot_be_written_disturbs_nothing(tmp_path: Path):
    with LiveReport(tmp_path / "nowhere") as live:
        live.renew()


@pytest.mark.parametrize(
    "ending", [KeyboardInterrupt(), TerminatedError(), SearchFailedError("all trials failed")], ids=repr
)
def test_a_report_that_cannot_be_written_never_takes_the_place_of_an_ending(tmp_path: Path, ending: BaseException):
    def end() -> None:
        with reported(tmp_path / "nowhere", live=True, log=None) as heard:
            heard.decided()
            raise ending

    with pytest.raises(type(ending)):
        end()


# ---- hostile names


def hostile(tmp_path: Path) -> Facts:
    """A run whose every free text is hostile, that of its folder too."""
    folder = tmp_path / HOSTILE[:80].replace("/", "∕")
    folder.mkdir()
    plan, layout = planned(candidates=3)
    data = replace(plan.data, name=HOSTILE, source=HOSTILE, root=HOSTILE, class_names=(HOSTILE,) * 10)
    plan = replace(plan, data=data)
    results = trained(plan, layout, hilly(plan, layout))
    results[-1] = TrialResult(key=results[-1].key, state=TrialState.FAILED, reason=HOSTILE, epochs=results[-1].epochs)
    (folder / "scan.json").write_text(json.dumps({"remarks": [HOSTILE]}))
    (folder / "environment.json").write_text(
        json.dumps({"versions": {HOSTILE: HOSTILE}, "python": "", "platform": HOSTILE, "processors": 1, "slots": []})
    )
    (folder / "family").mkdir()
    row = {"name": "../../etc", "phi": 1.0, "realised_growth": 2.0, "resolution": 1, "depth": 1, "width": 1}
    costs = {"macs": 1, "params": 1, "activations": 1}
    unreached = [{"name": HOSTILE, "reason": HOSTILE}]
    (folder / "family" / "manifest.json").write_text(
        json.dumps({"members": [{**row, **costs, "name": HOSTILE[:200]}], "unreached": unreached})
    )
    return stored(folder, plan, layout, results)


def test_hostile_names_are_texts_and_nothing_else(tmp_path: Path):
    plain = Elements(page(stored(tmp_path / "plain", *planned(candidates=3), [])))
    text = page(hostile(tmp_path))
    found = Elements(text)
    assert found.names.count("script") == plain.names.count("script")
    assert "img" not in found.names
    assert HOSTILE in found.words
    assert json.dumps(HOSTILE)[1:-1] in json.dumps(embedded(text))


def test_figures_of_hostile_names_are_xml(tmp_path: Path):
    paths = write_figures(hostile(tmp_path), tmp_path)
    texts = ["".join(ElementTree.fromstring(path.read_text()).itertext()) for path in paths]
    assert any("window.bad = 1" in text for text in texts)


@pytest.mark.parametrize("content", ["{", "{}", '{"members": [{"name": "b1"}], "slots": [1]}', "[" * 10_000])
def test_a_damaged_manifest_or_environment_counts_as_none(
    finished: tuple[Path, Program], tmp_path: Path, call: Call, content: str
):
    shutil.copytree(finished[0], tmp_path / "run")
    for name in ("family/manifest.json", "environment.json"):
        (tmp_path / "run" / name).write_text(content)
    assert call("report", tmp_path / "run").code == 0
    note = "The family’s manifest is damaged or gone: scalesearch emit RUN writes it again."
    assert note in (tmp_path / "run" / "report.html").read_text()
