"""The angle heads are trained on the manifold alone: they invert its cosines, so no image is needed."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from nlml_hpe.config import AngleHeadsConfig
from nlml_hpe.manifold.manifold import PoseManifold
from nlml_hpe.manifold.networks import AngleHead
from nlml_hpe.rotation import AXES
from nlml_hpe.training import train
from nlml_hpe.training_data import Samples, gaussian_noise
from nlml_hpe.training_run import History, Run


def train_heads(
    manifold: PoseManifold, config: AngleHeadsConfig, seed: int, run: Run | None = None
) -> tuple[list[AngleHead], dict[str, History]]:
    """Train one head per angle to invert the manifold's cosines; no image or landmark is needed.

    Parameters
    ----------
    manifold : PoseManifold
        Its cosines are all that the heads learn from.
    config : AngleHeadsConfig
        Layers, samples, margins, and what all trainings share.
    seed : int
        Of the samples, the first weights and the noise.
    run : Run, optional
        Device and checkpoints; by default the CPU and none.

    Returns
    -------
    tuple of list of AngleHead and dict of History
        Heads of yaw, pitch and roll, on the CPU; and their losses by the name of the axis.

    Raises
    ------
    TrainingError
        Where a loss stops being finite, or a checkpoint is damaged.

    Examples
    --------
    >>> from nlml_hpe.manifold.manifold_file import read_manifold
    >>> from nlml_hpe.model.format import SHIPPED
    >>> manifold = read_manifold(SHIPPED / "manifold.npz")
    >>> config = AngleHeadsConfig(hidden=(32, 16), samples=1000, epochs=3, batch_size=20, learning_rate=5e-3)
    >>> heads, histories = train_heads(manifold, config, seed=0)
    >>> with torch.inference_mode():
    ...     yaw = heads[0](torch.from_numpy(manifold.axis_rows(0, [25.0])).float()).item()
    >>> abs(yaw - 25) < 5, histories["yaw"].epochs_run
    (True, 3)
    """
    heads, histories = [], {}
    for number, axis in enumerate(AXES):
        head, histories[axis] = _train_head(manifold, number, config, seed + number, run or Run())
        heads.append(head.cpu())
    return heads, histories


def _train_head(
    manifold: PoseManifold, number: int, config: AngleHeadsConfig, seed: int, run: Run
) -> tuple[AngleHead, History]:
    rng = np.random.default_rng([seed, 4])
    axis = manifold.grid.axes[number]
    margin = config.margin_deg[number]
    degrees = rng.uniform(axis[0] - margin, axis[-1] + margin, size=config.samples)
    rows = torch.from_numpy(manifold.axis_rows(number, degrees).astype(np.float32))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = AngleHead(rows.shape[1], config.hidden)
    head.row_mean.copy_(rows.mean(dim=0))
    head.row_scale.copy_(rows.std(dim=0).clamp_min(1e-6))
    head.angle_scale.fill_(max(float(np.abs(degrees).max()), 1.0))
    head = head.to(run.device)

    def loss(angles: Tensor, true: Tensor) -> Tensor:
        return (((angles - true) / head.angle_scale) ** 2).mean()

    rows, angles = rows.to(run.device), torch.from_numpy(degrees.astype(np.float32)).to(run.device)
    split = config.samples // 10
    training, stopping = Samples(rows[split:], angles[split:]), Samples(rows[:split], angles[:split])
    noise = gaussian_noise(head.row_scale * config.noise) if config.noise else None
    history = train(
        head,
        loss,
        training,
        stopping,
        config,
        seed,
        f"head_{AXES[number]}",
        augment=noise,
        metrics={"mae_deg": lambda estimated, true: (estimated - true).abs()},
        run=run,
    )
    return head, history
