"""The signs of CONVENTIONS.md on what the repository holds: the embedded photograph, and heads rendered from it.

What is rendered is found by the real detector, so both ends are tried: what the renderer calls yaw, pitch and roll, and
what the landmarks show.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from nlml_hpe.detection.detectors import FaceMeshOnnx
from nlml_hpe.detection.landmarks import FACEMESH
from nlml_hpe.files.images import RgbImage
from nlml_hpe.pose_grid import Pose
from nlml_hpe.rotation import IMAGE_FROM_CAMERA, angles_from_rotation, kabsch
from renderer.config import AppearanceConfig, HeadsConfig, RenderConfig
from renderer.drawing import render_pose
from renderer.heads.photo import PhotoHeads
from renderer.mesh import vertex_normals

FOREHEAD, CHIN = 10, 152
PLAIN = RenderConfig(size=256, appearance=AppearanceConfig(vary=False))
Look = Callable[[Pose], np.ndarray]


@pytest.fixture(scope="module")
def points(detector: FaceMeshOnnx) -> Look:
    """Landmarks (468, 3) in pixels of the embedded photograph's head, rendered at (yaw, pitch, roll)."""
    mesh = PhotoHeads.open(HeadsConfig(shape_variation=0, tone_variation=0), seed=1).head(1)
    normals = vertex_normals(mesh.vertices, mesh.faces)

    def look(pose: Pose) -> np.ndarray:
        (face,) = detector.detect(render_pose(mesh, normals, pose, PLAIN, np.random.default_rng(0)))
        return face.points

    return look


def nose_off_the_eyes(points: np.ndarray) -> np.ndarray:
    """(right, down) in the image from the middle of the eyes' outer corners to the tip of the nose, in eye widths."""
    left, right = points[list(FACEMESH.eye_corners), :2]
    offset: np.ndarray = (points[FACEMESH.nose_tip, :2] - (left + right) / 2) / np.linalg.norm(right - left)
    return offset


# At 25 degrees a nose that stands a quarter of the eyes' distance before them moves by a tenth of it; 0.05 is half.
CLEARLY = 0.05


@pytest.mark.parametrize("sign", [-1, 1])
def test_positive_yaw_turns_to_image_left(points: Look, sign: int) -> None:
    moved = nose_off_the_eyes(points((25.0 * sign, 0.0, 0.0))) - nose_off_the_eyes(points((0.0, 0.0, 0.0)))
    assert -sign * moved[0] > CLEARLY


@pytest.mark.parametrize("sign", [-1, 1])
def test_positive_pitch_lifts_the_nose(points: Look, sign: int) -> None:
    moved = nose_off_the_eyes(points((0.0, 25.0 * sign, 0.0))) - nose_off_the_eyes(points((0.0, 0.0, 0.0)))
    assert -sign * moved[1] > CLEARLY  # up is less y


@pytest.mark.parametrize("sign", [-1, 1])
def test_positive_roll_leans_to_image_right(points: Look, sign: int) -> None:
    turned = points((0.0, 0.0, 25.0 * sign))
    upwards = turned[FOREHEAD] - turned[CHIN]
    lean = np.degrees(np.arctan2(upwards[0], -upwards[1]))
    # The midline itself leans by the angle: what is left is the detector's error, 2 degrees at most on these faces.
    assert lean == pytest.approx(25 * sign, abs=4)


@pytest.mark.parametrize(
    "pose", [(25, 0, 0), (-25, 0, 0), (0, 15, 0), (0, -15, 0), (0, 0, 30), (0, 0, -30), (20, -10, 15), (-20, 10, -15)]
)
def test_a_rigid_alignment_of_the_landmarks_gives_the_rendered_angles(points: Look, pose: Pose) -> None:
    frontal, turned = (points(at) @ IMAGE_FROM_CAMERA for at in ((0.0, 0.0, 0.0), pose))
    seen = angles_from_rotation(kabsch(frontal, turned)[0]).columns()
    # FaceMesh guesses depth, and pitch, which is read off depth, is off by up to 7.4 degrees here; a wrong sign would
    # be off by 20 and more.
    np.testing.assert_allclose(seen, pose, atol=8)


@pytest.mark.parametrize("degrees", [20, -20])
def test_a_photograph_turned_clockwise_has_positive_roll(photo: RgbImage, detector: FaceMeshOnnx, degrees: int) -> None:
    height, width = photo.shape[:2]
    # OpenCV counts anti-clockwise.
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), -degrees, 1.0)
    turned_photo = np.asarray(cv2.warpAffine(photo, turn, (width, height)), dtype=np.uint8)
    (plain,), (turned,) = (detector.detect(image) for image in (photo, turned_photo))
    rotation = kabsch(plain.points @ IMAGE_FROM_CAMERA, turned.points @ IMAGE_FROM_CAMERA)[0]
    # A turn in the image changes nothing that the detector would have to guess.
    np.testing.assert_allclose(angles_from_rotation(rotation).columns(), [0, 0, degrees], atol=3)
