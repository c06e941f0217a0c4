"""Cosine fits: exact where a cosine is, global, and never worse than the published ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nlml_hpe.manifold.cosines import FREQUENCY_BOUNDS, evaluate, fit_cosines
from nlml_hpe.rotation import AXES

DEGREES = np.arange(-50.0, 51.0, 10.0)


@given(
    a=st.floats(0.1, 3),
    b=st.floats(0.6, 4),
    c=st.floats(-3, 3),
    d=st.floats(-2, 2),
)
def test_a_cosine_is_found_again(a: float, b: float, c: float, d: float) -> None:
    column = a * np.cos(b * np.radians(DEGREES) + c) + d
    # Slow cosines of small curvature are nearly parabolas: the curve is found, not always its parameters.
    assert fit_cosines(DEGREES, column[:, None]).rms[0] < 1e-6


def test_the_fit_is_the_best_over_all_frequencies() -> None:
    column = np.random.default_rng(0).normal(size=11)
    fitted = fit_cosines(DEGREES, column[:, None])
    radians = np.radians(DEGREES)
    for b in np.linspace(*FREQUENCY_BOUNDS, 2000):
        design = np.stack([np.cos(b * radians), np.sin(b * radians), np.ones(11)], axis=1)
        residual = column - design @ np.linalg.lstsq(design, column, rcond=None)[0]
        assert fitted.rms[0] <= np.sqrt((residual**2).mean()) + 1e-9
    left = fitted(DEGREES)[:, 0] - column
    assert fitted.rms[0] == pytest.approx(np.sqrt((left**2).mean()))


def test_rms_is_at_or_below_the_published_fits(shared_data: Path) -> None:
    folder = shared_data / "nlml_hpe_official"
    published = np.load(folder / "Trained_data.npz", allow_pickle=False)
    factors = np.load(folder / "Factor_Matrices.npz", allow_pickle=False)
    for axis, limit in zip(AXES, (50, 40, 30), strict=True):
        degrees = np.arange(-limit, limit + 1, 10.0)
        factor = factors[f"U_{axis}"].astype(float)
        theirs = evaluate(published[f"optimized_{axis}"], np.radians(degrees)) - factor
        ours = fit_cosines(degrees, factor)
        assert (ours.rms <= np.sqrt((theirs**2).mean(axis=0)) + 1e-9).all(), axis


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_angles_are_passed_through(count: int) -> None:
    degrees = np.arange(count) * 20.0
    column = np.array([0.3, -0.2, 0.5])[:count, None]
    fitted = fit_cosines(degrees, column)
    np.testing.assert_allclose(fitted(degrees), column, atol=1e-9)
    # One angle says nothing of others, and two or three nothing of the frequency.
    amplitude, frequency = fitted.parameters[0, :2]
    assert amplitude == 0 if count == 1 else frequency == 1


def test_the_frequency_is_fitted_from_four_angles_on() -> None:
    column = np.cos(2.5 * np.radians(DEGREES[:4]))
    assert fit_cosines(DEGREES[:4], column[:, None]).rms[0] < 1e-6


def test_bad_input_is_refused() -> None:
    for degrees, factor in ((DEGREES, (3, 2)), (DEGREES, (11,)), (DEGREES[:, None], (11, 1)), (DEGREES[:0], (0, 1))):
        with pytest.raises(ValueError, match="expected degrees"):
            fit_cosines(degrees, np.zeros(factor))
    one_is_nan = np.where(DEGREES == 0, np.nan, 1.0)
    for degrees, column in ((DEGREES, one_is_nan), (one_is_nan, DEGREES)):
        with pytest.raises(ValueError, match="NaN"):
            fit_cosines(degrees, column[:, None])
