"""Models beside one another: every way in which each answers, on the same faces, with what it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from itertools import compress, product
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nlml_hpe.detection.detectors import open_detector_for
from nlml_hpe.detection.landmarks import POINT_SETS, LandmarkDetector
from nlml_hpe.detection.search import CascadeDetector
from nlml_hpe.evaluation.cost import Cost, timed
from nlml_hpe.evaluation.datasets import Dataset, Sample, chosen_by_list, meant
from nlml_hpe.evaluation.evaluate import FUSED_ROUTE, IMAGE_ROUTE, Evaluation, evaluate
from nlml_hpe.evaluation.faces import UNREADABLE, Answered, annotated_face, ask, photographs
from nlml_hpe.evaluation.protocols import PROTOCOLS
from nlml_hpe.evaluation.report import in_file_name, write_report
from nlml_hpe.evaluation.routes import ModelRoute, open_routes
from nlml_hpe.files.images import RgbImage
from nlml_hpe.inference.engines import DEFAULT_ROUTE
from nlml_hpe.view.comparison import Draw, plot_comparison, pose_sheet, with_axes, with_cube
from nlml_hpe.view.pictures import save_image

TIMED_FACES = 40
_Needs = tuple[str, float]


@dataclass(frozen=True, eq=False)
class Comparison:
    """What was measured: an evaluation for each set of faces, what each route costs, its head frame, all answers."""

    evaluations: Mapping[str, Evaluation]
    costs: Mapping[str, Cost]
    frames: Mapping[str, str]
    answered: Answered


class _Faces(NamedTuple):
    """A set of faces: their names, and those of the list, or of all the data, ``among`` which a protocol chose them."""

    names: set[str]
    among: set[str]


def compare(
    models: Mapping[str, Path],
    data: Dataset,
    protocols: Sequence[str],
    lists: Sequence[Path] = (),
    device: str = "auto",
) -> Comparison:
    """Ask every model in every way that it has, and measure answers and costs.

    All that can be wrong with models, protocols and lists is said before the first image is read. Rendered people are
    labelled in the head frame of the training heads, so their answers are compared in that; others in the named one.

    Parameters
    ----------
    models : mapping
        Name -> folder or file, as ``routes.open_routes`` reads it. Routes are called ``name/route``.
    data : Dataset
        Labelled faces. What does not read is left out, and counted in ``data.left_out``.
    protocols : sequence of str
        Which faces count; a set of faces for each, and for each list.
    lists : sequence of Path
        Lists of names, such as ``datasets split`` writes: each is evaluated for itself. Without one, all faces.
    device : str
        See ``routes.open_routes``.

    Returns
    -------
    Comparison

    Raises
    ------
    ArtifactError
        Where a model does not read.
    ValueError
        Where a list or a protocol leaves no face, and for two lists whose files would have the same names.
    """
    data, sets = _sets_of_faces(data, protocols, lists)
    routes = {
        f"{model}/{name}": route
        for model, folder in models.items()
        for name, route in open_routes(folder, data.is_in_own_frame, device).items()
    }
    parts: list[Answered] = []
    costs: dict[str, Cost] = {}
    for needs, group in _by_detector(routes, data).items():
        with ExitStack() as opened:
            detector = None if needs is None else opened.enter_context(_detector(needs))
            parts.append(ask(photographs(data, detector), {name: route.answer for name, route in group.items()}))
            costs |= _costs(group, data, detector)
    answers = {name: part.answers[name] for name in routes for part in parts if name in part.answers}
    # How faces were found is said of the search that found most, where there was any.
    told = max(parts, key=lambda part: (part.searched.any(), part.found.sum()))
    answered = replace(told, answers=answers)
    frames = {name: route.frame for name, route in routes.items()}
    unreadable = set(data.left_out.get(UNREADABLE, ()))
    evaluations = {
        title: evaluate(
            answered.chosen(np.array([name in faces.names for name in answered.names], dtype=bool)),
            protocol=title,
            frame=" / ".join(dict.fromkeys(frames.values())),
            n_total=len(faces.among - unreadable),
            default_route=_default_of(routes),
            left_out=data.left_out,
            fitted=True,
        )
        for title, faces in sets.items()
    }
    return Comparison(evaluations, costs, frames, answered)


def _default_of(routes: Mapping[str, ModelRoute]) -> str:
    """What a model answers by default: the best way that any of these has."""
    known = {name.rpartition("/")[2] for name in routes}
    return next(name for name in (FUSED_ROUTE, DEFAULT_ROUTE, IMAGE_ROUTE) if name in known)


def compared_faces(data: Dataset, protocols: Sequence[str], lists: Sequence[Path]) -> Dataset:
    """The faces that ``compare`` asks about with the same arguments.

    Parameters
    ----------
    data, protocols, lists
        As of ``compare``.

    Returns
    -------
    Dataset
        The samples that some protocol and list hold, in the order of the data.

    Raises
    ------
    ValueError
        Where a list or a protocol leaves no face.
    """
    return _sets_of_faces(data, protocols, lists)[0]


def _sets_of_faces(data: Dataset, protocols: Sequence[str], lists: Sequence[Path]) -> tuple[Dataset, dict[str, _Faces]]:
    """The samples that some set holds, and the sets by name: every list by every protocol."""
    if len({in_file_name(path.stem) for path in lists}) < len(lists):
        raise ValueError(
            "lists are told apart by their names, and in the names of files a space is an underscore; "
            f"received {', '.join(map(str, lists))}"
        )
    parts = {path.stem: chosen_by_list(data, path) for path in lists} or {"": data}
    sets = {}
    for (part, chosen), protocol in product(parts.items(), protocols):
        inside = PROTOCOLS[protocol].includes(chosen.angles)
        name = f"{part} {protocol}".strip()
        names = [sample.name for sample in chosen.samples]
        sets[name] = _Faces(set(compress(names, inside)), set(names))
        if not inside.any():
            raise ValueError(f"{name}: {PROTOCOLS[protocol].leaves_none_of(len(inside))}")
    wanted = set().union(*(faces.names for faces in sets.values()))
    return replace(data, samples=[sample for sample in data.samples if sample.name in wanted]), sets


def _by_detector(routes: Mapping[str, ModelRoute], data: Dataset) -> dict[_Needs | None, dict[str, ModelRoute]]:
    """Routes by the landmarks that they need; one that needs none is shown the label's box, where labels have one."""
    boxed = all(sample.box is not None for sample in data.samples)
    groups: dict[_Needs | None, dict[str, ModelRoute]] = {}
    for name, route in routes.items():
        needs = route.landmarks or (None if boxed else route.search)
        groups.setdefault(needs, {})[name] = route
    return groups


