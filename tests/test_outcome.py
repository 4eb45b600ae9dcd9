"""What the trials of a plan come to: the leader, its rule, and a document that order of arrival cannot change."""

import json
import random
from dataclasses import replace
from functools import cache
from typing import get_args

import pytest

from scalesearch.agenda import agenda
from scalesearch.documents import rank_document
from scalesearch.errors import StudyError
from scalesearch.outcome import Outcome, conclude
from scalesearch.plan import ANCHOR, Layout, Plan
from scalesearch.presets import PolicyName
from scalesearch.recipe import EpochResult
from scalesearch.request import Request, resolve
from scalesearch.scaling import Coefficients
from scalesearch.trials import TrialKey, TrialResult, TrialState


@cache
def planned(seeds: int = 2, policy: PolicyName = "grid") -> tuple[Plan, Layout]:
    return resolve(Request(preset="quick", seeds=seeds, policy=policy))


def trial(proxy: str, seed: int, accuracy: float, *, rung: int = 2) -> TrialResult:
    epochs = tuple(
        EpochResult(epoch=epoch, train_loss=1.0, accuracy=accuracy - 5 * (rung - epoch), loss=1.0)
        for epoch in range(1, rung + 1)
    )
    key = TrialKey(proxy=proxy, seed=seed, rung=rung)
    state = TrialState.COMPLETE if rung == 2 else TrialState.PRUNED
    return TrialResult(key=key, state=state, epochs=epochs, seconds=random.random())


def failure(proxy: str, seed: int, *, rung: int = 2) -> TrialResult:
    return TrialResult(key=TrialKey(proxy=proxy, seed=seed, rung=rung), state=TrialState.FAILED, reason="diverged")


def named(layout: Layout, reference: str) -> str:
    return next(one.proxy_id for one in layout.candidates if reference in one.references)


def concluded(accuracies: dict[str, list[float]], *others: TrialResult) -> Outcome:
    """Of the plan with every trained proxy at 60 and 61 %, but for those given."""
    plan, layout = planned()
    given = {name: accuracies.get(name, [60.0, 61.0]) for name in (ANCHOR, *layout.trained)}
    results = [trial(name, seed, value) for name, values in given.items() for seed, value in enumerate(values)]
    return conclude(plan, layout, [*results, *others])


def searched(policy: PolicyName, *, failing: float = 0.0) -> list[TrialResult]:
    """Every trial of a search, with accuracies and failures that hang on its key alone."""
    plan, layout = planned(policy=policy)
    results: dict[TrialKey, TrialResult] = {}
    while (now := agenda(plan, layout, list(results.values()))).stage is not None:
        for key in now.due:
            values = random.Random(str(key))
            depth = 0.3 if key.proxy == ANCHOR else layout.candidate(key.proxy).shares[0]
            found = trial(key.proxy, key.seed, values.gauss(70 - 30 * (depth - 0.4) ** 2, 0.2), rung=key.rung)
            is_lost = key.proxy != ANCHOR and values.random() < failing
            results.setdefault(key, failure(key.proxy, key.seed, rung=key.rung) if is_lost else found)
    return list(results.values())


def test_the_leader_is_the_candidate_with_the_highest_mean():
    _, layout = planned()
    fast = named(layout, "fast")
    outcome = concluded({fast: [70.0, 71.0]})
    assert outcome.leader is not None
    assert outcome.leader.id == fast
    assert (outcome.ranking.rows[0].id, outcome.ranking.rows[0].mean) == (fast, 70.5)


def test_only_the_last_epoch_counts():
    _, layout = planned()
    outcome = concluded({layout.trained[0]: [40.0, 41.0]})
    assert next(row.mean for row in outcome.ranking.rows if row.id == layout.trained[0]) == 40.5


def test_the_rule_is_the_leaders_shares_normalised_to_the_budget():
    _, layout = planned()
    fast = layout.candidate(named(layout, "fast"))
    rule = concluded({fast.id: [70.0, 71.0]}).rule()
    assert rule.coefficients == Coefficients.from_shares(fast.proxy.effective.shares, 2.0)
    assert rule.coefficients.nominal == pytest.approx(2, rel=1e-12)
    assert rule.budget == 2.0
    assert rule.evidence == "quick look"


