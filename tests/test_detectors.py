"""Other detectors, one protocol: MediaPipe Tasks with a real bundle, face-alignment with its real loading code."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import cv2
import numba
import numpy as np
import pytest
import torch

from nlml_hpe.cli import main
from nlml_hpe.detection.detectors import FaceAlignment, open_detector
from nlml_hpe.detection.landmarks import IBUG68, POINT_SETS, mirror_of
from nlml_hpe.detection.mediapipe_detectors import MediaPipeTasks
from nlml_hpe.detection.places import MAX_DETECTION_SIDE, Points, beside, best_in, overlap, reduced_copy, tile_starts
from nlml_hpe.detection.regions import box_of_region, in_image, overlaps, region_around_box
from nlml_hpe.detection.search import CascadeDetector, DetectorError
from nlml_hpe.evaluation.datasets import read_dataset
from nlml_hpe.face import Face
from nlml_hpe.files.images import RgbImage
from nlml_hpe.inference.estimator import HeadPoseEstimator
from nlml_hpe.rotation import geodesic_degrees


@pytest.fixture(scope="module")
def bundle(shared_data: Path) -> Path:
    return shared_data / "face_landmarker" / "face_landmarker.task"


def test_tasks_and_facemesh_give_nearly_the_same_angles(bundle: Path, shared_data: Path) -> None:
    """Another landmark network: they differ by a degree or two, and README says so."""
    samples = [
        s for s in read_dataset("aflw2000", shared_data / "aflw2000_dev").samples if max(map(abs, s.angles)) < 30
    ]
    with (
        MediaPipeTasks(bundle=bundle) as theirs,
        HeadPoseEstimator(detector=theirs) as tasks,
        HeadPoseEstimator() as facemesh,
    ):
        pairs = [(e.predict(s.load()) for e in (tasks, facemesh)) for s in samples[:20]]
        both = [(a[0].rotation, b[0].rotation) for a, b in pairs if a and b]
    assert len(both) >= 18
    apart = geodesic_degrees(*(np.array(part) for part in zip(*both, strict=True)))
    assert np.median(apart) < 3


def test_tasks_find_several_faces_and_mirrored_ones(bundle: Path, photo: RgbImage) -> None:
    pair = np.full((260, 480, 3), 128, dtype=np.uint8)
    pair[:, :260] = photo[0:260, 100:360]
    pair[60:190, 320:450] = photo[0:260:2, 100:360:2]
    with MediaPipeTasks(max_faces=3, bundle=bundle) as detector:
        first, second = detector.detect(pair)
        assert first.points.shape == (468, 3)
        assert first.area > second.area
        found = detector.detect_in_box(pair, (320, 60, 450, 190))
        assert found is not None
        assert found.box[0] > 300


def test_a_bundle_that_is_missing_or_another_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DetectorError, match="is missing; get it from https://storage"):
        MediaPipeTasks(bundle=tmp_path / "face_landmarker.task")
    (tmp_path / "other.task").write_bytes(b"another model")
    with pytest.raises(DetectorError, match="SHA-256 differs"):
        MediaPipeTasks(bundle=tmp_path / "other.task")


def test_each_detector_takes_its_own_options(tmp_path: Path) -> None:
    with pytest.raises(DetectorError, match=r"unknown detector 'facemesh'; expected one of \['face_alignment', "):
        open_detector("facemesh")  # type: ignore[arg-type]
    with pytest.raises(DetectorError, match=r"no\.task is missing"):
        open_detector("mediapipe_tasks", bundle=tmp_path / "no.task")
    with open_detector("facemesh_onnx", max_faces=3, bundle=tmp_path / "no.task") as detector:
        assert detector.max_faces == 3


@pytest.mark.parametrize(
    "limits", [{"max_faces": 0}, {"max_faces": 1.5}, {"min_confidence": 30}, {"min_confidence": -1}]
)
def test_limits_with_which_nothing_is_found_are_refused(limits: dict[str, float]) -> None:
    """A threshold in per cent, for instance: every image was one without a face."""
    (name,) = limits
    with pytest.raises(ValueError, match=f"{name}: expected"):
        open_detector("facemesh_onnx", **limits)  # type: ignore[arg-type]
    open_detector("facemesh_onnx", np.int64(2), 1.0).close()  # type: ignore[arg-type]


def test_every_mirror_is_its_own_inverse() -> None:
    for points in POINT_SETS.values():
        mirror = mirror_of(points)
        assert (mirror[mirror] == np.arange(points.n_points)).all()


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Weights of the right shapes where face-alignment looks for its own, which cannot be had here."""
    with pytest.MonkeyPatch.context() as patched:
        # Compiling its two functions takes seconds, and running them as they are, for one face, does not.
        patched.setattr(numba.config, "DISABLE_JIT", True)
        api = pytest.importorskip(
            "face_alignment.api", reason="face-alignment is not installed (pip install --no-deps)"
        )
    from face_alignment.detection.sfd import sfd_detector
    from face_alignment.detection.sfd.net_s3fd import s3fd

    folder = tmp_path / "checkpoints"
    folder.mkdir()
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(api, "load_file_from_url", lambda url: str(folder / url.rsplit("/", 1)[1]))
    torch.manual_seed(0)
    for url, state in (
        (api.models_urls["3DFAN-4"], api.FAN(4).state_dict()),
        (api.models_urls["depth"], {"state_dict": api.ResNetDepth().state_dict()}),
        (sfd_detector.models_urls["s3fd"], s3fd().state_dict()),
    ):
        # In half precision, which is read as well: 200 MB of disk in place of 400.
        halves = {name: value.half() if torch.is_tensor(value) else value for name, value in state.items()}
        torch.save(halves, folder / url.rsplit("/", 1)[1])
    return folder