def _detector(needs: _Needs) -> CascadeDetector:
    point_set, confidence = needs
    return open_detector_for(POINT_SETS[point_set], confidence)


def _costs(routes: Mapping[str, ModelRoute], data: Dataset, detector: LandmarkDetector | None) -> dict[str, Cost]:
    """The costs of routes with their times, measured on some faces that lie evenly in the data set."""
    chosen = data.spread(TIMED_FACES)
    boxes = {sample.name: sample.box for sample in chosen}
    faces = list(photographs(replace(data, samples=chosen, left_out={}), detector, "Time"))
    detect_ms: float | None = 0.0
    if detector is not None:
        items = [(image, boxes[each.name]) for each in faces if (image := each.face.image) is not None]
        detect_ms = timed(lambda item: annotated_face(detector, *item), items) if items else None
    shown = [[each.face] for each in faces if detector is None or each.face.points is not None]
    costs = {}
    for name, route in routes.items():
        ms = timed(route.answer, shown) if shown else None
        costs[name] = replace(route.cost, ms=ms, detect_ms=detect_ms)
    return costs


def chosen_images(data: Dataset, names: Sequence[str], count: int, seed: int) -> list[Sample]:
    """Samples to show.

    Parameters
    ----------
    data : Dataset
        Of which.
    names : sequence of str
        Names of samples, with an image's suffix or without.
    count : int
        Without names so many are drawn, or all where there are fewer.
    seed : int
        By which they are drawn.

    Returns
    -------
    list of Sample
        In the order of the names; those that were drawn in the order of the data.

    Raises
    ------
    ValueError
        For a name that is no sample's, and for a negative seed.

    Examples
    --------
    >>> from nlml_hpe.evaluation.datasets import Dataset, Sample
    >>> data = Dataset("biwi", Path("faces"), [Sample(name, (0.0, 0.0, 0.0), lambda: None) for name in ("a", "b")])
    >>> [sample.name for sample in chosen_images(data, ["b.jpg"], 0, seed=0)]
    ['b']
    """
    if not names:
        if seed < 0:
            raise ValueError(f"expected a seed of 0 or more, by which images are drawn; received {seed}")
        drawn = np.random.default_rng(seed).permutation(len(data.samples))[:count]
        return [data.samples[index] for index in sorted(drawn)]
    known = {sample.name: sample for sample in data.samples}
    found = meant(names, known)
    if unknown := [name for name, one in zip(names, found, strict=True) if not one]:
        raise ValueError(
            f"not among the labelled faces of {data.root} that are compared: {', '.join(unknown)} (a name there: "
            f"{data.samples[0].name})"
        )
    return [known[one[0]] for one in found]


def write_comparison(folder: Path, comparison: Comparison, shown: Sequence[Sample]) -> None:
    """Write what a comparison measured, and pictures of it.

    Parameters
    ----------
    folder : Path
        Where ``metrics.json``, ``metrics.csv``, ``table.txt``, ``comparison.png``, a file of predictions and plots for
        each set of faces, and the poses of ``shown`` as axes and as cubes go.
    comparison : Comparison
        What was measured.
    shown : sequence of Sample
        Faces that are drawn.
    """
    routes = {name: {"frame": comparison.frames[name], **asdict(cost)} for name, cost in comparison.costs.items()}
    reports = write_report(folder, comparison.evaluations, routes)
    spent = {name: (cost.ms or 0) + (cost.detect_ms or 0) for name, cost in comparison.costs.items()}
    plot_comparison(reports, spent, folder / "comparison.png")
    for name, draw in (("axes", with_axes), ("cube", with_cube)):
        save_image(_sheet(comparison, shown, draw), folder / f"poses_{name}.jpg")


def _sheet(comparison: Comparison, shown: Sequence[Sample], draw: Draw) -> RgbImage:
    """The label beside every route's answer."""
    answered = comparison.answered
    where = {name: index for index, name in enumerate(answered.names)}
    samples = [sample for sample in shown if sample.name in where]  # what did not read was left out, and counted
    rows = [where[sample.name] for sample in samples]
    columns = {"label": answered.true[rows], **{name: given.rotation[rows] for name, given in answered.answers.items()}}
    pictures = []
    for sample in samples:
        image = sample.load()
        pictures.append((sample.name, image, sample.box or (0.0, 0.0, float(image.shape[1]), float(image.shape[0]))))
    return pose_sheet(pictures, columns, draw)
