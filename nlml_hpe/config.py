"""The YAML of one experiment: a section per stage, the pose grid written once.

Every setting has its default here and nowhere else. An unknown key is an error that names the
key, the nearest valid one, the file and the line.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from nlml_hpe.detection.detectors import DetectorName
from nlml_hpe.detection.landmarks import MIN_CONFIDENCE, Normalization
from nlml_hpe.pose_grid import PoseGrid

MAX_CONFIG_BYTES = 1_000_000
Interval = tuple[float, float]


class ConfigError(ValueError):
    """A configuration file is missing, not YAML, or holds a key or value that is not valid."""


class Section(BaseModel):
    """Base of all sections: unknown keys are errors, values do not change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class AxisConfig(Section):
    """One axis of the pose grid in degrees, both ends included."""

    min: float
    max: float
    step: float = Field(gt=0)

    @model_validator(mode="after")
    def _step_divides_range(self) -> AxisConfig:
        steps = (self.max - self.min) / self.step
        if self.max < self.min or abs(steps - round(steps)) > 1e-9:
            raise ValueError(f"step {self.step:g} does not divide the range {self.min:g}..{self.max:g}")
        return self

    def values(self) -> tuple[float, ...]:
        """The angles of this axis in degrees, ascending."""
        count = round((self.max - self.min) / self.step) + 1
        return tuple(float(v) for v in np.round(self.min + self.step * np.arange(count), 9))


class GridConfig(Section):
    """The pose grid; the default is the paper's 11 x 9 x 7."""

    yaw: AxisConfig = AxisConfig(min=-50, max=50, step=10)
    pitch: AxisConfig = AxisConfig(min=-40, max=40, step=10)
    roll: AxisConfig = AxisConfig(min=-30, max=30, step=10)

    def pose_grid(self) -> PoseGrid:
        """The grid these axes span."""
        return PoseGrid(self.yaw.values(), self.pitch.values(), self.roll.values())


Share = Annotated[float, Field(ge=0, le=1)]


class LooksConfig(Section):
    """Looks of people whose heads come without textures; probabilities, but for ``melanin``."""

    melanin: tuple[Share, Share] = Field(default=(0.0, 1.0), description="skin, from the lightest to the darkest")
    bald: Share = 0.12
    long_hair: Share = 0.3
    beard: Share = 0.2
    makeup: Share = 0.25
    glasses: Share = 0.12
    sunglasses: Share = 0.01
    head_covering: Share = 0.08
    face_mask: Share = 0.01


class HeadsConfig(Section):
    """Where heads come from and how many people are made of them."""

    source: Literal["photo", "ict_facekit", "facescape", "scan"] = "photo"
    photos: Path | None = Field(default=None, description="folder of photographs; without one the embedded photo")
    folder: Path | None = Field(default=None, description="ICT-FaceKit's FaceXModel, FaceScape's identities, or scans")
    publishable: Path | None = Field(default=None, description="FaceScape's list of publishable identities")
    train: int = Field(default=24, ge=1)
    validation: int = Field(default=6, ge=1)
    shape_variation: float = Field(default=1.0, ge=0, le=3)
    tone_variation: float = Field(default=1.0, ge=0, le=3)
    expression: Share = Field(default=0.6, description="share of people who do not keep a neutral face")
    looks: LooksConfig = LooksConfig()

    @model_validator(mode="after")
    def _folder_where_needed(self) -> HeadsConfig:
        if self.source != "photo" and self.folder is None:
            raise ValueError(f"heads.source {self.source!r} needs heads.folder; data/README.md says what lies there")
        return self


