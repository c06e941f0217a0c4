"""Painting a person's looks onto the texture atlas of an ICT head, in millimetres of the neutral head.

What lies on the face (brows, lips, lids, folds) comes from a frontal chart, drawn by `renderer.face_chart`; what goes
around the head (hair, beard, cloth) is a function of the place in space.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from renderer.atlas import Texels
from renderer.compiled import compiled
from renderer.face_chart import frontal_chart, inside, seen_from_front
from renderer.looks import Looks, Rgb
from renderer.smoothstep import smoothstep

FloatArray = NDArray[np.float32]

# Hairline: height in mm at a bearing in degrees from the front, the neutral ICT head.
_HAIRLINE = PchipInterpolator(
    [0, 22, 40, 55, 68, 80, 90, 105, 125, 150, 180], [112, 113, 106, 84, 62, 30, 24, 28, -10, -38, -48]
)
# The upper edge of a beard, likewise; in front it leaves the cheeks free.
_BEARDLINE = PchipInterpolator([0, 14, 30, 50, 70, 82], [-8, -10, -30, -22, -2, 26])
_HEAD_AXIS_Z = 20.0
_EAR_Y, _EAR_Z = 12.0, -4.0


@dataclass(frozen=True)
class Anatomy:
    """Where things are on the neutral head, mm: 68 iBUG ``landmarks`` (68, 3), ``eyes`` (2, 3) centres of the balls."""

    landmarks: FloatArray
    eyes: FloatArray


@dataclass(frozen=True)
class Scalp:
    """Places (..., 3) on the head, in mm of the neutral one, and what of hair is the same there for everybody.

    ``around`` (...) are degrees from the front, ``line`` the hairline's height; ``temple`` and ``corner`` say how far a
    person's hairline as a whole and a receding one move it, ``free`` how far a place is off the ear.
    """

    place: FloatArray
    around: FloatArray
    line: NDArray[np.float64]
    temple: FloatArray
    corner: FloatArray
    free: FloatArray

    @classmethod
    def of(cls, place: FloatArray) -> Scalp:
        """Of places (..., 3)."""
        around = bearing(place)
        ear = smoothstep(np.hypot(place[..., 1] - _EAR_Y, place[..., 2] - _EAR_Z), 30, 24)
        ear = ear * smoothstep(np.abs(place[..., 0]), 74, 78)
        corner = np.exp(-(((around - 38) / 14) ** 2))
        return cls(place, around, _HAIRLINE(around), smoothstep(around, 80, 40), corner, 1 - ear)


@dataclass(frozen=True)
class Canvas:
    """The atlas of one kit, with the fields that do not change from person to person."""

    texels: Texels
    anatomy: Anatomy
    parts: tuple[str, ...]

    def paint(self, looks: Looks) -> NDArray[np.uint8]:
        """The texture (H, W, 3) of a person."""
        rng = np.random.default_rng(looks.seed)
        # Colours first, (3, H, W), until all is painted: numpy takes three times as long over rows of three numbers.
        image = self._skin(looks, rng)
        self._draw_face(image, looks, rng)
        self._grow_beard(image, looks, rng)
        self._grow_hair(image, looks, rng)
        image *= self._shade
        self._paint_eyes(image, looks)
        self._paint_mouth(image)
        self._dress(image, looks, rng)
        return np.asarray(cv2.merge(tuple(np.clip(image, 0, 255).astype(np.uint8))), dtype=np.uint8)

    def _of(self, *names: str) -> NDArray[np.bool_]:
        return np.any([self.texels.part == self.parts.index(name) for name in names], axis=0)

    # What follows is the same for everybody.
    @cached_property
    def _face(self) -> NDArray[np.bool_]:
        return self._of("M_Face")

    @cached_property
    def _outer(self) -> NDArray[np.bool_]:
        return self._of("M_Face", "M_BackHead")

    @cached_property
    def _forward(self) -> FloatArray:
        """How far each texel belongs to what the frontal chart shows."""
        facing = smoothstep(self.texels.normal[..., 2], 0.0, 0.25)
        return np.asarray(facing * (self.texels.position[..., 2] > 45) * self._face)

    @cached_property
    def _front(self) -> tuple[slice, slice]:
        """Rows and columns of the texels that do."""
        left, top, width, height = cv2.boundingRect((self._forward > 0).astype(np.uint8))
        return slice(top, top + height), slice(left, left + width)

    @cached_property
    def _blush(self) -> FloatArray:
        """How far the nose's tip and the cheeks blush."""
        place, marks = self.texels.position, self.anatomy.landmarks
        middles = ((marks[30], 12), (marks[31] + [-26, 4, -14], 15), (marks[35] + [26, 4, -14], 15))
        return np.asarray(sum(np.exp(-((place - at) ** 2).sum(axis=2) / (2 * width**2)) for at, width in middles))

    @cached_property
    def _shade(self) -> FloatArray:
        return _shadow(self.texels.openness)

    @cached_property
    def _scalp(self) -> Scalp:
        return Scalp.of(self.texels.position)

    @cached_property
    def _on_strands(self) -> tuple[FloatArray, FloatArray]:
        """Column and row, in the picture of strands, of each texel."""
        place = self.texels.position
        column = (np.arctan2(place[..., 0], place[..., 2] - _HEAD_AXIS_Z) / (2 * np.pi) + 0.5) * 1023
        row = np.clip((place[..., 1] + 120) / 270, 0, 1) * 63
        return column.astype(np.float32), row.astype(np.float32)

    @cached_property
    def _beard(self) -> FloatArray:
        """How far each texel lies within a full beard."""
        place, marks, around = self.texels.position, self.anatomy.landmarks, self._scalp.around
        edge = _BEARDLINE(np.clip(around, 0, 82))
        below = smoothstep(edge - place[..., 1], -4, 8) * smoothstep(place[..., 1], -112, -78)
        beard = below * (around < 82) * smoothstep(place[..., 2], 20, 40) * self._face
        lips = inside(marks[48:60], place, 1.5) * (place[..., 2] > 85)
        return np.asarray(beard * (1 - lips), dtype=np.float32)

    @cached_property
    def _shoulders(self) -> FloatArray:
        place = self.texels.position
        share = smoothstep(-place[..., 1] - 0.35 * place[..., 2], 88, 92) * self._outer
        return np.asarray(share, dtype=np.float32)

    def _skin(self, looks: Looks, rng: np.random.Generator) -> FloatArray:
        place = self.texels.position
        # Long waves in space have no seams where charts meet.
        waves = sum(
            np.sin(place @ rng.normal(0, 1 / rng.uniform(9, 40), size=3).astype(np.float32) + rng.uniform(0, 6.3))
            for _ in range(7)
        )
        image = _planes(looks.skin) * (1 + 0.014 * waves)
        redness = (0.10 - 0.07 * looks.melanin) * looks.redness * self._blush
        image = image * (1 - redness * _planes((0.1, 1.0, 0.8)))
        grain = rng.normal(0, 2.2, size=place.shape[:2]).astype(np.float32)
        return np.asarray(image + grain, dtype=np.float32)

    def _draw_face(self, image: FloatArray, looks: Looks, rng: np.random.Generator) -> None:
        """Blend the frontal chart into the face where it looks forward."""
        where = self._front
        drawn = seen_from_front(frontal_chart(self.anatomy.landmarks, looks, rng), self.texels.position[where])
        _lay_chart(image[:, *where], drawn, self._forward[where])

    def _grow_beard(self, image: FloatArray, looks: Looks, rng: np.random.Generator) -> None:
        if looks.beard == 0 and looks.stubble == 0:
            return
        strength = max(looks.beard, 0.30 * looks.stubble)
        _blend(image, self._beard * strength, _ink(looks.hair_color), self._strands(rng, 0.3))

    def _grow_hair(self, image: FloatArray, looks: Looks, rng: np.random.Generator) -> None:
        if looks.hair == "bald" and looks.age < 0.5:
            return
        share = hair_share(self._scalp, looks) * self._outer
        share *= 0.35 if looks.hair == "bald" else 1.0
        ragged = rng.normal(0, 0.12, size=share.shape).astype(np.float32)
        share = np.clip(share + ragged * share * (1 - share) * 4, 0, 1)
        _blend(image, share, _ink(looks.hair_color), self._strands(rng, 0.24))

    def _strands(self, rng: np.random.Generator, contrast: float) -> FloatArray:
        """Brightness (H, W) of hair: fine across the head, long from the crown down."""
        noise = cv2.GaussianBlur(rng.normal(0, 1, size=(64, 1024)).astype(np.float32), (0, 0), sigmaX=1.2, sigmaY=3.0)
        drawn = cv2.remap(noise / noise.std(), *self._on_strands, cv2.INTER_LINEAR)
        return np.asarray(np.clip(1 + contrast * drawn, 0.3, 2.0), dtype=np.float32)

    @cached_property
    def _eyeballs(self) -> list[tuple[NDArray[np.bool_], NDArray[np.floating], FloatArray]]:
        """Of both eyes the texels (H, W), and of these directions (n, 3) from the middle and shades (n, 1)."""
        balls = []
        for name, centre in zip(("M_ScleraLeft", "M_ScleraRight"), self.anatomy.eyes, strict=True):
            where = self._of(name)
            direction = self.texels.position[where] - centre
            direction /= np.linalg.norm(direction, axis=1, keepdims=True)
            balls.append((where, direction, self._shade[where][:, None]))
        return balls

    @cached_property
    def _mouth(self) -> list[tuple[NDArray[np.bool_], FloatArray]]:
        """Of teeth and of gums the texels (H, W), and the colours (3, n) of these."""
        parts = []
        for name, color in (("M_Teeth", (226, 216, 196)), ("M_GumsTongue", (150, 76, 74))):
            where = self._of(name)
            parts.append((where, _planes(color)[..., 0] * (0.25 + 0.75 * self.texels.openness[where])))
        return parts

    def _paint_eyes(self, image: FloatArray, looks: Looks) -> None:
        right, up = np.radians(looks.gaze_deg)
        gaze = np.array([np.sin(right), np.sin(up), np.sqrt(max(1 - np.sin(right) ** 2 - np.sin(up) ** 2, 0.1))])
        for where, direction, shade in self._eyeballs:
            angle = np.degrees(np.arccos(np.clip(direction @ gaze, -1, 1)))[:, None]
            sclera = np.array([228, 220, 214]) - np.clip(angle - 35, 0, 30) * [0.6, 1.2, 1.2]
            iris = np.array(looks.iris) * (1.15 - 0.5 * smoothstep(angle, 20, 27))
            color = iris + smoothstep(angle, 25.5, 28.5) * (sclera - iris)
            color = color * smoothstep(angle, 9, 11.5)
            glint = np.degrees(np.arccos(np.clip(direction @ [-0.17, 0.26, 0.95], -1, 1)))[:, None] < 3.5
            image[:, where] = (np.where(glint, 250, color) * shade).T

    def _paint_mouth(self, image: FloatArray) -> None:
        for where, color in self._mouth:
            image[:, where] = color

    def _dress(self, image: FloatArray, looks: Looks, rng: np.random.Generator) -> None:
        """Shoulders, scarf, cap and face mask."""
        place = self.texels.position
        weave = rng.normal(1, 0.03, size=place.shape[:2]).astype(np.float32)
        cloth, bright = _ink(looks.cloth_color), weave * self._shade
        _blend(image, self._shoulders, cloth, bright)
        if looks.covering != "none":
            _blend(image, covering_share(place, looks) * self._outer, cloth, bright)
        if looks.face_mask:
            _blend(image, mask_share(place) * self._face, _ink((205, 222, 232)), self._shade)


