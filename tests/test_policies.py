"""Claims of the policies: what they train, when they stop, who leaves and who never does, on planted accuracies."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from scalesearch.decision import Ending, Leave
from scalesearch.errors import JournalError
from scalesearch.policies import Player, Rules, most_trials
from scalesearch.policies.allocation import most_telling
from scalesearch.policies.race import rungs
from scalesearch.ranking import rank
from scalesearch.samples import Arm, region
from scalesearch.surface import Draws
from scalesearch.trials import TrialKey

STEPS = 6
SHARES = [(i / STEPS, j / STEPS, (STEPS - i - j) / STEPS) for i in range(STEPS + 1) for j in range(STEPS + 1 - i)]
ARMS = [
    Arm(id=f"a{i:02}", shares=share, references=("dwr",) if max(share) < 0.4 else ()) for i, share in enumerate(SHARES)
]
OFF = Arm(id="off", shares=(0.0, 0.0, 1.0), off_budget=True, references=("resolution",))
NOISE = {1: 0.8, 4: 0.56, 16: 0.19, 64: 0.15}


def rules(policy, *, epochs=64, seeds=3, margin=0.1, trials=None):
    most = epochs * (len(ARMS) * seeds if trials is None else trials)
    return Rules(policy=policy, epochs=epochs, seeds=seeds, margin=margin, most_epochs=most)


def planted(best, curvature=4.0, bias=0.0):
    """The accuracy of a trial: a peak at the best shares, short training in favour of width, noise by key."""

    def accuracy(key: TrialKey) -> float:
        share = np.array(next(arm.shares for arm in [*ARMS, OFF] if arm.id == key.proxy))
        early = bias * {1: 1, 4: 1, 16: 0.4, 64: 0}[key.rung] * share[1]
        seed = [int(byte) for byte in f"{key}".encode()]
        noise = NOISE[key.rung] * np.random.default_rng(seed).standard_normal()
        return 80 - curvature * float(((share - np.asarray(best)) ** 2).sum()) + early + noise

    return accuracy


def played(told, accuracy, arms=ARMS):
    """Every batch of a search and where it ended."""
    results: dict[TrialKey, float | None] = {}
    batches = []
    playing = Player(arms, told)
    while (now := playing.standing(results)).due:
        batches.append(now.due)
        results |= {key: accuracy(key) for key in now.due}
    return batches, now, results


# all policies ---------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=25)
@given(st.sampled_from(["grid", "fit", "race"]), st.integers(1, 90), st.sampled_from([1, 4, 16, 64]))
def test_no_policy_trains_more_than_it_may(policy, trials, epochs):
    told = rules(policy, epochs=epochs, trials=trials)
    batches, now, _ = played(told, planted((0.3, 0.3, 0.4)))
    keys = [key for batch in batches for key in batch]
    assert sum(key.rung for key in keys) <= told.most_epochs
    assert len(set(keys)) == len(keys) <= most_trials(len(ARMS), told)
    assert now.ending is not None


@pytest.mark.parametrize("policy", ["grid", "fit", "race"])
def test_an_unfinished_batch_decides_nothing_and_a_new_player_comes_to_the_same(policy):
    told, accuracy = rules(policy), planted((0.3, 0.3, 0.4))
    batches, _, results = played(told, accuracy)
    random = np.random.default_rng(0)
    for number, batch in enumerate(batches):
        before = {key: results[key] for earlier in batches[:number] for key in earlier}
        some = [key for key in batch if random.random() < 0.5][: len(batch) - 1]
        mixed = before | {key: results[key] for key in some}
        shuffled = {key: mixed[key] for key in random.permutation(np.array(list(mixed), dtype=object))} if mixed else {}
        assert Player(ARMS, told).standing(shuffled).due == batch


@pytest.mark.parametrize("policy", ["fit", "race"])
def test_what_was_decided_is_believed_on_the_very_results_alone(policy):
    told, accuracy = rules(policy), planted((0.3, 0.3, 0.4))
    first = Player(ARMS, told)
    results = {key: accuracy(key) for key in first.standing({}).due}
    first.standing(results)
    [(on, said)] = first.decided.items()
    other = replace(said, arms=said.arms[:3], leaves=())
    assert {key.proxy for key in Player(ARMS, told, {on: other}).standing(results).due} >= set(other.arms)
    assert Player(ARMS, told, {on: other}).standing(results).due != first.standing(results).due
    changed = results | {next(iter(results)): 50.0}
    assert Player(ARMS, told, {on: other}).standing(changed) == Player(ARMS, told).standing(changed)
    wider = replace(told, margin=1.0)
    assert Player(ARMS, wider, {on: other}).standing(results) == Player(ARMS, wider).standing(results)


@pytest.mark.parametrize(
    "change", [{"arms": ("stranger",)}, {"leaves": (Leave(arm="a00", rung=64, seeds=7),)}, {"arms": ("a10",)}], ids=str
)
def test_a_decision_that_its_results_contradict_is_refused_in_a_line(change):
    accuracy = planted((0.3, 0.3, 0.4))
    first = Player(ARMS, rules("race"))
    results = {key: None if key.proxy == "a10" else accuracy(key) for key in first.standing({}).due}
    first.standing(results)
    [(on, said)] = first.decided.items()
    with pytest.raises(JournalError, match=f"{on} of the journal contradicts .*; remove the line") as caught:
        Player(ARMS, rules("race"), {on: replace(said, **change)}).standing(results)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("policy", ["grid", "fit", "race"])
def test_failed_arms_are_not_trained_for_ever(policy):
    accuracy = planted((0.3, 0.3, 0.4))
    batches, now, _results = played(rules(policy), lambda key: None if key.proxy == "a10" else accuracy(key))
    tries = Counter(key.proxy for batch in batches for key in batch)
    assert tries["a10"] <= 3
    assert now.ending is not None
    batches, now, _ = played(rules(policy), lambda key: None)
    assert now.ending is Ending.COMPLETE
    assert max(Counter(key.proxy for batch in batches for key in batch).values()) <= 3


@pytest.mark.parametrize("policy", ["fit", "race"])
def test_few_arms_without_shares_to_fit_are_searched_all_the_same(policy):
    arms = [Arm(id=name, shares=share) for name, share in zip("abc", map(tuple, np.eye(3).tolist()), strict=True)]
    values = {"a": 80.0, "b": 82.0, "c": 79.0}

    def accuracy(key):
        return values[key.proxy] + 0.1 * np.random.default_rng([ord(key.proxy), key.seed]).standard_normal()

    _, now, results = played(rules(policy, trials=30), accuracy, arms)
    assert now.ending in (Ending.SETTLED, Ending.COMPLETE)
    means = {name: np.mean([value for key, value in results.items() if key.proxy == name]) for name in "abc"}
    assert max(means, key=lambda name: means[name]) == "b"


# grid -----------------------------------------------------------------------------------------------------------------


def test_the_grid_is_every_seed_of_every_arm_in_order():
    batches, now, _ = played(rules("grid"), planted((1, 0, 0)))
    assert batches == [tuple(TrialKey(proxy=arm.id, seed=seed, rung=64) for seed in range(3) for arm in ARMS)]
    assert (now.ending, now.leaves) == (Ending.COMPLETE, ())
    batches, now, _ = played(rules("grid", trials=40), planted((1, 0, 0)))
    assert len(batches[0]) == 40
    assert now.ending is Ending.SPENT


# fit ------------------------------------------------------------------------------------------------------------------


def test_fit_trains_at_full_length_only_and_numbers_the_seeds_of_an_arm():
    batches, now, results = played(rules("fit"), planted((0.3, 0.3, 0.4)), [*ARMS, OFF])
    assert {key.rung for key in results} == {64}
    for name, count in Counter(key.proxy for key in results).items():
        assert sorted(key.seed for key in results if key.proxy == name) == list(range(count))
    assert now.ending is Ending.SETTLED
    assert sum(key.proxy == "off" for key in results) == 1, "off budget: listed, never searched"
    assert {arm.id for arm in ARMS if arm.references} <= {key.proxy for key in batches[0]}


def test_fit_finds_as_good_an_arm_as_the_grid_with_a_fraction_of_its_trials():
    random = np.random.default_rng(0)
    lost, trials = [], []
    for _ in range(20):
        best = random.dirichlet([4, 4, 4])
        _, _, results = played(rules("fit"), planted(best))
        accuracies = {}
        for key, value in results.items():
            accuracies.setdefault(key.proxy, []).append(value)
        leader = rank(ARMS, accuracies, untrained=frozenset(arm.id for arm in ARMS)).leader
        distances = [float(((np.array(share) - best) ** 2).sum()) for share in SHARES]
        lost.append(4.0 * (distances[int(leader[1:])] - min(distances)))
        trials.append(len(results))
    assert np.mean(lost) <= 0.03
    assert np.mean(trials) <= len(ARMS), "a third of the grid of three seeds"


def test_fit_sees_what_short_training_hides():
    biased = played(rules("fit"), planted((0.8, 0.1, 0.1), bias=3.0))[2]
    assert biased == played(rules("fit"), planted((0.8, 0.1, 0.1)))[2]


@pytest.mark.parametrize("gap", [0.0, 0.3])
def test_the_next_trial_of_independent_arms_is_that_of_the_knowledge_gradient(gap):
    """Closed form for independent normal arms: sd·h(gap/sd), h(z) = φ(z) − z·Φ(−z)."""
    random = np.random.default_rng(0)
    means, spreads, noise = np.array([0.0, -gap, -gap - 0.2]), np.array([0.1, 0.4, 0.5]), 0.3
    draws = Draws(
        accuracies=means + spreads * stats.qmc.MultivariateNormalQMC(np.zeros(3), rng=random).random(4096),
        coefficients=np.zeros((4096, 1)),
        noise=np.full(4096, noise),
        roughness=np.zeros(4096),
    )
    moves = spreads**2 / np.sqrt(spreads**2 + noise**2)
    rival = np.array([max(np.delete(means, arm)) for arm in range(3)])
    z = np.abs(means - rival) / moves
    gains = moves * (stats.norm.pdf(z) - z * stats.norm.sf(z))
    assert most_telling(draws, 1, np.ones(3, bool)) == [int(gains.argmax())]
    closed = np.ones(3, bool)
    closed[int(gains.argmax())] = False
    assert most_telling(draws, 1, closed) != [int(gains.argmax())]


# race -----------------------------------------------------------------------------------------------------------------


def test_rungs_grow_and_survivors_meet_the_same_seeds():
    batches, now, _results = played(rules("race"), planted((0.3, 0.3, 0.4)))
    lengths = [batch[-1].rung for batch in batches]
    assert lengths == sorted(lengths)
    assert tuple(sorted(set(lengths))) == rungs(64)
    alive = {arm.id for arm in ARMS}
    for batch in batches:
        first = {key.proxy for key in batch if key.seed == min(key.seed for key in batch)}
        assert first <= alive
        alive = first
    gone = {leave.arm for leave in now.leaves}
    assert gone
    assert len(gone) == len(now.leaves), "nobody leaves twice"


@pytest.mark.slow
def test_the_best_of_a_race_rarely_leaves():
    """The chance that anybody leaves wrongly is held at 5 %; 40 races."""
    lost = 0
    for number in range(40):
        random = np.random.default_rng(number)
        best = random.dirichlet([4, 4, 4])
        distances = [float(np.sum((np.array(share) - best) ** 2)) for share in SHARES]
        champion = ARMS[int(np.argmin(distances))].id
        peak = planted(best, curvature=5.0)

        def accuracy(key, peak=peak, number=number):
            return peak(TrialKey(proxy=key.proxy, seed=key.seed + 1000 * number, rung=key.rung))

        _, now, _ = played(rules("race"), accuracy)
        lost += champion in {leave.arm for leave in now.leaves}
    assert lost <= 5


def test_the_first_rung_decides_nothing_between_regions():
    """Short training favours width by 6 points, long training depth: no region is emptied before two rungs agree."""
    _, now, results = played(rules("race"), planted((0.9, 0.05, 0.05), bias=6.0))
    first = {leave.arm for leave in now.leaves if leave.rung == 4}
    stayed = {region(arm) for arm in ARMS if arm.id not in first}
    assert stayed == {"depth", "width", "resolution"}
    full = {key.proxy for key in results if key.rung == 64}
    assert any(region(arm) == "depth" for arm in ARMS if arm.id in full)
    last = max((key for key in results if key.rung == 64), key=lambda key: (key.seed, results[key]))
    assert region(next(arm for arm in ARMS if arm.id == last.proxy)) == "depth"
