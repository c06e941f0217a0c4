"""One person's head to one crop: pose, camera, light, background and what lies over the face, put together."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from nlml_hpe.face import box_of
from nlml_hpe.image_networks.crop import STORED_SHARE, square_around
from nlml_hpe.rotation import Angles, rotation_from_angles
from renderer.camera import Camera
from renderer.config import CropsConfig, PosesConfig
from renderer.crop_people import Person, Take
from renderer.crop_scene import draw_background, draw_lamps, lay_over
from renderer.crop_shading import light_crop
from renderer.neck import SKULL_MM, draw_body, moved, posed
from renderer.rasterizers import Fragments, get_rasterizer

FloatArray = NDArray[np.float32]
_FINER = 2
"""Pixels of the renderer across one of the crop."""
_NEAR_MM, _FAR_MM = 420.0, 4000.0
_NOT_NEARER_MM = 120.0


class Crop(NamedTuple):
    """``image`` (S, S, 3) uint8, ``rotation`` (3, 3) head to camera, ``box`` of the 68 points in its pixels.

    Where no background was drawn, ``alpha`` (S, S) uint8 says how much of each pixel is the person's, and ``head`` is
    the box of the whole head, ears and crown included, hair left out, whether it is seen or not.
    """

    image: NDArray[np.uint8]
    rotation: NDArray[np.float64]
    box: NDArray[np.float64]
    alpha: NDArray[np.uint8] | None = None
    head: NDArray[np.float64] | None = None


class _View(NamedTuple):
    """A person before the camera: what each fine pixel shows, in the camera frame; ``box`` of the 68 points and, where
    it was asked for, that of the ``head`` in pixels of the crop.
    """

    fragments: Fragments
    vertices: FloatArray
    normals: FloatArray
    box: NDArray[np.float64]
    head: NDArray[np.float64] | None


def draw_poses(config: PosesConfig, rng: np.random.Generator) -> NDArray[np.float64]:
    """Rotations (crops_per_person, 3, 3), head to camera: some evenly up to the limits, some turned evenly all the way
    round, the others about the front.

    Angles beyond 90 degrees of yaw are meant as they stand: the head is turned on, away from the camera.
    """
    count, limits = config.crops_per_person, np.array(config.limits_deg)
    near = np.clip(rng.normal(0, config.spread_deg, size=(count, 3)), -limits, limits)
    far = rng.uniform(-limits, limits, size=(count, 3))
    columns = np.where(rng.uniform(size=(count, 1)) < config.wide, far, near)
    if config.around > 0:
        columns[:, 0] = np.where(rng.uniform(size=count) < config.around, rng.uniform(-180, 180, count), columns[:, 0])
    return rotation_from_angles(Angles.from_columns(columns))


def draw_crop(
    person: Person,
    take: Take,
    rotation: NDArray[np.float64],
    config: CropsConfig,
    found: list[NDArray[np.uint8]],
    rng: np.random.Generator,
) -> Crop:
    """One crop of a person.

    Parameters
    ----------
    person : Person
        Who is seen.
    take : Take
        The face that the person makes.
    rotation : float array (3, 3)
        Head to camera.
    config : CropsConfig
        Size, and how often something lies over the face.
    found : list of RGB uint8 arrays
        Pictures to cut backgrounds from.
    rng : numpy Generator
        By which all is drawn.

    Returns
    -------
    Crop
        Image, rotation and box.
    """
    size, fine = config.size, config.size * _FINER
    view = _seen(person, take, rotation, size, STORED_SHARE, rng)
    # Out of focus or not, nobody sees at this size that the background is drawn on the coarse pixels.
    behind = cv2.resize(draw_background(size, found, rng), (fine, fine), interpolation=cv2.INTER_LINEAR)
    image = np.ascontiguousarray(behind, dtype=np.float32)
    _light(view, person, rng, image)
    if rng.uniform() < config.occluded:
        lay_over(image, fine, np.array(person.looks.skin), found, rng)
    return Crop(_reduced(image, size), rotation, view.box)


def draw_sprite(
    person: Person, take: Take, rotation: NDArray[np.float64], size: int, share: float, rng: np.random.Generator
) -> Crop:
    """A person with nothing behind, to be laid into a picture.

    Parameters
    ----------
    person, take, rotation
        As of ``draw_crop``.
    size : int
        Pixels on a side.
    share : float
        That side over the longer side of the box of the 68 points.
    rng : numpy Generator
        By which all is drawn.

    Returns
    -------
    Crop
        With ``alpha``, by which colours are multiplied already, and the box of the ``head``.
    """
    view = _seen(person, take, rotation, size, share, rng, head=True)
    image = np.zeros((size * _FINER, size * _FINER, 3), dtype=np.float32)
    _light(view, person, rng, image)
    shown = np.where(view.fragments.pix_to_face >= 0, np.float32(255), np.float32(0))
    return Crop(_reduced(image, size), rotation, view.box, _reduced(shown, size), view.head)


def _seen(
    person: Person,
    take: Take,
    rotation: NDArray[np.float64],
    size: int,
    share: float,
    rng: np.random.Generator,
    head: bool = False,
) -> _View:
    """The person from a distance that is drawn, in a square of ``share`` times the box."""
    distance = float(np.exp(rng.uniform(np.log(_NEAR_MM), np.log(_FAR_MM))))
    turn = rotation.astype(np.float32)
    vertices, normals, skull = posed(take.vertices, take.normals, person.share, rotation, draw_body(rotation, rng))
    marks = (take.marks - SKULL_MM) @ turn.T + skull
    middle = marks.mean(axis=0)
    back = max(distance, float(vertices[:, 2].max() - middle[2]) + _NOT_NEARER_MM)
    middle[2] += np.float32(back)
    vertices = moved(vertices, -middle)
    fine = size * _FINER
    flat = _seen_box(marks - middle)
    x, y, side = square_around(flat, share)
    camera = Camera(fine / side, (fine / 2 - x * fine / side, fine / 2 - y * fine / side), 0.0)
    fragments = get_rasterizer("numba_zbuffer")(vertices, person.faces, camera, (fine, fine))
    box = (flat - [x, y, x, y]) * (size / side) + size / 2
    if not head:
        return _View(fragments, vertices, normals, box, None)
    whole = _seen_box((take.head - SKULL_MM) @ turn.T + skull - middle)
    return _View(fragments, vertices, normals, box, (whole - [x, y, x, y]) * (size / side) + size / 2)


def _seen_box(places: FloatArray) -> NDArray[np.float64]:
    """The box of places (n, 3) before the camera, at a distance of one from it."""
    return np.array(box_of(np.stack([places[:, 0] / -places[:, 2], places[:, 1] / places[:, 2]], axis=1)))


def _light(view: _View, person: Person, rng: np.random.Generator, image: FloatArray) -> None:
    lamps = draw_lamps(rng)
    light_crop(view.fragments, view.vertices, view.normals, person.faces, person.uv, person.texture, lamps, image)


def _reduced(image: FloatArray, size: int) -> NDArray[np.uint8]:
    small = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
    return np.clip(np.rint(small), 0, 255).astype(np.uint8)