def _ink(color: Rgb) -> FloatArray:
    """A colour (3,) in single precision."""
    return np.array(color, dtype=np.float32)


def _planes(color: Rgb) -> FloatArray:
    """A colour (3, 1, 1), for images with colours first."""
    return _ink(color)[:, None, None]


@compiled()
def _blend(image, share, color, bright):  # type: ignore[no-untyped-def]
    """Paint an image (3, H, W) with a colour (3,) of some brightness (H, W), as far as a share (H, W) says."""
    for channel in range(3):
        for row in range(image.shape[1]):
            for column in range(image.shape[2]):
                under = image[channel, row, column]
                over = color[channel] * bright[row, column]
                image[channel, row, column] = under + share[row, column] * (over - under)


@compiled()
def _lay_chart(image, drawn, forward):  # type: ignore[no-untyped-def]
    """Lay colours times coverage, with the coverage last (H, W, 4), over an image (3, H, W) where it looks ahead."""
    one = np.float32(1)  # as an integer it would make the sum one of double precision
    for channel in range(3):
        for row in range(image.shape[1]):
            for column in range(image.shape[2]):
                ahead = forward[row, column]
                rest = one - drawn[row, column, 3] * ahead
                image[channel, row, column] = image[channel, row, column] * rest + drawn[row, column, channel] * ahead


