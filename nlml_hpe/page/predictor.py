"""What the page is answered: an encoded image in, poses, cones of doubt and a face's surface out, for JSON."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np

from nlml_hpe.detection.landmarks import FACEMESH, facemesh_triangles, normalize_landmarks
from nlml_hpe.face import Face, HeadPose
from nlml_hpe.files.images import decode_image
from nlml_hpe.inference.engines import DEFAULT_ROUTE
from nlml_hpe.inference.estimator import HeadPoseEstimator
from nlml_hpe.inference.fusion import Eye
from nlml_hpe.rotation import angles_from_rotation, nose_cone

MAX_UPLOAD_PIXELS = 50_000_000
"""Of one upload; they are decoded one at a time. The largest takes 0.2 to 0.5 GB while it is decoded, 0.8 as WebP and
0.9 as JPEG 2000 (measured), whose decoders keep copies of their own."""


class Predictor:
    """Answers for the page, one image at a time: so that uploads are decoded one at a time too.

    Parameters
    ----------
    estimator : HeadPoseEstimator
        What finds the poses; with torch's backend the predictor also rebuilds faces.
    """

    def __init__(self, estimator: HeadPoseEstimator) -> None:
        self.estimator, self._lock, self._is_closed = estimator, threading.Lock(), False
        has_image_eye = estimator.eyes.image is not None
        # The same eyes and detector, and the head detector beside them.
        self._of_heads = HeadPoseEstimator(estimator.eyes, detector=estimator.detector, heads=has_image_eye)

    def __call__(
        self, content: bytes, heads: bool = False, rebuild: bool = False, eyes: bool = False
    ) -> dict[str, Any]:
        """All that is in an encoded image, for JSON.

        Parameters
        ----------
        content : bytes
            The image as a file.
        heads : bool
            Whether to look for heads that show no face, too; nobody could answer them without an image eye.
        rebuild : bool
            Whether to add the reconstruction of the largest face that shows landmarks.
        eyes : bool
            Whether to add what each eye says alone.

        Returns
        -------
        dict
            ``width``, ``height``, ``faces``, ``reconstruction``. A face is as ``HeadPose.as_dict`` says, with
            ``landmarks`` in pixels and ``cone``, as ``rotation.nose_cone``, or null without error bars; ``alone`` are
            such answers of single eyes, by the eye's name.

        Raises
        ------
        ImageReadError
            Where it is no image, or one of more than ``MAX_UPLOAD_PIXELS``.
        ConnectionAbortedError
            After ``close``.
        """
        with self._lock:
            if self._is_closed:
                raise ConnectionAbortedError("the page is closed")
            image = decode_image(BytesIO(content), "the upload", MAX_UPLOAD_PIXELS)
            faces = (self._of_heads if heads else self.estimator).detect(image)
            poses = self.estimator.poses(faces, DEFAULT_ROUTE)
            alone = self._alone(faces, poses) if eyes else [{} for _ in faces]
        largest = next((pose for pose in poses if len(pose.landmarks)), None)
        return {
            "width": image.shape[1],
            "height": image.shape[0],
            "faces": [
                {**_shown(pose), "landmarks": pose.landmarks.round(2).tolist(), "alone": answers}
                for pose, answers in zip(poses, alone, strict=True)
            ],
            "reconstruction": self.reconstruction(largest) if rebuild and largest else None,
        }

    def close(self) -> None:
        """Release the model, once the image in hand is answered: a network's run cannot outlive the program."""
        with self._lock:
            self._is_closed = True
            self._of_heads.close()
            self.estimator.close()

    def _alone(self, faces: Sequence[Face], poses: Sequence[HeadPose]) -> list[dict[str, Any]]:
        """What each eye says of each face, only of faces that it can answer; a model's one eye has said it already."""
        if self.estimator.eyes.default != "both":
            return [{pose.eye: _shown(pose)} for pose in poses]
        answers: list[dict[str, Any]] = [{} for _ in faces]
        chosen: tuple[Eye, ...] = ("landmarks", "image")
        for eye in chosen:
            rows = [row for row, face in enumerate(faces) if eye == "image" or face.points is not None]
            poses = self.estimator.poses([faces[row] for row in rows], DEFAULT_ROUTE, eye)
            for row, pose in zip(rows, poses, strict=True):
                answers[row][eye] = _shown(pose)
        return answers

    def reconstruction(self, pose: HeadPose) -> dict[str, Any] | None:
        """One face on the manifold, from which the page draws it at any angle.

        Parameters
        ----------
        pose : HeadPose
            Of the face, with its landmarks.

        Returns
        -------
        dict or None
            ``weights`` (27, 3 N) of the face's identity, ``cosines`` of each angle, ``angles`` in the manifold's own
            head frame and their ``range`` in degrees, ``triangles`` (852, 3) of FaceMesh's points, or an empty list
            for other points; None where the model was read without torch.
        """
        model = getattr(self.estimator.engine, "model", None)
        if model is None:
            return None
        manifold = model.manifold
        features = normalize_landmarks(pose.landmarks[None], model.point_set, model.normalization)
        # Back from the named head frame to the manifold's own: the inverse of a rotation is its transpose.
        own = angles_from_rotation(pose.rotation[None] @ model.frame.named_from_own.T)
        identity = manifold.solve_identity(features, own)[0]
        weights = np.tensordot(identity, manifold.core, axes=1).reshape(-1, manifold.core.shape[-1]) @ manifold.basis
        return {
            "weights": weights.round(4).tolist(),
            "cosines": [axis.tolist() for axis in manifold.cosines],
            "angles": [float(values[0]) for values in own],
            "range": [[axis[0], axis[-1]] for axis in manifold.grid.axes],
            "triangles": facemesh_triangles().tolist() if model.point_set == FACEMESH else [],
        }


def _shown(pose: HeadPose) -> dict[str, Any]:
    """A pose and its cone, for JSON."""
    cone = None if pose.covariance is None else nose_cone(pose.rotation, pose.covariance).round(4).tolist()
    return {**pose.as_dict(), "cone": cone}
