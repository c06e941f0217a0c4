"""The model card, written from what really happened: the manifests of the stages that made the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nlml_hpe.model.components import FILES, ComponentKind
from nlml_hpe.model.folder import HeadFrame, HeadPoseModel
from nlml_hpe.rotation import AXES, CONVENTION, OWN_FRAME

_ONE_FACE = """ Heads made of one photograph vary less than people
do: a model of this kind shows the method and is not meant for other uses."""


def model_card(model: HeadPoseModel, manifests: Mapping[str, Mapping[str, Any]], heads: str, seed: int) -> str:
    """The card of a landmark eye.

    Figures of accuracy are in the experiment's ``test`` folder, not here.

    Parameters
    ----------
    model : HeadPoseModel
        What the card is of.
    manifests : mapping of str to mapping
        Of the artefacts that it was made from, by their names.
    heads : str
        Where the rendered heads came from, a name in ``renderer.heads``.
    seed : int
        Of the experiment.

    Returns
    -------
    str
        Markdown.
    """
    grid = model.manifold.grid
    landmarks, manifold = manifests["landmarks_train"]["facts"], manifests["manifold"]["facts"]
    missed = landmarks["cells_missed"] / landmarks["cells"]
    epochs = manifests["heads"]["facts"]["best_epoch"]
    ranges = ", ".join(f"{name} {axis[0]:g}..{axis[-1]:g}" for name, axis in zip(AXES, grid.axes, strict=True))
    rms = "; ".join(
        f"{name} " + ", ".join(f"{value:.5f}" for value in values)
        for name, values in zip(AXES, manifold["cosine_rms"], strict=True)
    )
    filled = f"filled by the model, {manifold['fill_iterations']} iterations"
    encoder_epoch = manifests["encoder"]["facts"]["best_epoch"] + 1
    head_epochs = ", ".join(f"{name} {epoch + 1}" for name, epoch in epochs.items())
    parameters = sum(p.numel() for p in model.network.parameters()) if model.network else 0
    one_face = "" if heads != "photo" else _ONE_FACE
    return f"""# Head-pose model

Made by the NLML-HPE pipeline; read it with `HeadPoseEstimator.from_pretrained(FOLDER)`.

| | |
|---|---|
| components | {component_row("landmark_eye", FILES["landmark_eye"])} |
| heads | source `{heads}`, {len(landmarks["people"])} people for training, no person in two splits |
| range of training poses (degrees) | {ranges}; grid {" x ".join(map(str, grid.shape))} |
| convention | `{CONVENTION}` |
| head frame | {frame_text(model.frame)} |
| feature | `{model.manifold.feature}`, {model.manifold.feature_length} numbers |
| faces not found | {landmarks["cells_missed"]} of {landmarks["cells"]} grid cells ({missed:.1%}); {filled} |
| ranks (identity, yaw, pitch, roll) | {", ".join(map(str, model.manifold.ranks))} |
| relative error of the decomposition | {manifold["relative_error"]:.4f} |
| rms of the cosines, per column | {rms} |
| network | {parameters:,} parameters; encoder kept from epoch {encoder_epoch}, heads from {head_epochs} |
| seed | {seed} |

Angles outside the range above are extrapolated; `in_range` says so.{one_face}
"""


def component_row(kind: ComponentKind, files: tuple[str, ...]) -> str:
    """A component of the folder, with its files."""
    return f"`{kind}`: {', '.join(f'`{name}`' for name in sorted(files))}"


def frame_text(frame: HeadFrame) -> str:
    """Which head frame the answers are in, and how the training heads' own lies to it."""
    if frame.name == OWN_FRAME:
        return "`own`: that of the heads it was trained on"
    return f"`{frame.name}`: own times yaw {frame.yaw:g}, pitch {frame.pitch:g}, roll {frame.roll:g} degrees"
