"""Models beside one another: the same figures as alone, what they cost, what is drawn, and what is said of errors."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from safetensors.torch import save_file

from nlml_hpe.detection.detectors import FaceMeshOnnx, open_detector_for
from nlml_hpe.detection.weights import LANDMARKS, default_folder
from nlml_hpe.device import DeviceError
from nlml_hpe.evaluation import compare as comparison_module
from nlml_hpe.evaluation import routes as routes_module
from nlml_hpe.evaluation.command import answers, on_protocol
from nlml_hpe.evaluation.compare import Comparison, chosen_images, compare, write_comparison
from nlml_hpe.evaluation.cost import Cost, cost_of_layers, cost_of_onnx
from nlml_hpe.evaluation.datasets import Dataset, DatasetError, Sample, read_dataset, write_lists
from nlml_hpe.evaluation.evaluate import BESIDE_ROUTE, evaluate
from nlml_hpe.evaluation.faces import LabelledFace, annotated_face, ask, is_known
from nlml_hpe.evaluation.routes import open_routes
from nlml_hpe.evaluation.subject import open_subject, subject_of
from nlml_hpe.face import Box, Face
from nlml_hpe.files.atomic import ArtifactError
from nlml_hpe.files.images import RgbImage
from nlml_hpe.files.manifests import write_manifest
from nlml_hpe.image_networks.config import ImageNetworkConfig
from nlml_hpe.image_networks.hopenet import HopeNet
from nlml_hpe.image_networks.network import WeightsError, size_of
from nlml_hpe.image_networks.network_training import KIND, WEIGHTS, network_of
from nlml_hpe.image_networks.shards import write_shard
from nlml_hpe.inference.engines import Estimates
from nlml_hpe.inference.estimator import HeadPoseEstimator
from nlml_hpe.inference.image_engine import CROPS_OF_A_FACE, FEW, open_image_engine
from nlml_hpe.inference.torch_engine import TorchEngine
from nlml_hpe.manifold.manifold_file import read_manifold
from nlml_hpe.model.components import IMAGE_EYE_FILE, put_component, read_components
from nlml_hpe.model.folder import HeadFrame, load_model
from nlml_hpe.model.format import SHIPPED
from nlml_hpe.model.image_export import ImageEye, export_image_eye
from nlml_hpe.rotation import Angles, angles_from_rotation, geodesic_degrees, rotation_from_angles
from nlml_hpe.view import comparison as comparison_view
from nlml_hpe.view.comparison import plot_comparison
from stages.common import guarded
from stages.CompareModels import named, parser, work
from tests.test_image_trainer import riddle

SMALL = ImageNetworkConfig(size=32, width=8)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an image network as ImageTrainer leaves it; it has learned nothing."""
    folder = tmp_path_factory.mktemp("experiment") / "image_network"
    folder.mkdir()
    save_file(network_of(SMALL, 0).state_dict(), folder / WEIGHTS)
    write_manifest(folder, KIND, {"image_network": SMALL.model_dump(mode="json")}, {})
    return folder