def test_another_candidate_overrides_the_rule_trained_or_not():
    plan, layout = planned()
    outcome = concluded({})
    untrained = next(one for one in layout.candidates if one.proxy_id not in layout.trained)
    for one in (layout.candidate(named(layout, "paper")), untrained):
        assert outcome.rule(one.id).coefficients == Coefficients.from_shares(one.shares, plan.space.budget)


def test_an_unknown_candidate_is_answered_with_what_ids_look_like():
    with pytest.raises(StudyError, match="no candidate 'b0'") as caught:
        concluded({}).rule("b0")
    assert planned()[1].candidates[0].id in caught.value.mend


def test_off_budget_references_are_ranked_but_never_lead():
    _, layout = planned()
    off = [one.id for one in layout.candidates if one.off_budget]
    assert off
    outcome = concluded({name: [99.0, 99.5] for name in off})
    assert outcome.leader is not None
    assert outcome.leader.id not in off
    rows = {row.id: row for row in outcome.ranking.rows}
    assert set(off) <= set(rows)
    assert not any(rows[name].tied_with_best for name in off)


def test_the_anchor_takes_no_part():
    outcome = concluded({ANCHOR: [99.0, 99.0]})
    _, layout = planned()
    assert {row.id for row in outcome.ranking.rows} == set(layout.trained)


def test_every_reference_is_in_the_ranking():
    names = [name for row in concluded({}).ranking.rows for name in row.references]
    assert sorted(names) == sorted(["depth", "width", "resolution", "dwr", "fast", "paper", "effnetx-gpu"])


@pytest.mark.parametrize("policy", get_args(PolicyName))
def test_order_of_arrival_and_times_do_not_change_a_byte(policy: PolicyName):
    plan, layout = planned(policy=policy)
    results = searched(policy, failing=0.05)
    once = json.dumps(rank_document(conclude(plan, layout, results)))
    assert json.loads(once)["search"]["unfinished"] is None
    for seed in range(3):
        shuffled = [replace(result, seconds=random.random()) for result in results]
        random.Random(seed).shuffle(shuffled)
        assert json.dumps(rank_document(conclude(plan, layout, shuffled))) == once


def test_a_search_that_chooses_ranks_what_it_did_not_train_by_the_surface():
    plan, layout = planned(policy="fit")
    results = searched("fit")
    outcome = conclude(plan, layout, results)
    tried = {result.key.proxy for result in results} - {ANCHOR}
    assert len(results) <= 26
    assert outcome.epochs == 2 * len(results)
    assert outcome.ranking.rests_on_surface
    assert outcome.ranking.failed == ()
    rows = {row.id: row for row in outcome.ranking.rows}
    assert set(rows) == set(layout.trained) > tried
    for name, row in rows.items():
        assert row.seeds == sum(result.key.proxy == name for result in results)
        assert (row.mean is None) is (name not in tried)
        assert row.low is not None
    assert outcome.ranking.leader in tried
    document = rank_document(outcome)
    assert document["rests_on"] == "surface"
    assert document["search"]["epochs"] == 2 * (len(results) - plan.seeds) <= document["search"]["most_epochs"] == 48


def test_a_network_that_was_tried_and_never_finished_is_told_of_beside_those_that_nobody_tried():
    plan, layout = planned(policy="fit")
    results = searched("fit", failing=0.3)
    lost = {result.key.proxy for result in results if result.state is TrialState.FAILED}
    lost -= {result.key.proxy for result in results if result.accuracy is not None}
    assert lost
    outcome = conclude(plan, layout, results)
    assert set(outcome.ranking.failed) == lost
    assert {one.key for one in outcome.failed} == {one.key for one in results if one.state is TrialState.FAILED}
    assert outcome.ranking.leader not in lost


