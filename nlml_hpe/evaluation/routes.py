"""Every way in which a model answers, by name: the routes of its landmark eye, its image eye, both fused."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nlml_hpe.detection.landmarks import FACEMESH, MIN_CONFIDENCE, PointSet
from nlml_hpe.detection.looks import DEFAULT_LOOKS
from nlml_hpe.detection.weights import LANDMARKS, default_folder, read_weights
from nlml_hpe.device import resolve_device
from nlml_hpe.evaluation.cost import Cost, bytes_of, cost_of_layers, cost_of_onnx
from nlml_hpe.evaluation.evaluate import FUSED_ROUTE, IMAGE_ROUTE
from nlml_hpe.evaluation.faces import Answerer, landmark_route
from nlml_hpe.evaluation.subject import fused_route, open_subject
from nlml_hpe.face import Face
from nlml_hpe.files.atomic import ArtifactError
from nlml_hpe.files.manifests import MANIFEST, read_manifest
from nlml_hpe.image_networks.config import ImageNetworkConfig
from nlml_hpe.image_networks.hopenet import HopeNet
from nlml_hpe.image_networks.network import ImageNetwork
from nlml_hpe.image_networks.network_training import KIND as IMAGE_NETWORK
from nlml_hpe.image_networks.network_training import WEIGHTS, network_of
from nlml_hpe.image_networks.weights import load_state
from nlml_hpe.inference.engines import DEFAULT_ROUTE, ONNX_ROUTES, Estimates, OnnxEngine
from nlml_hpe.inference.image_engine import CROPS_OF_A_FACE, FEW, ImageEngine
from nlml_hpe.inference.opening import open_eyes
from nlml_hpe.model.components import IMAGE_EYE_FILE, MANIFOLD_FILE, WEIGHTS_FILE, read_components
from nlml_hpe.model.folder import HeadFrame, load_model, load_weights
from nlml_hpe.model.format import CONFIG_FILE, ONNX_FILE
from nlml_hpe.model.image_export import ImageEye, export_image_eye

_WIDEST = ((-180.0, 180.0), (-90.0, 90.0), (-180.0, 180.0))
_PUBLISHED = ".pkl"


@dataclass(frozen=True, eq=False)
class ModelRoute:
    """One way in which a model answers.

    Attributes
    ----------
    answer : callable
        Faces to estimates.
    cost : Cost
        Parameters, MACs and bytes; times are measured by who compares.
    frame : str
        Name of the head frame of the answers.
    landmarks : (str, float), optional
        The point set that it needs, and the detector's threshold; None of a route that looks at the image.
    search : (str, float)
        The same of what finds faces for it where nobody says where they are: a model's eyes share one detector.
    """

    answer: Answerer
    cost: Cost
    frame: str
    landmarks: tuple[str, float] | None = None
    search: tuple[str, float] = (FACEMESH.name, MIN_CONFIDENCE)


def open_routes(folder: Path, own_frame: bool = False, device: str = "auto") -> dict[str, ModelRoute]:
    """What a model can be asked.

    Parameters
    ----------
    folder : Path
        A model folder, the folder of an image network that ImageTrainer wrote, or the file of weights that HopeNet's
        authors publish (``.pkl``), which is asked as it is, with crops of 224 px.
    own_frame : bool
        Whether answers are wanted in the head frame of the training heads, as rendered people are labelled, in place
        of the named one.
    device : str
        Where the exact inverse is computed; the rest runs by onnxruntime on the CPU.

    Returns
    -------
    dict
        Route name -> route: ``network``, ``exact`` and ``refined`` of a landmark eye, ``image`` of an image eye, and
        ``fused``, what ``HeadPoseEstimator`` answers by default, where the model has both.

    Raises
    ------
    ArtifactError
        Where it is none of these, or does not read.
    WeightsError
        Where the file is not HopeNet's.

    Examples
    --------
    >>> from nlml_hpe.model.format import SHIPPED
    >>> list(open_routes(SHIPPED))[:3]
    ['network', 'exact', 'refined']
    """
    if (folder / CONFIG_FILE).is_file():
        return _of_model(folder, own_frame, device)
    if (folder / MANIFEST).is_file() and (folder / WEIGHTS).is_file():
        return {IMAGE_ROUTE: _of_trained_network(folder)}
    if folder.suffix == _PUBLISHED and not folder.is_dir():
        network = HopeNet()
        load_state(network, folder)
        # Its training was by the labels of 300W-LP, whatever the data set that is asked about.
        return {IMAGE_ROUTE: _of_network(network, "hopenet", HeadFrame("w300lp"))}
    raise ArtifactError(
        f"{folder}: expected a model folder ({CONFIG_FILE}), an image network's ({WEIGHTS} with {MANIFEST}) or "
        f"HopeNet's published weights ({_PUBLISHED})"
    )


def _of_model(folder: Path, own_frame: bool, device: str) -> dict[str, ModelRoute]:
    subject, costs = open_subject(folder, resolve_device(device)), _costs(folder)
    answers, eyes = dict(subject.routes), subject.eyes
    if (folder / ONNX_FILE).is_file():
        # What users get by default is what is timed.
        engine = OnnxEngine(folder / ONNX_FILE)
        answers |= {name: landmark_route(engine, name) for name in ONNX_ROUTES}
        if eyes is not None:
            eyes = open_eyes(folder)
    if own_frame:
        answers |= {name: _in_own_frame(answers[name], turn) for name, turn in subject.named_from_own.items()}
    if eyes is not None:
        answers[FUSED_ROUTE] = fused_route(eyes, own_frame)
    frame = HeadFrame().name if own_frame else subject.frame
    needs = (subject.points.name, subject.min_confidence)
    return {
        name: ModelRoute(answer, costs[name], frame, None if name == IMAGE_ROUTE else needs, needs)
        for name, answer in answers.items()
    }


def _costs(folder: Path) -> dict[str, Cost]:
    """What every route of a model folder costs, without the times."""
    components = read_components(folder)
    costs: dict[str, Cost] = {}
    if "landmark_eye" in components:
        model = load_model(folder)
        looks = _cost_of_looks(model.point_set)
        # Of points that have a mirror image both are asked about.
        network = cost_of_layers(model.network, (folder / WEIGHTS_FILE,)).passes(2 if model.is_symmetric else 1)
        # The descent is no network, and its steps depend on the face.
        exact = looks + Cost(model.manifold.basis.size, 0, bytes_of((folder / MANIFOLD_FILE,)))
        costs |= {"network": looks + network.passes(DEFAULT_LOOKS), "exact": exact}
        # The network sees each look, and the mean of them once more: there the descent begins.
        costs["refined"] = exact + network.passes(DEFAULT_LOOKS + 1)
    if "image_eye" in components:
        crop = cost_of_onnx(folder / IMAGE_EYE_FILE)
        costs[IMAGE_ROUTE] = crop.passes(len(CROPS_OF_A_FACE))
        if "landmark_eye" in components:
            costs[FUSED_ROUTE] = costs[DEFAULT_ROUTE] + crop.passes(FEW)
    return costs


def _cost_of_looks(points: PointSet) -> Cost:
    """The passes of FaceMesh's landmark network over a face; its parameters and bytes are no part of a model's.

    Of other points it is not known what finds them.
    """
    if points.name != FACEMESH.name:
        return Cost(0, None, 0)
    read_weights()  # says what is to be done where they are missing
    return Cost(0, cost_of_onnx(default_folder() / LANDMARKS).passes(DEFAULT_LOOKS).macs, 0)


def _of_trained_network(folder: Path) -> ModelRoute:
    """An image network as ImageTrainer leaves it."""
    config = read_manifest(folder, IMAGE_NETWORK)["config"]
    settings = ImageNetworkConfig.model_validate(config["image_network"])
    network = network_of(settings, seed=0)
    load_weights(network, folder / WEIGHTS, "run ImageTrainer again")
    return _of_network(network, settings.name, HeadFrame())


def _of_network(network: ImageNetwork, name: str, frame: HeadFrame) -> ModelRoute:
    """An image network, exported as ImageModelBuilder would, and asked in ``frame``, that of its labels."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / IMAGE_EYE_FILE
        export_image_eye(ImageEye(network.eval(), name, frame, _WIDEST), path)
        engine, cost = ImageEngine(path), cost_of_onnx(path)
    return ModelRoute(engine.estimate, cost.passes(len(engine.crops)), engine.frame)


def _in_own_frame(answer: Answerer, named_from_own: NDArray[np.float64]) -> Answerer:
    def in_own_frame(faces: Sequence[Face]) -> Estimates:
        return answer(faces).in_own_frame(named_from_own)

    return in_own_frame
