"""``manifold.npz``: a pose manifold as plain arrays and a JSON header; nothing is pickled."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nlml_hpe.files.arrays import read_npz, write_npz
from nlml_hpe.files.atomic import ArtifactError
from nlml_hpe.manifold.manifold import PoseManifold
from nlml_hpe.manifold.statistics import IdentityPrior, Noise
from nlml_hpe.pose_grid import PoseGrid
from nlml_hpe.rotation import AXES, CONVENTION

FORMAT = "nlml-hpe manifold 1"


def write_manifold(path: str | Path, manifold: PoseManifold) -> None:
    """Write a manifold atomically.

    Parameters
    ----------
    path : str or Path
        The ``.npz`` file; one that is there is replaced.
    manifold : PoseManifold
        All of it is written, its basis in float32.

    Raises
    ------
    OSError
        Where the file cannot be written.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from nlml_hpe.model.format import SHIPPED
    >>> manifold = read_manifold(SHIPPED / "manifold.npz")
    >>> with TemporaryDirectory() as folder:
    ...     write_manifold(Path(folder) / "copy.npz", manifold)
    ...     read_manifold(Path(folder) / "copy.npz").grid == manifold.grid
    True
    """
    header = {
        "format": FORMAT,
        "convention": CONVENTION,
        "feature": manifold.feature,
        "grid": manifold.grid.as_dict(),
        "facts": manifold.facts,
    }
    text = np.frombuffer(json.dumps(header, sort_keys=True).encode(), dtype=np.uint8)
    write_npz(path, {"header": text, **dict(_arrays(manifold))})


def read_manifold(path: str | Path) -> PoseManifold:
    """Read a manifold.

    Parameters
    ----------
    path : str or Path
        A file that `write_manifold` wrote.

    Returns
    -------
    PoseManifold
        The manifold.

    Raises
    ------
    ArtifactError
        Where the file is missing, damaged or of another version.

    Examples
    --------
    The manifold of the shipped model:

    >>> from nlml_hpe.model.format import SHIPPED
    >>> manifold = read_manifold(str(SHIPPED / "manifold.npz"))
    >>> manifold.ranks, manifold.feature_length
    ((5, 3, 3, 3), 1404)
    """
    arrays = read_npz(Path(path))
    try:
        header = json.loads(arrays["header"].tobytes())
        if header["format"] != FORMAT or header["convention"] != CONVENTION:
            raise ArtifactError(
                f"{path}: expected {FORMAT!r} with {CONVENTION!r}; found {header['format']!r} with "
                f"{header['convention']!r}; run TD_main again"
            )
        known, grid = "noise_covariance" in arrays, PoseGrid.from_dict(header["grid"])
        _require_fit(arrays, grid)
        return PoseManifold(
            arrays["core"],
            arrays["basis"].astype(np.float64),
            (arrays["factor_yaw"], arrays["factor_pitch"], arrays["factor_roll"]),
            (arrays["cosine_yaw"], arrays["cosine_pitch"], arrays["cosine_roll"]),
            grid,
            header["feature"],
            IdentityPrior(arrays["identity_mean"], arrays["identity_covariance"]),
            Noise(arrays["noise_covariance"], arrays["sigma_scale"]) if known else None,
            header["facts"],
        )
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise ArtifactError(f"{path} is no manifold of this project ({error}); run TD_main again") from error


def _require_fit(arrays: Mapping[str, NDArray[Any]], grid: PoseGrid) -> None:
    """Raise ``ValueError`` unless all arrays are floats, finite ones, of shapes that fit one another and the grid."""
    core, basis = arrays["core"].shape, arrays["basis"].shape
    if len(core) != 5 or 0 in core:
        raise ValueError(f"expected a core of five axes; found shape {core}")
    people, *ranks, kept = core
    expected = {"core": core, "basis": (kept, *basis[-1:])}
    expected |= {"identity_mean": (people,), "identity_covariance": (people, people)}
    for axis, angles, rank in zip(AXES, grid.axes, ranks, strict=True):
        expected |= {f"factor_{axis}": (len(angles), rank), f"cosine_{axis}": (rank, 4)}
    if "noise_covariance" in arrays:
        expected |= {"noise_covariance": (kept, kept), "sigma_scale": (len(AXES),)}
    for name, shape in expected.items():
        values = arrays[name]
        # A scale may be NaN, of an axis of one angle: that has no error and no deviation.
        finite = values.dtype.kind == "f" and (name == "sigma_scale" or np.isfinite(values).all())
        if values.shape != shape or not finite:
            raise ValueError(
                f"expected {name} of finite floats, of shape {shape}; found {values.dtype} of shape {values.shape}"
            )


def _arrays(manifold: PoseManifold) -> Iterator[tuple[str, NDArray[Any]]]:
    yield "core", manifold.core
    yield "basis", manifold.basis.astype(np.float32)
    for axis, factor, cosines in zip(AXES, manifold.factors, manifold.cosines, strict=True):
        yield f"factor_{axis}", factor
        yield f"cosine_{axis}", cosines
    yield "identity_mean", manifold.prior.mean
    yield "identity_covariance", manifold.prior.covariance
    if manifold.noise is not None:
        yield "noise_covariance", manifold.noise.covariance
        yield "sigma_scale", manifold.noise.sigma_scale