@pytest.fixture(scope="module")
def photographs(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six labelled photographs, one of them cut short."""
    folder, source = tmp_path_factory.mktemp("photographs"), shared_data / "aflw2000_dev"
    for sample in [s for s in read_dataset("aflw2000", source).samples if max(map(abs, s.angles)) < 45][:6]:
        for suffix in (".jpg", ".mat"):
            shutil.copy(source / f"{sample.name}{suffix}", folder)
    broken = sorted(folder.glob("*.jpg"))[2]
    broken.write_bytes(broken.read_bytes()[:2000])
    return folder


def test_models_beside_one_another_have_the_figures_that_they_have_alone(
    photographs: Path, trained: Path, landmark_eye_alone: Path, detector: FaceMeshOnnx, tmp_path: Path
) -> None:
    data = read_dataset("aflw2000", photographs)
    shown = chosen_images(data, [], 12, seed=0)  # the one that does not read, too
    protocols = ["aflw2000", "aflw2000-nlml"]
    comparison = compare({"shipped": landmark_eye_alone, "new": trained}, data, protocols)
    assert list(comparison.costs) == ["shipped/network", "shipped/exact", "shipped/refined", "new/image"]
    found = comparison.evaluations["aflw2000"].report
    subject = subject_of(TorchEngine(load_model(SHIPPED)))
    alone = on_protocol(subject, data, answers(subject, data, detector), "aflw2000").report
    for route in ("network", "exact", "refined"):
        row = found["routes"][f"shipped/{route}"]
        # Two of them are computed by the ONNX file here, which agrees to a thousandth of a degree or so.
        assert row["mae"] == pytest.approx(alone["routes"][route]["mae"], abs=0.01)
        assert found["fitted"]["routes"][f"shipped/{route}"]["geodesic"]["mean"] <= row["geodesic"]["mean"] + 0.2
    assert found["routes"]["new/image"]["coverage"] == 1
    assert found["left_out"] == {"image not readable": 1}
    # What is said of the search is that of the routes that have one, whichever model comes first.
    assert (found["n_protocol"], found["n_total"], found["n_detected"]) == (5, 5, alone["n_detected"]) == (5, 5, 5)
    two = replace(data, samples=data.samples[:2])
    turned = compare({"new": trained, "shipped": landmark_eye_alone}, two, ["aflw2000"])
    assert turned.evaluations["aflw2000"].report["n_detected"] == 2
    write_comparison(tmp_path, comparison, shown)
    with Image.open(tmp_path / "poses_cube.jpg") as sheet:
        assert sheet.width == 5 * 200
    rows = list(csv.DictReader((tmp_path / "metrics.csv").read_text().splitlines()))
    assert len(rows) == 2 * 2 * 4  # sets of faces, head frames, routes
    assert all(float(row["ms"]) > 0 and float(row["bytes"]) > 0 for row in rows)
    assert {row["detect_ms"] for row in rows if row["route"] == "new/image"} == {"0"}
    assert json.loads((tmp_path / "metrics.json").read_text())["routes"]["new/image"]["frame"] == "own"
    assert {row["frame"] for row in rows} == {"w300lp / own", "fitted"}  # by their names, as `evaluate` has them
    assert "shipped/refined *" in (tmp_path / "table.txt").read_text()


def test_both_eyes_of_a_model_are_compared_and_what_they_say_together(
    photographs: Path, detector: FaceMeshOnnx, tmp_path: Path
) -> None:
    frame = load_model(SHIPPED).frame
    for name in ("config.json", "model.safetensors", "manifold.npz", "model.onnx"):
        shutil.copy(SHIPPED / name, tmp_path)
    eye = ImageEye(network_of(SMALL, 0).eval(), SMALL.name, frame, ((-99.0, 99.0),) * 3)
    export_image_eye(eye, tmp_path / IMAGE_EYE_FILE)
    put_component(tmp_path, "image_eye", eye.settings())
    routes = open_routes(tmp_path)
    assert list(routes) == ["network", "exact", "refined", "image", "fused"]
    sample = read_dataset("aflw2000", photographs).samples[0]
    found = detector.detect_in_box(sample.load(), sample.box)
    hidden = replace(found, points=None, box=sample.box)
    with HeadPoseEstimator(tmp_path) as estimator:
        predicted = [pose.rotation for pose in estimator.poses([found, hidden])]
    np.testing.assert_allclose(routes["fused"].answer([found, hidden]).rotation, predicted, atol=1e-9)
    # Without landmarks the image eye's answer is the model's.
    assert geodesic_degrees(predicted[1], routes["image"].answer([hidden]).rotation[0]) < 1e-3
    assert routes["fused"].cost.bytes == routes["refined"].cost.bytes + routes["image"].cost.bytes
    manifold = tmp_path / "manifold.npz"
    assert routes["exact"].cost.bytes == manifold.stat().st_size
    assert routes["exact"].cost.parameters == read_manifold(manifold).basis.size
    # Where labels have boxes no detector is asked for the image eye, nor its time counted.
    assert [name for name, route in routes.items() if route.landmarks is None] == ["image"]


def test_hopenets_published_weights_are_compared_as_they_are(
    photo: RgbImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They could be trained on alone: nothing measured the network that its authors publish."""
    monkeypatch.setattr(routes_module, "HopeNet", partial(HopeNet, width=8))
    settings = ImageNetworkConfig(name="hopenet", size=224, width=8)
    state = network_of(settings, 3).state_dict()
    path, folder = tmp_path / "hopenet_robust_alpha1.pkl", tmp_path / "image_network"
    torch.save({name: values for name, values in state.items() if not name.endswith("num_batches_tracked")}, path)
    folder.mkdir()
    save_file(state, folder / WEIGHTS)
    write_manifest(folder, KIND, {"image_network": settings.model_dump(mode="json")}, {})
    published, kept = (open_routes(place)["image"] for place in (path, folder))
    face = Face(photo, (178.0, 72.0, 272.0, 176.0))
    np.testing.assert_array_equal(published.answer([face]).rotation, kept.answer([face]).rotation)
    assert replace(published.cost, bytes=kept.cost.bytes) == kept.cost  # the name of the frame is in the file
    macs = len(CROPS_OF_A_FACE) * size_of(network_of(settings, 3)).macs
    assert kept.cost.macs == pytest.approx(macs, rel=0.01)
    assert (published.frame, kept.frame) == ("w300lp", "own")
    assert list(named([path])) == ["hopenet_robust_alpha1.pkl"]
    torch.save({"a": torch.zeros(1)}, path)
    with pytest.raises(WeightsError, match="weights of another network"):
        open_routes(path)


def test_an_image_eye_is_shown_the_faces_that_its_models_detector_finds(photo: RgbImage, tmp_path: Path) -> None:
    """Of labels without a box: it was shown those of the default detector, and had another row than by `evaluate`."""
    model, faces = tmp_path / "model", tmp_path / "faces"
    shutil.copytree(SHIPPED, model)
    eye = read_components(model)["landmark_eye"]
    put_component(model, "landmark_eye", {**eye.settings, "min_confidence": 0.99999})
    faces.mkdir()
    Image.fromarray(photo).save(faces / "ID1_(0_0_0).png")
    data, subject = read_dataset("rendered", faces), open_subject(model, torch.device("cpu"))
    report = compare({"strict": model}, data, ["rendered"]).evaluations["rendered"].report
    with open_detector_for(subject.points, subject.min_confidence) as detector:
        alone = answers(subject, data, detector)
    assert {name: row["n"] for name, row in report["routes"].items()} == {
        f"strict/{name}": int(is_known(alone.answers[name]).sum()) for name in subject.routes
    }
    assert report["default_route"] == "fused"
    # Where its detector finds the face, the image eye answers, too.
    report = compare({"shipped": SHIPPED}, data, ["rendered"]).evaluations["rendered"].report
    assert {name: row["n"] for name, row in report["routes"].items()} == dict.fromkeys(report["routes"], 1)


def test_a_face_without_a_box_beside_others_with_one_is_looked_for(
    photo: RgbImage, trained: Path, tmp_path: Path
) -> None:
    data = Dataset("aflw2000", tmp_path)
    data.add(Sample("boxed", (0.0, 0.0, 0.0), lambda: photo, (179.0, 86.0, 270.0, 175.0)))
    data.add(Sample("somewhere", (0.0, 0.0, 0.0), lambda: photo))
    report = compare({"new": trained}, data, ["aflw2000"]).evaluations["aflw2000"].report
    assert (report["routes"]["new/image"]["n"], report["n_detected"]) == (2, 2)


def test_a_search_that_finds_nobody_is_told_of_whichever_model_comes_first(
    trained: Path, landmark_eye_alone: Path, tmp_path: Path
) -> None:
    """Behind a model that looks at the label's box alone, all faces were said to be found by their labels."""
    data = Dataset("aflw2000", tmp_path)
    data.add(Sample("dark", (0.0, 0.0, 0.0), lambda: np.zeros((64, 64, 3), np.uint8), (8.0, 8.0, 56.0, 56.0)))
    models = {"new": trained, "old": landmark_eye_alone}
    for order in (models, dict(reversed(models.items()))):
        report = compare(order, data, ["aflw2000"]).evaluations["aflw2000"].report
        assert (report["n_detected"], report["n_missed"]) == (0, 1)


def test_what_is_drawn_of_a_face_is_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Label, answer and box, in whichever order faces are named; one that did not read is left out."""
    labels = {"a": (10.0, 0.0, 0.0), "b": (20.0, 0.0, 0.0), "c": (30.0, 0.0, 0.0)}
    turns = rotation_from_angles(Angles.from_columns(list(labels.values())))
    face = Face(None, (0.0, 0.0, 8.0, 8.0))
    answered = ask(
        [LabelledFace(name, label, face) for name, label in labels.items()],
        {"m/image": lambda _: Estimates.of_rotations(turns @ turns)},
    )
    seen: list[tuple[list[tuple[str, RgbImage, Box]], dict[str, np.ndarray]]] = []
    monkeypatch.setattr(comparison_module, "pose_sheet", lambda faces, columns, _: seen.append((faces, columns)))
    monkeypatch.setattr(comparison_module, "save_image", lambda *_: None)
    blank = np.zeros((40, 60, 3), dtype=np.uint8)
    shown = [
        Sample("c", labels["c"], lambda: blank, (1.0, 2.0, 3.0, 4.0)),
        Sample("cut", labels["a"], lambda: blank),
        Sample("a", labels["a"], lambda: blank),
    ]
    (tmp_path / "out").mkdir()
    evaluations = {"all": evaluate(answered, protocol="all", frame="own", default_route="image")}
    costs = {"m/image": Cost(1, 1, 1, ms=3.0, detect_ms=4.0)}
    spent: list[dict[str, float]] = []
    monkeypatch.setattr(comparison_module, "plot_comparison", lambda _, times, __: spent.append(times))
    write_comparison(tmp_path / "out", Comparison(evaluations, costs, {"m/image": "own"}, answered), shown)
    assert len(seen) == 2  # as axes and as cubes
    for faces, columns in seen:
        assert [(name, box) for name, _, box in faces] == [("c", (1.0, 2.0, 3.0, 4.0)), ("a", (0.0, 0.0, 60.0, 40.0))]
        np.testing.assert_array_equal(columns["label"], turns[[2, 0]])
        np.testing.assert_array_equal(columns["m/image"], (turns @ turns)[[2, 0]])
    # A face costs what finds it and what answers.
    assert spent == [{"m/image": 7.0}]


def test_lists_are_evaluated_each_for_itself(photographs: Path, trained: Path, tmp_path: Path) -> None:
    data = read_dataset("aflw2000", photographs)
    names = [sample.name for sample in data.samples]
    data.samples[0] = replace(data.samples[0], angles=(60.0, 0.0, 0.0))  # beyond the paper's range
    lists = {tmp_path / "a.txt": names[:2], tmp_path / "b.txt": names[3:]}
    write_lists(lists)
    comparison = compare({"new": trained}, data, ["aflw2000", "aflw2000-nlml"], list(lists))
    reports = {faces: one.report for faces, one in comparison.evaluations.items()}
    # The protocol chose them among the faces of their list, as `evaluate --list` counts them, not of all lists.
    counts = {faces: (report["n_protocol"], report["n_total"]) for faces, report in reports.items()}
    assert counts == {
        "a aflw2000": (2, 2),
        "a aflw2000-nlml": (1, 2),
        "b aflw2000": (3, 3),
        "b aflw2000-nlml": (3, 3),
    }
    write_lists({tmp_path / "far.txt": names[:1]})
    with pytest.raises(ValueError, match="far aflw2000-nlml: none of 1 labels lies in its range"):
        compare({"new": trained}, data, ["aflw2000", "aflw2000-nlml"], [tmp_path / "a.txt", tmp_path / "far.txt"])
    write_lists({tmp_path / "a b.txt": names[:2], tmp_path / "a_b.txt": names[3:]})
    with pytest.raises(ValueError, match="told apart by their names"):
        compare({"new": trained}, data, ["aflw2000"], [tmp_path / "a b.txt", tmp_path / "a_b.txt"])
    write_lists({tmp_path / "c.txt": ["nobody"]})
    with pytest.raises(DatasetError, match=r"no labelled faces of aflw2000 .* \(nobody\)"):
        compare({"new": trained}, data, ["aflw2000"], [tmp_path / "c.txt"])


def test_a_list_without_an_answer_costs_the_others_nothing(
    photographs: Path, landmark_eye_alone: Path, tmp_path: Path
) -> None:
    """One of a photograph in the dark, one of a photograph that does not read, and one of others."""
    folder = tmp_path / "data"
    shutil.copytree(photographs, folder)
    first, _, broken, *others = sorted(path.stem for path in folder.glob("*.jpg"))
    Image.new("RGB", (450, 450)).save(folder / f"{first}.jpg")
    lists = {
        tmp_path / f"{name}.txt": names for name, names in (("dark", [first]), ("cut", [broken]), ("light", others))
    }
    write_lists(lists)
    comparison = compare({"old": landmark_eye_alone}, read_dataset("aflw2000", folder), ["aflw2000"], list(lists))
    write_comparison(tmp_path, comparison, [])
    rows = {row["faces"]: row for row in csv.DictReader((tmp_path / "metrics.csv").read_text().splitlines())}
    counts = {faces: (row["n_detected"], row["n_total"], row["mae_mean"] != "") for faces, row in rows.items()}
    assert counts == {
        "dark aflw2000": ("0", "1", False),
        "cut aflw2000": ("0", "0", False),
        "light aflw2000": ("3", "3", True),
    }
    assert (tmp_path / "table.txt").read_text().count("no answer") == 2 * 2 * 3  # sets, head frames, routes
    assert [path.name for path in tmp_path.glob("error_cdf*")] == ["error_cdf_light_aflw2000.png"]


def test_faces_that_nobody_finds_have_no_times(
    landmark_eye_alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Labels without a box: where the search finds nothing, there is nothing to be timed."""
    Image.new("RGB", (64, 64)).save(tmp_path / "ID1_(10_-20_0).jpg")
    comparison = compare({"old": landmark_eye_alone}, read_dataset("rendered", tmp_path), ["rendered"])
    assert {(cost.ms, cost.detect_ms) for cost in comparison.costs.values()} == {(None, None)}
    # As rendered people are labelled, and not in the frame of the model's name.
    assert set(comparison.frames.values()) == {"own"}
    (tmp_path / "out").mkdir()
    write_comparison(tmp_path / "out", comparison, [])
    assert (tmp_path / "out" / "table.txt").read_text().count("no answer") == 2 * 3  # head frames, routes
    # The device that was asked for is asked.
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="device 'cuda' was asked for"):
        compare({"old": landmark_eye_alone}, read_dataset("rendered", tmp_path), ["rendered"], device="cuda")


