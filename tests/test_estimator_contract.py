"""What the estimator promises beyond its answers: threads, processes, closing, arguments, the range of training."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nlml_hpe import HeadPose, HeadPoseEstimator
from nlml_hpe.detection.detectors import FaceMeshOnnx
from nlml_hpe.detection.landmarks import box_of_68
from nlml_hpe.detection.places import overlap
from nlml_hpe.face import Face
from nlml_hpe.files.images import RgbImage
from nlml_hpe.inference.engines import OnnxEngine
from nlml_hpe.inference.torch_engine import TorchEngine
from nlml_hpe.model.folder import HeadFrame, load_model
from nlml_hpe.model.format import ONNX_FILE, SHIPPED
from nlml_hpe.rotation import Angles, angles_from_rotation, geodesic_degrees, rotation_from_angles
from tests.conftest import REPOSITORY


def test_threads_share_an_estimator(photo: RgbImage) -> None:
    """Without the lock a thread got another's face, or the process ended with a segmentation fault."""
    images = [photo, np.ascontiguousarray(photo[:, ::-1]), np.full((120, 90, 3), 90, dtype=np.uint8)]
    with HeadPoseEstimator() as estimator:
        expected = [estimator.predict(image) for image in images]
        start = threading.Barrier(4)

        def work(first: int) -> list[tuple[int, list[HeadPose]]]:
            start.wait()
            order = [(first + turn) % len(images) for turn in range(12)]
            return [(index, estimator.predict(images[index])) for index in order]

        with ThreadPoolExecutor(4) as pool:
            answers = [pair for part in pool.map(work, range(4)) for pair in part]
    assert [len(poses) for poses in expected] == [1, 1, 0]
    for index, poses in answers:
        assert [pose.as_dict() for pose in poses] == [pose.as_dict() for pose in expected[index]]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_is_told_so(photo: RgbImage, tmp_path: Path) -> None:
    """It hung before, or aborted where it opened its own. A process of its own, so that no other thread is in it."""
    np.save(tmp_path / "photo.npy", photo)
    program = (
        "import os, sys, threading\nimport numpy as np\nfrom nlml_hpe import HeadPoseEstimator\n"
        # An estimator that could not be opened leaves nothing behind that a child should fear.
        "try:\n    HeadPoseEstimator('nowhere')\n"
        "except RuntimeError:\n    assert HeadPoseEstimator._opened_in is None\n"
        "photo = np.load(sys.argv[1])\nestimator = HeadPoseEstimator()\nassert estimator.predict(photo)\n"
        # A thread of the parent has the lock as it is forked, as while it predicts.
        "held, free = threading.Event(), threading.Event()\n"
        "def hold():\n    with estimator._lock:\n        held.set()\n        free.wait()\n"
        "holder = threading.Thread(target=hold)\nholder.start()\nheld.wait()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    try:\n        estimator.predict(photo)\n"
        "    except RuntimeError as error:\n"
        "        estimator.close()\n"
        "        if 'spawn' not in str(error): os._exit(3)\n"
        "    try:\n        HeadPoseEstimator()\n"
        "    except RuntimeError as error:\n"
        "        os._exit(0 if 'spawn' in str(error) else 5)\n"
        "    os._exit(4)\n"
        "status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])\n"
        "free.set()\nholder.join()\n"
        "assert estimator.predict(photo), 'the parent goes on'\n"
        "sys.exit(status)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "photo.npy")]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_a_closed_estimator_says_so(photo: RgbImage) -> None:
    estimator = HeadPoseEstimator()
    faces = estimator.detect(photo)
    estimator.close()
    estimator.close()
    images = iter([photo])
    for use in (
        lambda: estimator.predict(photo),
        lambda: estimator.predict("nowhere.jpg"),
        lambda: estimator.predict_batch(images),
        lambda: estimator.predict_batch([]),
        lambda: estimator.detect(photo),
        lambda: estimator.poses(faces),
    ):
        with pytest.raises(ValueError, match="is closed"):
            use()
    assert next(images) is photo


@pytest.mark.parametrize("work", [pickle.dumps, copy.copy, copy.deepcopy])
def test_an_estimator_that_is_handed_to_a_process_says_what_to_do(work: Callable[[object], object]) -> None:
    """A pool that is given ``estimator.predict`` pickles it: the error named a lock of Python's."""
    with HeadPoseEstimator() as estimator, pytest.raises(TypeError, match="open one in each process"):
        work(estimator)


def test_a_dropped_estimator_closes_its_detector(photo: RgbImage, monkeypatch: pytest.MonkeyPatch) -> None:
    estimator = HeadPoseEstimator()
    estimator.predict(photo)
    closed: list[int] = []
    kind, own = type(estimator.detector), id(estimator.detector)
    close = kind.close
    monkeypatch.setattr(kind, "close", lambda self: (closed.append(id(self)), close(self)))
    gone = weakref.ref(estimator)
    del estimator
    gc.collect()
    assert gone() is None
    # Those of earlier tests may go in the same sweep.
    assert closed.count(own) == 1


def test_a_detector_that_was_handed_in_is_its_owners(detector: FaceMeshOnnx, photo: RgbImage) -> None:
    HeadPoseEstimator(detector=detector)
    gc.collect()
    assert detector.detect(photo)
    with HeadPoseEstimator(detector=detector) as estimator:
        assert estimator.predict(photo)
    with pytest.raises(ValueError, match="this estimator is closed"):
        estimator.predict(photo)
    assert detector.detect(photo)


def test_settings_reach_the_detector_and_those_of_one_that_was_handed_in_count() -> None:
    with HeadPoseEstimator(max_faces=3, tracking=True) as estimator:
        assert isinstance(estimator.detector, FaceMeshOnnx)
        assert (estimator.detector.max_faces, estimator.detector.is_tracking) == (3, True)
    with HeadPoseEstimator.from_pretrained(max_faces=2) as estimator:
        assert isinstance(estimator.detector, FaceMeshOnnx)
        assert (estimator.detector.max_faces, estimator.detector.is_tracking) == (2, False)
    with FaceMeshOnnx(5) as own, HeadPoseEstimator(detector=own, max_faces=2) as estimator:
        assert estimator.max_faces == 5


@pytest.mark.parametrize("heads", [False, True])
@pytest.mark.parametrize(("astray", "eyes"), [([0.0], ["both"]), ([38.0], ["image"]), ([38.0, 0.0], ["both"])])
def test_an_own_detector_may_give_landmarks_alone(
    detector: FaceMeshOnnx, photo: RgbImage, heads: bool, astray: list[float], eyes: list[str]
) -> None:
    """The image eye had no image then: it had no say, could not be asked for, and heads ended in an error.

    A face whose landmarks are lost is where it is seen, and no second one where another face is.
    """

    class Own:
        point_set = detector.point_set
        detect_in_box = detector.detect_in_box

        def detect(self, image: RgbImage) -> list[Face]:
            (face,) = detector.detect(image)
            return [Face.from_points(face.landmarks + np.array([by, 0, 0])) for by in astray]

        def close(self) -> None:
            """Nothing is open."""

    (face,) = detector.detect(photo)
    with HeadPoseEstimator(detector=Own(), heads=heads) as estimator:
        assert [pose.eye for pose in estimator.predict(photo, eye="image")] == ["image"]
        (pose,) = estimator.predict(photo)
        assert [pose.eye] == eyes
        found = Face(photo, pose.box, pose.landmarks if len(pose.landmarks) else None)
        assert overlap(box_of_68(found), box_of_68(face)) > 0.8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_faces": 0}, "1 or more; received 0"),
        ({"max_faces": True}, "1 or more"),
        ({"max_faces": 2.0}, "1 or more"),
        ({"model": None}, "expected a folder"),
        ({"model": None, "backend": "torch"}, "expected a folder"),
        ({"detector": "mediapipe_facemesh"}, "open_detector"),
        ({"detector": FaceMeshOnnx}, "open_detector"),
        ({"backend": "tflite"}, "unknown backend"),
    ],
)
def test_arguments_that_are_none_are_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HeadPoseEstimator(**arguments)  # type: ignore[arg-type]


