"""The image eye: crops of faces through one ONNX file, without torch. It needs an image and a box, no landmarks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nlml_hpe.detection.landmarks import box_of_68
from nlml_hpe.face import Box, Face, has_size
from nlml_hpe.files.atomic import ArtifactError
from nlml_hpe.files.images import RgbImage, require_rgb
from nlml_hpe.image_networks.crop import crop, square_around, turned
from nlml_hpe.inference.engines import Estimates, Interval, named_from_own_of, range_of, said_of_itself
from nlml_hpe.inference.looks import mean_and_scatter
from nlml_hpe.inference.refinement import HeadRefiner, PlacesAhead
from nlml_hpe.model.components import IMAGE_EYE_FILE, require_component
from nlml_hpe.model.format import IMAGE_INPUT, IMAGE_ONNX_FORMAT
from nlml_hpe.rotation import CONVENTION, MIRROR_SIGNS
from nlml_hpe.sessions import CPU, answers, open_session, resolve_providers
from nlml_hpe.threads import begin, thread_count

if TYPE_CHECKING:  # loaded with the first session
    from onnxruntime import InferenceSession


class CropOfFace(NamedTuple):
    """One crop of a face: its ``side`` in sides of THE crop, the ``turn_deg`` of the head in it, as of
    ``crop.image_from_crop``, and whether it is shown ``mirrored``, after that turn."""

    side: float
    turn_deg: float
    mirrored: bool = False


CROPS_OF_A_FACE = (
    CropOfFace(0.95, 12.0),
    CropOfFace(0.95, -12.0, mirrored=True),
    CropOfFace(0.95, -12.0),
    CropOfFace(0.95, 12.0, mirrored=True),
)
"""The crops of each face. In the picture's mirror image the first shows what the second shows here, the third what the
fourth does, so that both pictures have mirrored poses. Chosen on development photographs and on rendered people; see
docs/ablations.md."""
FEW = 2
"""So many of them, the first, are enough where another eye answers the face, too: that is worth more than the other
crops are."""
_WIDEST_SHARE = 10.0
_LARGEST_PX = 1024
"""Twice what a configuration takes; crops of more would fill the memory."""
_BATCH = 16
"""So many crops at most go through the network together."""
Floats = NDArray[np.float64]

_View = tuple[RgbImage, Box, int]
"""An image, the box in it, and which of the engine's crops."""