def test_rendered_people_are_compared_in_their_own_frame(trained: Path, tmp_path: Path) -> None:
    """Crops are a data set: labels as they were rendered, boxes, people; no detector is asked."""
    shard = riddle(24, seed=5)
    write_shard(tmp_path, 0, shard)
    data = read_dataset("crops", tmp_path)
    assert [sample.name for sample in data.samples[:2]] == ["00000/00000", "00000/00001"]
    np.testing.assert_allclose(data.rotations, shard.rotations, atol=1e-5)
    np.testing.assert_array_equal(data.samples[7].load(), shard.images[7])
    comparison = compare({"new": trained}, data, ["crops"])
    assert comparison.frames == {"new/image": "own"}
    assert comparison.evaluations["crops"].report["routes"]["new/image"]["n"] == 24


def test_the_own_frame_is_one_constant_rotation_away(photographs: Path, detector: FaceMeshOnnx) -> None:
    sample = read_dataset("aflw2000", photographs).samples[0]
    face = detector.detect(sample.load())[0]
    named, own = (open_routes(SHIPPED, own)["refined"] for own in (False, True))
    assert (named.frame, own.frame) == ("w300lp", "own")
    between = own.answer([face]).rotation[0].T @ named.answer([face]).rotation[0]
    frame = load_model(SHIPPED).frame
    assert tuple(angles_from_rotation(between)) == pytest.approx((frame.yaw, frame.pitch, frame.roll), abs=1e-3)


