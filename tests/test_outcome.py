"""What the trials of a plan come to: the leader, its rule, and a document that order of arrival cannot change."""

import json
import random
from functools import cache

import pytest

from scalesearch.documents import rank_document
from scalesearch.errors import StudyError
from scalesearch.outcome import Outcome, conclude
from scalesearch.plan import ANCHOR, Layout, Plan
from scalesearch.recipe import EpochResult
from scalesearch.request import Request, resolve
from scalesearch.scaling import Coefficients
from scalesearch.trials import TrialKey, TrialResult, TrialState


@cache
def planned(seeds: int = 2) -> tuple[Plan, Layout]:
    return resolve(Request(preset="quick", seeds=seeds))


def trial(proxy: str, seed: int, accuracy: float, *, rung: int = 2) -> TrialResult:
    epochs = tuple(
        EpochResult(epoch=epoch, train_loss=1.0, accuracy=accuracy - 5 * (rung - epoch), loss=1.0)
        for epoch in range(1, rung + 1)
    )
    key = TrialKey(proxy=proxy, seed=seed, rung=rung)
    return TrialResult(key=key, state=TrialState.COMPLETE, epochs=epochs, seconds=random.random())


def failure(proxy: str, seed: int) -> TrialResult:
    return TrialResult(key=TrialKey(proxy=proxy, seed=seed, rung=2), state=TrialState.FAILED, reason="diverged")


def named(layout: Layout, reference: str) -> str:
    return next(one.proxy_id for one in layout.candidates if reference in one.references)


def concluded(accuracies: dict[str, list[float]], *others: TrialResult) -> Outcome:
    """Of the plan with every trained proxy at 60 and 61 %, but for those given."""
    plan, layout = planned()
    given = {name: accuracies.get(name, [60.0, 61.0]) for name in (ANCHOR, *layout.trained)}
    results = [trial(name, seed, value) for name, values in given.items() for seed, value in enumerate(values)]
    return conclude(plan, layout, [*results, *others])


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


def test_order_of_arrival_and_times_do_not_change_a_byte():
    plan, layout = planned()
    values = random.Random(0)
    results = [
        trial(name, seed, round(values.gauss(60, 1), 2)) for seed in range(2) for name in (ANCHOR, *layout.trained)
    ]
    once = json.dumps(rank_document(conclude(plan, layout, results)))
    for seed in range(3):
        shuffled = [trial(r.key.proxy, r.key.seed, r.accuracy or 0) for r in results]
        random.Random(seed).shuffle(shuffled)
        assert json.dumps(rank_document(conclude(plan, layout, shuffled))) == once


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
    assert document["schema_version"] == 1
    assert document["evidence"] == "quick look"
    assert set(document) >= {"verdict", "chosen", "noise_sd", "df", "seeds_needed", "failed", "candidates"}
    assert set(document["chosen"]) == {"id", "alpha", "beta", "gamma", "shares"}
    assert document["chosen"]["id"] == fast
    assert document["df"] == len(layout.trained)
    keys = {"id", "rank", "mean", "low", "high", "seeds", "p_best", "tied_with_best", "references"}
    assert all(set(row) >= keys for row in document["candidates"])
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
