"""The benchmark of searches: its landscapes are what they claim, compute is counted, and its committed run holds."""

import csv
import importlib
import json
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import optuna
import pytest
from scipy import stats

from scalesearch.policies.race import region

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
RESULT = BENCHMARKS / "results" / "search_efficiency.json"
MODULES = ("landscapes", "recorded", "searchers", "figures", "requirements", "search_efficiency", "record_trials")
ARMS = 61


@pytest.fixture(scope="module")
def bench():
    """The scripts as modules."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in MODULES})


def planted(bench, name, replay=0, **changes):
    setting = replace(bench.landscapes.SETTINGS[name], **changes)
    return bench.landscapes.planted(setting, bench.landscapes.stream(name, replay))


def shares_of(landscape):
    return np.array([arm.shares for arm in landscape.arms])


def regions_of(landscape):
    return np.array([region(arm) for arm in landscape.arms])


# landscapes -----------------------------------------------------------------------------------------------------------


def test_the_arms_are_the_proxies_on_budget_with_real_shares(bench):
    arms = bench.landscapes.arms()
    assert len({arm.id for arm in arms}) == ARMS
    assert all(arm.shares and min(arm.shares) >= 0 and sum(arm.shares) == pytest.approx(1) for arm in arms)
    assert {region(arm) for arm in arms} == {"depth", "width", "resolution"}
    away = bench.landscapes.Plane.of(np.array([arm.shares for arm in arms])).at(np.array([arm.shares for arm in arms]))
    assert np.mean(away, axis=0) == pytest.approx([0, 0], abs=1e-12)
    assert np.mean((away**2).sum(axis=1)) == pytest.approx(2 / 3)


@pytest.mark.parametrize("replay", range(10))
def test_without_roughness_the_truth_is_a_quadratic_with_the_planted_optimum(bench, replay):
    landscape = planted(bench, "smooth-0", replay)
    x, y = shares_of(landscape)[:, :2].T
    terms = np.stack([np.ones(ARMS), x, y, x * x, x * y, y * y], axis=1)
    found, *_ = np.linalg.lstsq(terms, landscape.truth, rcond=None)
    assert terms @ found == pytest.approx(landscape.truth, abs=1e-9)
    optimum = np.linalg.solve([[2 * found[3], found[4]], [found[4], 2 * found[5]]], -found[1:3])
    assert optimum == pytest.approx(landscape.optimum[:2], abs=1e-6)
    assert sum(landscape.optimum) == pytest.approx(1)
    assert min(landscape.optimum) > 0
    assert landscape.truth.max() <= bench.landscapes.LEVEL
    nearest = np.argsort(((shares_of(landscape) - landscape.optimum) ** 2).sum(axis=1))
    assert landscape.truth.argmax() in nearest[:5]


@pytest.mark.parametrize(("name", "expected"), [("smooth", 0.5), ("rough-flat", 0.25), ("skewed", 0.5)])
def test_the_mean_curvature_is_as_stated(bench, name, expected):
    """At distance 1 in every direction, over many landscapes."""
    turns = np.linspace(0, 2 * np.pi, 360, endpoint=False)
    around = np.stack([np.cos(turns), np.sin(turns)], axis=1)
    setting = bench.landscapes.SETTINGS[name]
    random = np.random.default_rng(0)
    falls = [bench.landscapes._fall(around, setting.shape, random).mean() for _ in range(50)]
    assert setting.curvature * np.mean(falls) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize(("name", "roughness"), [("smooth", 0.05), ("rough", 0.1)])
def test_every_arm_adds_the_stated_roughness(bench, name, roughness):
    """The same random numbers, with and without."""
    left = [planted(bench, name, i).truth - planted(bench, name, i, roughness=0.0).truth for i in range(100)]
    assert np.std(left) == pytest.approx(roughness, rel=0.03)


@pytest.mark.parametrize(("rung", "points"), [(4, 1.0), (16, 0.4), (64, 0.0)])
def test_the_early_bias_puts_pure_width_ahead_of_pure_depth(bench, rung, points):
    biased, fair = planted(bench, "smooth-biased"), planted(bench, "smooth-biased", is_early_biased=False)
    lean = biased.means[rung] - fair.means[rung]
    names = {arm.shares: place for place, arm in enumerate(biased.arms)}
    assert lean[names[0, 1, 0]] - lean[names[1, 0, 0]] == pytest.approx(points)
    assert lean == pytest.approx(points * shares_of(biased)[:, 1])


@pytest.mark.parametrize(("rung", "sd"), [(4, 0.56), (16, 0.19), (64, 0.15)])
def test_the_noise_is_the_published_one(bench, rung, sd):
    landscape, random = planted(bench, "smooth"), np.random.default_rng(0)
    drawn = [landscape.accuracy(7, rung, seed, random) for seed in range(20_000)]
    assert np.std(drawn) == pytest.approx(sd, rel=0.02)
    assert np.mean(drawn) == pytest.approx(landscape.means[rung][7], abs=0.02)


@pytest.mark.parametrize(("rung", "likeness"), [(4, 0.7), (16, 0.9), (64, 1.0)])
def test_short_training_resembles_long_as_stated(bench, rung, likeness):
    found = [planted(bench, "smooth", i) for i in range(300)]
    correlations = [np.corrcoef(one.means[rung], one.truth)[0, 1] for one in found]
    assert np.mean(correlations) == pytest.approx(likeness, abs=0.01)


def test_equal_arms_are_equal_and_a_clear_winner_is_half_a_point_ahead(bench):
    assert len(set(planted(bench, "all-equal").truth)) == 1
    for replay in range(20):
        second, best = np.sort(planted(bench, "clear-winner", replay).truth)[-2:]
        assert best - second == pytest.approx(0.5)


@pytest.mark.parametrize("replay", range(20))
def test_a_flip_favours_width_at_first_and_depth_at_last(bench, replay):
    landscape = planted(bench, "flip", replay)
    homes = regions_of(landscape)
    first = landscape.means[4]
    assert first[homes == "width"].mean() - first[homes == "depth"].mean() == pytest.approx(1.0)
    assert landscape.truth[homes == "depth"].max() > landscape.truth[homes != "depth"].max() + 0.1
    assert np.argmax(landscape.optimum) == 0


@pytest.mark.parametrize("name", ["pointed", "skewed"])
def test_the_other_shapes_are_no_quadratics_and_keep_their_optimum(bench, name):
    landscape = planted(bench, name, roughness=0.0)
    x, y = shares_of(landscape)[:, :2].T
    terms = np.stack([np.ones(ARMS), x, y, x * x, x * y, y * y], axis=1)
    found, *_ = np.linalg.lstsq(terms, landscape.truth, rcond=None)
    assert np.std(terms @ found - landscape.truth) > 0.02
    assert landscape.truth.max() <= bench.landscapes.LEVEL
    assert (
        np.argsort(((shares_of(landscape) - landscape.optimum) ** 2).sum(axis=1))[0] in np.argsort(-landscape.truth)[:6]
    )


# the recorded table ---------------------------------------------------------------------------------------------------


def test_the_truth_of_a_split_is_the_mean_of_the_seeds_not_shown(bench):
    table = bench.recorded.recorded()
    assert table.accuracies.shape == (11, 6, 2)
    for replay in range(10):
        split = table.split(bench.landscapes.stream("recorded", replay))
        whole = (3 * split.shown[:, :, -1].mean(axis=1) + 3 * split.truth) / 6
        assert whole == pytest.approx(table.accuracies[:, :, -1].mean(axis=1))
        for place, shown in enumerate(split.shown):
            assert {tuple(row) for row in shown} <= {tuple(row) for row in table.accuracies[place]}


def test_seeds_beyond_those_shown_are_shown_again(bench):
    split, random = bench.recorded.recorded().split(np.random.default_rng(0)), np.random.default_rng(0)
    known = {float(value) for value in split.shown[2, :, -1]}
    assert {split.accuracy(2, 2, seed, random) for seed in range(3)} == known
    assert {split.accuracy(2, 2, seed, random) for seed in range(3, 50)} == known


def test_the_committed_table_is_small_and_complete():
    file = BENCHMARKS / "results" / "recorded_trials.csv"
    assert file.stat().st_size < 1_000_000
    rows = list(csv.DictReader(file.read_text(encoding="utf-8").splitlines()))
    assert len({(row["candidate"], row["seed"], row["epoch"]) for row in rows}) == len(rows) == 12 * 6 * 2
    assert all(0 < float(row["accuracy"]) < 100 for row in rows)


def stored_run(folder, seeds_of):
    """A run folder with the trials of two candidates and the anchor, and nothing else that counts."""
    study = optuna.create_study(
        storage=f"sqlite:///{folder / 'study.db'}", study_name="scalesearch", direction="maximize"
    )
    for name, seeds in {"base": 2, **seeds_of}.items():
        for seed in range(seeds):
            epochs = [{"epoch": epoch, "accuracy": 80 + seed + epoch / 4} for epoch in (1, 2)]
            attributes = {"proxy": name, "seed": seed, "rung": 2, "epochs": epochs}
            study.add_trial(optuna.create_trial(value=1.0, user_attrs=attributes))
    lines = [
        "id,shares,off_budget,trained,proxy.id,proxy.macs",
        "a,0.0 0.25 0.75,False,True,a,7",
        "b,1.0 0.0 0.0,True,True,b,8",
        "twin,1.0 0.0 0.0,True,True,b,8",
        "untrained,0.5 0.5 0.0,False,False,untrained,9",
    ]
    (folder / "candidates.csv").write_text("\n".join(lines) + "\n")


def test_a_table_holds_every_epoch_of_every_trained_candidate(bench, tmp_path):
    stored_run(tmp_path, {"b": 2, "a": 2})
    rows = list(bench.record_trials.rows(tmp_path))
    assert [(row["candidate"], row["seed"], row["epoch"]) for row in rows] == [
        (name, seed, epoch) for name in "ab" for seed in (0, 1) for epoch in (1, 2)
    ]
    assert rows[3] == {
        "candidate": "a",
        "depth_share": "0",
        "width_share": "0.25",
        "resolution_share": "0.75",
        "off_budget": "False",
        "macs": "7",
        "seed": 1,
        "epoch": 2,
        "accuracy": "81.5",
    }


@pytest.mark.parametrize("seeds_of", [{"a": 2, "b": 1}, {"a": 2}])
def test_a_table_of_an_unfinished_run_is_refused(bench, tmp_path, seeds_of):
    stored_run(tmp_path, seeds_of)
    with pytest.raises(SystemExit, match="have not finished, such as b seed"):
        list(bench.record_trials.rows(tmp_path))


# searchers ------------------------------------------------------------------------------------------------------------


class Spy:
    """A landscape that notes what is trained on it."""

    def __init__(self, landscape):
        self._landscape, self.trained = landscape, []

    def __getattr__(self, name):
        return getattr(self._landscape, name)

    def accuracy(self, place, rung, seed, random):
        self.trained.append((place, rung, seed))
        return self._landscape.accuracy(place, rung, seed, random)


def play(bench, searcher, setting="smooth", replay=0):
    spy = Spy(bench.search_efficiency.landscape_of(setting, replay))
    return bench.searchers.SEARCHERS[searcher](spy, bench.landscapes.stream(setting, replay, searcher)), spy


@pytest.mark.parametrize("seeds", [1, 3, 5])
def test_a_grid_costs_every_arm_and_seed_at_full_length(bench, seeds):
    played, spy = play(bench, f"grid-{seeds}")
    assert played.epochs == seeds * ARMS * 64
    assert sorted(spy.trained) == [(place, 64, seed) for place in range(ARMS) for seed in range(seeds)]
    judged = bench.figures.judge(played, spy)
    assert judged.compute == pytest.approx(seeds / 3)


@pytest.mark.parametrize("searcher", ["optuna-wilcoxon-tuned", "race", "fit"])
@pytest.mark.parametrize("setting", ["smooth", "recorded"])
def test_every_training_from_scratch_is_counted(bench, searcher, setting):
    played, spy = play(bench, searcher, setting)
    assert len(set(spy.trained)) == len(spy.trained)
    assert played.epochs == sum(rung for _, rung, _ in spy.trained)


@pytest.mark.parametrize("searcher", ["halving", "halving-tuned", "hyperband", "hyperband-tuned"])
@pytest.mark.parametrize("setting", ["smooth", "recorded"])
def test_a_training_that_goes_on_is_counted_once_up_to_its_last_epoch(bench, searcher, setting):
    played, spy = play(bench, f"optuna-{searcher}", setting)
    longest = {place: max(rung for other, rung, _ in spy.trained if other == place) for place, _, _ in spy.trained}
    assert sorted(longest) == list(range(len(spy.arms)))
    assert played.epochs == sum(longest.values())
    assert played.epochs < len(spy.arms) * spy.rungs[-1]
    assert longest[played.leader] == spy.rungs[-1]
    assert all(short < long for (a, short, _), (b, long, _) in pairwise(spy.trained) if a == b)


@pytest.mark.parametrize("searcher", ["grid-1", "grid-5", "optuna-halving", "optuna-wilcoxon-tuned", "race", "fit"])
def test_a_play_is_the_same_every_time(bench, searcher):
    first, again = (play(bench, searcher, replay=4) for _ in range(2))
    assert first[0] == again[0]
    assert first[1].trained == again[1].trained
    assert play(bench, searcher, replay=5)[1].trained != first[1].trained or searcher.startswith("grid")


@pytest.mark.slow
def test_the_number_of_processes_changes_nothing(tmp_path):
    found = []
    for jobs in ("1", "2"):
        out = tmp_path / f"{jobs}.json"
        command = [sys.executable, BENCHMARKS / "search_efficiency.py", "--replays", "6", "--jobs", jobs, "--out", out]
        ended = subprocess.run([*command, "--only", "smooth,recorded"], capture_output=True, text=True, timeout=500)
        assert "smooth: 6 of 6 replays" in ended.stderr, ended.stderr
        assert ended.returncode == ("NOT MET" in ended.stdout)
        found.append(json.loads(out.read_text())["settings"])
    for settings in found:
        for by_searcher in settings.values():
            assert all(one.pop("seconds") >= 0 and one["replays"] == 6 for one in by_searcher.values())
    assert found[0] == found[1]
    assert list(found[0]) == ["smooth", "recorded"]
    assert len(found[0]["smooth"]) == 10
    assert not [name for name in found[0]["recorded"] if name.startswith("grid-5")]


# figures --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("hits", "trials"), [(0, 40), (3, 40), (40, 40)])
def test_a_proportion_has_the_exact_interval(bench, hits, trials):
    exact = stats.binomtest(hits, trials).proportion_ci(0.95, "exact")
    found = bench.figures.proportion(hits, trials)
    assert (found["low"], found["high"]) == pytest.approx((exact.low, exact.high), abs=1e-4)


def test_coverage_knows_that_intervals_of_a_replay_are_alike(bench):
    alike = bench.figures.coverage([(10, 10)] * 90 + [(0, 10)] * 10)
    alone = bench.figures.coverage([(1, 1)] * 900 + [(0, 1)] * 100)
    assert alike["share"] == alone["share"] == 0.9
    assert alone["high"] - 0.9 == pytest.approx(1.96 * (0.9 * 0.1 / 1000) ** 0.5, rel=0.01)
    assert alike["high"] - 0.9 == pytest.approx(1.96 * (0.9 * 0.1 / 100) ** 0.5, rel=0.01)


def test_a_play_is_held_against_the_truth(bench):
    landscape = planted(bench, "smooth")
    order = np.argsort(-landscape.truth)
    best, worst = int(order[0]), int(order[-1])
    right = bench.figures.judge(bench.searchers.Played(leader=best, epochs=64, tied=(best,)), landscape)
    assert (right.regret, right.is_claim, right.is_wrong, right.is_named, right.is_told, right.is_home) == (
        *(0, True, False, True, True, True),
    )
    wrong = bench.figures.judge(bench.searchers.Played(leader=worst, epochs=64, tied=(worst,)), landscape)
    assert wrong.regret == pytest.approx(np.ptp(landscape.truth))
    assert (wrong.is_claim, wrong.is_wrong, wrong.is_named, wrong.is_told) == (True, True, False, False)
    open_ = bench.figures.judge(bench.searchers.Played(leader=worst, epochs=64, tied=(best, worst)), landscape)
    assert (open_.is_claim, open_.is_wrong, open_.is_told) == (False, False, False)
    near = tuple(int(place) for place in np.flatnonzero(landscape.truth >= landscape.truth.max() - 0.1))
    assert len(near) > 1
    told = bench.figures.judge(bench.searchers.Played(leader=best, epochs=64, tied=near), landscape)
    assert (told.is_claim, told.is_named, told.is_told) == (False, False, True)


def made_up(bench, regret=0.0, **changes):
    """Figures of 600 plays that are all alike but for what is changed in the first of them."""
    landscape = planted(bench, "smooth")
    best = int(landscape.truth.argmax())
    one = bench.figures.judge(bench.searchers.Played(leader=best, epochs=64 * ARMS // 2, tied=(best,)), landscape)
    usual = replace(one, is_claim=False, intervals=(95, 100), shares=(95, 100))
    plays = [replace(usual, regret=regret, **changes)] * 300 + [usual] * 300
    return bench.figures.figures(plays, [usual] * 600)


@pytest.mark.parametrize(
    ("setting", "changes", "missed"),
    [
        ("smooth", {}, []),
        ("smooth", {"regret": 0.1}, [1]),
        ("smooth", {"compute": 0.3}, [1]),
        ("rough", {"compute": 0.3}, []),
        ("rough", {"compute": 0.7}, [1]),
        ("smooth", {"is_wrong": True}, [2]),
        ("smooth", {"intervals": (80, 100)}, [2]),
        ("rough", {"intervals": (90, 100), "shares": (90, 100)}, []),
        ("rough", {"shares": (70, 100)}, [2]),
        ("all-equal", {"is_claim": True}, [3]),
        ("clear-winner", {"is_told": False}, [4]),
        ("clear-winner", {"compute": 1.1}, [4]),
        ("flip", {"is_home": False}, [5]),
        ("flip", {"flips": False}, [5]),
        ("recorded", {"regret": 1.0, "is_wrong": True, "intervals": (0, 100)}, []),
    ],
)
def test_what_misses_a_requirement_is_named(bench, setting, changes, missed):
    found = {setting: {"fit": made_up(bench, **changes)}}
    assert [one.row for one in bench.requirements.checks(found) if not one.is_met] == missed


def test_too_few_replays_of_equal_arms_prove_nothing(bench):
    found = made_up(bench) | {"replays": 499}
    assert [one.row for one in bench.requirements.checks({"all-equal": {"fit": found}}) if not one.is_met] == [3]


# the committed run ----------------------------------------------------------------------------------------------------


@pytest.fixture
def committed():
    return json.loads(RESULT.read_text(encoding="utf-8"))


def test_the_committed_run_is_whole(bench, committed):
    assert RESULT.stat().st_size < 1_000_000
    assert tuple(committed["settings"]) == bench.search_efficiency.COMMITTED
    for setting, by_searcher in committed["settings"].items():
        expected = bench.search_efficiency.searchers_of(setting, list(bench.searchers.SEARCHERS))
        assert list(by_searcher) == expected
        assert all(one["replays"] >= 1_000 for one in by_searcher.values())
    assert committed["recorded"] == bench.search_efficiency.about_the_table()


@pytest.mark.parametrize("row", range(1, 6))
def test_the_committed_run_holds_what_must_hold(bench, committed, row):
    found = [one for one in bench.requirements.checks(committed["settings"]) if one.row == row]
    assert found
    assert not [f"{one.what}: {one.found}" for one in found if not one.is_met]


def test_the_readme_quotes_the_committed_run(bench, committed):
    assert bench.requirements.digest(committed) in (BENCHMARKS / "README.md").read_text(encoding="utf-8")
