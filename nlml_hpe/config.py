"""Settings of the library: a section of the experiment's YAML for each step from images to errors.

Every setting has its default here and nowhere else; those of the image eye have it in ``image_networks.config``, those
of the head detector in ``head_network.config``, those of rendering in ``renderer.config``. A function takes the section
that it needs. The whole file is read by the stages.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from nlml_hpe.detection.detectors import DEFAULT_DETECTOR, DetectorName
from nlml_hpe.detection.landmarks import MIN_CONFIDENCE, Normalization
from nlml_hpe.device import PrecisionName
from nlml_hpe.pose_grid import PoseGrid, survives_name
from nlml_hpe.rotation import OWN_FRAME, check_head_frame

MOST_POSES = 1_000_000
"""A finer grid is a slip of the pen: one head at a million poses takes days to render."""
Share = Annotated[float, Field(ge=0, le=1)]
Margin = Annotated[float, Field(ge=0, le=90)]
Degrees = Annotated[float, Field(ge=-180, le=180)]
Layers = Annotated[tuple[Annotated[int, Field(ge=1, le=65_536)], ...], Field(min_length=1, max_length=32)]
"""Numbers of units of a network's hidden layers."""


def _expanded(path: Path) -> Path:
    """The path with ``~`` expanded; what no file system takes is an error here and not hours later."""
    if "\0" in str(path):
        raise ValueError("expected a path without NUL characters")
    try:
        return path.expanduser()
    except RuntimeError as error:  # ~somebody without a home folder
        raise ValueError(f"{path}: {error}") from error


UserPath = Annotated[Path, AfterValidator(_expanded)]


class Section(BaseModel):
    """Base of all sections: unknown keys are errors, numbers are finite, values do not change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _no_truth_as_number(cls, data: Any) -> Any:
        """YAML reads ``yes`` as true, and Python takes true for 1."""
        for name, value in data.items() if isinstance(data, dict) else ():
            field = cls.model_fields.get(name)
            parts = value if isinstance(value, list | tuple) else (value,)
            if any(isinstance(part, bool) for part in parts) and field is not None and field.annotation is not bool:
                raise ValueError(f"{name}: expected no true or false (yes, no, on, off); received {value}")
        return data


class AxisConfig(Section):
    """One axis of the pose grid in degrees, both ends included."""

    min: Degrees
    max: Degrees
    step: float = Field(ge=0.001, le=360)

    @model_validator(mode="after")
    def _steps_have_names(self) -> AxisConfig:
        steps = (self.max - self.min) / self.step
        if self.max < self.min or abs(steps - round(steps)) > 1e-9:
            raise ValueError(f"step {self.step:g} does not divide the range {self.min:g}..{self.max:g}")
        lost = next((angle for angle in self.values() if not survives_name(angle)), None)
        if lost is not None:
            raise ValueError(
                f"the angle {lost} has more than the six digits that a file's name can hold; take a range and a step "
                "of fewer decimals, such as -10..10 by 5"
            )
        return self

    def values(self) -> tuple[float, ...]:
        """The angles of this axis in degrees, ascending."""
        return tuple(float(v) for v in np.round(self.min + self.step * np.arange(self.count()), 9))

    def count(self) -> int:
        """How many angles there are."""
        return round((self.max - self.min) / self.step) + 1


class GridConfig(Section):
    """The pose grid; the default is the paper's 11 x 9 x 7."""

    yaw: AxisConfig = AxisConfig(min=-50, max=50, step=10)
    pitch: AxisConfig = AxisConfig(min=-40, max=40, step=10)
    roll: AxisConfig = AxisConfig(min=-30, max=30, step=10)

    @model_validator(mode="after")
    def _few_enough(self) -> GridConfig:
        count = math.prod(axis.count() for axis in (self.yaw, self.pitch, self.roll))
        if count > MOST_POSES:
            raise ValueError(f"a grid of {count:,} poses; expected at most {MOST_POSES:,}: take greater steps")
        return self

    def pose_grid(self) -> PoseGrid:
        """The grid these axes span."""
        return PoseGrid(self.yaw.values(), self.pitch.values(), self.roll.values())


class LandmarksConfig(Section):
    """Images to the landmark tensor."""

    train_images: UserPath | None = Field(default=None, description="rendered folder in place of Render's train people")
    validation_images: UserPath | None = Field(default=None, description="the same for the validation people")
    detector: DetectorName = DEFAULT_DETECTOR
    bundle: UserPath | None = Field(
        default=None, description="face_landmarker.task of mediapipe_tasks; else the cache's"
    )
    min_confidence: float = Field(
        default=MIN_CONFIDENCE, gt=0, lt=1, description="how sure the detector must be of a face"
    )
    normalization: Normalization = "nose_eye_corners"