class ImageEngine:
    """The file that ``model.image_export.export_image_eye`` writes, run by onnxruntime.

    An answer is the mean, on the rotation group, of those for several crops, some of them mirrored; where they lie
    apart, the answer is less sure.

    Parameters
    ----------
    path : Path
        The ``.onnx`` file.
    providers : sequence of str, or str
        What computes the network, as for ``sessions.resolve_providers``.
    crops : sequence of CropOfFace
        What is shown of each face; see ``FEW``.
    refiner : HeadRefiner, optional
        Says where heads are, beside their landmarks or a rough box; without it these alone do.

    Attributes
    ----------
    size, share : int, float
        Pixels on a side of a crop, and that side over the longer side of the box of the 68 points.
    frame : str
        Name of the head frame of the answers.
    named_from_own : array (3, 3)
        C with ``R(named) = R(own) C``: the named head frame beside that of the training data's labels.
    range : three intervals
        Lowest and highest yaw, pitch and roll of training, in degrees, in the own frame.

    Raises
    ------
    ArtifactError
        For a file that is missing, damaged, of another version or convention, or that does not say of itself what must
        be known.
    ProviderError
        For a provider that is not there.
    ValueError
        Where there are no ``crops``.

    Examples
    --------
    >>> from nlml_hpe.model.format import SHIPPED
    >>> engine = ImageEngine(SHIPPED / IMAGE_EYE_FILE)
    >>> image = np.zeros((120, 160, 3), dtype=np.uint8)
    >>> faces = [Face(image, (40.0, 20.0, 100.0, 80.0)), Face(None, (40.0, 20.0, 100.0, 80.0))]
    >>> np.isfinite(engine.estimate(faces).rotation).all(axis=(1, 2)).tolist()  # the second has no image
    [True, False]
    """

    def __init__(
        self,
        path: Path,
        providers: Sequence[str] | str = CPU,
        crops: Sequence[CropOfFace] = CROPS_OF_A_FACE,
        refiner: HeadRefiner | None = None,
    ) -> None:
        if not path.is_file():
            raise ArtifactError(f"{path} is missing; name an ONNX file that ImageModelBuilder wrote")
        # One crop or many on a thread: the crops of a face are shared out, not the network's own small layers.
        self._session = open_session(path, providers, threads=1)
        self._on_cpu = resolve_providers(providers) == resolve_providers(CPU)
        about = _about(path, self._session)
        self.name, self.frame = str(about["network"]), str(about["frame"])
        self.size, self.share = int(about["size"]), float(about["share"])
        self.range: tuple[Interval, Interval, Interval] = range_of(path, about)
        self.named_from_own: NDArray[np.float64] = named_from_own_of(path, about)
        self.crops, self._refiner = tuple(crops), refiner
        if not self.crops:
            raise ValueError("crops: expected one CropOfFace or more; received none")
        self._upright_from_crop = turned(np.eye(3), [-each.turn_deg for each in self.crops])
        # A covariance is mirrored as a rotation is: the vector's y and z change their signs.
        self._signs = np.stack([MIRROR_SIGNS if each.mirrored else np.ones((3, 3)) for each in self.crops])

    def estimate(self, faces: Sequence[Face], few: bool | Sequence[bool] = False) -> Estimates:
        """Poses of faces.

        Parameters
        ----------
        faces : sequence of Face
            With their images. The crop is cut around the box of the 68 contour-and-feature points
            (``detection.landmarks.box_of_68``): the one that was given, otherwise that of a face's landmarks, where it
            has any, otherwise around its own box. With a ``refiner`` that of landmarks is what ``HeadRefiner.settled``
            makes of it and of the refiner's look, which begins at the face's ``placed_box``, where there is one.
        few : bool or sequence of bool
            Which of them are shown in the first ``FEW`` crops alone: in half of the time, and a little less exactly.

        Returns
        -------
        Estimates
            In the order of the faces, in the named head frame; NaN of one without an image, whose box has no size, or
            whose crops show nothing of the image. A box beyond the image's border is answered while they do: the
            border is repeated.

        Raises
        ------
        ValueError
            For an image that is no RGB uint8 array (H, W, 3).
        """
        return self.begin(faces, few=few)()

    def placed(self, faces: Sequence[Face], ahead: PlacesAhead | None = None) -> list[Face]:
        """Faces, each where it is by what is known of it and by the refiner's looks.

        Parameters
        ----------
        faces : sequence of Face
            With their images, and landmarks or a box of the 68 points.
        ahead : PlacesAhead, optional
            Of ``ahead``; what it was told of is known sooner.

        Returns
        -------
        list of Face
            In the same order, each with the box that ``HeadRefiner.settled`` makes of its own as ``given_box``, and of
            a face without landmarks as ``box``, too. Those of which crops show nothing stay as they are, those that
            have a ``given_box``, and all of them without a refiner.

        Raises
        ------
        ValueError
            For an image that is no RGB uint8 array (H, W, 3).
        """
        unsure = [
            number
            for number, face in enumerate(faces)
            if face.image is not None and face.given_box is None and self._shows(face.image, face)
        ]
        placed = list(faces)
        if self._refiner is not None and unsure:
            known = [(image, box_of_68(faces[n])) for n in unsure if (image := faces[n].image) is not None]
            about = [(image, faces[n].placed_box or box) for n, (image, box) in zip(unsure, known, strict=True)]
            # Landmarks err most where the image eye is needed, and their box with them; pixels say it independently.
            seen = (ahead or self._refiner).places(about)
            for number, box in zip(unsure, self._refiner.settled(known, seen), strict=True):
                face = faces[number]
                placed[number] = replace(face, box=box if face.points is None else face.box, given_box=box)
        return placed

    def ahead(self) -> PlacesAhead | None:
        """What looks where heads are while their landmarks are looked for; none where nothing is looked at so."""
        return None if self._refiner is None else PlacesAhead(self._refiner, self._threads)

    def begin(
        self,
        faces: Sequence[Face],
        beside: bool = False,
        few: bool | Sequence[bool] = False,
    ) -> Callable[[], Estimates]:
        """As ``estimate``, begun in other threads where there are some: what is returned waits for the poses.

        Where faces are of which landmarks alone tell it is looked at first, by the caller's thread.

        Parameters
        ----------
        faces : sequence of Face
            As of ``estimate``.
        beside : bool
            Whether the caller has other work of about that length until it asks for the poses.
        few : bool or sequence of bool
            As of ``estimate``.

        Returns
        -------
        callable
            Gives what ``estimate`` gives.

        Raises
        ------
        ValueError
            As ``estimate`` does.
        """
        by_landmarks = [number for number, face in enumerate(faces) if face.points is not None]
        shown = list(faces)
        for number, face in zip(by_landmarks, self.placed([faces[n] for n in by_landmarks]), strict=True):
            shown[number] = face
        boxed = {
            number: (face.image, box_of_68(face))
            for number, face in enumerate(shown)
            if face.image is not None and self._shows(face.image, face)
        }
        given = list(boxed)
        counts = np.where(np.broadcast_to(few, len(faces))[given], min(FEW, len(self.crops)), len(self.crops))
        views = [(*face, each) for face, count in zip(boxed.values(), counts, strict=True) for each in range(count)]
        # Of several faces two parts a thread or more, so that one who has other work, too, leaves some to the next. Two
        # crops go together, which is quicker, but where threads would be left without one.
        least = 1 if len(views) < 2 * (self._threads - beside) else 2
        size = max(least, min(_BATCH, len(views) // (2 * self._threads)))
        parts = [views[start : start + size] for start in range(0, len(views), size)]
        # Where a part holds whole faces the mean of their crops is taken there, beside what the caller does.
        count = counts.max(initial=1)
        whole = bool((counts == count).all() and size % count == 0)
        begun = begin(partial(self._answers_to_faces, count) if whole else self._answers, parts, self._threads)

        def poses() -> Estimates:
            rotation, covariance = np.full((len(faces), 3, 3), np.nan), np.full((len(faces), 3, 3), np.nan)
            if given:
                own, about = (np.concatenate(values) for values in zip(*begun.results(), strict=True))
                if not whole:
                    own, about = _mean_of_crops(own, about, counts)
                rotation[given], covariance[given] = own @ self.named_from_own, about
            return Estimates(rotation, covariance)

        return poses

    def _shows(self, image: RgbImage, face: Face) -> bool:
        """Whether crops of a face, turned in whatever way, can show a pixel of its image."""
        require_rgb(image)
        box = box_of_68(face)
        if not has_size(box):
            return False
        x, y, side = square_around(box, self.share * max(each.side for each in self.crops))
        (height, width), reach = image.shape[:2], side / 2**0.5
        near = -reach < x < width + reach and -reach < y < height + reach
        return bool(near and side < self.size * max(height, width))

    @property
    def _threads(self) -> int:
        """How many threads may take part."""
        return thread_count() if self._on_cpu else 1

    def _answers_to_faces(self, count: int, views: Sequence[_View]) -> tuple[Floats, Floats]:
        """Rotations and covariances (N, 3, 3) of N faces, of each of which ``count`` views follow each other."""
        return _mean_of_crops(*self._answers(views), np.full(len(views) // count, count))

    def _answers(self, views: Sequence[_View]) -> tuple[Floats, Floats]:
        """What the network says of crops of images around boxes, in the upright image and the own frame: rotations and
        covariances (M, 3, 3)."""
        which = [number for _, _, number in views]
        crops = [
            crop(image, box, self.size, each.side * self.share, each.turn_deg)[:, :: -1 if each.mirrored else 1]
            for image, box, each in ((image, box, self.crops[number]) for image, box, number in views)
        ]
        pixels = np.stack(crops).transpose(0, 3, 1, 2).astype(np.float32)
        shape = (len(views), 3, 3)
        rotation, covariance = answers(self._session, {IMAGE_INPUT: pixels}, rotation=shape, covariance=shape)
        if not np.isfinite(rotation).all():
            raise ArtifactError(f"the image eye's network {self.name!r} says NaN as a rotation; export it again")
        upright, signs = self._upright_from_crop[which], self._signs[which]
        own = upright @ ((rotation @ self.named_from_own.T) * signs)
        return own, upright @ (covariance * signs) @ np.swapaxes(upright, -1, -2)


def _mean_of_crops(rotation: Floats, covariance: Floats, counts: NDArray[np.intp]) -> tuple[Floats, Floats]:
    """Rotations and covariances (N, 3, 3) of faces: those of the mixture of the answers (M, 3, 3) to their crops, of
    which each has so many (N,), side by side."""
    mean, scatter = mean_and_scatter(rotation, counts)
    sizes = counts[:, None, None]
    stated = np.add.reduceat(covariance, np.cumsum(counts) - counts, axis=0) / sizes
    # The crops err together, so the mean is no surer than they are; where they differ it is less sure.
    return mean, stated + scatter * (sizes - 1) / sizes


def open_image_engine(folder: str | Path, providers: Sequence[str] | str = CPU) -> ImageEngine:
    """The image eye of a model folder; its covariances are those that the network says.

    Parameters
    ----------
    folder : str or Path
        The model folder.
    providers : sequence of str, or str
        As of ``ImageEngine``.

    Returns
    -------
    ImageEngine
        With the shipped ``HeadRefiner``, and without a calibration, which ``opening.open_eyes`` adds.

    Raises
    ------
    ArtifactError
        Where the folder has none, where a file was changed after it was written, or where the refiner is missing.
    ProviderError
        For a provider that is not there.
    """
    component = require_component(Path(folder), "image_eye")
    if IMAGE_EYE_FILE not in component.sha256:
        raise ArtifactError(f"{folder}: the image eye has no {IMAGE_EYE_FILE}; run ImageModelBuilder again")
    return ImageEngine(Path(folder) / IMAGE_EYE_FILE, providers, refiner=HeadRefiner(providers=providers))


def _about(path: Path, session: InferenceSession) -> dict[str, Any]:
    """What the file says of itself, where it is an image eye's that is known here and says all that is needed."""
    about = said_of_itself(path, session.get_modelmeta().custom_metadata_map)
    form, convention = about["format"], about["convention"]
    if form != IMAGE_ONNX_FORMAT or convention != CONVENTION:
        raise ArtifactError(
            f"{path}: expected {IMAGE_ONNX_FORMAT!r} with {CONVENTION!r}; found {form!r} with {convention!r}; "
            "export it again"
        )
    size, share = about.get("size"), about.get("share")
    shown = {each.name: each.shape[1:] for each in session.get_inputs()}.get(IMAGE_INPUT)
    if not isinstance(size, int) or not 0 < size <= _LARGEST_PX or shown != [3, size, size]:
        raise ArtifactError(
            f"{path}: it says that its crops have {size!r} px, of which {_LARGEST_PX} are the most; its graph takes "
            f"{shown}; export it again"
        )
    if not isinstance(share, (int, float)) or not 0 < share <= _WIDEST_SHARE:
        raise ArtifactError(
            f"{path}: expected a share above 0, up to {_WIDEST_SHARE}; found {share!r}; export it again"
        )
    for name in ("network", "frame"):
        if not isinstance(about.get(name), str):
            raise ArtifactError(f"{path}: expected a {name}'s name; found {about.get(name)!r}; export it again")
    return about