def test_one_image_is_no_batch(photo: RgbImage) -> None:
    with HeadPoseEstimator() as estimator:
        for one in ("photo.jpg", Path("photo.jpg"), photo, 3):
            with pytest.raises(ValueError, match="use predict"):
                estimator.predict_batch(one)  # type: ignore[arg-type]
        assert len(estimator.predict_batch(np.stack([photo, photo]))) == 2


def test_names_of_other_outputs_are_no_routes(photo: RgbImage) -> None:
    engines = (OnnxEngine(SHIPPED / ONNX_FILE), TorchEngine(load_model(SHIPPED)))
    with HeadPoseEstimator() as estimator:
        faces = estimator.detect(photo)
    for engine in engines:
        for name in ("sigma", "score", "mirror"):
            with pytest.raises(ValueError, match=repr(name)):
                engine.estimate(faces, name)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="no landmarks"):
            engine.estimate([Face(photo, (0.0, 0.0, 9.0, 9.0))], "network")


def test_who_writes_into_a_pose_changes_no_later_answer(photo: RgbImage) -> None:
    with HeadPoseEstimator(max_faces=1) as estimator:
        faces = estimator.detect(photo)
        (pose,) = estimator.poses(faces)
        expected = pose.rotation.copy()
        for array in (pose.rotation, pose.landmarks, pose.covariance):
            assert array is not None
            array[...] *= -1
        (again,) = estimator.poses(faces)
    np.testing.assert_array_equal(again.rotation, expected)


def test_poses_are_not_compared_by_value(photo: RgbImage) -> None:
    with HeadPoseEstimator() as estimator:
        (first,), (second,) = (estimator.predict(photo) for _ in range(2))
    assert first != second
    assert len({first, second, first}) == 2
    assert first.as_dict() == second.as_dict()


@pytest.mark.parametrize("pitch", [30.0, 0.0])
def test_in_range_is_about_the_training_heads_own_frame(pitch: float) -> None:
    """A named frame that looks 30 degrees up: a face near the grid's end in one frame is not in the other."""
    model = replace(load_model(SHIPPED), frame=HeadFrame("up", 0.0, pitch, 0.0))
    manifold = model.manifold
    angles = Angles.from_columns([(0.0, 25.0, 0.0), (0.0, 43.0, 0.0), (0.0, -30.0, 0.0)])
    features = manifold.synthesize(np.tile(manifold.prior.mean, (3, 1)), angles)
    faces = [Face.from_points(row.reshape(-1, 3) * 100) for row in features]
    with HeadPoseEstimator(model, backend="torch") as estimator:
        poses = estimator.poses(faces, "exact")
    # The grid's pitch ends at 40 degrees in the own frame, whatever the named one says.
    assert [pose.in_range for pose in poses] == [True, False, True]
    named = angles_from_rotation(rotation_from_angles(angles) @ model.frame.named_from_own).pitch
    assert [pose.pitch for pose in poses] == pytest.approx(named.tolist(), abs=0.5)


def test_the_onnx_file_knows_its_own_frame() -> None:
    engine, model = OnnxEngine(SHIPPED / ONNX_FILE), load_model(SHIPPED)
    assert geodesic_degrees(engine.named_from_own, model.frame.named_from_own) < 1e-6
