"""Claims of `tukey`: a closed form, scipy as the peer, a published table, and what a probability must be."""

import math
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from scalesearch import tukey
from scalesearch.tukey import survival

DISTANCES = (0.0, 0.01, 0.5, 1.0, 2.0, 3.5, 6.0, 10.0, 100.0)


@pytest.mark.parametrize("df", [1, 2, 3, 7, 50, 1e3, 1e5, 1e7, math.inf])
@pytest.mark.parametrize("distance", DISTANCES)
def test_of_two_means_it_is_students_t(distance, df):
    t = distance / math.sqrt(2)
    expected = 2 * (special.ndtr(-t) if math.isinf(df) else special.stdtr(df, -t))
    assert survival(distance, 2, df) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("arms", [2, 3, 5, 20, 59, 116, 500])
@pytest.mark.parametrize("df", [1, 2, 5, 59, 9000, math.inf])
def test_it_is_scipys(arms, df):
    for distance in DISTANCES:
        expected = stats.studentized_range.sf(distance, arms, df)
        assert survival(distance, arms, df) == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("arms", [3, 500])
@pytest.mark.parametrize("df", [1, 2, 59, 9000, math.inf])
def test_twice_the_nodes_change_nothing(arms, df, monkeypatch):
    found = [survival(distance, arms, df) for distance in (0.5, 2.0, 6.0)]
    for step in ("NORMAL_STEP", "LOG_STEP"):
        monkeypatch.setattr(tukey, step, getattr(tukey, step) / 2)
    monkeypatch.setattr(tukey, "LEAST_NODES", 2 * tukey.LEAST_NODES)
    tukey._spreads.cache_clear()
    assert [survival(distance, arms, df) for distance in (0.5, 2.0, 6.0)] == pytest.approx(found, abs=1e-11)
    tukey._spreads.cache_clear()


@pytest.mark.parametrize(
    ("arms", "df", "point"), [(3, 10, 3.877), (5, 20, 4.232), (10, 5, 6.995), (20, 60, 5.241), (3, 2, 8.331)]
)
def test_its_5_percent_points_are_the_published_ones(arms, df, point):
    """Upper 5 % points to three decimals: Harter (1960), Annals of Mathematical Statistics 31(4)."""
    assert survival(point - 0.0006, arms, df) > 0.05 > survival(point + 0.0006, arms, df)


@settings(deadline=None)
@given(st.floats(0, 50), st.floats(0, 5), st.integers(2, 500), st.one_of(st.integers(1, 5_000_000), st.just(math.inf)))
def test_it_is_a_probability_that_falls_with_the_distance_and_rises_with_the_arms(distance, more, arms, df):
    there = survival(distance, arms, df)
    assert 0 <= there <= 1
    assert survival(distance + more, arms, df) <= there + 1e-12
    assert survival(distance, arms + 1, df) >= there - 1e-12


def test_beyond_every_distance_nothing_is_left_and_below_none_all():
    assert survival(math.inf, 5, 10) == 0.0
    assert survival(-1.0, 5, 10) == 1.0


def test_it_does_without_all_of_scipys_distributions():
    program = "import sys; from scalesearch.tukey import survival; survival(1, 3, 5); print(*sys.modules)"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert "scipy.special" in told.split()
    assert "scipy.stats" not in told.split()