class RanksConfig(Section):
    """Tucker ranks; the feature mode is not decomposed."""

    identity: int = Field(default=5, ge=1, le=10_000)
    yaw: int = Field(default=3, ge=1, le=1000)
    pitch: int = Field(default=3, ge=1, le=1000)
    roll: int = Field(default=3, ge=1, le=1000)


class TuckerConfig(Section):
    """The landmark tensor to the manifold."""

    ranks: RanksConfig = RanksConfig()
    use_rotation_features: bool = Field(
        default=False, description="each person's frontal landmarks, turned, stand in for those that were found"
    )
    hooi_sweeps: int = Field(default=2, ge=0, le=1000, description="passes that improve the decomposition")
    max_fill_iterations: int = Field(
        default=30, ge=1, le=10_000, description="at most so many times are faces filled in that were not found"
    )
    prior_scale: float = Field(
        default=1.0, gt=0, le=1e6, description="covariance of the identity prior over the training people's"
    )


class TrainingConfig(Section):
    """The one training loop; best epoch kept, early stop after ``patience`` epochs without gain."""

    CURVES: ClassVar[str] = "tensorboard"
    """The setting by which curves are drawn, on which no weights depend."""

    epochs: int = Field(default=60, ge=1, le=1_000_000)
    batch_size: int = Field(default=256, ge=1, le=1_000_000)
    optimizer: Literal["adamw", "adam"] = "adamw"
    learning_rate: float = Field(default=1e-3, gt=0, le=10)
    weight_decay: float = Field(default=1e-5, ge=0, le=10)
    schedule: Literal["cosine", "plateau", "constant"] = "cosine"
    plateau_patience: int = Field(
        default=5, ge=0, le=1_000_000, description="plateau: epochs without gain before the rate falls"
    )
    plateau_factor: float = Field(default=0.1, gt=0, lt=1, description="plateau: what the rate is multiplied by then")
    gradient_clip: float | None = Field(
        default=None, gt=0, le=1e6, description="largest norm of the gradient of a batch"
    )
    precision: PrecisionName = Field(
        default="float32",
        description="bfloat16: products in half precision, weights and loss in single; auto: that where the device has "
        "instructions for it",
    )
    patience: int = Field(default=12, ge=1, le=1_000_000)
    tensorboard: bool = False


class EncoderConfig(TrainingConfig):
    """Features to factor rows: the paper's layers, then ReLU but tanh before the last."""

    hidden: Layers = (1024, 512, 256, 128, 64)
    noise: float = Field(
        default=1.0, ge=0, le=100, description="noise on training faces, over what unseen people leave"
    )
    turn_deg: float = Field(
        default=30.0, ge=0, le=90, description="training faces are turned in the image by up to this"
    )
    huber: float = Field(
        default=0.3, gt=0, le=1000, description="error, in standard deviations, beyond which the loss is linear"
    )
    held_out_share: float = Field(default=0.15, gt=0, lt=1, description="share of training people to stop early on")


class AngleHeadsConfig(TrainingConfig):
    """Factor rows to angles: three small networks, trained on the manifold's cosines alone."""

    hidden: Layers = (128, 256, 128, 64)
    epochs: int = Field(default=80, ge=1, le=1_000_000)
    samples: int = Field(
        default=20000, ge=100, le=10_000_000, description="angles of each axis, a tenth of them to stop early on"
    )
    margin_deg: tuple[Margin, Margin, Margin] = Field(
        default=(8.0, 8.0, 8.0),
        description="yaw, pitch, roll: how far beyond the grid heads are trained, lest they flatten at its edge",
    )
    noise: float = Field(default=0.01, ge=0, le=100, description="noise on factor rows, as a share of their spread")


class FrameConfig(Section):
    """The head frame of the built model: the constant rotation, in degrees, from the heads' own to the named one."""

    name: str = Field(default=OWN_FRAME, min_length=1, max_length=100)
    yaw: Degrees = 0.0
    pitch: Degrees = 0.0
    roll: Degrees = 0.0

    @model_validator(mode="after")
    def _rotation_has_a_name(self) -> FrameConfig:
        check_head_frame(self.name, self.yaw, self.pitch, self.roll)
        return self


class EvaluationConfig(Section):
    """Evaluation on the rendered validation people, on the grid and off it."""

    interval_deg: float = Field(
        default=10.0, ge=0.1, le=360, description="width of the intervals of the true angle that have an error each"
    )
