"""The model card, written from what really happened: the manifests of the stages that made the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nlml_hpe.model.components import FILES, ComponentKind
from nlml_hpe.model.folder import HeadFrame, HeadPoseModel
from nlml_hpe.rotation import AXES, CONVENTION, OWN_FRAME

_ONE_FACE = """ Heads made of one photograph vary less than people
do: a model of this kind shows the method and is not meant for other uses."""
_SEEDED = ("manifold", "encoder", "heads")


def model_card(model: HeadPoseModel, manifests: Mapping[str, Mapping[str, Any]]) -> str:
    """The card of a landmark eye.

    Figures of accuracy are in the experiment's ``test`` folder, not here.

    Parameters
    ----------
    model : HeadPoseModel
        What the card is of.
    manifests : mapping of str to mapping
        Of the artefacts that it was made from: ``landmarks_train``, ``manifold``, ``encoder``, ``heads``, and
        ``renders`` where those images are still there.

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
    heads = _rendered_heads(manifests)
    # Those of a folder of photographs are of as many faces.
    one_face = _ONE_FACE if heads.get("source") == "photo" and heads.get("photos") is None else ""
    return f"""# Head-pose model

Made by the NLML-HPE pipeline; read it with `HeadPoseEstimator.from_pretrained(FOLDER)`.

| | |
|---|---|
| components | {component_row("landmark_eye", FILES["landmark_eye"])} |
| heads | {_heads_text(manifests, heads)} |
| range of training poses (degrees) | {ranges}; grid {" x ".join(map(str, grid.shape))} |
| convention | `{CONVENTION}` |
| head frame | {frame_text(model.frame)} |
| feature | `{model.manifold.feature}`, {model.manifold.feature_length} numbers |
| faces not found | {landmarks["cells_missed"]} of {landmarks["cells"]} grid cells ({missed:.1%}); {filled} |
| ranks (identity, yaw, pitch, roll) | {", ".join(map(str, model.manifold.ranks))} |
| relative error of the decomposition | {manifold["relative_error"]:.4f} |
| rms of the cosines, per column | {rms} |
| network | {parameters:,} parameters; encoder kept from epoch {encoder_epoch}, heads from {head_epochs} |
| seed | {_seed_text(manifests)} |

Angles outside the range above are extrapolated; `in_range` says so.{one_face}
"""


def _rendered_heads(manifests: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    """The section ``heads`` that the training images were rendered by; empty where that is not known."""
    own = manifests["landmarks_train"]["config"]["landmarks"]["train_images"]
    return {} if own is not None or "renders" not in manifests else manifests["renders"]["config"]["heads"]


def _heads_text(manifests: Mapping[str, Mapping[str, Any]], heads: Mapping[str, Any]) -> str:
    """Whose heads the model was trained on, as far as the manifests say it."""
    marks = manifests["landmarks_train"]
    people = f"{len(marks['facts']['people'])} people for training"
    if marks["config"]["landmarks"]["train_images"] is not None:
        return f"own images, {people}"
    source = f"source `{heads['source']}`" if heads else "rendered, of a source that is not recorded any more"
    # Of the user's own images nobody here knows who is on them.
    own_validation = marks["config"]["landmarks"]["validation_images"] is not None
    return f"{source}, {people}{'; validation by own images' if own_validation else ', no person in two splits'}"


def _seed_text(manifests: Mapping[str, Mapping[str, Any]]) -> str:
    """The seed of what the model was made from, by name where there is more than one."""
    seeds = {name: manifests[name]["config"]["seed"] for name in _SEEDED}
    if len(set(seeds.values())) == 1:
        return str(seeds[_SEEDED[0]])
    return ", ".join(f"{name} {seed}" for name, seed in seeds.items())


def component_row(kind: ComponentKind, files: tuple[str, ...]) -> str:
    """A component of the folder, with its files."""
    return f"`{kind}`: {', '.join(f'`{name}`' for name in sorted(files))}"


def frame_text(frame: HeadFrame) -> str:
    """Which head frame the answers are in, and how the training heads' own lies to it."""
    if frame.name == OWN_FRAME:
        return "`own`: that of the heads it was trained on"
    return f"`{frame.name}`: own times yaw {frame.yaw:g}, pitch {frame.pitch:g}, roll {frame.roll:g} degrees"
