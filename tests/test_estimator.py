"""The estimator: faces in, named angles out, for every route."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nlml_hpe import HeadPoseEstimator
from nlml_hpe.config import Config
from nlml_hpe.images import ImageReadError, RgbImage
from nlml_hpe.rotations import Angles, rotation_from_angles
from stages.common import Workdir


@pytest.fixture(scope="module")
def estimator(tiny_run: Config) -> Iterator[HeadPoseEstimator]:
    with HeadPoseEstimator.from_pretrained(Workdir(tiny_run.workdir).model) as opened:
        yield opened


@pytest.mark.parametrize("method", ["network", "exact", "refined", "powell"])
def test_every_route_gives_one_pose_per_face(estimator: HeadPoseEstimator, photo: RgbImage, method: str) -> None:
    (pose,) = estimator.predict(photo, method)
    assert pose.rotation == pytest.approx(
        rotation_from_angles(Angles.from_columns((pose.yaw, pose.pitch, pose.roll))), abs=1e-9
    )
    assert (pose.sigma is not None) == (method in ("exact", "refined"))
    assert {"yaw", "pitch", "roll", "rotation", "sigma", "in_range", "box"} == pose.as_dict().keys()


def test_two_faces_give_two_poses_largest_first(estimator: HeadPoseEstimator, photo: RgbImage) -> None:
    pair = np.full((260, 480, 3), 128, dtype=np.uint8)
    pair[:, :260] = photo[0:260, 100:360]
    pair[60:190, 320:450] = photo[0:260:2, 100:360:2]
    first, second = estimator.predict(pair)
    assert first.box[0] < second.box[0]


def test_a_file_gives_what_its_pixels_give(estimator: HeadPoseEstimator, photo: RgbImage, tmp_path: Path) -> None:
    Image.fromarray(photo).save(tmp_path / "photo.png")
    (from_file,) = estimator.predict(tmp_path / "photo.png")
    (from_array,) = estimator.predict(photo)
    assert from_file.as_dict() == from_array.as_dict()
    with pytest.raises(ImageReadError, match="no such image"):
        estimator.predict(tmp_path / "none.png")


def test_no_face_is_an_empty_list(estimator: HeadPoseEstimator) -> None:
    assert estimator.predict(np.full((80, 80, 3), 90, dtype=np.uint8)) == []


def test_in_range_means_inside_the_grid(estimator: HeadPoseEstimator, photo: RgbImage) -> None:
    (pose,) = estimator.predict(photo)
    inside = all(
        axis[0] <= value <= axis[-1]
        for axis, value in zip(estimator.model.manifold.grid.axes, (pose.yaw, pose.pitch, pose.roll), strict=True)
    )
    assert pose.in_range == inside
