"""The image eye's part of the model card, written from the manifest of its training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nlml_hpe.image_networks.network import Size
from nlml_hpe.model.card import component_row, frame_text
from nlml_hpe.model.components import IMAGE_EYE_FILE, Component
from nlml_hpe.model.image_export import ImageEye
from nlml_hpe.rotation import AXES, CONVENTION
from nlml_hpe.words import counted

CARD_FILE = "README.md"
_LANDMARK_EYE = "## Landmark eye"
_MOST_BYTES = 1_000_000
"""A card is text of a page or two."""


def image_card(
    eye: ImageEye,
    size: Size,
    config: Mapping[str, Any],
    facts: Mapping[str, Any],
    eight_bits: Mapping[str, Any] | None,
) -> str:
    """The card of an image eye.

    Figures on photographs are in the experiment's ``image_test`` folder, not here.

    Parameters
    ----------
    eye : ImageEye
        What the card is of.
    size : Size
        Of its network, as ``network.size_of`` counts it.
    config, facts : mapping
        Of the training's manifest.
    eight_bits : mapping or None
        The facts of the training in eight bits, where the file holds that network: its errors are another's.

    Returns
    -------
    str
        Markdown.
    """
    trainer, counts = config["image_trainer"], facts["crops"]
    kept = eight_bits or facts
    ranges = ", ".join(f"{axis} {low:.0f}..{high:.0f}" for axis, (low, high) in zip(AXES, eye.range, strict=True))
    errors = ", ".join(f"{name} {value:.2f}" for name, value in kept["validation"].items())
    precision = ", in eight bits" if eight_bits else ""
    rounded = f"; then in eight bits {_epochs(eight_bits)}" if eight_bits else ""
    settings = eye.settings()
    borders = ", ".join(f"{share:.1%}" for share in eye.network.covered)
    covered = f"; covered at its left, top, right and bottom: {borders}" if any(eye.network.covered) else ""
    left_out = f"; {counts['left_out']} left out, for the network cannot learn from their label"
    return f"""# Head-pose model

Made by the NLML-HPE pipeline. The image eye looks at a crop of the head and needs no landmarks; read it with
`nlml_hpe.inference.image_engine.open_image_engine(FOLDER)`.

| | |
|---|---|
| components | {component_row("image_eye", (IMAGE_EYE_FILE,))} |
| network | `{eye.name}`, {size}{precision} |
| crop | {settings["size"]} px over {settings["share"]:g} times the longer side of the box of the 68 points{covered} |
| convention | `{CONVENTION}` |
| head frame | {frame_text(eye.frame)} |
| training data | {_data(trainer["data"])}: {counts["training"]} crops{left_out if counts["left_out"] else ""} |
| range of training poses (degrees) | {ranges} |
| training | {_beginning(config["image_network"], trainer)}{_epochs(facts)}{rounded}; seed {config["seed"]} |
| error on {kept["crops"]["validation"]} validation crops (degrees) | {errors} |
"""


def with_landmark_eye(card: str, folder: Path, component: Component) -> str:
    """The card of an image eye with what another card says of a landmark eye below it, for a folder that holds both.

    Of a card that is itself of two eyes, what stands under ``## Landmark eye`` and after it is taken.

    Parameters
    ----------
    card : str
        Of the image eye, as of ``image_card``.
    folder : Path
        Whose landmark eye it is; without a card there, or with one too long to be read, nothing follows.
    component : Component
        The landmark eye's.

    Returns
    -------
    str
        Markdown.
    """
    first = "| components | "
    text = card.replace(first, f"{first}{component_row('landmark_eye', tuple(component.sha256))}; ", 1)
    path = folder / CARD_FILE
    if not path.is_file() or path.stat().st_size > _MOST_BYTES:
        return text
    other = path.read_text(encoding="utf-8", errors="replace")
    _, heading, own = other.partition(f"\n{_LANDMARK_EYE}\n")
    own = own if heading else other.partition("\n")[2]
    return f"{text}\n{_LANDMARK_EYE}\n\n{own.strip()}\n"


def _beginning(network: Mapping[str, Any], trainer: Mapping[str, Any]) -> str:
    """With whose weights a training began, and how much of them is left; nothing of random ones.

    >>> _beginning({"weights": "a/image_network.safetensors"}, {"start_share": 0.25})
    'begun with `weights: a/image_network.safetensors`, whose share in those kept is 25%; '
    """
    share = trainer.get("start_share", 0.0)
    mixed = f", whose share in those kept is {share:.0%}" if share else ""
    files = ((name, network.get(name)) for name in ("weights", "narrow_weights", "backbone_weights"))
    return "".join(f"begun with `{name}: {file}`{mixed}; " for name, file in files if file)


def _epochs(facts: Mapping[str, Any]) -> str:
    """How long a training was, and which epoch of it was kept.

    >>> _epochs({"epochs_run": 1, "best_epoch": 0}), _epochs({"epochs_run": 2, "best_epoch": 1})
    ('1 epoch, kept from 1', '2 epochs, kept from 2')
    """
    return f"{counted(facts['epochs_run'], 'epoch')}, kept from {facts['best_epoch'] + 1}"


def _data(parts: list[Mapping[str, Any]]) -> str:
    """Kinds of training data with their weights."""
    weighed = len(parts) > 1
    return ", ".join(f"`{part['kind']}`" + (f" x {part['weight']:g}" if weighed else "") for part in parts)