def test_both_eyes_are_fused_in_their_own_frame_where_that_is_wanted(photographs: Path, detector: FaceMeshOnnx) -> None:
    """The shipped image eye calls the frame of its renders by the name of the labels', the landmark eye does not."""
    sample = read_dataset("aflw2000", photographs).samples[0]
    face = detector.detect(sample.load())[0]
    faces = [face, replace(face, points=None)]
    subject = open_subject(SHIPPED, torch.device("cpu"))
    turns = subject.named_from_own
    assert geodesic_degrees(turns["refined"], turns["image"]) > 1
    named = {name: route(faces) for name, route in (subject.routes | subject.parts).items()}
    own = {name: subject.in_own_frame(name, named).rotation for name in subject.routes}
    # Without landmarks the image eye's answer is the model's, in whichever frame.
    np.testing.assert_array_equal(own["fused"][1], own["image"][1])
    # With them the answer lies between those of both, on the shortest way.
    beside = named[BESIDE_ROUTE].in_own_frame(turns["image"]).rotation
    apart = [float(geodesic_degrees(own["refined"][0], other[0])) for other in (beside, own["fused"])]
    rest = float(geodesic_degrees(own["fused"][0], beside[0]))
    assert apart[1] + rest == pytest.approx(apart[0], abs=1e-6)
    compared = open_routes(SHIPPED, own_frame=True)["fused"].answer(faces).rotation
    # The model itself and its ONNX file agree to a thousandth of a degree.
    assert geodesic_degrees(compared, own["fused"]).max() < 1e-3
    # As users are answered, in the named frame, both ways to join the eyes are one.
    fused = subject.eyes.joined(named["refined"], named[BESIDE_ROUTE], "both").estimates.rotation
    np.testing.assert_array_equal(fused, subject.routes["fused"](faces).rotation)
    # What the eyes say beside each other is no route of its own in a report.
    data = read_dataset("aflw2000", photographs)
    data.samples = data.samples[:1]
    evaluated = on_protocol(subject, data, answers(subject, data, detector), "aflw2000")
    assert list(evaluated.answered.answers) == list(evaluated.report["routes"]) == list(subject.routes)


