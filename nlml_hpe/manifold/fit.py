"""From a landmark tensor to a pose manifold: decomposition, cosines, and noise statistics.

Noise is measured where it matters, on people the model has not seen: the tensor is decomposed again
without each fold of people, the held-out people are explained at their known angles, and what is
left over is the noise. It is far from white (neighbouring landmarks err together), so its full
covariance in the manifold's basis is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from nlml_hpe.config import TuckerConfig
from nlml_hpe.manifold.cosines import Cosines, fit_axes
from nlml_hpe.manifold.fill import rotation_tensor
from nlml_hpe.manifold.manifold import PoseManifold
from nlml_hpe.manifold.passes import Arithmetic
from nlml_hpe.manifold.statistics import IdentityPrior, Noise
from nlml_hpe.manifold.tensor import LandmarkTensor
from nlml_hpe.manifold.tucker import Runner, TuckerModel, decompose, require_people_found, unseen
from nlml_hpe.pose_grid import PoseGrid
from nlml_hpe.rotation import AXES, Angles

N_FOLDS = 4
_MAX_FOLD_PEOPLE = 200
_MAX_CELLS_PER_FOLD = 2000
_SHRINKAGE = 0.02
"""Share of the noise covariance that is spread evenly over all directions, so that it has an inverse
and no direction is trusted without limit."""
_NOTHING_DEG = 360.0
"""A standard deviation of so much says that the angle is not known."""

FloatArray = NDArray[np.float64]
Fold = tuple[NDArray[np.int64] | None, NDArray[np.int64]]
"""People to learn from, by their places in the tensor, and people who are held out."""


@dataclass(frozen=True)
class FittedManifold:
    """The manifold with what its making showed.

    Attributes
    ----------
    manifold : PoseManifold
        With its noise statistics.
    tucker : TuckerModel
        The decomposition.
    cosines : tuple of three Cosines
        The fits of yaw, pitch and roll.
    never_held_out : tuple of int
        People by whom the noise was not measured: without their fold an angle of the grid has no face. All of them,
        where nobody can be spared: it is then that of the faces the manifold was learned from.
    """

    manifold: PoseManifold
    tucker: TuckerModel
    cosines: tuple[Cosines, Cosines, Cosines]
    never_held_out: tuple[int, ...] = ()

    def summary(self) -> str:
        """Cells filled, error of the decomposition, rms of every cosine, in words."""
        lines = [f"filled {self.tucker.filled} missing cells; relative error {self.tucker.relative_error:.4f}"]
        for name, fit in zip(AXES, self.cosines, strict=True):
            lines.append(f"cosine rms of U_{name}: " + "  ".join(f"{rms:.5f}" for rms in fit.rms))
        people = self.manifold.facts["people"]
        if len(self.never_held_out) == people:
            lines.append(
                "noise measured on the faces learned from (nobody can be spared): error bars may be too narrow"
            )
        elif self.never_held_out:
            lines.append(
                f"noise measured without {len(self.never_held_out)} of {people} people, who have an angle's only faces"
            )
        return "\n  ".join(lines)


def fit_manifold(
    tensor: LandmarkTensor,
    config: TuckerConfig,
    seed: int,
    progress: bool = False,
    runner: Runner | None = None,
    device: torch.device | None = None,
) -> FittedManifold:
    """Learn the manifold of a landmark tensor.

    Parameters
    ----------
    tensor : LandmarkTensor
        The training people's faces on the grid.
    config : TuckerConfig
        Ranks, sweeps, prior.
    seed : int
        Of the folds of people by which the noise is measured.
    progress : bool
        Whether to show a bar.
    runner : Runner, optional
        Does the passes over people elsewhere, for instance in a cluster.
    device : torch.device, optional
        Where products are formed and angles are found; by default the CPU.

    Returns
    -------
    FittedManifold
        The manifold with its noise statistics, the decomposition, and the cosine fits.

    Raises
    ------
    TensorError
        Where the tensor's shape does not allow it, or nothing was found of a person or at an angle of the grid.

    Examples
    --------
    Six people of four points each, at 27 poses:

    >>> from nlml_hpe.config import RanksConfig
    >>> from nlml_hpe.rotation import rotate_image_points, rotation_from_angles
    >>> grid = PoseGrid((-30.0, 0.0, 30.0), (-20.0, 0.0, 20.0), (-20.0, 0.0, 20.0))
    >>> rng = np.random.default_rng(0)
    >>> people = rng.normal(size=(4, 3)) + 0.1 * rng.normal(size=(6, 4, 3))
    >>> turned = [rotate_image_points(points, rotation_from_angles(grid.angles())) for points in people]
    >>> features = np.stack(turned).reshape(6, *grid.shape, -1).astype(np.float32)
    >>> none = np.zeros((6, 0, 12), dtype=np.float32), np.zeros((6, 0), dtype=np.uint8), np.zeros((6, 0, 3))
    >>> found = np.ones((6, *grid.shape), dtype=np.uint8)
    >>> tensor = LandmarkTensor(grid, "four points", tuple(range(1, 7)), features, found, *none)
    >>> config = TuckerConfig(ranks=RanksConfig(identity=4, yaw=3, pitch=3, roll=3))
    >>> manifold = fit_manifold(tensor, config, seed=0).manifold
    >>> answer = manifold.infer(features[2, 2, 0, 1][None])  # yaw 30, pitch -20, roll 0
    >>> bool(np.abs(answer.angles.columns() - (30, -20, 0)).max() < 2)
    True
    """
    device = device or torch.device("cpu")
    features, detected = tensor.features, tensor.detected
    require_people_found(detected, tensor.people)
    if config.use_rotation_features:
        features, detected = rotation_tensor(features, detected, tensor.grid), np.ones_like(detected)
    model, manifold, cosines = _fit(features, detected, tensor.grid, tensor.feature, config, device, progress, runner)
    rng = np.random.default_rng([seed, 3])
    folds = _folds(detected, config.ranks.identity, rng)
    noise = _noise(manifold, features, detected, config, device, folds, rng)
    measured = [index for learned_from, held_out in folds if learned_from is not None for index in held_out]
    never = tuple(np.delete(tensor.people, measured).tolist())
    return FittedManifold(replace(manifold, noise=noise), model, cosines, never)


def _fit(
    features: NDArray[np.float32],
    detected: NDArray[np.bool_],
    grid: PoseGrid,
    feature: str,
    config: TuckerConfig,
    device: torch.device,
    progress: bool = False,
    runner: Runner | None = None,
) -> tuple[TuckerModel, PoseManifold, tuple[Cosines, Cosines, Cosines]]:
    ranks = (config.ranks.identity, config.ranks.yaw, config.ranks.pitch, config.ranks.roll)
    model = decompose(
        features,
        ranks,
        grid,
        detected,
        config.hooi_sweeps,
        config.max_fill_iterations,
        Arithmetic(device=device),
        progress,
        runner,
    )
    cosines = fit_axes(grid, model.factors[1:])
    yaw, pitch, roll = (fit.parameters for fit in cosines)
    facts = {
        "people": len(features),
        "cells_filled": model.filled,
        "fill_iterations": model.fill_iterations,
        "relative_error": model.relative_error,
        "cosine_rms": [fit.rms.tolist() for fit in cosines],
    }
    prior = IdentityPrior.of_rows(model.factors[0])
    prior = replace(prior, covariance=prior.covariance * config.prior_scale)
    manifold = PoseManifold(
        model.core, model.basis, model.factors[1:], (yaw, pitch, roll), grid, feature, prior, None, facts
    )
    return model, manifold, cosines


class _Explained(NamedTuple):
    """Held-out faces (n, F) at known angles, the manifold of their fold, and what it leaves of them (n, F)."""

    fold: PoseManifold
    faces: FloatArray
    angles: Angles
    residual: FloatArray


def _noise(
    manifold: PoseManifold,
    features: NDArray[np.float32],
    detected: NDArray[np.bool_],
    config: TuckerConfig,
    device: torch.device,
    folds: Sequence[Fold],
    rng: np.random.Generator,
) -> Noise:
    """Noise statistics by cross-validation over people; from the training residuals where they are too few."""
    explained: list[_Explained] = []
    for learned_from, held_out in folds:
        fold = manifold
        if learned_from is not None:
            quick = config.model_copy(update={"hooi_sweeps": 0, "max_fill_iterations": 5})
            _, fold, _ = _fit(
                features[learned_from], detected[learned_from], manifold.grid, manifold.feature, quick, device
            )
        faces, angles = _cells(features, detected, manifold.grid, held_out, rng)
        residual = faces - fold.synthesize(fold.solve_identity(faces, angles), angles)
        explained.append(_Explained(fold, faces, angles, residual))
    scores = []
    for place, (fold, faces, angles, residual) in enumerate(explained):
        # Not of these faces' own residuals: whitened by them, errors of few people look many times too small.
        others = [other.residual for other in explained[:place] + explained[place + 1 :]] or [residual]
        noise = Noise(_covariance(np.concatenate(others) @ fold.basis.T), np.ones(3))
        answer = replace(fold, noise=noise).infer(faces, device=device)
        # Of an angle that nothing determines the deviation is without bound, and its score of nought says nothing.
        sigma = np.where(answer.sigma < _NOTHING_DEG, answer.sigma, np.nan)
        scores.append((answer.angles.columns() - angles.columns()) / sigma)
    residuals = np.concatenate([one.residual for one in explained]) @ manifold.basis.T
    return Noise(_covariance(residuals), _sigma_scale(np.concatenate(scores)))


def _sigma_scale(scores: FloatArray) -> FloatArray:
    """What the deviations of the angles (3,) are multiplied by, of errors (n, 3) over deviations, NaN where unknown."""
    # The 68.3% quantile of |z| is one for a standard normal, and stray failures do not move it.
    known = [np.abs(column[np.isfinite(column)]) for column in scores.T]
    return np.array([np.quantile(column, 0.6827) if len(column) else 1.0 for column in known])


def _folds(detected: NDArray[np.bool_], rank: int, rng: np.random.Generator) -> list[Fold]:
    """Folds of all people, but for those without whom an angle of the grid has no face.

    One without people to learn from where too few are left: then the manifold of all people is what everybody is
    explained by.
    """
    people = len(detected)
    order = rng.permutation(people)
    count = min(N_FOLDS, people)
    if people - -(-people // count) < max(rank, 2):
        return [(None, order)]
    parts = np.array_split(order, count)
    folds: list[Fold] = [
        (np.sort(np.concatenate([p for p in parts if p is not part])[:_MAX_FOLD_PEOPLE]), np.sort(part))
        for part in parts
    ]
    return [fold for fold in folds if not any(unseen(detected[fold[0]], mode) for mode in (1, 2, 3))] or [(None, order)]


def _cells(
    features: NDArray[np.float32],
    detected: NDArray[np.bool_],
    grid: PoseGrid,
    people: NDArray[np.int64],
    rng: np.random.Generator,
) -> tuple[FloatArray, Angles]:
    """Some detected cells (n, F) of these people, and their angles."""
    person, yaw, pitch, roll = np.nonzero(detected[people])
    chosen = np.sort(rng.permutation(len(person))[:_MAX_CELLS_PER_FOLD])
    place = (person[chosen], yaw[chosen], pitch[chosen], roll[chosen])
    faces = np.array([features[people[i], y, p, r] for i, y, p, r in zip(*place, strict=True)], dtype=np.float64)
    return faces, Angles.from_columns(grid.angles().columns()[place[1:]])


def _covariance(residuals: FloatArray) -> FloatArray:
    covariance = residuals.T @ residuals / len(residuals)
    size = len(covariance)
    return (1 - _SHRINKAGE) * covariance + _SHRINKAGE * np.trace(covariance) / size * np.eye(size)
