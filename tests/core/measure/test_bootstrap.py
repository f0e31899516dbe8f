"""Bootstrap intervals: repeatable, about as wide as theory says, narrower in pairs."""

from __future__ import annotations

import numpy as np
import pytest

from xlstm_unet.measure import bootstrap_interval


def test_width_is_that_of_the_normal_approximation():
    values = np.random.default_rng(1).normal(5.0, 2.0, 400)
    interval = bootstrap_interval(values)
    half = 1.96 * values.std() / 20
    assert interval.mean == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - half, abs=0.03)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.03)


def test_coverage_is_about_what_is_asked():
    generator = np.random.default_rng(2)
    hits = 0
    for _ in range(200):
        interval = bootstrap_interval(generator.normal(0, 1, 60), level=0.9, resamples=500)
        hits += interval.low <= 0 <= interval.high
    assert 165 <= hits <= 195


def test_the_seed_decides():
    values = np.random.default_rng(3).random(30)
    assert bootstrap_interval(values) == bootstrap_interval(values)
    assert bootstrap_interval(values) != bootstrap_interval(values, seed=1)


def test_pairs_tell_more_than_two_means():
    generator = np.random.default_rng(4)
    before = generator.random(40)
    after = before + 0.02 + generator.normal(0, 0.01, 40)
    paired = bootstrap_interval(after, before)
    assert paired.low > 0.01
    assert paired.mean == pytest.approx((after - before).mean())
    alone = bootstrap_interval(after)
    assert paired.high - paired.low < (alone.high - alone.low) / 10


def test_one_value_is_certain_and_many_values_fit_in_memory():
    assert bootstrap_interval([0.4]).high == 0.4
    assert bootstrap_interval(np.ones(2**21), resamples=3).low == 1


@pytest.mark.parametrize(
    ("values", "baseline", "kwargs"),
    [
        ([], None, {}),
        ([1.0, np.nan], None, {}),
        ([1.0, 2.0], [1.0], {}),
        ([[1.0]], None, {}),
        ([1.0], None, {"level": 1.0}),
        ([1.0], None, {"resamples": 0}),
    ],
)
def test_what_has_no_interval_is_refused(values, baseline, kwargs):
    with pytest.raises(ValueError, match="expected"):
        bootstrap_interval(values, baseline, **kwargs)