def test_short_rungs_change_no_estimate_and_put_their_losers_behind_the_best():
    plan, layout = planned(policy="race")
    results = searched("race")
    short = [result for result in results if result.key.rung < plan.epochs]
    assert short
    outcome = conclude(plan, layout, results)
    without = conclude(plan, layout, [one for one in results if one not in short])
    bare = [[replace(row, tied_with_best=False) for row in one.ranking.rows] for one in (outcome, without)]
    assert bare[0] == bare[1]
    left = {leave.arm for leave in outcome.search.leaves}
    assert left
    assert not any(row.tied_with_best for row in outcome.ranking.rows if row.id in left)
    tied = [{row.id for row in one.ranking.rows if row.tied_with_best} for one in (outcome, without)]
    assert tied[0] == tied[1] - left
    assert outcome.fidelity != without.fidelity
    assert outcome.epochs == sum(result.key.rung for result in results)


def test_a_failed_trial_is_listed_whenever_it_failed():
    plan, layout = planned()
    one, two = layout.trained[:2]
    results = [trial(name, 0, 60.0) for name in layout.trained] + [trial(name, 1, 61.0) for name in layout.trained[2:]]
    failures = [failure(one, 1), failure(two, 1)]
    document = rank_document(conclude(plan, layout, [*failures, *results]))
    assert document["failed"] == [str(result.key) for result in sorted(failures, key=lambda result: result.key)]
    assert document == rank_document(conclude(plan, layout, [*results, *reversed(failures)]))


def test_nothing_but_failures_has_no_rule():
    plan, layout = planned()
    outcome = conclude(plan, layout, [failure(name, 0) for name in layout.trained])
    assert outcome.leader is None
    with pytest.raises(StudyError, match="no trial"):
        outcome.rule()
    assert rank_document(outcome)["chosen"] is None


def test_the_document_of_a_ranking_has_the_keys_that_others_build_on():
    _, layout = planned()
    fast = named(layout, "fast")
    document = json.loads(json.dumps(rank_document(concluded({fast: [70.0, 71.0]}))))
    assert document["schema_version"] == 2
    assert document["evidence"] == "quick look"
    keys = {"verdict", "chosen", "noise_sd", "df", "seeds_needed", "failed", "candidates", "findings", "search"}
    keys |= {"fidelity", "confirmation", "travel", "rests_on", "margin", "surface", "unranked", "anchor", "silent"}
    assert set(document) == keys | {"schema_version", "evidence", "verdict_kind"}
    assert set(document["search"]) == {"policy", "unfinished", "ending", "epochs", "most_epochs", "left"}
    assert document["search"] == document["search"] | {"policy": "grid", "unfinished": None, "ending": "complete"}
    assert set(document["surface"]) >= {"optimum", "roughness", "is_poor"}
    assert all(isinstance(line, str) for line in document["findings"])
    assert set(document["chosen"]) == {"id", "alpha", "beta", "gamma", "shares"}
    assert document["chosen"]["id"] == fast
    assert document["df"] == len(layout.trained)
    keys = {"id", "rank", "estimate", "mean", "low", "high", "seeds", "p_best", "tied_with_best", "references"}
    assert all(set(row) == keys | {"off_budget", "same_proxy", "shares"} for row in document["candidates"])
    assert len(document["candidates"]) == len(layout.trained)


def test_one_seed_has_no_interval_and_no_winner_and_says_so():
    plan, layout = planned(seeds=1)
    results = [trial(name, 0, 60.0 + place) for place, name in enumerate(layout.trained)]
    document = rank_document(conclude(plan, layout, results))
    assert document["noise_sd"] is None
    assert all(row["low"] is None and row["high"] is None for row in document["candidates"])
    assert "one seed" in document["verdict"].lower()


def test_candidates_that_share_a_proxy_are_named_beside_it():
    _, layout = planned()
    document = rank_document(concluded({}))
    rows = {row["id"]: row["same_proxy"] for row in document["candidates"]}
    for one in layout.candidates:
        if one.proxy_id in rows and one.proxy_id != one.id:
            assert one.id in rows[one.proxy_id]
    assert any(rows.values())
