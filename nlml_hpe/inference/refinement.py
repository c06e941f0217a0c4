"""A closer look at what the head detector proposes: the second stage's network, by onnxruntime and numpy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nlml_hpe.detection.heads import PLACE, Floats, Head, open_stage
from nlml_hpe.detection.places import overlap
from nlml_hpe.face import Box, box_of, has_size
from nlml_hpe.files.images import RgbImage, require_rgb
from nlml_hpe.head_network.proposals import (
    REFINEMENT_FILE,
    REFINEMENT_FORMAT,
    REFINEMENT_INPUT,
    mirrored_box,
    of_image,
    proposal_crop,
)
from nlml_hpe.sessions import CPU
from nlml_hpe.threads import Begun, begin

_SAME_PLACE, _MOST_LOOKS = 0.8, 3
"""Two boxes tell of one place where they overlap by the first (intersection over union); so many looks at a head are
taken at most. Chosen on rendered people; see docs/ablations.md."""
_BATCH = 32
"""Crops that go through the network together."""


class HeadRefiner:
    """The network that looks at proposed heads, run by onnxruntime. It may be shared by threads.

    Parameters
    ----------
    path : str or Path, optional
        The ONNX file that the stage RefinementTrainer writes; by default the shipped one.
    providers
        As of ``HeadDetector``.

    Raises
    ------
    ArtifactError, ProviderError
        As of ``HeadDetector``.

    Examples
    --------
    >>> image, box = np.zeros((120, 160, 3), dtype=np.uint8), (40.0, 20.0, 90.0, 80.0)
    >>> [round(head.score) for head in HeadRefiner().refine(image, [Head(box, box, 0.9)])]
    [0]
    """

    def __init__(self, path: str | Path | None = None, providers: Sequence[str] | str = CPU) -> None:
        file = Path(path or PLACE / REFINEMENT_FILE)
        # A crop or two are too little work to share out.
        self._session = open_stage(file, REFINEMENT_FORMAT, "RefinementTrainer", providers)

    def refine(self, image: RgbImage, proposed: Sequence[Head]) -> list[Head]:
        """Each proposal as it is after a closer look, in the same order.

        Of a crop and its mirror image the mean is taken, so that a picture and its mirror image have the same heads.

        Parameters
        ----------
        image : RGB uint8 array (H, W, 3)
            That the heads were proposed in.
        proposed : sequence of Head
            What ``HeadDetector.find`` proposes.

        Returns
        -------
        list of Head
            ``face_box``: where the 68 points are; ``score``: about the chance that this box overlaps theirs by half or
            more. The head's own box is the proposed one.

        Raises
        ------
        ValueError
            For another array, and for a box without a size.
        """
        require_rgb(image)
        scores, boxes = self._placed([(image, head.face_box) for head in proposed])
        said = zip(proposed, boxes, scores, strict=True)
        return [head._replace(face_box=box, score=float(score)) for head, box, score in said]

    def places(self, faces: Sequence[tuple[RgbImage, Box]]) -> list[Box]:
        """Where heads are that are known to be there, and about where; as ``refine``, of any images.

        Parameters
        ----------
        faces : sequence of (RGB uint8 array (H, W, 3), Box)
            Each head's image, and about where it is: the box of the 68 points, in pixels.

        Returns
        -------
        list of Box
            In the order of the faces, of the 68 points, in pixels.

        Raises
        ------
        ValueError
            For a box without a size.
        """
        return self._placed(faces)[1]

    def settled(self, known: Sequence[tuple[RgbImage, Box]], seen: Sequence[Box]) -> list[Box]:
        """Where heads are, by what others say and by closer looks.

        Where both tell of one place it is their mean. Elsewhere the others are wrong more often: there the look is
        repeated, each time from where the last one saw the head, until two looks tell of one place or three are taken,
        and the last one counts alone.

        Parameters
        ----------
        known : sequence of (RGB uint8 array (H, W, 3), Box)
            Each head's image, and where it is by its landmarks or by a detector: the box of the 68 points, in pixels.
        seen : sequence of Box
            Of each, the first look's, as of ``places``.

        Returns
        -------
        list of Box
            In the same order, of the 68 points, in pixels.

        Raises
        ------
        ValueError
            As ``places`` does.
        """
        settled = [
            box_of(np.mean([box, look], axis=0).reshape(2, 2)) for (_, box), look in zip(known, seen, strict=True)
        ]
        last = list(seen)
        apart = [n for n, (_, box) in enumerate(known) if overlap(box, last[n]) < _SAME_PLACE]
        for _ in range(_MOST_LOOKS - 1):
            looks = dict(zip(apart, self.places([(known[n][0], last[n]) for n in apart]), strict=True))
            apart = [n for n, look in looks.items() if overlap(last[n], look) < _SAME_PLACE]
            for number, look in looks.items():
                settled[number] = last[number] = look
        return settled

    def _placed(self, proposed: Sequence[tuple[RgbImage, Box]]) -> tuple[Floats, list[Box]]:
        """Scores (n,) and boxes in pixels: the means of what is said of each crop and of its mirror image."""
        if not proposed:
            return np.empty(0), []
        crops = np.stack([proposal_crop(image, box) for image, box in proposed])
        scores, within = self._answers(np.concatenate([crops, crops[:, :, ::-1]]))
        score, score_of_mirrored = np.split(scores, 2)
        seen, mirrored = np.split(within, 2)
        boxes = of_image((seen + mirrored_box(mirrored)) / 2, np.array([box for _, box in proposed]))
        return (score + score_of_mirrored) / 2, [box_of(corners) for corners in boxes.reshape(-1, 2, 2)]

    def _answers(self, crops: NDArray[np.uint8]) -> tuple[Floats, Floats]:
        """Scores (n,) and boxes (n, 4), in sides of the crop, of crops (n, 64, 64, 3)."""
        parts = [crops[start : start + _BATCH] for start in range(0, len(crops), _BATCH)]
        answers = [self._session.run(None, {REFINEMENT_INPUT: part}) for part in parts]
        scores, boxes = (np.concatenate(values).astype(np.float64) for values in zip(*answers, strict=True))
        return scores, boxes


class PlacesAhead:
    """Where heads are, looked at by other threads from the moment when it is known about where.

    Parameters
    ----------
    refiner : HeadRefiner
        Which looks.
    threads : int
        How many threads may take part, as of ``threads.begin``; with one nothing is done ahead.

    Examples
    --------
    >>> image, box = np.zeros((120, 160, 3), dtype=np.uint8), (40.0, 20.0, 90.0, 80.0)
    >>> refiner = HeadRefiner()
    >>> ahead = PlacesAhead(refiner, threads=2)
    >>> ahead.tell(image, [box])
    >>> ahead.places([(image, box)]) == refiner.places([(image, box)])
    True
    """

    def __init__(self, refiner: HeadRefiner, threads: int) -> None:
        self._refiner, self._threads = refiner, threads
        self._told: list[tuple[RgbImage, Sequence[Box], Begun[list[Box]]]] = []

    def tell(self, image: RgbImage, boxes: Sequence[Box]) -> None:
        """That an RGB uint8 image (H, W, 3) shows heads about there; as of ``HeadRefiner.places``."""
        sized = [box for box in boxes if has_size(box)]
        if sized and self._threads > 1:
            work = begin(self._refiner.places, [[(image, box) for box in sized]], self._threads)
            self._told.append((image, sized, work))

    def places(self, faces: Sequence[tuple[RgbImage, Box]]) -> list[Box]:
        """As ``HeadRefiner.places``, once for each image; what was not told before is looked at now.

        Parameters
        ----------
        faces : sequence of (RGB uint8 array (H, W, 3), Box)
            As of ``HeadRefiner.places``.

        Returns
        -------
        list of Box
            As of ``HeadRefiner.places``.

        Raises
        ------
        ValueError
            As ``HeadRefiner.places`` does.
        """
        known: dict[int, Box] = {}
        told, self._told = self._told, []
        for image, boxes, begun in told:
            asked = [n for n, (other, box) in enumerate(faces) if other is image and box in boxes]
            if asked:
                (seen,) = begun.results()
                known |= {n: seen[boxes.index(faces[n][1])] for n in asked}
            else:
                self._told.append((image, boxes, begun))
        rest = [n for n in range(len(faces)) if n not in known]
        known |= dict(zip(rest, self._refiner.places([faces[n] for n in rest]), strict=True))
        return [known[n] for n in range(len(faces))]
