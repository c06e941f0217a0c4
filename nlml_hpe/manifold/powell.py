"""The paper's inference, kept as the reference route: Powell over three angles and the identity.

Eight unknowns from zero, no gradient, no bounds, as the method's published code does it. It is slow
and often ends in a wrong minimum; ``PoseManifold.infer`` is what to use.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize

from nlml_hpe.manifold.manifold import PoseManifold
from nlml_hpe.rotation import Angles


@dataclass(frozen=True)
class PowellResult:
    """What Powell's method ends with.

    Attributes
    ----------
    yaw, pitch, roll : float
        In degrees.
    identity : ndarray of shape (ri,)
        The identity that explains the face at these angles.
    objective : float
        Half the squared error over all features.
    evaluations : int
        Of the objective.
    """

    yaw: float
    pitch: float
    roll: float
    identity: NDArray[np.float64]
    objective: float
    evaluations: int


def infer_powell(manifold: PoseManifold, feature: ArrayLike) -> PowellResult:
    """Minimise half the squared error of one feature over angles and identity from zero.

    Parameters
    ----------
    manifold : PoseManifold
        Its statistics are not used.
    feature : array_like of shape (F,)
        One face.

    Returns
    -------
    PowellResult
        A minimum, not always the lowest.

    Raises
    ------
    ValueError
        For a feature of another length.

    Examples
    --------
    Three points that turn about one axis, and the angle of one face (see `PoseManifold` for the making of it):

    >>> from nlml_hpe.manifold.cosines import fit_axes
    >>> from nlml_hpe.manifold.statistics import IdentityPrior
    >>> from nlml_hpe.manifold.tucker import decompose
    >>> from nlml_hpe.pose_grid import PoseGrid
    >>> from nlml_hpe.rotation import rotate_image_points, rotation_from_angles
    >>> grid = PoseGrid(tuple(range(-50, 51, 10)), (0.0,), (0.0,))
    >>> points = np.array([[1.0, 0.0, 0.2], [0.0, 1.0, 0.3], [-1.0, 0.0, 0.1]])
    >>> faces = rotate_image_points(points, rotation_from_angles(grid.angles())).reshape(1, *grid.shape, -1)
    >>> model = decompose(faces.astype(np.float32), (1, 3, 1, 1), grid)
    >>> cosines = tuple(fit.parameters for fit in fit_axes(grid, model.factors[1:]))
    >>> prior = IdentityPrior.of_rows(model.factors[0])
    >>> manifold = PoseManifold(model.core, model.basis, model.factors[1:], cosines, grid, "three points", prior)
    >>> result = infer_powell(manifold, faces[0, 7, 0, 0])
    >>> round(result.yaw, 1), result.objective < 1e-6
    (20.0, True)
    """
    x = np.asarray(feature, dtype=np.float64)
    if x.shape != (manifold.feature_length,):
        raise ValueError(f"expected one feature ({manifold.feature_length},); received shape {x.shape}")
    # The model lies in the span of the basis: the error outside it is a constant.
    inside = manifold.basis @ x
    outside = max(float(x @ x - inside @ inside), 0.0)

    def objective(unknowns: NDArray[np.float64]) -> float:
        angles = Angles.from_columns(np.degrees(unknowns[None, :3]))
        residual = inside - unknowns[3:] @ manifold.identity_design(angles)[0]
        return 0.5 * (float(residual @ residual) + outside)

    found = minimize(objective, np.zeros(3 + manifold.ranks[0]), method="Powell")
    yaw, pitch, roll = np.degrees(found.x[:3])
    return PowellResult(float(yaw), float(pitch), float(roll), found.x[3:], float(found.fun), int(found.nfev))