def bearing(place: FloatArray) -> FloatArray:
    """Degrees (...) from the front around the head's vertical axis, 0..180, of places (..., 3) in mm."""
    return np.asarray(np.degrees(np.arctan2(np.abs(place[..., 0]), place[..., 2] - _HEAD_AXIS_Z)), dtype=np.float32)


def hair_share(scalp: Scalp, looks: Looks) -> FloatArray:
    """How far places on the head lie within the hair.

    Parameters
    ----------
    scalp : Scalp
        Of the places (..., 3).
    looks : Looks
        The person's, which say where the hair begins.

    Returns
    -------
    float array (...)
        In 0..1.
    """
    line = scalp.line + looks.hairline_mm * scalp.temple + 16 * looks.recession * scalp.corner
    return np.asarray(smoothstep(scalp.place[..., 1] - line, -3, 6) * scalp.free, dtype=np.float32)


def covering_share(place: FloatArray, looks: Looks) -> FloatArray:
    """The same for a cap or a scarf."""
    around, height = bearing(place), place[..., 1]
    if looks.covering == "cap":
        return np.asarray(smoothstep(height - np.interp(around, [0, 90, 180], [92, 52, 20]), -1, 1), dtype=np.float32)
    face = np.hypot(place[..., 0] / 68.0, (height - 16.0) / 93.0)
    return np.asarray(np.maximum(smoothstep(face, 0.98, 1.02), place[..., 2] < 30), dtype=np.float32)


def mask_share(place: FloatArray) -> FloatArray:
    """The same for a face mask: from the bridge of the nose to under the chin."""
    around, height = bearing(place), place[..., 1]
    upper = np.interp(around, [0, 12, 35, 62], [16, 4, 2, -14])
    lower = np.interp(around, [0, 62], [-92, -40])
    inside = smoothstep(upper - height, -1, 1) * smoothstep(height - lower, -1, 1)
    return np.asarray(inside * smoothstep(around, 64, 60) * (place[..., 2] > 30), dtype=np.float32)


def _shadow(openness: FloatArray) -> FloatArray:
    """Brightness by how much of the sky is seen; a little of it is always there."""
    return np.asarray(0.35 + 0.65 * np.clip(openness / 0.85, 0, 1), dtype=np.float32)
