"""Settings of the image eye: its network, what that is trained on, and the model that is made of it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from nlml_hpe.config import Section, Share, TrainingConfig, UserPath

Border = Annotated[float, Field(ge=0, le=0.4)]


class ImageNetworkConfig(Section):
    """Which image network; a setting that is not written is the network's own."""

    name: Literal["hopenet", "custom_cnn", "mobilenetv2", "six_d"] = "six_d"
    size: int = Field(default=64, ge=32, le=512, description="pixels on a side of a crop")
    backbone: Literal["residual", "resnet50", "mobilenet_v2"] | None = Field(default=None, description="of six_d")
    width: int | None = Field(
        default=None, ge=8, le=1024, description="channels that it begins with; not of custom_cnn"
    )
    alpha: float | None = Field(
        default=None, ge=0, le=1e6, description="of hopenet and custom_cnn: weight of the squared error"
    )
    answer: Literal["angles", "six_d"] | None = Field(default=None, description="of mobilenetv2")
    loss: Literal["huber", "geodesic", "chordal"] | None = Field(
        default=None, description="of six_d: Huber's of the angle, the angle itself, or one minus its cosine"
    )
    dropout: float | None = Field(default=None, ge=0, lt=1, description="of all but hopenet")
    covered: tuple[Border, Border, Border, Border] = Field(
        default=(0.0, 0.0, 0.0, 0.0),
        description="shares of the crop's side at its left, top, right and bottom that the network is not shown",
    )
    weights: UserPath | None = Field(
        default=None, description="weights to begin with: HopeNet's as published, or those of an earlier training"
    )
    narrow_weights: UserPath | None = Field(
        default=None, description="weights of the same network with half the width, whose channels are doubled"
    )
    backbone_weights: UserPath | None = Field(
        default=None,
        description="the same of the backbone alone: torchvision's ResNet-50 or MobileNetV2, or a whole network's",
    )

    @model_validator(mode="after")
    def _begins_once(self) -> ImageNetworkConfig:
        if self.weights is not None and self.backbone_weights is not None:
            raise ValueError("weights: leave out backbone_weights, which they would replace")
        if self.narrow_weights is None:
            return self
        if self.weights is not None or self.backbone_weights is not None:
            raise ValueError("narrow_weights: leave out weights and backbone_weights, which would replace them")
        if self.width is None or self.width % 2:
            raise ValueError(
                f"narrow_weights: expected an even width, twice that of the weights; received {self.width}"
            )
        return self


class AugmentationConfig(Section):
    """How strongly training crops vary; probabilities are shares of crops, 0 switches a change off.

    ``turn_deg``, ``shift`` (share of the crop's side) and ``scale`` (the same, up or down) bound an even
    draw; ``mirror``, ``grey``, ``soft`` (down- and up-sampling), ``filter`` (random 3 x 3
    filters), ``blocks`` (JPEG-like), ``erase`` (a box; with half of it a second one), ``frame`` (a border without
    picture) and ``surround`` (another crop's surroundings, or none, about the face) are probabilities; ``color``,
    ``contrast``, ``gamma`` and ``noise`` bound how far each may go.
    """

    mirror: Share = 0.5
    turn_deg: float = Field(default=30.0, ge=0, le=180)
    scale: Share = 0.18
    shift: Share = 0.08
    grey: Share = 0.2
    color: Share = 0.25
    contrast: Share = 0.7
    gamma: Share = 0.6
    soft: Share = 0.35
    filter: Share = 0.25
    blocks: Share = 0.3
    noise: Share = 0.07
    erase: Share = 0.35
    frame: Share = 0.1
    surround: Share = 0.0


class PseudoLabelConfig(Section):
    """How a user's unlabelled photographs and videos are labelled by a model's landmark eye."""

    model: UserPath | None = Field(default=None, description="model folder; without it the shipped one")
    agreement_deg: float = Field(
        default=5.0, gt=0, le=180, description="largest angle between the answers for a face and its mirror image"
    )
    every: int = Field(default=10, ge=1, le=1_000_000, description="of a video every such frame is looked at")


class LabelledDataConfig(Section):
    """Crops or photographs to train on: labelled ones, or ``unlabelled`` ones, which a model labels."""

    kind: Literal["crops", "300w_lp", "aflw2000", "fsanet", "rendered", "unlabelled"] = "crops"
    root: UserPath | None = Field(default=None, description="its folder; crops: the workdir's own without one")
    list: UserPath | None = Field(default=None, description="names of the faces to use, as `datasets split` writes")
    weight: float = Field(default=1.0, gt=0, le=1e6, description="how often a face is shown, against other data's")

    pseudo_labels: PseudoLabelConfig = Field(default=PseudoLabelConfig(), description="of kind unlabelled")

    @model_validator(mode="after")
    def _settings_fit_the_kind(self) -> LabelledDataConfig:
        if self.kind != "crops" and self.root is None:
            raise ValueError(f"data of kind {self.kind!r} needs root, the folder of the data set")
        if self.kind != "unlabelled" and self.pseudo_labels != PseudoLabelConfig():
            raise ValueError(f"pseudo_labels belong to data of kind 'unlabelled'; this is of kind {self.kind!r}")
        return self


class ImageTrainerConfig(TrainingConfig):
    """How the image network is trained, and on what; of ``validation`` each crop counts once."""

    data: tuple[LabelledDataConfig, ...] = Field(default=(LabelledDataConfig(),), min_length=1)
    validation: tuple[LabelledDataConfig, ...] = Field(default=(LabelledDataConfig(),), min_length=1)
    augmentation: AugmentationConfig = AugmentationConfig()
    crops_per_epoch: int | None = Field(default=None, ge=1, le=10**9, description="at most, without it all of them")
    start_share: Share = Field(
        default=0.0, description="share of the weights that it began with in those that are kept, of one trained on"
    )
    stored_px: int = Field(
        default=96,
        ge=32,
        le=2048,
        description="photographs: pixels on a side of the cut, a third more than the network's size for its margin",
    )

    @model_validator(mode="after")
    def _validation_counts_each_once(self) -> ImageTrainerConfig:
        if any(part.weight != 1 for part in self.validation):
            raise ValueError("validation: leave out weight, which is of training data; here each crop counts once")
        return self

    @model_validator(mode="after")
    def _validation_is_named_beside_other_data(self) -> ImageTrainerConfig:
        is_rendered_here = any(part.kind == "crops" and part.root is None for part in self.data)
        if not is_rendered_here and "validation" not in self.model_fields_set:
            raise ValueError(
                "validation: expected faces that are held out of `data`, none of which are the workdir's own rendered "
                "crops; name them, with a list as `python -m nlml_hpe.evaluation.datasets split` writes it, or write "
                "[{kind: crops}] for the rendered ones"
            )
        return self


class ImageQuantizerConfig(Section):
    """How long the image network is trained on with the roundings of eight bits; the rest as ``image_trainer`` has it.

    It takes a tenth of the training's rate and few epochs: the weights are moved to where rounding hurts least.
    """

    epochs: int = Field(default=2, ge=1, le=1_000_000)
    learning_rate: float = Field(default=1e-4, gt=0, le=10)
    crops_per_epoch: int | None = Field(default=None, ge=1, le=10**9, description="without it image_trainer's")


class ImageModelConfig(Section):
    """The model folder of the image eye, and what may stand beside it there."""

    landmark_eye: UserPath | None = Field(
        default=None, description="a model folder; its landmark eye is put beside the image eye"
    )
    int8: bool = Field(default=False, description="the network in eight bits, which ImageQuantizer has trained")