class AppearanceConfig(Section):
    """What varies from image to image; ``vary: false`` takes the middle of every range."""

    vary: bool = True
    distance_mm: Interval = (600.0, 1500.0)
    head_fraction: Interval = (0.6, 0.75)
    ambient: Interval = (0.5, 0.8)
    light_angle_deg: float = Field(default=40.0, ge=0, le=90)
    offset: float = Field(default=0.0, ge=0, le=0.3, description="how far off the middle, as a share of the image")
    blur_px: tuple[float, float] = Field(default=(0.0, 0.0), description="range of the blur's standard deviation")
    noise: tuple[float, float] = Field(
        default=(0.0, 0.0), description="range of the noise's standard deviation, of 255"
    )

    @field_validator("blur_px", "noise")
    @classmethod
    def _from_zero(cls, value: Interval) -> Interval:
        if not 0 <= value[0] <= value[1] <= 50:
            raise ValueError(f"expected [low, high] with 0 <= low <= high <= 50; received {list(value)}")
        return value

    @field_validator("distance_mm", "head_fraction", "ambient")
    @classmethod
    def _ascending(cls, value: Interval) -> Interval:
        if not 0 < value[0] <= value[1]:
            raise ValueError(f"expected [low, high] with 0 < low <= high; received {list(value)}")
        return value


Quality = Annotated[int, Field(ge=1, le=100)]
Margin = Annotated[float, Field(ge=0, le=90)]


class RenderConfig(Section):
    """Heads to images."""

    size: int = Field(default=256, ge=32, le=4096)
    rasterizer: Literal["numba_zbuffer", "pytorch3d"] = "numba_zbuffer"
    keep_images: bool = Field(default=True, description="false: rendered and detected in one go, nothing on disk")
    image_format: Literal["jpg", "png"] = "jpg"
    jpeg_quality: tuple[Quality, Quality] = Field(default=(90, 90), description="range, drawn for every image")
    random_poses_train: int = Field(default=0, ge=0)
    random_margin_deg: tuple[Margin, Margin, Margin] = Field(
        default=(0.0, 0.0, 0.0),
        description="yaw, pitch, roll: how far beyond the grid every other random pose of a training person may lie",
    )
    random_poses_validation: int = Field(default=150, ge=0)
    appearance: AppearanceConfig = AppearanceConfig()


class LandmarksConfig(Section):
    """Images to the landmark tensor."""

    train_images: Path | None = Field(default=None, description="rendered folder in place of Render's train people")
    validation_images: Path | None = Field(default=None, description="the same for the validation people")
    detector: DetectorName = "mediapipe_facemesh"
    bundle: Path | None = Field(default=None, description="face_landmarker.task of mediapipe_tasks; else the cache's")
    min_confidence: float = Field(default=MIN_CONFIDENCE, gt=0, lt=1)
    normalization: Normalization = "nose_eye_corners"


class RanksConfig(Section):
    """Tucker ranks; the feature mode is not decomposed."""

    identity: int = Field(default=5, ge=1)
    yaw: int = Field(default=3, ge=1)
    pitch: int = Field(default=3, ge=1)
    roll: int = Field(default=3, ge=1)


class TuckerConfig(Section):
    """The landmark tensor to the manifold."""

    ranks: RanksConfig = RanksConfig()
    use_rotation_features: bool = False
    hooi_sweeps: int = Field(default=2, ge=0)
    max_fill_iterations: int = Field(default=30, ge=1)
    prior_scale: float = Field(
        default=1.0, gt=0, description="covariance of the identity prior over the training people's"
    )
    device: Literal["cpu", "cuda"] = "cpu"


class TrainingConfig(Section):
    """The one training loop; best epoch kept, early stop after ``patience`` epochs without gain."""

    epochs: int = Field(default=60, ge=1)
    batch_size: int = Field(default=256, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=1e-5, ge=0)
    patience: int = Field(default=12, ge=1)
    tensorboard: bool = False


class EncoderConfig(TrainingConfig):
    """Features to factor rows: the paper's layers, then ReLU but tanh before the last."""

    hidden: tuple[int, ...] = (1024, 512, 256, 128, 64)
    noise: float = Field(default=1.0, ge=0, description="noise on training faces, over what unseen people leave")
    turn_deg: float = Field(
        default=30.0, ge=0, le=90, description="training faces are turned in the image by up to this"
    )
    huber: float = Field(
        default=0.3, gt=0, description="error, in standard deviations, beyond which the loss is linear"
    )
    held_out_share: float = Field(default=0.15, gt=0, lt=1, description="share of training people to stop early on")


