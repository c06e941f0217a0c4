"""Settings of the head detector's two stages."""

from __future__ import annotations

from pydantic import Field, model_validator

from nlml_hpe.config import TrainingConfig, UserPath
from nlml_hpe.image_networks.config import AugmentationConfig

_FRAMING = ("mirror", "turn_deg", "scale", "shift")
"""Settings of augmentation that the second stage does not look at."""


class HeadTrainerConfig(TrainingConfig):
    """The head detector's network and how it is trained; what it is shown, ``sprites`` and ``scenes`` say."""

    width: int = Field(default=16, ge=4, le=256, multiple_of=2, description="channels of the first layer")
    training_scenes: int = Field(default=9000, ge=1, le=10**6, description="kept in memory, 0.44 MB each of 384 px")
    validation_scenes: int = Field(default=300, ge=1, le=10**6)
    views: int = Field(default=4, ge=1, le=64, description="of each scene in a batch, which counts scenes")
    view_px: int = Field(default=160, ge=64, le=1024, multiple_of=32, description="pixels on a side of a view")
    weights: UserPath | None = Field(default=None, description="weights to begin with: those of an earlier training")
    int8: bool = Field(default=True, description="the ONNX file computes in eight bits: a third of the time")


class RefinementTrainerConfig(TrainingConfig):
    """How the second stage is trained; what it is shown, ``sprites``, ``scenes`` and the first stage say."""

    width: int = Field(default=32, ge=8, le=256, multiple_of=2, description="channels of the first layer")
    training_scenes: int = Field(default=8000, ge=1, le=10**6, description="kept in memory, 0.1 MB each of 192 px")
    validation_scenes: int = Field(default=200, ge=1, le=10**6)
    views: int = Field(default=8, ge=1, le=256, description="crops of each scene in a batch, which counts scenes")
    image_network: UserPath | None = Field(
        default=None, description="weights of an image network of this width, whose residual backbone it begins with"
    )
    backbone_rate: float = Field(default=0.5, gt=0, le=1, description="of the learning rate: what the backbone has")
    augmentation: AugmentationConfig = Field(
        default=AugmentationConfig(), description="tones alone: framing is varied by what is proposed"
    )
    int8: bool = Field(default=True, description="the ONNX file computes in eight bits")

    @model_validator(mode="after")
    def _varies_tones_alone(self) -> RefinementTrainerConfig:
        own, usual = self.augmentation, AugmentationConfig()
        idle = [name for name in _FRAMING if getattr(own, name) != getattr(usual, name)]
        if idle:
            raise ValueError(
                f"augmentation: leave out {', '.join(idle)}; here it varies tones alone, and what is proposed varies "
                "the framing"
            )
        return self
