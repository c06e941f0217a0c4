"""The manifold that the method's authors publish, read into this project's form."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nlml_hpe.files.arrays import read_npz
from nlml_hpe.files.atomic import ArtifactError
from nlml_hpe.manifold.manifold import PoseManifold
from nlml_hpe.manifold.statistics import IdentityPrior
from nlml_hpe.pose_grid import PoseGrid
from nlml_hpe.rotation import AXES

OFFICIAL_FEATURE = "facemesh468/official"

FloatArray = NDArray[np.float64]


def official_manifold(trained_data: Path, factor_matrices: Path) -> PoseManifold:
    """The manifold that the method's authors publish (``Trained_data.npz``, ``Factor_Matrices.npz``).

    WARNING: their roll has the other sign (found on aflw2000_dev: correlation -0.86 with the labels);
    it is turned here, so that this project's convention holds. Their W was built from landmarks that
    were shifted to the nose tip but not divided by the distance of the eye corners, as their published
    code and this project do; a scale is taken up by the identity, so only plain inference fits it.

    Parameters
    ----------
    trained_data, factor_matrices : Path
        The two files.

    Returns
    -------
    PoseManifold
        Without noise statistics.

    Raises
    ------
    ArtifactError
        Where a file is missing, damaged, or lacks an array, and where arrays do not fit one another.

    Examples
    --------
    Files of the same layout, small and at random:

    >>> from tempfile import TemporaryDirectory
    >>> rng = np.random.default_rng(0)
    >>> sizes = {"yaw": 11, "pitch": 9, "roll": 7}
    >>> with TemporaryDirectory() as folder:
    ...     trained, matrices = Path(folder) / "Trained_data.npz", Path(folder) / "Factor_Matrices.npz"
    ...     np.savez(trained, W=rng.normal(size=(5, 3, 3, 3, 12)), **{f"optimized_{a}": np.ones((3, 4)) for a in sizes})
    ...     np.savez(matrices, U_id=rng.normal(size=(8, 5)), **{f"U_{a}": np.ones((n, 3)) for a, n in sizes.items()})
    ...     manifold = official_manifold(trained, matrices)
    >>> manifold.ranks, manifold.grid.shape, manifold.grid.yaw[0]
    ((5, 3, 3, 3), (11, 9, 7), -50.0)
    """
    trained, matrices = read_npz(trained_data), read_npz(factor_matrices)
    try:
        weights = np.asarray(trained["W"], dtype=np.float64)
        cosines = _triple(np.asarray(trained[f"optimized_{axis}"], dtype=np.float64) for axis in AXES)
        factors = _triple(np.asarray(matrices[f"U_{axis}"], dtype=np.float64) for axis in AXES)
        identities = np.asarray(matrices["U_id"], dtype=np.float64)
    except KeyError as error:
        raise ArtifactError(f"{trained_data}, {factor_matrices}: {error} is missing") from error
    _require_fit(f"{trained_data}, {factor_matrices}", weights, identities, zip(cosines, factors, strict=True))
    # cos(b (-w) + c) = cos(b w - c): the mirrored axis, its rows in ascending order again.
    cosines[2][:, 2] *= -1
    factors = (factors[0], factors[1], factors[2][::-1])
    left, singular, basis = np.linalg.svd(weights.reshape(-1, weights.shape[-1]), full_matrices=False)
    core = (left * singular).reshape(*weights.shape[:-1], -1)
    axes = (tuple(10.0 * (i - (len(f) - 1) / 2) for i in range(len(f))) for f in factors)
    facts = {"people": len(identities), "source": "official"}
    prior = IdentityPrior.of_rows(identities)
    return PoseManifold(core, basis, factors, cosines, PoseGrid(*axes), OFFICIAL_FEATURE, prior, None, facts)


def _require_fit(
    files: str, weights: FloatArray, identities: FloatArray, axes: Iterable[tuple[FloatArray, FloatArray]]
) -> None:
    """Raise ``ArtifactError`` unless each rank of W has its columns, and each of an angle's ranks its cosine."""
    ranks = weights.shape[:-1]
    found = [identities.shape[1:], *(shape for cosines, factor in axes for shape in (cosines.shape, factor.shape[1:]))]
    expected = [ranks[:1], *(shape for rank in ranks[1:] for shape in ((rank, 4), (rank,)))]
    if len(ranks) != 4 or found != expected:
        raise ArtifactError(
            f"{files}: expected, with W of shape {weights.shape}, columns of U_id and, of each angle, cosines and "
            f"columns of its U, of shapes {expected}; found {found}"
        )


def _triple(arrays: Iterable[FloatArray]) -> tuple[FloatArray, FloatArray, FloatArray]:
    yaw, pitch, roll = arrays
    return yaw, pitch, roll