class AngleHeadsConfig(TrainingConfig):
    """Factor rows to angles: three small networks, trained on the manifold's cosines alone."""

    hidden: tuple[int, ...] = (128, 256, 128, 64)
    epochs: int = Field(default=80, ge=1)
    samples: int = Field(default=20000, ge=100)
    margin_deg: tuple[Margin, Margin, Margin] = Field(
        default=(8.0, 8.0, 8.0),
        description="yaw, pitch, roll: how far beyond the grid heads are trained, lest they flatten at its edge",
    )
    noise: float = Field(default=0.01, ge=0, description="noise on factor rows, as a share of their spread")


class FrameConfig(Section):
    """The head frame of the built model: the constant rotation, in degrees, from the heads' own to the named one."""

    name: str = "own"
    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0


class EvaluationConfig(Section):
    """Evaluation on the rendered validation people, on the grid and off it."""

    interval_deg: float = Field(default=10.0, gt=0)


class Config(Section):
    """One experiment. Paths are relative to the working directory."""

    workdir: Path
    seed: int = Field(default=0, ge=0)
    workers: int | None = Field(default=None, ge=1, description="processes; without it one per CPU core")
    cluster: str | None = Field(default=None, description="tcp://HOST:PORT of a Dask scheduler in place of workers")
    grid: GridConfig = GridConfig()
    heads: HeadsConfig = HeadsConfig()
    render: RenderConfig = RenderConfig()
    landmarks: LandmarksConfig = LandmarksConfig()
    tucker: TuckerConfig = TuckerConfig()
    encoder: EncoderConfig = EncoderConfig()
    angle_heads: AngleHeadsConfig = AngleHeadsConfig()
    frame: FrameConfig = FrameConfig()
    test: EvaluationConfig = EvaluationConfig()

    @property
    def n_workers(self) -> int:
        """Number of worker processes; it never changes a result."""
        return self.workers or len(os.sched_getaffinity(0))

    def sections(self, *names: str) -> dict[str, Any]:
        """JSON form of some sections: what a stage's artefact depends on."""
        return {name: self.model_dump(mode="json")[name] for name in names}


def load_config(path: str | Path) -> Config:
    """Read and check a YAML file. Raises ``ConfigError`` with file, line and the nearest valid key."""
    source = Path(path)
    if not source.is_file():
        raise ConfigError(f"{source}: no such configuration file")
    if source.stat().st_size > MAX_CONFIG_BYTES:
        raise ConfigError(f"{source}: larger than {MAX_CONFIG_BYTES} bytes; this is no configuration file")
    try:
        text = source.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{source}: not valid YAML ({error})") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{source}: expected a mapping of sections, received {type(data).__name__}")
    lines = _lines(source, node)
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        problems = "\n".join(_problem(source, lines, entry) for entry in error.errors())
        raise ConfigError(problems) from error


def _lines(source: Path, node: yaml.Node | None, where: tuple[str, ...] = ()) -> dict[tuple[str, ...], int]:
    """Line of every key, by its path; a key written twice is an error (YAML would drop the first)."""
    found: dict[tuple[str, ...], int] = {}
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            path = (*where, str(key.value))
            line = key.start_mark.line + 1
            if path in found:
                raise ConfigError(f"{source}, line {line}: key {'.'.join(path)!r} is already set in line {found[path]}")
            found[path] = line
            found.update(_lines(source, value, path))
    return found


def _problem(source: Path, lines: dict[tuple[str, ...], int], entry: Any) -> str:
    path = tuple(str(part) for part in entry["loc"])
    line = next((lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in lines), None)
    place = f"{source}, line {line}" if line else f"{source}"
    name = ".".join(path)
    if entry["type"] != "extra_forbidden":
        return f"{place}: {name}: {entry['msg']} (received {entry['input']!r})"
    valid = _valid_keys(path[:-1])
    near = difflib.get_close_matches(path[-1], valid, n=1, cutoff=0.0)
    return f"{place}: unknown key {name!r}; the nearest valid key is {'.'.join((*path[:-1], *near))!r}"


def _valid_keys(path: tuple[str, ...]) -> list[str]:
    model: Any = Config
    for part in path:
        model = model.model_fields[part].annotation
    return list(model.model_fields)