@pytest.mark.parametrize(
    "config",
    [SMALL, ImageNetworkConfig(name="mobilenetv2", size=64, width=8), ImageNetworkConfig(name="custom_cnn", size=32)],
)
def test_an_onnx_file_counts_as_its_network(config: ImageNetworkConfig, tmp_path: Path) -> None:
    network = network_of(config, 0).eval()
    export_image_eye(ImageEye(network, config.name, HeadFrame(), ((-99.0, 99.0),) * 3), tmp_path / "eye.onnx")
    cost, size = cost_of_onnx(tmp_path / "eye.onnx"), size_of(network)
    # What stands behind the last layer, bins to a rotation, is no layer.
    assert cost.macs == pytest.approx(size.macs, rel=0.01)
    # The two numbers of a batch normalisation may have gone into the convolution before it, or be four.
    assert cost.parameters == pytest.approx(size.parameters, rel=0.15)
    (tmp_path / "cut.onnx").write_bytes((tmp_path / "eye.onnx").read_bytes()[:5000])
    with pytest.raises(ArtifactError, match="damaged or no ONNX file"):
        cost_of_onnx(tmp_path / "cut.onnx")


def test_macs_are_those_of_all_passes_over_a_face(photographs: Path, detector: FaceMeshOnnx) -> None:
    """Passes are counted where they are made: looks in the face, the network's by a hook, crops in the engine."""
    sample = read_dataset("aflw2000", photographs).samples[0]
    face = annotated_face(detector, sample.load(), sample.box)
    assert face is not None
    assert face.looks is not None
    engine = TorchEngine(load_model(SHIPPED))
    assert engine.model.network is not None
    seen: list[int] = []
    engine.model.network.register_forward_hook(lambda _, given, __: seen.append(len(given[0])))
    engine.estimate([face], "network")
    passes = {"exact": 0, "network": sum(seen)}
    engine.estimate([face], "refined")
    passes["refined"] = sum(seen) - passes["network"]
    one = cost_of_layers(engine.model.network, []).macs
    looks = cost_of_onnx(default_folder() / LANDMARKS).macs
    crops = len(open_image_engine(SHIPPED).crops)
    image = cost_of_onnx(SHIPPED / IMAGE_EYE_FILE).macs
    expected = {name: (1 + len(face.looks)) * looks + count * one for name, count in passes.items()}
    expected |= {"image": crops * image, "fused": expected["refined"] + FEW * image}
    assert {name: route.cost.macs for name, route in open_routes(SHIPPED).items()} == expected


