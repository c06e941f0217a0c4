"""``HeadPoseEstimator``: what users import. An image in, one ``HeadPose`` per face out."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, NoReturn

from nlml_hpe.detection.detectors import MAX_FACES, FaceMeshOnnx, open_detector_for
from nlml_hpe.detection.landmarks import AT_ONCE, LandmarkDetector, PointSet
from nlml_hpe.detection.looks import first_seen, looks_by, seen_again
from nlml_hpe.detection.search import CascadeDetector, require_count
from nlml_hpe.device import DeviceName
from nlml_hpe.face import Face, HeadPose
from nlml_hpe.files.images import ImageLike, RgbImage, as_rgb, user_path
from nlml_hpe.inference.backends import Backend
from nlml_hpe.inference.batches import read_batches
from nlml_hpe.inference.engines import DEFAULT_ROUTE, Engine, Route
from nlml_hpe.inference.eyes import Eyes
from nlml_hpe.inference.fusion import Eye
from nlml_hpe.inference.heads import HeadSearch, where_seen, with_heads
from nlml_hpe.inference.opening import engine_of, open_eyes
from nlml_hpe.inference.poses import head_poses
from nlml_hpe.model.format import SHIPPED
from nlml_hpe.sessions import CPU, resolve_providers

if TYPE_CHECKING:  # torch is not needed to predict
    from nlml_hpe.model.folder import HeadPoseModel


class HeadPoseEstimator:
    """Head pose from images. Use it as a context manager, or call ``close`` when done.

    Threads: one estimator may be shared by threads, and each gets its own answers; a lock inside lets one of them
    in at a time, so sharing makes nothing faster. Processes: a child that was forked from one in which an estimator
    was opened can neither use that one nor open its own (the libraries' threads do not live on in it), and gets a
    ``RuntimeError``; start workers by ``multiprocessing.get_context("spawn")`` and open an estimator in each.

    Parameters
    ----------
    model : str, Path, HeadPoseModel or Eyes
        A model folder, by default the shipped one, an ``.onnx`` file, a model that is in memory (torch), or the eyes of
        one, which ``inference.opening.open_eyes`` opened; backend, device and providers are then theirs.
    backend : "onnx" or "torch"
        "onnx" needs onnxruntime alone; "torch" also has the routes ``exact`` and ``powell``, which need no network.
    detector : LandmarkDetector, optional
        In place of the one that belongs to the model's landmarks; ``detection.detectors.open_detector`` makes one
        by its name. ``max_faces`` and ``tracking`` are then the detector's own, and whoever opened it closes it.
    max_faces : int
        At most so many faces are found in an image; 1 or more.
    tracking : bool
        Images are the frames of one video, in order.
    heads : bool, str or Path, optional
        Whether heads that show no face (turned away, bowed, masked) are looked for, too, by a detector of their own,
        and answered by the image eye, which the model must have and ``eye`` must ask for; a face of which neither
        knows is left out. By default in images alone where no face is seen at once, if the model has an image eye, not
        with ``tracking``, and not with a detector that is handed in.
        A path names the ONNX file of another head detector's first stage; see ``inference.heads.HeadSearch``.
    device : "auto", "cpu", "cuda" or "mps"
        Where "torch" computes; ``auto`` is the first of cuda, mps and cpu that is there. "onnx" runs on the CPU.
    providers : sequence of str, or str
        Where onnxruntime computes the networks that see pixels: "cpu", "cuda", "coreml" or "directml", the first
        choice first; the package that has the provider must be installed (``sessions.resolve_providers``). A
        detector that was handed in has its own. The step from landmarks to the pose is faster on the CPU, and stays
        there.

    Raises
    ------
    ArtifactError
        Where the model, or the head detector, does not read.
    ValueError
        For an argument that is none of the above, for a device that is not there or that the backend cannot use, for
        ``heads`` of a model without an image eye, and for a detector of other landmarks than the model's.
        ``ProviderError``, one of them, for a provider that is not there.

    Examples
    --------
    >>> import numpy as np
    >>> with HeadPoseEstimator() as estimator:
    ...     estimator.predict(np.zeros((64, 64, 3), dtype=np.uint8))
    []
    """

    engine: Engine
    detector: LandmarkDetector
    _opened_in: int | None = None
    """The process in which an estimator was opened last."""

    def __init__(
        self,
        model: HeadPoseModel | Eyes | str | Path = SHIPPED,
        backend: Backend = "onnx",
        detector: LandmarkDetector | None = None,
        max_faces: int = MAX_FACES,
        tracking: bool = False,
        device: DeviceName = "auto",
        providers: Sequence[str] | str = CPU,
        heads: bool | str | Path | None = None,
    ) -> None:
        require_count(max_faces)
        _require_no_fork(HeadPoseEstimator._opened_in)
        if detector is not None:
            _require_detector(detector)
        self._lock, self._process, self._closed = threading.RLock(), os.getpid(), False
        resolve_providers(providers)
        self.eyes = model if isinstance(model, Eyes) else open_eyes(model, backend, device, providers)
        self.engine = engine_of(self.eyes)
        self._heads = _head_search(heads, self.eyes, providers)
        self._looks_for_heads_last = heads is None and detector is None and not tracking
        self._providers = providers
        self.max_faces = detector.max_faces if isinstance(detector, CascadeDetector) else max_faces
        self.detector = detector or open_detector_for(
            self.engine.point_set, self.engine.min_confidence, max_faces, tracking, providers
        )
        self._owns_detector = detector is None
        if self._owns_detector:
            # An estimator that is dropped gives its threads back; a detector that was handed in is its owner's.
            weakref.finalize(self, _close, self.detector, self._process).atexit = False
        HeadPoseEstimator._opened_in = os.getpid()
        require_points(self.engine.point_set, self.detector.point_set)

    @classmethod
    def from_pretrained(
        cls, folder: str | Path = SHIPPED, backend: Backend = "onnx", max_faces: int = MAX_FACES
    ) -> HeadPoseEstimator:
        """An estimator of a model folder.

        Parameters
        ----------
        folder : str or Path
            By default the shipped one.
        backend, max_faces
            As of the class.

        Returns
        -------
        HeadPoseEstimator
            With its own detector; close it, as any other.

        Raises
        ------
        ArtifactError, ValueError
            As the class itself does.
        """
        return cls(folder, backend, max_faces=max_faces)

    def predict(
        self, image: ImageLike, refine: bool = True, eye: Eye | None = None, looks: int | None = None
    ) -> list[HeadPose]:
        """Poses of all heads in an image.

        Parameters
        ----------
        image : path, RGB array (H, W, 3), PIL image or torch tensor (3, H, W)
            See ``files.images.as_rgb``.
        refine : bool
            Add the exact step to the network's answer, and with it the error bars that it states; without it they
            follow from the looks' scatter, and of one look are typical ones. More than 5 degrees beyond the range of
            training the network's answer stands.
        eye : "both", "landmarks" or "image", optional
            Which eye answers; by default both, where the model has both. The image eye also answers a face of which
            no landmarks were found.
        looks : 1, 2, 3, 5 or 11, optional
            How often each face is looked at, framed, turned and mirrored otherwise. The answer is the mean; from two
            looks on, their scatter enters ``sigma`` and ``score``. By default
            ``detection.looks.DEFAULT_LOOKS``; one with ``tracking``, for the image eye alone, and where the detector
            cannot look again.

        Returns
        -------
        list of HeadPose
            Largest face first, in the model's named head frame; an empty list where there is no face.

        Raises
        ------
        ImageReadError
            For a file that is no readable image.
        ValueError
            For an array that is no image, for an eye that the model does not have, for ``eye="landmarks"`` of an
            estimator that looks for heads, and after ``close``.
        RuntimeError
            In a forked child.
        """
        return self.predict_batch([image], refine, eye, looks)[0]

    def predict_batch(
        self, images: Iterable[ImageLike], refine: bool = True, eye: Eye | None = None, looks: int | None = None
    ) -> list[list[HeadPose]]:
        """As ``predict`` for several images, in less time: read in threads, searched and answered together.

        Parameters
        ----------
        images : iterable of paths, RGB arrays (H, W, 3), PIL images or torch tensors (3, H, W)
            Taken as they are needed, ``batches.MOST_IMAGES`` at a time; a generator may give them.
        refine, eye, looks
            As of ``predict``, for all images alike.

        Returns
        -------
        list of lists of HeadPose
            What ``predict`` gives for each image, in their order.

        Raises
        ------
        ImageReadError, RuntimeError
            As ``predict`` does.
        ValueError
            As ``predict`` does, and for one image in place of several.
        """
        if isinstance(images, (str, bytes, Path)) or not isinstance(images, Iterable) or _is_one_image(images):
            raise ValueError(f"expected a list of images; received one {type(images).__name__}: use predict for that")
        chosen = self.eyes.chosen(eye)
        if self._heads is not None:
            self.eyes.require_image(chosen)
        self._require_usable()  # before anything is read, and before ``_read`` takes the lock
        if chosen == "image" and looks is None:
            # The image eye takes its crop from the first look, and has looks of its own.
            looks = 1
        route: Route = "refined" if refine else "network"
        answers: list[list[HeadPose]] = []
        for batch in read_batches(images, self._read):
            found, poses = self._seen_and_answered([image for _, image in batch], looks, route, chosen)
            answers += [[next(poses) for _ in faces] for faces in found]
        return answers

    def _read(self, image: ImageLike) -> RgbImage:
        if isinstance(image, (str, Path)):
            return as_rgb(image)
        # One PIL image may stand in a list twice, and cannot be loaded by two threads.
        with self._lock:
            return as_rgb(image)

    def detect(self, image: RgbImage, looks: int | None = None, eye: Eye | None = None) -> list[Face]:
        """Faces in an image, for ``poses`` to answer.

        Parameters
        ----------
        image : RGB uint8 array (H, W, 3)
            ``files.images.as_rgb`` makes one of other images.
        looks : 1, 2, 3, 5 or 11, optional
            How often each face is looked at; by default as often as ``predict`` does by landmarks.
        eye : "both", "landmarks" or "image", optional
            Which is to answer, as for ``predict``: for that of landmarks faces without any are not looked for.

        Returns
        -------
        list of Face
            Largest first. Where the model has an image eye, faces and heads without landmarks are among them
            (``points`` is None; ``found_by`` is "box" of a face and "head" of a head that shows none).

        Raises
        ------
        ValueError
            For other arrays, for another number of looks, where the detector cannot look again, for an eye that the
            model does not have, and after ``close``.
        RuntimeError
            In a forked child.
        """
        return self.detect_batch([image], looks, eye)[0]

    def detect_batch(
        self, images: Iterable[RgbImage], looks: int | None = None, eye: Eye | None = None
    ) -> list[list[Face]]:
        """As ``detect`` for several images, which are searched together.

        Parameters
        ----------
        images : iterable of RGB uint8 arrays (H, W, 3)
            Of any sizes; all are in memory at once.
        looks, eye
            As of ``detect``.

        Returns
        -------
        list of lists of Face
            What ``detect`` gives for each image, in their order.

        Raises
        ------
        ValueError, RuntimeError
            As ``detect`` does.
        """
        further = looks_by(self.detector, looks)
        with self._alone():
            found = self._first_seen(list(images), bool(further), self.eyes.chosen(eye))
            again = iter(seen_again(self.detector, [face for faces in found for face in faces], further))
        return [[next(again) for _ in faces] for faces in found]

    def _seen_and_answered(
        self, images: Sequence[RgbImage], looks: int | None, route: Route, eye: Eye
    ) -> tuple[list[list[Face]], Iterator[HeadPose]]:
        """Faces in each image and the poses of all: ``detect`` and ``poses``, but both eyes look at the same time."""
        further = looks_by(self.detector, looks)
        with self._alone():
            found = self._first_seen(images, bool(further), eye)
            faces = [face for some in found for face in some]
            # The image eye begins first: what it does one after the other takes longer than a look.
            again = partial(seen_again, self.detector, faces, further) if further else None
            answer = self.eyes.answer(faces, route, eye, again)
        return found, iter(head_poses(faces, answer, self.engine))

    @cached_property
    def _last_search(self) -> HeadSearch:
        """The head detector, opened by the first image that needs it."""
        return HeadSearch(providers=self._providers)

    def _first_seen(self, images: Sequence[RgbImage], turned: bool, eye: Eye) -> list[list[Face]]:
        """Faces in each image; but for the eye of landmarks also those without, where the detector can place them, and
        each where it is seen."""
        if eye == "landmarks" or self.eyes.image is None:
            return first_seen(self.detector, images, turned)
        ahead = self.eyes.image.ahead()
        found = first_seen(self.detector, images, turned, True, None if ahead is None else ahead.tell)
        if self._heads is not None:
            found = with_heads(self._heads, self.eyes.image, images, found, self.max_faces)
        elif self._looks_for_heads_last:
            hidden = [row for row, faces in enumerate(found) if not any(face.found_by in AT_ONCE for face in faces)]
            for row in hidden:
                (found[row],) = with_heads(
                    self._last_search, self.eyes.image, [images[row]], [found[row]], self.max_faces
                )
        return [where_seen(self.eyes.image, faces, ahead) for faces in found]

    def poses(self, faces: Sequence[Face], route: Route = DEFAULT_ROUTE, eye: Eye | None = None) -> list[HeadPose]:
        """Poses of faces that were found before.

        Parameters
        ----------
        faces : sequence of Face
            With the landmarks that the model was trained on; for the image eye an image and a box are enough.
        route : "network", "refined", "exact" or "powell"
            The network alone, the exact inverse started from it, the exact inverse without it, or the paper's own
            optimisation; the last two need ``backend="torch"``.
        eye : "both", "landmarks" or "image", optional
            As for ``predict``.

        Returns
        -------
        list of HeadPose
            One of each face, in their order, in the model's named head frame.

        Raises
        ------
        ValueError
            For a route or an eye that the model does not have, for a face that no eye can answer, as one whose box lies
            far from its image, for landmarks that are not a face's, for an image that the image eye is to look at and
            that is no RGB uint8 array, and after ``close``.
        RuntimeError
            In a forked child.
        """
        with self._alone():
            answer = self.eyes.answer(faces, route, eye)
        return head_poses(faces, answer, self.engine)

    def forget(self) -> None:
        """With ``tracking``: the next image begins another video or scene. Raises as ``detect`` does.

        Detectors that cannot forget, such as MediaPipe's own and a user's, look on for the faces of before.
        """
        with self._alone():
            if isinstance(self.detector, FaceMeshOnnx):
                self.detector.forget()

    def close(self) -> None:
        """Release the detector, but for one that was handed in, which is its owner's to close.

        Closing twice does nothing more; every other call is then refused.
        """
        if self._process == os.getpid():
            with self._lock:
                if not self._closed and self._owns_detector:
                    self.detector.close()
                self._closed = True

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One thread at a time: neither a detector nor a model's caches can be shared."""
        # Before the lock, which a thread of the parent may have held when this process was forked.
        self._require_usable()
        with self._lock:
            self._require_usable()  # another thread may have closed it
            yield

    def _require_usable(self) -> None:
        _require_no_fork(self._process)
        if self._closed:
            raise ValueError("this estimator is closed; make another one")

    def __reduce__(self) -> NoReturn:
        """Pickled, as for a worker process, or copied: neither its lock nor its networks can be."""
        raise TypeError(
            "an estimator can be neither pickled nor copied; open one in each process, as in the initializer of a pool"
        )

    def __enter__(self) -> HeadPoseEstimator:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _require_no_fork(opened_in: int | None) -> None:
    """Raise ``RuntimeError`` in a child that was forked from the process in which an estimator was opened."""
    if opened_in not in (None, os.getpid()):
        # MediaPipe aborts there even where it is opened anew, and torch waits for threads that are not there.
        raise RuntimeError(
            f"an estimator was opened in process {opened_in} before this one was forked from it, and the threads that "
            "it needs are not here; start workers by multiprocessing.get_context('spawn') and open one in each"
        )


def _close(detector: LandmarkDetector, process: int) -> None:
    """Close a dropped estimator's detector; in a forked child there is nothing of it to close."""
    if os.getpid() == process:
        detector.close()


def require_points(wanted: PointSet, given: PointSet) -> None:
    """Raise ``ValueError`` where a detector gives other points than a model needs."""
    if given != wanted:
        raise ValueError(f"the model needs points {wanted.name!r}; the detector gives {given.name!r}")


def _require_detector(detector: LandmarkDetector) -> None:
    is_class = isinstance(detector, type)  # whose instance has all that is asked for
    if is_class or not all(hasattr(detector, name) for name in ("point_set", "detect", "close")):
        raise ValueError(
            f"detector: expected a detector; received {detector!r}; nlml_hpe.detection.detectors.open_detector(NAME) "
            "makes one"
        )


def _head_search(heads: bool | str | Path | None, eyes: Eyes, providers: Sequence[str] | str) -> HeadSearch | None:
    if not isinstance(heads, (bool, str, Path, NoneType)):
        raise ValueError(f"heads: expected True, False or the path of a head detector's file; received {heads!r}")
    if heads is None or heads is False:
        return None
    eyes.require_image()
    return HeadSearch(None if heads is True else user_path(heads), providers)


def _is_one_image(images: Iterable[ImageLike]) -> bool:
    """Whether this is an array or tensor of one image: iterating it would give rows."""
    return getattr(images, "ndim", 4) < 4
