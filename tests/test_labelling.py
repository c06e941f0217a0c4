"""Photographs that nobody labelled: what is labelled, how sure, what is left out and counted, and what goes on."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from nlml_hpe import training
from nlml_hpe.evaluation.datasets import DatasetError, write_lists
from nlml_hpe.face import Face
from nlml_hpe.files.atomic import ArtifactError
from nlml_hpe.files.images import RgbImage
from nlml_hpe.files.manifests import digest_of_names_and_sizes, read_manifest, write_manifest
from nlml_hpe.image_networks.augment import PLAIN
from nlml_hpe.image_networks.config import LabelledDataConfig, PseudoLabelConfig
from nlml_hpe.image_networks.shards import read_shards, write_shard
from nlml_hpe.inference.engines import DEFAULT_ROUTE
from nlml_hpe.inference.estimator import HeadPoseEstimator
from nlml_hpe.inference.image_engine import open_image_engine
from nlml_hpe.labelling import photographs, sources
from nlml_hpe.labelling.photographs import KIND, CropLabel, FaceLabels, image_files, summary, write_photograph_crops
from nlml_hpe.labelling.pseudo_labels import DISAGREES, NO_FACE, ONE_SIDED, UNSURE, PseudoLabeller, confidence
from nlml_hpe.labelling.sources import Places, open_source
from nlml_hpe.model.components import IMAGE_EYE_FILE, put_component, read_components
from nlml_hpe.model.format import CONFIG_FILE, SHIPPED
from nlml_hpe.rotation import Angles, geodesic_degrees, mirrored, rotation_from_angles
from nlml_hpe.training_error import TrainingError
from nlml_hpe.training_state import write_checkpoint
from renderer.crops import KIND as CROPS
from stages import ImageModelBuilder, ImageTrainer
from stages.common import run_stage
from stages.config import Config, load_config
from tests.conftest import REPOSITORY
from tests.test_image_trainer import riddle

SIDE = 48


@pytest.fixture(scope="module")
def label() -> Iterator[PseudoLabeller]:
    with PseudoLabeller(SHIPPED) as opened:
        yield opened


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory, photo: RgbImage) -> Path:
    """A user's folder: a photograph, its mirror image, one without a face, one cut short, a video, and a note."""
    root = tmp_path_factory.mktemp("mine")
    (root / "holiday").mkdir()
    Image.fromarray(photo).save(root / "a.jpg", quality=95)
    Image.fromarray(np.ascontiguousarray(photo[:, ::-1])).save(root / "holiday" / "b.png")
    Image.new("RGB", (80, 60), (90, 120, 60)).save(root / "meadow.png")
    (root / "cut.jpg").write_bytes((root / "a.jpg").read_bytes()[:3000])
    (root / "note.txt").write_text("no picture")
    video = cv2.VideoWriter(
        str(root / "talk.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (photo.shape[1], photo.shape[0])
    )
    for _ in range(5):
        video.write(np.ascontiguousarray(photo[..., ::-1]))
    video.release()
    return root


def test_a_label_is_what_the_model_says_in_its_own_frame(label: PseudoLabeller, photo: RgbImage) -> None:
    found, reflected = label(photo), label(np.ascontiguousarray(photo[:, ::-1]))
    (one,), (other,) = found.labels, reflected.labels
    with HeadPoseEstimator() as estimator:
        faces = estimator.detect(photo)
        named = estimator.engine.estimate(faces, DEFAULT_ROUTE).rotation[0]
        own = named @ estimator.engine.named_from_own.T
        looks = [estimator.detect(image) for image in (photo, np.ascontiguousarray(photo[:, ::-1]))]
        first, second = (estimator.engine.estimate(look, DEFAULT_ROUTE) for look in looks)
    assert geodesic_degrees(one.rotation, own) < 1.0
    # The mean of a picture's and its mirror image's answers is the same from either side.
    assert geodesic_degrees(one.rotation, mirrored(other.rotation)) < 1e-6
    assert 0.3 < one.confidence == pytest.approx(other.confidence)
    # As sure as the two looks are, on average and of an angle, and less by half of what lies between them.
    back = estimator.engine.named_from_own.T
    apart = geodesic_degrees(first.rotation @ back, mirrored(second.rotation @ back))[0]
    sigmas = [np.degrees(np.sqrt(np.trace(look.covariance[0]) / 3)) for look in (first, second)]
    assert one.confidence == pytest.approx(confidence(np.mean(np.square(sigmas)) + (apart / 2) ** 2))
    left, top, right, bottom = one.box
    assert 0 < left < right < photo.shape[1]
    assert 0 < top < bottom < photo.shape[0]


def test_what_the_looks_do_not_agree_on_has_no_label(photo: RgbImage) -> None:
    with PseudoLabeller(SHIPPED, agreement_deg=1e-6) as strict:
        assert strict(photo) == FaceLabels([], [DISAGREES])
        assert strict(np.zeros((64, 64, 3), np.uint8)) == FaceLabels([], [NO_FACE])
    assert confidence(0) == 1 > confidence(4) > confidence(25) > 0


def test_each_of_two_faces_is_compared_with_itself(label: PseudoLabeller, photo: RgbImage) -> None:
    labels, left_out = label(np.concatenate([photo, photo], axis=1))
    assert (len(labels), left_out) == (2, [])
    assert {one.box[0] < photo.shape[1] for one in labels} == {True, False}


def test_a_face_that_the_mirror_image_does_not_show_has_no_label(
    label: PseudoLabeller, photo: RgbImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = label._faces(photo)
    left, top, right, bottom = found[0].box
    elsewhere = Face(photo, (left + 400, top, right + 400, bottom), found[0].points)
    for reflected in ([], [elsewhere]):
        looks = iter([found, reflected])
        monkeypatch.setattr(label, "_faces", lambda _, looks=looks: next(looks))
        assert label(photo) == FaceLabels([], [ONE_SIDED])


@pytest.mark.parametrize("unknown", [np.nan, np.inf])
def test_a_face_without_error_bars_has_no_label(
    label: PseudoLabeller, photo: RgbImage, monkeypatch: pytest.MonkeyPatch, unknown: float
) -> None:
    ask = label._own_estimates
    monkeypatch.setattr(
        label, "_own_estimates", lambda faces: ask(faces)._replace(covariance=np.full((1, 3, 3), unknown))
    )
    assert label(photo) == FaceLabels([], [UNSURE])


def test_an_image_eye_alone_labels_nothing(tmp_path: Path) -> None:
    """It would agree with itself: it looks at mirror images itself."""
    component = read_components(SHIPPED)["image_eye"]
    shutil.copyfile(SHIPPED / IMAGE_EYE_FILE, tmp_path / IMAGE_EYE_FILE)
    put_component(tmp_path, "image_eye", component.settings)
    with pytest.raises(ArtifactError, match=r"by the landmark eye, which this model does not have; name one that has"):
        PseudoLabeller(tmp_path)


def test_photographs_and_videos_become_crops_and_the_rest_is_counted(
    label: PseudoLabeller, places: Path, tmp_path: Path
) -> None:
    files = image_files(places, label, every=2)
    assert [file.name for file in files] == ["a", "cut", "holiday/b", "meadow", "talk.avi"]
    folder = write_photograph_crops(files, tmp_path / "crops", SIDE, {}, {})
    shards = read_shards(folder)
    assert [len(shard) for shard in shards] == [2, 3]  # frames 0, 2 and 4
    facts = read_manifest(folder, KIND)["facts"]
    assert (facts["crops"], facts["files"]) == (5, 5)
    assert facts["left_out"] == {"no face found": 1, "files not readable": 1}
    assert summary(folder).endswith("5 crops of 5 files; left out: files not readable 1, no face found 1")
    confidences = shards[0].confidence
    assert confidences is not None
    assert ((confidences > 0) & (confidences < 1)).all()
    # The box is in the middle of the crop, and the crop is a picture of what lies there.
    left, top, right, bottom = shards[0].boxes[0]
    assert (left + right) / 2 == pytest.approx(SIDE / 2, abs=1e-3)
    assert max(right - left, bottom - top) == pytest.approx(SIDE / 2, abs=1e-3)
    assert shards[0].images[0].std() > 20
    # A file is one person, another than that of any file of another shard.
    assert [shard.people.tolist() for shard in shards] == [[0, 2], [64, 64, 64]]


def test_labelling_that_broke_off_goes_on(places: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second shard is not labelled twice, and nothing that was counted is lost."""
    monkeypatch.setattr(photographs, "_TOGETHER", 1)
    asked: list[int] = []

    def counting(image: RgbImage, break_at: int = 10**9) -> FaceLabels:
        asked.append(len(asked))
        if len(asked) == break_at:
            raise KeyboardInterrupt
        return FaceLabels([CropLabel((10, 10, 40, 50), np.eye(3), 0.5)], ["faces of statues"])

    names = tmp_path / "names.txt"
    write_lists({names: ["a", "cut.jpg", "holiday/b", "meadow"]})
    files = image_files(places, lambda image: counting(image, 3), names=names)
    with pytest.raises(KeyboardInterrupt):
        write_photograph_crops(files, tmp_path / "crops", SIDE, {}, {})
    assert len(asked) == 3
    asked.clear()
    real = photographs.write_manifest
    monkeypatch.setattr(photographs, "write_manifest", _full_disk)
    with pytest.raises(OSError, match="No space"):
        write_photograph_crops(image_files(places, counting, names=names), tmp_path / "crops", SIDE, {}, {})
    monkeypatch.setattr(photographs, "write_manifest", real)
    folder = write_photograph_crops(image_files(places, counting, names=names), tmp_path / "crops", SIDE, {}, {})
    assert len(asked) == 1  # a, an unreadable file, and b were done
    assert not list(folder.glob(".*"))
    assert read_manifest(folder, KIND)["facts"]["left_out"] == {"faces of statues": 3, "files not readable": 1}
    asked.clear()
    write_photograph_crops(image_files(places, counting, names=names), tmp_path / "crops", SIDE, {}, {})
    assert not asked  # it is up to date
    for settings, inputs in (({"other": 1}, {}), ({"other": 1}, {"photos": "digest"})):
        for looked_at in (3, 0):
            asked.clear()
            files = image_files(places, counting, names=names)
            write_photograph_crops(files, tmp_path / "crops", SIDE, settings, inputs)
            assert len(asked) == looked_at


def test_labelling_that_broke_off_between_two_files_of_a_shard_goes_on(
    places: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shard that is there has its counts beside it: without them every later run would end in an error."""
    files = image_files(places / "a.jpg", lambda _: FaceLabels([CropLabel((10, 10, 40, 50), np.eye(3))], ["statues"]))
    for writer in ("write_json", "write_shard"):
        with monkeypatch.context() as context:
            context.setattr(photographs, writer, _full_disk)
            with pytest.raises(OSError, match="No space"):
                write_photograph_crops(files, tmp_path / writer, SIDE, {}, {})
        folder = write_photograph_crops(files, tmp_path / writer, SIDE, {}, {})
        assert read_manifest(folder, KIND)["facts"]["left_out"] == {"statues": 1}


def _full_disk(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_two_runs_do_not_label_into_one_folder(places: Path, tmp_path: Path) -> None:
    def other_run(_: RgbImage) -> FaceLabels:
        with pytest.raises(ArtifactError, match="is being written by another run"):
            write_photograph_crops(files, tmp_path / "crops", SIDE, {}, {})
        return FaceLabels([CropLabel((10, 10, 40, 50), np.eye(3))])

    files = image_files(places / "a.jpg", other_run)
    assert len(read_shards(write_photograph_crops(files, tmp_path / "crops", SIDE, {}, {}))[0]) == 1


def test_of_a_long_video_the_first_frames_are_looked_at_and_the_rest_is_counted(
    places: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(photographs, "MOST_FRAMES", 3)

    def one(image: RgbImage) -> FaceLabels:
        return FaceLabels([CropLabel((10, 10, 40, 50), np.eye(3))])

    for every, looked_at, left_out in ((1, 3, {photographs.TOO_LONG: 1}), (2, 3, {})):
        files = image_files(places / "talk.avi", one, every)
        folder = write_photograph_crops(files, tmp_path / str(every), SIDE, {}, {})
        facts = read_manifest(folder, KIND)["facts"]
        assert (facts["crops"], facts["left_out"]) == (looked_at, left_out)


@pytest.mark.parametrize("change", ["size", "settings", "inputs", "files"])
def test_labelling_that_broke_off_does_not_go_on_with_crops_of_another_one(
    places: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    monkeypatch.setattr(photographs, "_TOGETHER", 1)
    asked: list[float] = []

    def label(image: RgbImage) -> FaceLabels:
        asked.append(image.mean())
        if len(asked) == 2:
            raise KeyboardInterrupt
        return FaceLabels([CropLabel((10, 10, 40, 50), np.eye(3))])

    photos = [file for file in image_files(places, label) if file.name in ("a", "holiday/b", "meadow")]
    with pytest.raises(KeyboardInterrupt):
        write_photograph_crops(photos, tmp_path / "crops", SIDE, {"agreement_deg": 5}, {"photos": "digest"})
    other = photos[::-1] if change == "files" else photos
    settings = {"agreement_deg": 4 if change == "settings" else 5}
    inputs = {"photos": "other" if change == "inputs" else "digest"}
    size = SIDE // 2 if change == "size" else SIDE
    folder = write_photograph_crops(other, tmp_path / "crops", size, settings, inputs)
    assert len(asked) == 2 + 3
    assert [shard.images.shape[1] for shard in read_shards(folder)] == [size] * 3


def test_photographs_that_differ_by_their_suffix_alone_are_two(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.jpeg", "a.png", "a.jpg.png", "b.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)

    def none(image: RgbImage) -> FaceLabels:
        return FaceLabels([])

    def listed(*names: str) -> list[str]:
        (tmp_path / "list.txt").write_text("\n".join(names))
        return [file.name for file in image_files(tmp_path, none, names=tmp_path / "list.txt")]

    everything = ["a.jpeg", "a.jpg", "a.jpg.png", "a.png", "b"]
    assert [file.name for file in image_files(tmp_path, none)] == everything
    assert listed("b.jpg", "a.png", "a.jpg") == ["b", "a.png", "a.jpg"]
    with pytest.raises(
        DatasetError, match=r"write the suffix .* several photographs have: 1 \(a\.jpeg, a\.jpg, a\.png\)"
    ):
        listed("b", "a")
    with pytest.raises(DatasetError, match=r"more than once: 1 \(b\.png\)"):
        listed("b", "b.png")


def test_cameras_write_names_in_capitals_and_a_video_that_does_not_read_is_counted(
    places: Path, tmp_path: Path
) -> None:
    shutil.copyfile(places / "a.jpg", tmp_path / "IMG_1.JPG")
    (tmp_path / "IMG_2.MOV").write_bytes(b"no video")
    files = image_files(tmp_path, lambda _: FaceLabels([CropLabel((10, 10, 40, 50), np.eye(3))]))
    assert [(file.name, file.is_video) for file in files] == [("IMG_1", False), ("IMG_2.MOV", True)]
    facts = read_manifest(write_photograph_crops(files, tmp_path / "crops", SIDE, {}, {}), KIND)["facts"]
    assert (facts["crops"], facts["left_out"]) == (1, {photographs.UNREADABLE: 1})


def test_what_a_system_hides_beside_photographs_is_no_data(tmp_path: Path) -> None:
    """What was thrown away was labelled and trained on; and of hidden files a change was not seen."""
    for name in ("a.jpg", "b/c.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    digest = digest_of_names_and_sizes(tmp_path)
    for name in (".d.jpg", "b/._c.jpg", ".Trash-1000/files/e.jpg", "b/.git/index"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name, "JPEG")
    assert [file.name for file in image_files(tmp_path, lambda _: FaceLabels([]))] == ["a", "b/c"]
    assert digest_of_names_and_sizes(tmp_path) == digest


def test_folders_that_are_links_are_looked_into(tmp_path: Path) -> None:
    """Albums of another disk were left out without a word, and what was added to them changed no digest."""
    root, disk = tmp_path / "root", tmp_path / "disk"
    for place in (root / "a", disk / "below"):
        place.mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(place / "1.jpg")
    (root / "0_again").symlink_to(root / "a")
    (root / "loop").symlink_to(root)
    (root / "nowhere").symlink_to(tmp_path / "nowhere")
    # Of many links to one folder the first by name counts, in whatever order the disk has them.
    for number in (*range(20), "", *range(20, 40)):
        (root / f"album{number}").symlink_to(disk)
    (disk / "back").symlink_to(tmp_path)
    digest = digest_of_names_and_sizes(root)
    assert [file.name for file in image_files(root, lambda _: FaceLabels([]))] == ["a/1", "album/below/1"]
    Image.new("RGB", (8, 8)).save(disk / "2.jpg")
    assert digest_of_names_and_sizes(root) != digest


def test_bad_folders_are_named(label: PseudoLabeller, places: Path, tmp_path: Path) -> None:
    for root, text in ((tmp_path / "none", "no such file or folder"), (tmp_path, "neither photographs nor videos")):
        with pytest.raises(DatasetError, match=text):
            image_files(root, label)
    write_lists({tmp_path / "l.txt": ["a", "nobody"]})
    with pytest.raises(DatasetError, match=r"of 2 names these are not in .*: 1 \(nobody\)"):
        image_files(places, label, names=tmp_path / "l.txt")
    write_lists({tmp_path / "meadow.txt": ["meadow"]})
    with pytest.raises(ArtifactError, match="of 1 files no face has a label; no face found 1"):
        write_photograph_crops(image_files(places, label, names=tmp_path / "meadow.txt"), tmp_path / "x", SIDE, {}, {})
    with pytest.raises(ValidationError, match="belong to data of kind 'unlabelled'"):
        LabelledDataConfig(kind="crops", pseudo_labels=PseudoLabelConfig(every=3))
    with pytest.raises(ValidationError, match="'unlabelled' needs root"):
        LabelledDataConfig(kind="unlabelled")


def test_rendered_images_are_cut_around_the_points_that_a_detector_finds(photo: RgbImage, tmp_path: Path) -> None:
    folder = tmp_path / "renders" / "ID1"
    folder.mkdir(parents=True)
    Image.fromarray(photo).save(folder / "ID1_(10_-20_5).png")
    Image.new("RGB", (64, 64)).save(folder / "ID1_(0_0_0).png")
    part = LabelledDataConfig(kind="rendered", root=tmp_path / "renders")
    source = open_source(part, Places(tmp_path / "none", tmp_path / "kept", SIDE))
    assert read_manifest(tmp_path / "kept", KIND)["facts"]["left_out"] == {NO_FACE: 1}
    label = rotation_from_angles(Angles.from_columns((10, -20, 5)))
    np.testing.assert_allclose(source.rotations(), label[None], atol=1e-6)
    assert source.confidence().tolist() == [1.0]
    assert source.stored(np.array([0])).images.shape == (1, SIDE, SIDE, 3)
    Image.fromarray(photo).save(folder / "ID1_(20_0_0).png")
    assert len(open_source(part, Places(tmp_path / "none", tmp_path / "kept", SIDE)).rotations()) == 2


def test_photographs_are_labelled_as_the_settings_say_and_anew_where_they_say_otherwise(
    places: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Any, ...]] = []

    class Labeller(contextlib.AbstractContextManager[Any]):
        def __init__(self, *settings: Any) -> None:
            asked.append(settings)

        def __call__(self, image: RgbImage) -> FaceLabels:
            asked.append(image.shape[:2])
            return FaceLabels([CropLabel((10, 10, 40, 50), np.eye(3), 0.5)])

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(sources, "PseudoLabeller", Labeller)
    names, model = tmp_path / "names.txt", tmp_path / "model"
    model.mkdir()

    def looked_at(**changes: Any) -> int:
        """How many images; of the list, of all its settings."""
        asked.clear()
        settings = PseudoLabelConfig(every=2, **changes)
        part = LabelledDataConfig(kind="unlabelled", root=places, list=names, pseudo_labels=settings)
        open_source(part, Places(tmp_path, tmp_path / "kept", SIDE))
        assert asked[0] == (settings.model or SHIPPED, settings.agreement_deg)
        return len(asked) - 1

    write_lists({names: ["meadow", "talk.avi"]})
    assert looked_at() == 1 + 3
    assert looked_at() == 0
    assert looked_at(agreement_deg=3.0) == 4
    assert looked_at(model=model) == 4
    (model / CONFIG_FILE).write_text("trained again")
    assert looked_at(model=model) == 4
    names.write_text("meadow\n")
    assert looked_at(model=model) == 1


def test_a_list_chooses_among_rendered_crops(tmp_path: Path) -> None:
    shard = riddle(6, seed=1)
    write_shard(tmp_path / "crops", 0, shard)
    write_lists({tmp_path / "l.txt": ["00000/00004", "00000/00001"]})
    part = LabelledDataConfig(root=tmp_path / "crops", list=tmp_path / "l.txt")
    source = open_source(part, Places(tmp_path, tmp_path / "kept", SIDE))
    np.testing.assert_array_equal(source.rotations(), shard.rotations[[1, 4]])
    np.testing.assert_array_equal(source.stored(np.array([1])).images[0], shard.images[4])


def unlabelled_recipe(places: Path, work: Path) -> Config:
    """configs/image_unlabelled.yaml with easy riddles for its crops, a narrow network and a short training of each."""
    config = load_config(REPOSITORY / "configs" / "image_unlabelled.yaml")
    for name, count in (("crops_train", 96), ("crops_validation", 32)):
        write_shard(work / name, 0, riddle(count, seed=count))
        write_manifest(work / name, CROPS, {}, {})
    crops, photos = config.image_trainer.data
    held_out = config.image_trainer.validation[0]
    data = (
        crops.model_copy(update={"root": work / "crops_train"}),
        photos.model_copy(update={"root": places, "weight": 2.0, "pseudo_labels": PseudoLabelConfig(every=4)}),
    )
    validation = (held_out.model_copy(update={"root": work / "crops_validation"}),)
    # The riddle's colours are the pose, so that none of them may vary.
    short = {"epochs": 3, "crops_per_epoch": None, "batch_size": 16, "stored_px": SIDE, "augmentation": PLAIN}
    trainer = config.image_trainer.model_copy(update={**short, "data": data, "validation": validation})
    network = config.image_network.model_copy(update={"size": 32, "width": 8, "weights": None})
    return config.model_copy(
        update={"workdir": work / "adapted", "workers": 1, "image_network": network, "image_trainer": trainer}
    )


def test_a_forced_training_cuts_photographs_anew(places: Path, tmp_path: Path) -> None:
    """A photograph that was changed and kept its size is not noticed by itself, as the pipeline's page says."""
    root = tmp_path / "photos"
    root.mkdir()
    for name in ("a.jpg", "b.jpg"):
        shutil.copyfile(places / "a.jpg", root / name)
    config = unlabelled_recipe(root, tmp_path)
    run_stage(ImageTrainer.STAGE, config)
    kept = config.workdir / "photographs_training_1"
    assert len(read_shards(kept)[0]) == 2
    meadow = (places / "meadow.png").read_bytes()
    (root / "a.jpg").write_bytes(meadow + bytes((root / "a.jpg").stat().st_size - len(meadow)))
    run_stage(ImageTrainer.STAGE, config)
    assert len(read_shards(kept)[0]) == 2
    run_stage(ImageTrainer.STAGE, config, force=True)
    assert len(read_shards(kept)[0]) == 1


def test_crops_of_two_sizes_are_refused_before_photographs_are_looked_at(places: Path, tmp_path: Path) -> None:
    config = unlabelled_recipe(places, tmp_path)
    trainer = config.image_trainer.model_copy(update={"stored_px": 2 * SIDE})
    with pytest.raises(TrainingError, match=rf"crops_train {SIDE} px, {re.escape(str(places))} {2 * SIDE} px;"):
        ImageTrainer.main(config.model_copy(update={"image_trainer": trainer}))
    assert not (config.workdir / "photographs_training_1").exists()


def of_crops_alone(config: Config, workdir: Path) -> Config:
    """The training whose weights the recipe begins with."""
    trainer = config.image_trainer.model_copy(update={"data": config.image_trainer.data[:1]})
    return config.model_copy(update={"workdir": workdir, "image_trainer": trainer})


def test_the_recipe_for_unlabelled_photographs_goes_on_from_a_network_and_exports(
    places: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It begins with the weights of a training on crops, is killed after an epoch, and ends as a model."""
    config = unlabelled_recipe(places, tmp_path)
    weights = run_stage(ImageTrainer.STAGE, of_crops_alone(config, tmp_path / "crops_alone")) / ImageTrainer.WEIGHTS
    config = config.model_copy(update={"image_network": config.image_network.model_copy(update={"weights": weights})})
    saved: list[int] = []

    def killed(*state: Any) -> None:
        if saved:
            raise KeyboardInterrupt
        saved.append(1)
        write_checkpoint(*state)

    monkeypatch.setattr(training, "write_checkpoint", killed)
    with pytest.raises(KeyboardInterrupt):
        run_stage(ImageTrainer.STAGE, config)
    monkeypatch.setattr(training, "write_checkpoint", lambda *_: saved.append(1))
    folder = run_stage(ImageTrainer.STAGE, config)
    assert len(saved) == 3  # the first epoch is not trained again
    first, adapted = (json.loads((one / "history.json").read_text()) for one in (weights.parent, folder))
    # It goes on where the other training ended, and the loss falls on.
    assert adapted["train"][-1] < first["train"][0]
    assert adapted["validation"][0] < first["validation"][0]
    assert read_manifest(folder, ImageTrainer.KIND)["facts"]["crops"]["training"] == 96 + 4
    assert (config.workdir / "photographs_training_1" / "manifest.json").is_file()
    assert ImageTrainer.STAGE.plan(config).is_current()
    engine = open_image_engine(run_stage(ImageModelBuilder.STAGE, config))
    shard = read_shards(tmp_path / "crops_validation")[0]
    faces = [Face(image, tuple(box)) for image, box in zip(shard.images, shard.boxes.tolist(), strict=True)]
    found = engine.estimate(faces).rotation
    assert geodesic_degrees(found[0], found).max() > 5
    Image.new("RGB", (9, 9)).save(places / "new.png")
    assert not ImageTrainer.STAGE.plan(config).is_current()
    (places / "new.png").unlink()