def test_images_are_chosen_by_name_or_by_lot(photographs: Path) -> None:
    data = read_dataset("aflw2000", photographs)
    names = [sample.name for sample in data.samples]
    assert [sample.name for sample in chosen_images(data, [f"{names[3]}.jpg", names[0]], 12, 0)] == [names[3], names[0]]
    assert len(chosen_images(data, [], 12, 0)) == 6
    drawn = [[sample.name for sample in chosen_images(data, [], 3, seed)] for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    many = [sample.name for sample in chosen_images(data, [], 5, 1)]
    assert many == [name for name in names if name in many]
    with pytest.raises(ValueError, match=r"labelled faces .* nobody \(a name there"):
        chosen_images(data, ["nobody"], 12, 0)
    with pytest.raises(ValueError, match=r"expected a seed of 0 or more, .* received -1"):
        chosen_images(data, [], 12, -1)


def test_models_have_names_that_tell_them_apart(tmp_path: Path) -> None:
    folders = [tmp_path / "a" / "model", tmp_path / "b" / "model", tmp_path / "a" / "image_network"]
    assert list(named(folders)) == ["a", "b", "a/image_network"]
    with pytest.raises(ValueError, match="is named twice"):
        named([folders[0], folders[0]])
    assert list(named([Path("b/x"), Path("/q/a/x"), Path("a/x")])) == ["x", "a/x", str(Path("a/x").resolve())]


def test_the_command_says_what_is_wrong_before_it_works(
    photographs: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*changes: str) -> int:
        options = ["--models", str(trained), "--dataset", "aflw2000", "--root", str(photographs)]
        return guarded(work, parser().parse_args([*options, "--output", str(tmp_path / "out"), *changes]))

    assert run("--images", sorted(photographs.glob("*.jpg"))[0].name) == 0
    assert (tmp_path / "out" / "poses_axes.jpg").is_file()
    assert f"{trained.parent.name}/image" in capsys.readouterr().out
    # Only faces that are compared are drawn.
    names = [sample.name for sample in read_dataset("aflw2000", photographs).samples]
    (tmp_path / "part.txt").write_text("\n".join(names[:2]))
    assert run("--lists", str(tmp_path / "part.txt")) == 0
    with Image.open(tmp_path / "out" / "poses_axes.jpg") as two:
        assert two.height > 100
    part = ("--lists", str(tmp_path / "part.txt"))
    for changes, text in (
        ((*part, "--images", names[3]), f"not among the labelled faces of {photographs} that are compared: {names[3]}"),
        (("--models", str(tmp_path)), "expected a model folder"),
        (("--output", str(photographs / "out")), "lies in the data set"),
        (("--protocols", "biwi"), "protocol 'biwi' is not one of aflw2000"),
        (("--seed", "-1"), "expected a seed of 0 or more, by which images are drawn; received -1"),
        (("--images", "nobody"), "not among the labelled faces of"),
    ):
        assert run(*changes) == 1
        assert text in capsys.readouterr().err


def test_the_marks_of_more_than_ten_routes_differ(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    row = {
        "n": 1,
        "coverage": 1.0,
        "mae": {"mean": 2.0},
        "mae_interval": {"mean": [1.0, 3.0]},
        "mae_all": {"mean": 2.0},
    }
    routes = {f"{model}/{number}": row for model in "abc" for number in range(5)}
    figures: list[Figure] = []
    monkeypatch.setattr(comparison_view, "save_figure", lambda figure, path: figures.append(figure))
    plot_comparison({"all": {"routes": routes}}, dict.fromkeys(routes, 5.0), tmp_path / "comparison.png")
    points = figures[0].axes[1].lines
    assert len({(point.get_color(), point.get_marker()) for point in points}) == len(points) == 15