def test_face_alignment_gives_68_points_in_space(weights: Path, photo: RgbImage) -> None:
    """Its real code on random weights: what they find means nothing, its form does."""
    with FaceAlignment() as detector:
        assert detector.point_set == IBUG68
        box = (180.0, 60.0, 280.0, 190.0)
        detector._network.face_detector.detect_from_image = lambda image: [np.array([*box, 0.9]), np.array([*box, 0.2])]
        (face,) = detector.detect(photo)
        assert face.points.shape == (68, 3)
        assert np.isfinite(face.points).all()
        middle = face.points[:, :2].mean(axis=0)
        assert (np.abs(middle - [230, 125]) < 150).all()


def test_the_command_line_names_a_detector_that_is_not_there(
    tmp_path: Path, photo: RgbImage, capfd: pytest.CaptureFixture[str]
) -> None:
    command = ["predict", "docs/photograph.jpg", "--detector", "mediapipe_tasks", "--bundle", str(tmp_path / "none")]
    assert main(command) == 1
    assert "is missing; get it from" in capfd.readouterr().err


def test_face_alignment_that_lacks_a_package_names_all_that_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who had followed the advice to install it alone was given the same advice again, as torch was missing."""
    monkeypatch.setitem(sys.modules, "face_alignment", None)
    with pytest.raises(DetectorError, match=r"pip install --no-deps face-alignment, and .* pip install .*\[train\]"):
        open_detector("face_alignment")


def test_a_detector_of_other_points_is_refused_before_it_fetches_its_weights(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(FaceAlignment, "__init__", lambda *given: pytest.fail("the detector was opened"))
    assert main(["predict", "docs/photograph.jpg", "--detector", "face_alignment"]) == 1
    assert "the model needs points 'facemesh468'; the detector gives 'ibug68'" in capfd.readouterr().err


class Spots(CascadeDetector):
    """Finds red spots as faces, in the calls that it is told to see anything in."""

    point_set = IBUG68

    def __init__(self, calls: Callable[[int], bool] = lambda _: True, **settings: Any) -> None:
        super().__init__(**settings)
        self._calls, self.asked = calls, list[tuple[int, int, int, float]]()

    def _find(self, image: RgbImage, max_faces: int, confidence: float) -> Points:
        self.asked.append((*image.shape[:2], max_faces, confidence))
        if not self._calls(len(self.asked)):
            return []
        count, labels = cv2.connectedComponents((image[..., 0] > 127).astype(np.uint8))
        corners = np.array([(0, 0), (0, 1), (1, 0), (1, 1)] * 17)
        found: Points = []
        for row, column in (np.nonzero(labels == number) for number in range(1, count)):
            low, high = np.array([column.min(), row.min()]), np.array([column.max() + 1, row.max() + 1])
            found.append(np.column_stack([low + corners * (high - low), np.zeros(68)]))
        # Where there is room for one alone, of two now this one and now that one.
        first = len(self.asked) % 2 if max_faces == 1 and len(found) > 1 else 0
        return found[first : first + max_faces]

    def close(self) -> None:
        """Nothing is open."""


def spotted(shape: tuple[int, int], *boxes: tuple[int, int, int, int]) -> RgbImage:
    image = np.zeros((*shape, 3), dtype=np.uint8)
    for left, top, right, bottom in boxes:
        image[top:bottom, left:right, 0] = 255
    return image


def middles(faces: Iterable[Face]) -> np.ndarray:
    return np.array([[(face.box[0] + face.box[2]) / 2, (face.box[1] + face.box[3]) / 2] for face in faces])


@pytest.mark.parametrize("times", [1, 20])
@pytest.mark.parametrize("call", [1, 2, 3, 4])
def test_the_turned_image_shows_all_faces_where_they_are_at_the_first_turn_that_shows_any(
    call: int, times: int
) -> None:
    """Both ways by 30 and by 60 degrees; of a large image a reduced copy, as upright."""
    boxes = [(150, 20, 158, 28), (60, 50, 84, 74)]
    image = spotted((100 * times, 200 * times), *(tuple(times * edge for edge in box) for box in boxes))  # type: ignore[arg-type]
    with Spots(lambda number: number == call, max_faces=3, min_confidence=0.4) as detector:
        faces = detector.detect_turned(image)
        side = min(200 * times, MAX_DETECTION_SIDE)
        assert detector.asked == [(side, side, 3, 0.4)] * call
    assert [face.found_by for face in faces] == ["turned"] * 2
    np.testing.assert_allclose(middles(faces) / times, [(72, 62), (154, 24)], atol=1)
    with Spots(lambda _: False) as detector:
        assert detector.detect_turned(image) == []
        assert len(detector.asked) == 4
        with pytest.raises(ValueError, match="RGB"):
            detector.detect_turned(image[..., 0])


def test_of_an_annotated_box_the_face_that_fits_best_is_its_own() -> None:
    """Neither the first nor the largest of those within it, and none whose middle lies beside it."""
    image = spotted((200, 200), (0, 60, 90, 190), (100, 100, 104, 104), (110, 110, 130, 130), (140, 90, 170, 160))
    box = (95.0, 95.0, 132.0, 132.0)
    with Spots(max_faces=9) as detector:
        face = detector.detect_in_box(image, box)
        assert face is not None
        assert face.box == (110, 110, 130, 130)
        assert detector.detect_in_box(image, (180.0, 5.0, 195.0, 20.0)) is None
        for empty in ((40.0, 10.0, 10.0, 40.0), (10.0, 10.0, 10.0, 40.0), (10.0, 10.0, float("inf"), 40.0)):
            with pytest.raises(ValueError, match="expected a box"):
                detector.detect_in_box(image, empty)


@pytest.mark.parametrize("least", [0.05, 0.3])
def test_squares_around_a_box_are_as_wide_as_its_longer_side_and_show_its_face_alone(least: float) -> None:
    """Every other one shows another face, that beside it, which is no look at this one."""
    image = spotted((300, 300), (140, 100, 160, 200), (176, 140, 196, 160))
    box = (135.0, 95.0, 165.0, 205.0)
    with Spots(lambda number: number > 4, max_faces=2, min_confidence=least) as detector:
        face = detector.detect_in_box(image, box)
        assert detector.asked[:2] == [(300, 300, 2, least)] * 2
        assert [asked[2:] for asked in detector.asked[2:]] == [(1, min(least, 0.1))] * 25
    assert face is not None
    assert face.looks is not None
    # A square of the shorter side would cut both ends of the face off; the best one shows them, and not turned.
    np.testing.assert_allclose(face.box, (140, 100, 160, 200), atol=1.5)
    assert len(face.looks) == 10
    np.testing.assert_allclose(face.looks[..., :2].mean(axis=1), np.tile([150, 150], (10, 1)), atol=2)
    with Spots(lambda number: number == 4) as detector:
        seen_once = detector.detect_in_box(image, box)
    assert seen_once is not None
    assert seen_once.looks is None


def test_of_several_small_faces_as_many_as_are_asked_for_are_found_and_the_largest() -> None:
    """The whole image, its mirror image and the wider one show none; tiles do, and most of them both."""
    image = spotted((600, 800), (420, 300, 440, 320), (380, 280, 410, 310))
    for most, boxes in ((1, [(380, 280, 410, 310)]), (2, [(380, 280, 410, 310), (420, 300, 440, 320)])):
        with Spots(lambda number: number > 3, max_faces=most) as detector:
            assert [face.box for face in detector.detect(image)] == boxes


@pytest.mark.parametrize(("length", "side"), [(100, 40), (1000, 300), (301, 300), (300, 300), (100, 300)])
def test_tiles_cover_an_image_and_each_face_of_half_a_tile_lies_in_one(length: int, side: int) -> None:
    starts = tile_starts(length, side)
    assert starts[0] == 0
    assert starts[-1] == max(0, length - side)
    assert all(0 < step <= side / 2 + 1 for step in np.diff(starts))


@pytest.mark.parametrize(
    ("shape", "smaller"), [((60, 4096), (30, 2048)), ((4096, 60), (2048, 30)), ((4, 20_000), (1, 2048))]
)
def test_an_image_is_reduced_by_its_longer_side_and_keeps_a_pixel(
    shape: tuple[int, int], smaller: tuple[int, int]
) -> None:
    for turned in (slice(None), slice(None, None, -1)):
        copy, factor = reduced_copy(np.zeros((*shape[turned], 3), dtype=np.uint8))
        assert copy.shape == (*smaller[turned], 3)
        assert factor == MAX_DETECTION_SIDE / max(shape)


def test_the_face_of_a_box_is_about_its_middle_and_one_box_of_a_face_is_enough() -> None:
    """A face so large that the box lies in it, but about another place, is not that of the box."""
    box, around, loose, fits = (40, 40, 60, 60), (0, 0, 200, 200), (10, 40, 90, 60), (41, 38, 59, 57)
    faces = [Face(None, other) for other in (around, loose, fits)]
    assert best_in(faces, box) is faces[2]
    assert best_in(faces[:1], box) is None
    # Beside no face: neither a part of one nor what has one in its middle.
    assert beside([(10, 10, 30, 30)], faces[:1]) == []
    assert beside([around], [Face(None, (90, 90, 130, 130))]) == []
    assert beside([around], [Face(None, (0, 0, 30, 30))]) == []


def test_boxes_that_touch_nowhere_do_not_overlap() -> None:
    """Two that lie apart both ways shared the product of two gaps, had these not been none."""
    box = (0.0, 0.0, 10.0, 10.0)
    for other in ((20.0, 20.0, 30.0, 30.0), (20.0, 0.0, 30.0, 10.0), (0.0, 20.0, 10.0, 30.0)):
        assert overlap(box, other) == overlap(other, box) == 0
        assert overlaps(np.array([other]), np.array(box)).tolist() == [0]
        assert beside([box], [Face(None, other)]) == [box]
    assert overlap(box, (5.0, 0.0, 15.0, 10.0)) == pytest.approx(1 / 3)


@pytest.mark.parametrize("turn", [0.0, np.pi / 2, -0.7, 3.0])
def test_the_box_of_a_turned_region_lies_down_the_face(turn: float) -> None:
    """A shift of the box in the image, where the head leans, would cut its crop off beside the face."""
    region = np.array([100.0, 120.0, 150.0, turn])
    box = box_of_region(region)
    down_the_face = np.array([[96.0, 96.0 + 0.055 / 1.5 * 192, 0.0]])
    np.testing.assert_allclose(middles([Face(None, box)]), in_image(down_the_face, region, 192)[:, :2])


def test_the_region_around_a_box_is_as_wide_as_its_longer_side() -> None:
    for box in ((10.0, 40.0, 50.0, 120.0), (10.0, 60.0, 90.0, 100.0)):
        assert region_around_box(box)[2] == pytest.approx(1.5 * 80 / 0.965)
