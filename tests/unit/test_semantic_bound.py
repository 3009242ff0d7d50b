"""The bound on the error rate holds at every moment, and is tight enough to be of use."""

from __future__ import annotations

import numpy as np
import pytest

from ragkube_api.services.semantic.bound import ALPHA, log_capital, upper_bound
from ragkube_api.services.semantic.standing import Standing, decode


@pytest.mark.proves("C7")
@pytest.mark.parametrize("rate", [0.005, 0.02, 0.1, 0.3])
def test_at_no_moment_it_is_below_the_truth_more_often_than_promised(rate: float) -> None:
    """3,000 tenants of 1,500 audits each, looked at after every audit. The bound is below the truth exactly when the
    capital against the truth has reached 1/alpha, so that is counted.
    """
    random = np.random.default_rng(1)
    steps, tenants = 1500, 3000
    wrong = np.cumsum(random.random((tenants, steps)) < rate, axis=1)
    most = int(wrong.max())
    limit = -np.log(ALPHA)
    refuted = np.array(
        [
            [log_capital(rate, n + 1 - w, w) >= limit if w <= n + 1 else False for w in range(most + 1)]
            for n in range(steps)
        ]
    )
    missed = refuted[np.arange(steps), wrong].any(axis=1)
    # three standard deviations of 3,000 draws above 5 %
    assert missed.mean() <= ALPHA + 3 * np.sqrt(ALPHA * (1 - ALPHA) / tenants)


def test_a_fixed_sample_interval_would_not_do() -> None:
    """The same tenants, looked at after every audit with the usual 95 % bound: it fails far more often."""
    random = np.random.default_rng(1)
    rate, steps = 0.1, 1500
    wrong = np.cumsum(random.random((500, steps)) < rate, axis=1)
    n = np.arange(1, steps + 1)
    mean = wrong / n
    bound = mean + 1.645 * np.sqrt(np.maximum(mean * (1 - mean), 1e-9) / n)
    assert (bound[:, 30:] < rate).any(axis=1).mean() > 3 * ALPHA


def test_the_bound_is_the_smallest_rate_that_is_not_refuted() -> None:
    bound = upper_bound(400, 2)
    assert log_capital(bound + 1e-6, 400, 2) >= -np.log(ALPHA)
    assert log_capital(bound - 1e-6, 400, 2) < -np.log(ALPHA)
    assert upper_bound(0, 0) == 1.0


def test_it_falls_with_right_answers_and_rises_with_wrong_ones() -> None:
    assert upper_bound(50, 0) > upper_bound(100, 0) > upper_bound(1000, 0)
    assert upper_bound(100, 0) < upper_bound(100, 1) < upper_bound(100, 10)


@pytest.mark.parametrize(("budget", "needed"), [(0.01, 430), (0.05, 85), (0.2, 20)])
def test_how_many_right_answers_a_budget_needs(budget: float, needed: int) -> None:
    """These numbers stand in docs/caching.md."""
    assert upper_bound(needed, 0, ALPHA / 2) <= budget < upper_bound(needed // 2, 0, ALPHA / 2)


def test_a_window_forgets() -> None:
    standing = Standing()
    for n in range(460):
        standing = standing.after(0.15, wrong=n < 60)
    assert standing.bound < 0.06
    assert standing.audits == 460


def test_a_standing_comes_back_from_its_record_and_nothing_else_does() -> None:
    standing = Standing()
    for n in range(150):
        standing = standing.after(0.2, wrong=n % 40 == 3)
    assert decode(standing.encode()) == standing
    for damaged in (b"", b"{}", b"[]", b"null", b'{"windows":[],"serving":true,"audits":1}', standing.encode()[:-4],
                    standing.encode().replace(b'"right":', b'"right":-'), b"\xff"):  # fmt: skip
        assert decode(damaged) is None


@pytest.mark.proves("C7")
def test_a_tenant_past_its_budget_is_exact_only_and_comes_back() -> None:
    standing = Standing()
    for _ in range(90):
        standing = standing.after(0.05, wrong=False)
    assert standing.serving
    stopped, standing = _until(standing, serving=False, wrong=True)
    assert stopped <= 5
    back, standing = _until(standing, serving=True, wrong=False)
    assert 90 < back < 500, "what was spent of alpha makes the second time longer"


def _until(standing: Standing, *, serving: bool, wrong: bool) -> tuple[int, Standing]:
    """How many audits it takes."""
    for count in range(1, 500):
        standing = standing.after(0.05, wrong=wrong)
        if standing.serving == serving:
            return count, standing
    raise AssertionError("never")
