"""Settings of rendering: where heads come from, and how images are made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from nlml_hpe.config import Margin, Section, Share, UserPath

FIRST_VALIDATION_PERSON = 100_001
"""Validation people are numbered from here, training people from 1: one more of these renumbers none of those."""
USUAL_EXPRESSIONS = ("browInnerUp", "eyeBlink", "jawOpen", "mouthPucker", "mouthSmile")
Interval = tuple[float, float]
KitFacing = Literal["own", "mean"]
Quality = Annotated[int, Field(ge=1, le=100)]


class LooksConfig(Section):
    """Looks of people whose heads come without textures; probabilities, but for ``melanin``.

    Half of the people are men. They alone have beards, and women alone makeup, so that there is no more than 0.5 of
    either. Men are bald four times and have long hair a sixth as often as women: ``bald: 1`` leaves 0.3 of all with
    hair, and ``long_hair``, which is of those who are not bald, ends at 0.65. Sunglasses are drawn before glasses.
    """

    melanin: tuple[Share, Share] = Field(default=(0.0, 1.0), description="skin, from the lightest to the darkest")
    bald: Share = 0.12
    long_hair: Share = 0.3
    beard: Share = 0.2
    makeup: Share = 0.25
    glasses: Share = 0.12
    sunglasses: Share = 0.01
    head_covering: Share = 0.08
    face_mask: Share = 0.01

    @field_validator("melanin")
    @classmethod
    def _from_light_to_dark(cls, value: Interval) -> Interval:
        if value[0] > value[1]:
            raise ValueError(f"expected [lightest, darkest] with lightest <= darkest; received {list(value)}")
        return value


_OF_SOURCES = {
    "photos": ("photo",),
    "folder": ("ict_facekit", "facescape", "scan"),
    "publishable": ("facescape",),
    "makehuman": ("ict_facekit",),
    "facing": ("ict_facekit",),
    "shape_variation": ("photo", "ict_facekit"),
    "tone_variation": ("photo",),
    "expression": ("ict_facekit",),
    "expressions": ("ict_facekit",),
    "looks": ("ict_facekit",),
}
"""Settings of heads that not every source looks at."""


class HeadsConfig(Section):
    """Where heads come from and how many people are made of them; settings of another source are refused."""

    source: Literal["photo", "ict_facekit", "facescape", "scan"] = "photo"
    photos: UserPath | None = Field(default=None, description="folder of photographs; without one the embedded photo")
    folder: UserPath | None = Field(
        default=None, description="ICT-FaceKit's FaceXModel, FaceScape's identities, or scans"
    )
    publishable: UserPath | None = Field(default=None, description="FaceScape's list of publishable identities")
    makehuman: UserPath | None = Field(
        default=None, description="MakeHuman's base mesh, hair and clothes, for crops: hair and shoulders of real shape"
    )
    facing: KitFacing = Field(
        default="own",
        description="which way ICT-FaceKit's people face (no others): as its modes have it, or as the mean head",
    )
    train: int = Field(default=24, ge=1, lt=FIRST_VALIDATION_PERSON)
    validation: int = Field(default=6, ge=1, lt=FIRST_VALIDATION_PERSON)
    shape_variation: float = Field(
        default=1.0,
        ge=0,
        le=3,
        description="how far shapes vary, against people's: of photographs' heads and the kit's",
    )
    tone_variation: float = Field(default=1.0, ge=0, le=3, description="the same of colours: of photographs' heads")
    expression: Share = Field(
        default=0.6,
        description="share of ICT-FaceKit's people in Render who do not keep a neutral face; of the faces of crops and "
        "sprites it is 0.8",
    )
    expressions: tuple[str, ...] | Literal["all"] = Field(
        default=USUAL_EXPRESSIONS,
        description="which of ICT-FaceKit's expressions, without _L and _R; the shipped checkpoint was made with these",
    )

    looks: LooksConfig = LooksConfig()

    @property
    def source_folder(self) -> Path:
        """``folder``, for the sources that need one."""
        assert self.folder is not None  # _folder_where_needed has seen to it
        return self.folder

    @model_validator(mode="after")
    def _folder_where_needed(self) -> HeadsConfig:
        if self.source != "photo" and self.folder is None:
            raise ValueError(f"heads.source {self.source!r} needs heads.folder; data/README.md says what lies there")
        return self

    @model_validator(mode="after")
    def _settings_fit_the_source(self) -> HeadsConfig:
        for name, sources in _OF_SOURCES.items():
            if self.source not in sources and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(
                    f"heads.{name} is of source {' or '.join(sources)}; heads.source is {self.source!r}, which does "
                    "not look at it"
                )
        return self


class AppearanceConfig(Section):
    """What varies from image to image; ``vary: false`` takes the middle of every range."""

    vary: bool = True
    distance_mm: Interval = Field(default=(600.0, 1500.0), description="range from the camera to the head's middle")
    head_fraction: Interval = Field(
        default=(0.6, 0.75), description="range of the share of the image's side that 230 mm of a head fill"
    )
    ambient: Interval = Field(
        default=(0.5, 0.8), description="range of the share of light from all sides; one lamp gives the rest"
    )
    light_angle_deg: float = Field(
        default=40.0, ge=0, le=90, description="how far at most that lamp stands to a side, and up or down"
    )
    offset: float = Field(default=0.0, ge=0, le=0.3, description="how far off the middle, as a share of the image")
    blur_px: Interval = Field(default=(0.0, 0.0), description="range of the blur's standard deviation")
    noise: Interval = Field(default=(0.0, 0.0), description="range of the noise's standard deviation, of 255")

    @field_validator("blur_px", "noise")
    @classmethod
    def _from_zero(cls, value: Interval) -> Interval:
        if not 0 <= value[0] <= value[1] <= 50:
            raise ValueError(f"expected [low, high] with 0 <= low <= high <= 50; received {list(value)}")
        return value

    @field_validator("distance_mm", "head_fraction", "ambient")
    @classmethod
    def _ascending(cls, value: Interval, field: ValidationInfo) -> Interval:
        # A head reaches 250 mm from its middle, and the camera stands before it.
        low, high = {"distance_mm": (300, 1e6), "head_fraction": (0.05, 2), "ambient": (0, 1)}[str(field.field_name)]
        if not low <= value[0] <= value[1] <= high:
            raise ValueError(f"expected [low, high] with {low:g} <= low <= high <= {high:g}; received {list(value)}")
        return value


Turn = Annotated[float, Field(ge=0, le=180)]
Turns = tuple[Turn, Turn, Turn]


class PosesConfig(Section):
    """Heads at drawn poses; whose heads, and how many people, ``heads`` says."""

    crops_per_person: int = Field(default=80, ge=1, le=100_000)
    faces: int = Field(default=4, ge=1, le=1000, description="expressions that each person makes")
    people_per_shard: int = Field(default=25, ge=1, le=100_000)
    size: int = Field(default=96, ge=32, le=512, description="pixels on a side of what is stored, margin included")
    limits_deg: Turns = Field(default=(100.0, 90.0, 90.0), description="yaw, pitch, roll: no pose lies beyond")
    spread_deg: Turns = Field(default=(38.0, 20.0, 20.0), description="standard deviation of the usual poses")
    wide: Share = Field(default=0.4, description="share of poses that are drawn evenly up to the limits")
    around: Share = Field(default=0.0, description="share of poses turned evenly all the way round, beyond the limits")
    backgrounds: UserPath | None = Field(
        default=None, description="folder of at most 1,000 pictures without people; else packages' own"
    )


class CropsConfig(PosesConfig):
    """Heads to crops for the image eye."""

    occluded: Share = Field(default=0.3, description="share of crops with a hand or a thing over the face")


class SpritesConfig(PosesConfig):
    """Heads without anything behind them, which scenes for the head detector are put together from."""

    crops_per_person: int = Field(default=10, ge=1, le=100_000)
    faces: int = Field(default=2, ge=1, le=1000, description="expressions that each person makes")
    size: int = Field(default=256, ge=32, le=512, description="pixels on a side, hair and shoulders included")
    share: float = Field(default=3.2, ge=1.5, le=6, description="that side over the longer side of the box")
    wide: Share = Field(default=0.3, description="share of poses that are drawn evenly up to the limits")
    around: Share = Field(default=0.7, description="share of poses turned evenly all the way round, beyond the limits")


class ScenesConfig(Section):
    """Sprites to pictures of several heads."""

    size: int = Field(default=256, ge=64, le=2048, multiple_of=32, description="pixels on a side")
    mean_heads: float = Field(default=3.3, ge=1, le=100, description="of scenes that have any, before the next limit")
    most_heads: int = Field(default=12, ge=1, le=200)
    smallest_px: float = Field(default=10.0, ge=4, le=200, description="longer side of a box that counts as a head")
    largest: float = Field(default=0.85, gt=0, le=2, description="the same of the largest, as a share of the side")
    empty: float = Field(default=0.12, ge=0, lt=1, description="share of scenes without any head")

    @model_validator(mode="after")
    def _some_head_counts(self) -> ScenesConfig:
        if self.smallest_px >= self.largest * self.size:
            raise ValueError(
                f"no head would count: smallest_px {self.smallest_px:g} is no less than the largest one, "
                f"{self.largest:g} of {self.size} px; lower it, or raise largest or size"
            )
        return self


class RenderConfig(Section):
    """Heads to images."""

    size: int = Field(default=256, ge=32, le=4096, description="pixels on a side")
    rasterizer: Literal["numba_zbuffer", "pytorch3d"] = "numba_zbuffer"
    keep_images: bool = Field(default=True, description="false: rendered and detected in one go, nothing on disk")
    image_format: Literal["jpg", "png"] = "jpg"
    jpeg_quality: tuple[Quality, Quality] = Field(default=(90, 90), description="range, drawn for every image")
    random_poses_train: int = Field(default=0, ge=0, le=100_000, description="of each person, besides the grid's")
    random_margin_deg: tuple[Margin, Margin, Margin] = Field(
        default=(0.0, 0.0, 0.0),
        description="yaw, pitch, roll: how far beyond the grid every other random pose of a training person may lie",
    )
    random_poses_validation: int = Field(default=150, ge=0, le=100_000, description="the same of validation people")
    appearance: AppearanceConfig = AppearanceConfig()

    @field_validator("jpeg_quality")
    @classmethod
    def _from_low_to_high(cls, value: tuple[int, int]) -> tuple[int, int]:
        if value[0] > value[1]:
            raise ValueError(f"expected [low, high] with low <= high; received {list(value)}")
        return value
