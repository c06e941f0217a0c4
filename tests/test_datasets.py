"""Data sets in their own layouts, whole and damaged, and protocols on them."""

from __future__ import annotations

import itertools
import random
import re
import shutil
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path, PurePath

import numpy as np
import pytest
from PIL import Image
from scipy.io import loadmat, savemat
from scipy.sparse import csc_matrix

from nlml_hpe.evaluation.datasets import (
    DatasetError,
    chosen_by_list,
    read_dataset,
    read_list,
    recognised_layout,
    split,
    write_lists,
)
from nlml_hpe.evaluation.datasets.matlab import LabelError, read_arrays
from nlml_hpe.evaluation.protocols import PROTOCOLS
from nlml_hpe.files.manifests import digest_of_names_and_sizes
from nlml_hpe.image_networks.config import LabelledDataConfig
from nlml_hpe.image_networks.crop import square_around
from nlml_hpe.image_networks.shards import Shard, write_shard
from nlml_hpe.image_networks.training_data import Photographs
from nlml_hpe.labelling.photographs import FaceLabels, image_files
from nlml_hpe.labelling.sources import Places, open_source
from nlml_hpe.rotation import Angles, rotation_from_angles
from stages.config import Config
from tests.conftest import REPOSITORY


def write_pair(folder: Path, name: str, degrees: tuple[float, float, float], **changes: object) -> None:
    """An image and its label (yaw, pitch, roll) as AFLW2000-3D stores them."""
    folder.mkdir(parents=True, exist_ok=True)
    yaw, pitch, roll = np.radians(degrees)
    label = {"Pose_Para": np.array([[pitch, yaw, roll, 0, 0, 0, 1]]), "pt3d_68": np.ones((3, 68)), **changes}
    savemat(folder / f"{name}.mat", {key: value for key, value in label.items() if value is not None})
    Image.new("RGB", (60, 50)).save(folder / f"{name}.jpg")


def test_labels_become_this_projects_angles(tmp_path: Path) -> None:
    write_pair(tmp_path, "image00002", (10.0, -20.0, 5.0))
    (sample,) = read_dataset("aflw2000", tmp_path).samples
    np.testing.assert_allclose(sample.angles, (10, -20, 5), atol=1e-5)
    assert sample.load().shape == (50, 60, 3)
    assert sample.box is None  # 68 equal points enclose nothing


def test_a_face_whose_box_has_no_size_is_counted_and_named(tmp_path: Path) -> None:
    """It ended the evaluation, whose message did not name the face."""
    boxes = np.array([(2, 2, 6, 6), (6, 2, 2, 6), (2, 2, np.inf, 6), (2, 4, 6, 4)], dtype=np.float32)
    crops = Shard(
        np.zeros((4, 8, 8, 3), np.uint8),
        np.tile(np.eye(3, dtype=np.float32), (4, 1, 1)),
        boxes,
        np.arange(4, dtype=np.int32),
    )
    write_shard(tmp_path, 0, crops)
    data = read_dataset("crops", tmp_path)
    assert [sample.name for sample in data.samples] == ["00000/00000"]
    assert data.left_out == {"box has no size": ["00000/00001", "00000/00002", "00000/00003"]}


def test_labels_that_no_network_can_learn_from_are_left_out_of_a_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Degrees in place of radians were learned as whatever pose is left of them after whole turns."""
    points = np.array([[10.0, 40.0], [10.0, 40.0], [0.0, 0.0]])
    write_pair(tmp_path, "good", (10, 20, -30), pt3d_68=points)
    write_pair(tmp_path, "no_points", (0, 0, 0), pt3d_68=None)
    write_pair(tmp_path, "degrees", (0, 0, 0), pt3d_68=points, Pose_Para=np.array([[-20.0, -10.0, 5.0]]))
    part = LabelledDataConfig(kind="aflw2000", root=tmp_path)
    source = open_source(part, Places(tmp_path, tmp_path, 48))
    assert source.rotations().shape == (1, 3, 3)
    shown = capsys.readouterr().out
    assert "label without a box: 1 (no_points)" in shown
    assert "angle beyond a whole turn, as where degrees stand in place of radians: 1 (degrees)" in shown
    (tmp_path / "good.jpg").unlink()
    with pytest.raises(
        DatasetError, match=r"nothing to learn from; expected labels with the box .* within 360 degrees"
    ):
        open_source(part, Places(tmp_path, tmp_path, 48))


def test_what_cannot_be_used_is_counted_and_named(tmp_path: Path) -> None:
    write_pair(tmp_path, "good", (0, 0, 0))
    write_pair(tmp_path, "no_pose", (0, 0, 0), Pose_Para=None)
    write_pair(tmp_path, "nan", (0, float("nan"), 0))
    write_pair(tmp_path, "no_image", (0, 0, 0))
    (tmp_path / "no_image.jpg").unlink()
    Image.new("RGB", (9, 9)).save(tmp_path / "no_label.jpg")
    Image.new("RGB", (9, 9)).save(tmp_path / "broken.jpg")
    (tmp_path / "broken.mat").write_bytes(b"MATLAB 5.0 MAT-file" + b"\0" * 200)
    data = read_dataset("aflw2000", tmp_path)
    assert [sample.name for sample in data.samples] == ["good"]
    reasons = {reason.split(" (")[0]: names for reason, names in data.left_out.items()}
    assert reasons == {
        "label without Pose_Para": ["no_pose"],
        "angles not finite": ["nan"],
        "label without image": ["no_image"],
        "image without label": ["no_label"],
        "label not readable": ["broken"],
    }
    assert "left out, label without image: 1 (no_image)" in data.summary()


def test_angles_of_ten_thousand_degrees_are_outside_every_protocol(tmp_path: Path) -> None:
    write_pair(tmp_path, "a", (12.0, 3.0, 1.0))
    write_pair(tmp_path, "b", (70.0, 3.0, 1.0))
    write_pair(tmp_path, "c", (10_000.0, 3.0, 1.0))
    angles = read_dataset("aflw2000", tmp_path).angles
    assert PROTOCOLS["aflw2000"].includes(angles).tolist() == [True, True, False]
    assert PROTOCOLS["aflw2000-nlml"].includes(angles).tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("dataset", "pairs", "root", "meant"),
    [
        ("aflw2000", "AFLW2000", ".", "AFLW2000"),
        ("aflw2000", ".", "Code", "."),
        ("300w_lp", "300W_LP/AFW", "300W_LP/AFW", "300W_LP"),
        ("300w_lp", "300W_LP/AFW", ".", "300W_LP"),
    ],
)
def test_a_root_one_level_off_is_said_to_be(tmp_path: Path, dataset: str, pairs: str, root: str, meant: str) -> None:
    write_pair(tmp_path / pairs, "image00002", (0, 0, 0))
    (tmp_path / root).mkdir(exist_ok=True)
    with pytest.raises(DatasetError) as error:
        read_dataset(dataset, tmp_path / root)
    assert str(error.value).endswith(f"did you mean {tmp_path / meant}?")


def test_a_folder_of_another_layout_is_called_so(tmp_path: Path) -> None:
    """The folder above it has the layout that was asked for: nobody knows which was meant."""
    write_pair(tmp_path / "AFLW2000", "image00002", (0, 0, 0))
    with pytest.raises(DatasetError, match=r"this folder is laid out as aflw2000; did you"):
        read_dataset("300w_lp", tmp_path / "AFLW2000")


def test_an_empty_or_missing_root_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"0 labelled faces\n  expected image00002\.jpg"):
        read_dataset("aflw2000", tmp_path)
    with pytest.raises(DatasetError, match="no such folder"):
        read_dataset("biwi", tmp_path / "none")
    with pytest.raises(DatasetError, match="unknown data set"):
        read_dataset("faces", tmp_path)


@pytest.mark.parametrize("ends", ["\n", "\r\n", " \r\n"])
def test_biwi_rotations_are_read_with_any_line_ends(tmp_path: Path, ends: str) -> None:
    """The angles are those that HopeNet's published formulas give for the same file."""
    wanted = Angles(np.array(25.0), np.array(-10.0), np.array(7.0))
    flip = np.diag([1.0, -1.0, -1.0])
    rotation = flip @ rotation_from_angles(wanted) @ flip
    lines = [" ".join(f"{v:.8f}" for v in row) for row in rotation] + ["", "87.1 26.5 951.2"]
    (tmp_path / "01").mkdir()
    Image.new("RGB", (64, 48)).save(tmp_path / "01" / "frame_00003_rgb.png")
    (tmp_path / "01" / "frame_00003_pose.txt").write_bytes(ends.join(lines).encode())
    (sample,) = read_dataset("biwi", tmp_path).samples
    np.testing.assert_allclose(sample.angles, [25, -10, 7], atol=1e-4)
    transposed = rotation.T
    roll = -np.degrees(np.arctan2(transposed[1, 0], transposed[0, 0]))
    yaw = -np.degrees(np.arctan2(-transposed[2, 0], np.hypot(transposed[2, 1], transposed[2, 2])))
    pitch = np.degrees(np.arctan2(transposed[2, 1], transposed[2, 2]))
    np.testing.assert_allclose(sample.angles, [yaw, pitch, roll], atol=1e-4)


def test_fsanet_files_hold_bgr_images_and_angles(tmp_path: Path) -> None:
    images = np.zeros((2, 8, 8, 3), dtype=np.uint8)
    images[..., 0] = 200
    np.savez(tmp_path / "BIWI_test.npz", image=images, pose=np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), img_size=8)
    np.savez(tmp_path / "other.npz", data=np.zeros(3))
    data = read_dataset("fsanet", tmp_path)
    assert [sample.angles for sample in data.samples] == [(1, 2, 3), (4, 5, 6)]
    assert data.samples[0].load()[0, 0].tolist() == [0, 0, 200]
    # They are loose crops: THE crop around the box is all of the image, in training as in an evaluation.
    box = data.samples[0].box
    assert box is not None
    np.testing.assert_allclose(square_around(box), [4, 4, 8])
    part = LabelledDataConfig(kind="fsanet", root=tmp_path / "BIWI_test.npz")
    source = open_source(part, Places(tmp_path, tmp_path, 48))
    assert isinstance(source, Photographs)
    np.testing.assert_allclose(source.boxes, [box, box])
    assert list(data.left_out.values()) == [["other.npz"]]


def test_a_file_that_is_none_of_fsanets_is_not_taken_for_its_folder(tmp_path: Path) -> None:
    """It said "did you mean", and named the folder that the file lies in."""
    np.savez(tmp_path / "a.npz", images=np.zeros((1, 8, 8, 3), dtype=np.uint8))
    with pytest.raises(DatasetError, match=r"the array 'image' is missing") as error:
        read_dataset("fsanet", tmp_path / "a.npz")
    assert "did you mean" not in str(error.value)


def test_rendered_folders_carry_their_angles_in_their_names(tiny_run: Config) -> None:
    data = read_dataset("rendered", tiny_run.workdir / "renders" / "train")
    assert len(data.samples) == 5 * 36
    assert data.samples[0].angles == (-10.0, -20.0, -10.0)


def test_names_have_the_same_slashes_on_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists of names travel between machines, and digests with the data. Paths here show themselves as there."""
    write_pair(tmp_path / "AFW", "a", (0, 0, 0))
    write_pair(tmp_path / "AFW", "b", (0, 0, 0))
    (tmp_path / "AFW" / "b.mat").unlink()
    Image.new("RGB", (9, 9)).save(tmp_path / "AFW" / "ID1_(10_0_-10).jpg")
    (tmp_path / "list.txt").write_text("AFW/a\n")
    digest, plain = digest_of_names_and_sizes(tmp_path), PurePath.__str__
    with monkeypatch.context() as patched:
        patched.setattr(PurePath, "__fspath__", plain)
        patched.setattr(PurePath, "as_posix", plain)
        patched.setattr(PurePath, "__str__", lambda path: plain(path).replace("/", "\\"))
        data, renders = read_dataset("300w_lp", tmp_path), read_dataset("rendered", tmp_path)
        files = image_files(tmp_path, lambda image: FaceLabels((), ()), names=tmp_path / "list.txt")
        same = digest_of_names_and_sizes(tmp_path) == digest
    assert [sample.name for sample in data.samples] == ["AFW/a"]
    assert data.left_out == {"image without label": ["AFW/ID1_(10_0_-10)", "AFW/b"]}
    assert [sample.name for sample in renders.samples] == ["AFW/ID1_(10_0_-10).jpg"]
    assert [file.name for file in files] == ["AFW/a"]
    assert same


def test_the_real_samples_read(shared_data: Path) -> None:
    assert len(read_dataset("aflw2000", shared_data / "aflw2000_dev").samples) == 503
    (sample,) = read_dataset("300w_lp", shared_data / "300w_lp_sample").samples
    np.testing.assert_allclose(sample.angles, (-44.01, -7.58, 3.21), atol=0.01)
    assert len(read_dataset("biwi", shared_data / "biwi_sample").samples) == 5


@pytest.mark.parametrize("compressed", [True, False])
def test_any_damage_of_a_label_is_counted_and_ends_nothing(tmp_path: Path, compressed: bool) -> None:
    """Bytes changed and files cut at random: a label reads, or its face is left out, with the reason.

    Of labels that are not compressed scipy's reader ends the process on some of these.
    """
    write_pair(tmp_path, "whole", (1, 2, 3))
    savemat(tmp_path / "a.mat", {"Pose_Para": np.zeros((1, 7)), "pt3d_68": np.ones((3, 68))}, do_compression=compressed)
    content, rng = (tmp_path / "a.mat").read_bytes(), random.Random(0)
    for number in range(400):
        damaged = bytearray(content)
        for _ in range(rng.randint(1, 4)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        end = rng.choice([len(damaged), rng.randrange(len(damaged))])
        (tmp_path / f"d{number:03d}.mat").write_bytes(damaged[:end])
        (tmp_path / f"d{number:03d}.jpg").touch()
    (tmp_path / "a.mat").unlink()
    data = read_dataset("aflw2000", tmp_path)
    assert len(data.samples) + sum(map(len, data.left_out.values())) == 401
    assert len(data.left_out["label not readable (damaged)"]) > 10
    assert len(data.left_out["label not readable (cut short)"]) > 10
    assert "whole" in [sample.name for sample in data.samples]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (np.array([[1, 2, 3], "x"], dtype=object), "a cell array in place of numbers"),
        (csc_matrix(np.ones((1, 7))), "a sparse array in place of numbers"),
        ("0.1 0.2 0.3", "text in place of numbers"),
        ({"yaw": 1.0}, "a struct in place of numbers"),
        (np.ones((1, 7)) * 1j, "complex numbers"),
    ],
)
def test_a_label_that_holds_no_numbers_is_left_out(tmp_path: Path, value: object, reason: str) -> None:
    write_pair(tmp_path, "good", (0, 0, 0))
    write_pair(tmp_path, "odd", (0, 0, 0), Pose_Para=value)
    data = read_dataset("aflw2000", tmp_path)
    assert data.left_out == {f"label not readable ({reason})": ["odd"]}
    assert [sample.name for sample in data.samples] == ["good"]


def test_a_label_that_unpacks_to_gigabytes_is_refused(tmp_path: Path) -> None:
    savemat(tmp_path / "bomb.mat", {"Pose_Para": np.zeros((1, 3_000_000))}, do_compression=True)
    assert (tmp_path / "bomb.mat").stat().st_size < 100_000
    with pytest.raises(LabelError, match="unpacks to more than"):
        read_arrays(tmp_path / "bomb.mat", ["Pose_Para"])


@pytest.mark.parametrize("name", ["pt3d_68", "pt2d"])
def test_a_face_that_the_border_cuts_has_its_whole_box(tmp_path: Path, name: str) -> None:
    """Points beyond the image are points; AFLW2000-3D marks by an x of -1 what is not seen, in ``pt2d`` alone."""
    points = np.array([[-60.5, 140.0, 20.0, -3.0], [30.0, 200.0, -7.5, -2.0]])
    write_pair(tmp_path, "cut", (0, 0, 0), **{"pt3d_68": None, name: points})
    write_pair(tmp_path, "hidden", (0, 0, 0), pt3d_68=None, pt2d=np.array([[10.0, -1.0, 90.0], [20.0, 452.0, 95.0]]))
    boxes = {sample.name: sample.box for sample in read_dataset("aflw2000", tmp_path).samples}
    assert boxes == {"cut": (-60.5, -7.5, 140.0, 200.0), "hidden": (10.0, 20.0, 90.0, 95.0)}


@pytest.mark.parametrize(("folder", "layout"), [("", "aflw2000"), ("AFW", "300w_lp")])
def test_labels_in_capitals_are_read_and_recognised(tmp_path: Path, folder: str, layout: str) -> None:
    place = tmp_path / folder
    write_pair(place, "a", (0, 0, 0))
    for suffix in (".jpg", ".mat"):
        (place / f"a{suffix}").rename(place / f"a{suffix.upper()}")
    assert recognised_layout(tmp_path) == layout
    assert len(read_dataset(layout, tmp_path).samples) == 1


@pytest.mark.parametrize("name", ["pt3d_68", "pt2d"])
def test_points_that_are_rows_are_no_box(tmp_path: Path, name: str) -> None:
    """Of (68, 2) the first two points were taken for the x and the y of two: a box somewhere in the image."""
    points = np.random.default_rng(0).uniform(10, 90, (68, 2))
    write_pair(tmp_path, "rows", (0, 0, 0), **{"pt3d_68": None, name: points})
    (sample,) = read_dataset("aflw2000", tmp_path).samples
    assert sample.box is None


@pytest.mark.parametrize(("zeros", "count"), [(10**6, 1), (8, 3000)])
def test_a_label_of_countless_elements_is_refused(tmp_path: Path, zeros: int, count: int) -> None:
    """Of a few kilobytes, which took seconds."""
    packed = zlib.compress(bytes(zeros))
    element = struct.pack("<II", 15, len(packed)) + packed
    (tmp_path / "many.mat").write_bytes(b" " * 124 + b"\x00\x01IM" + count * element)
    with pytest.raises(LabelError, match="more than 1000 elements"):
        read_arrays(tmp_path / "many.mat", ["Pose_Para"])


def test_what_a_label_unpacks_to_counts_together(tmp_path: Path) -> None:
    savemat(tmp_path / "one.mat", {"Pose_Para": np.ones((1, 7)), "a": np.zeros((1, 1_500_000))}, do_compression=True)
    assert read_arrays(tmp_path / "one.mat", ["Pose_Para"])["Pose_Para"].shape == (1, 7)
    both = {"Pose_Para": np.ones((1, 7)), "a": np.zeros((1, 1_500_000)), "b": np.zeros((1, 1_500_000))}
    savemat(tmp_path / "two.mat", both, do_compression=True)
    with pytest.raises(LabelError, match="unpacks to more than 16777216 bytes"):
        read_arrays(tmp_path / "two.mat", ["Pose_Para"])


def test_real_labels_read_as_scipy_reads_them(shared_data: Path) -> None:
    wanted = ["Pose_Para", "pt3d_68", "pt2d"]
    for path in sorted((shared_data / "aflw2000_dev").glob("*.mat"))[::10]:
        ours, theirs = read_arrays(path, wanted), loadmat(path, variable_names=wanted)
        assert ours.keys() == {name for name in theirs if not name.startswith("__")}
        for name, values in ours.items():
            np.testing.assert_array_equal(values, theirs[name])


def test_a_file_name_that_no_table_can_hold_is_left_out(tmp_path: Path) -> None:
    write_pair(tmp_path, "good", (0, 0, 0))
    for name in ("bad\udcff", "two\nlines"):
        for suffix in (".jpg", ".mat"):
            shutil.copy(tmp_path / f"good{suffix}", tmp_path / f"{name}{suffix}")
    data = read_dataset("aflw2000", tmp_path)
    assert [sample.name for sample in data.samples] == ["good"]
    assert sorted(data.left_out["file name is not one line of UTF-8 text"]) == ["bad\\xff", "two\\x0alines"]
    data.summary().encode()


def test_folders_and_second_images_are_no_images(tmp_path: Path) -> None:
    write_pair(tmp_path, "a", (0, 0, 0))
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    (tmp_path / "b.jpg").mkdir()
    data = read_dataset("aflw2000", tmp_path)
    assert [sample.name for sample in data.samples] == ["a"]
    assert data.left_out == {"second image of the same name": ["a.png"]}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"1 0 0 0 1 0 0 0 1e200", "not a rotation"),
        (b"1 0 0 0 1 0 0 0 nan", "not a rotation"),
        (b"1 0 0 0 1 0 0 0 -1", "not a rotation"),
        (b"1 0 0 1 1 0 0 0 1", "not a rotation"),
        (b"1 0 0", "cut short"),
        (b"\xff\xfe", "not numbers"),
        (b"", "cut short"),
    ],
)
def test_a_damaged_biwi_label_is_left_out(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "01").mkdir()
    for name in ("frame_00001", "frame_00002"):
        Image.new("RGB", (64, 48)).save(tmp_path / "01" / f"{name}_rgb.png")
        (tmp_path / "01" / f"{name}_pose.txt").write_bytes(b"1 0 0\n0 1 0\n0 0 1\n\n0 0 900\n")
    (tmp_path / "01" / "frame_00002_pose.txt").write_bytes(content)
    data = read_dataset("biwi", tmp_path)
    assert data.left_out == {f"label not readable ({reason})": ["01/frame_00002"]}
    assert len(data.samples) == 1


def test_damaged_fsanet_files_are_left_out(tmp_path: Path) -> None:
    images, pose = np.zeros((2, 8, 8, 3), dtype=np.uint8), np.array([[1.0, 2.0, 3.0], [np.nan, 0, 0]])
    np.savez_compressed(tmp_path / "good.npz", image=images, pose=pose)
    whole = (tmp_path / "good.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[:-100])
    (tmp_path / "flipped.npz").write_bytes(whole[:60] + bytes(b ^ 255 for b in whole[60:120]) + whole[120:])
    np.savez(tmp_path / "text.npz", image=images, pose=np.full((2, 3), "a"))
    np.savez(tmp_path / "grey.npz", image=images[..., :1], pose=pose)
    np.savez(tmp_path / "less.npz", image=images, pose=pose[:1])
    np.savez(tmp_path / "more.npz", image=images, pose=np.zeros((2, 6)))
    data = read_dataset("fsanet", tmp_path)
    assert [sample.name for sample in data.samples] == ["good/000000"]
    assert data.left_out.pop("angles not finite") == ["good/000001"]
    left_out = sorted(itertools.chain(*data.left_out.values()))
    assert left_out == ["cut.npz", "flipped.npz", "grey.npz", "less.npz", "more.npz", "text.npz"]


def test_an_fsanet_header_that_lies_asks_for_no_memory(tmp_path: Path) -> None:
    header = np.lib.format.magic(1, 0)
    text = repr({"descr": "|u1", "fortran_order": False, "shape": (10**9, 1000, 1000, 3)}).encode()
    with zipfile.ZipFile(tmp_path / "lies.npz", "w") as archive:
        archive.writestr("image.npy", header + len(text).to_bytes(2, "little") + text)
        archive.writestr("pose.npy", header + len(text).to_bytes(2, "little") + text)
    with pytest.raises(DatasetError, match="not an FSA-Net file"):
        read_dataset("fsanet", tmp_path)


def datasets_command(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nlml_hpe.evaluation.datasets", *map(str, arguments)]
    return subprocess.run(command, cwd=REPOSITORY, check=False, capture_output=True, text=True)


def test_the_file_list_is_what_other_tools_read(tmp_path: Path) -> None:
    for name in ("image00004", "image00002"):
        write_pair(tmp_path, name, (0, 0, 0))
    done = datasets_command("list", tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "files.txt").read_text() == "image00002\nimage00004\n"
    done = datasets_command("list", tmp_path, "--output", tmp_path / "lists" / "all.txt")
    assert (tmp_path / "lists" / "all.txt").read_text() == "image00002\nimage00004\n"
    failed = datasets_command("list", tmp_path / "none")
    assert failed.returncode == 1
    assert "no such folder" in failed.stderr
    command = [sys.executable, "stages/create_filename_list.py", "--root_dir", str(tmp_path), "--filename", "again.txt"]
    assert subprocess.run(command, cwd=REPOSITORY, check=False, capture_output=True).returncode == 0
    assert (tmp_path / "again.txt").read_text() == "image00002\nimage00004\n"
    assert "protocol aflw2000-nlml: 2 of 2 (|yaw| <= 50" in datasets_command("info", tmp_path).stdout


def test_a_shard_that_is_cut_short_is_said_in_one_line(tmp_path: Path) -> None:
    boxes, rotations = np.tile(np.float32([8, 8, 24, 24]), (8, 1)), np.tile(np.eye(3, dtype=np.float32), (8, 1, 1))
    write_shard(tmp_path, 0, Shard(np.zeros((8, 32, 32, 3), np.uint8), rotations, boxes, np.zeros(8, np.int32)))
    path = tmp_path / "images_00000.npy"
    path.write_bytes(path.read_bytes()[:500])
    done = datasets_command("info", tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith(f"error: {tmp_path}")


def test_a_list_leaves_out_what_its_readers_have_no_bin_for(tmp_path: Path) -> None:
    for name, yaw in (("a", 12.0), ("b", 70.0), ("c", 120.0)):
        write_pair(tmp_path, name, (yaw, 0.0, 0.0))
    done = datasets_command("list", tmp_path)
    assert "left out, label outside of |yaw| <= 99, |pitch| <= 99, |roll| <= 99 degrees: 1 of 3" in done.stdout
    assert (tmp_path / "files.txt").read_text() == "a\nb\n"
    for protocol, names in (("all", "a\nb\nc\n"), ("aflw2000-nlml", "a\n")):
        datasets_command("list", tmp_path, "--protocol", protocol, "--output", tmp_path / "l.txt", "--force")
        assert (tmp_path / "l.txt").read_text() == names
    wrong = datasets_command("list", tmp_path, "--protocol", "biwi")
    assert (wrong.returncode, "expected one of ['aflw2000', 'aflw2000-nlml']" in wrong.stderr) == (1, True)


def test_a_list_replaces_no_file_of_the_user(tmp_path: Path) -> None:
    write_pair(tmp_path, "a", (0, 0, 0))
    (tmp_path / "files.txt").write_text("my thesis\n")
    refused = datasets_command("list", tmp_path)
    assert refused.returncode == 1
    assert "--force replaces it" in refused.stderr
    assert (tmp_path / "files.txt").read_text() == "my thesis\n"
    for name in ("a.jpg", "a.mat", "b.png"):
        with pytest.raises(DatasetError, match="a list is text"):
            write_lists({tmp_path / name: ["a"]}, replace_existing=True)
    assert datasets_command("list", tmp_path, "--force").returncode == 0
    assert (tmp_path / "files.txt").read_text() == "a\n"
    (tmp_path / "two.txt").write_text("mine")
    with pytest.raises(DatasetError, match=r"two\.txt is there already"):
        write_lists({tmp_path / "one.txt": ["a"], tmp_path / "two.txt": ["b"]})
    assert not (tmp_path / "one.txt").exists()  # all are checked before the first is written
    write_lists({tmp_path / "two.txt": ["b"]}, replace_existing=True)
    write_lists({tmp_path / "two.txt": ["b"]})  # what is there already as it would be written


@pytest.mark.parametrize("name", ["a\nb", "a\u2028b", "", " ", "photo\udcff.jpg"])
def test_a_name_that_would_be_read_as_another_is_not_written(tmp_path: Path, name: str) -> None:
    """A line break made two names of one, and an empty name was lost."""
    with pytest.raises(DatasetError, match=r"b\.txt: expected names of one line of UTF-8 text; received 1 \("):
        write_lists({tmp_path / "a.txt": iter(["fine"]), tmp_path / "b.txt": ["fine", name]})
    assert not list(tmp_path.iterdir())


def test_a_split_leaves_no_list_of_another_one_beside_it(tmp_path: Path) -> None:
    """Errors on what stands in that list would be of faces that were learned from."""
    for name in "abcdef":
        write_pair(tmp_path, name, (0, 0, 0))
    assert datasets_command("split", tmp_path, "--train", 0.5, "--validation", 0.3).returncode == 0
    before = {path.name: path.read_text() for path in tmp_path.glob("*.txt")}
    refused = datasets_command("split", tmp_path, "--train", 0.5, "--validation", 0.5, "--force")
    assert (refused.returncode, "test.txt is there already, of another split" in refused.stderr) == (1, True)
    assert {path.name: path.read_text() for path in tmp_path.glob("*.txt")} == before
    (tmp_path / "test.txt").write_text("somebody else's\n")
    assert datasets_command("split", tmp_path, "--train", 0.5, "--validation", 0.5, "--force").returncode == 0


def test_every_command_explains_itself_with_defaults() -> None:
    help_of_split = datasets_command("split", "--help").stdout
    for text in ("default: 0.7", "default: 0.15", "default: 0", "default: ROOT", "photograph"):
        assert text in " ".join(help_of_split.split())
    assert "info" in datasets_command("--help").stdout


@pytest.mark.parametrize("line", ["AFW/a", "AFW/a\t ", "./AFW/a", "AFW/a.jpg", ".\\AFW/a", "AFW\\a.jpg"])
def test_lists_of_other_tools_are_read(tmp_path: Path, line: str) -> None:
    """6DRepNet's begin every name with ./, and on Windows folders end with a backslash."""
    write_pair(tmp_path / "AFW", "a", (0, 0, 0))
    write_pair(tmp_path / "AFW", "b", (0, 0, 0))
    (tmp_path / "files.txt").write_text(f"{line}\n./AFW/b")  # theirs end without a newline
    found = chosen_by_list(read_dataset("300w_lp", tmp_path), tmp_path / "files.txt")
    assert [sample.name for sample in found.samples] == ["AFW/a", "AFW/b"]


def test_a_list_names_again_what_it_was_written_of(tmp_path: Path) -> None:
    """Whatever the names are: with spaces about them, and alike but for a space or a suffix."""
    pairs, rendered = tmp_path / "pairs", tmp_path / "rendered"
    for name in ("a", "a ", " b", "a.jpg"):
        write_pair(pairs, name, (0, 0, 0))
    rendered.mkdir()
    for suffix in ("jpg", "png"):
        Image.new("RGB", (8, 8)).save(rendered / f"ID1_(10_0_0).{suffix}")
    for root, layout in ((pairs, "aflw2000"), (rendered, "rendered")):
        data = read_dataset(layout, root)
        for name in (sample.name for sample in data.samples):
            write_lists({tmp_path / "one.txt": [name]}, replace_existing=True)
            assert [sample.name for sample in chosen_by_list(data, tmp_path / "one.txt").samples] == [name]
        write_lists({tmp_path / "all.txt": [sample.name for sample in data.samples]}, replace_existing=True)
        assert chosen_by_list(data, tmp_path / "all.txt").samples == data.samples
    (tmp_path / "one.txt").write_text("ID1_(10_0_0)\n")
    with pytest.raises(DatasetError, match="write the suffix of names that several photographs have"):
        chosen_by_list(data, tmp_path / "one.txt")


def test_a_split_keeps_photographs_whole(tmp_path: Path) -> None:
    """300W-LP: many crops of a photograph, several faces in one, and a folder of mirror images."""
    for folder in ("AFW", "AFW_Flip"):
        for photograph in (134212, 156474111, 16207923):
            for face, crop in itertools.product((1, 2), (0, 1, 17)):
                write_pair(tmp_path / folder, f"AFW_{photograph}_{face}_{crop}", (0, 0, 0))
    for photograph, crop in itertools.product(range(1, 5), range(3)):
        write_pair(tmp_path / "LFPW", f"LFPW_image_test_{photograph:04d}_{crop}", (0, 0, 0))
    data = read_dataset(recognised_layout(tmp_path), tmp_path)
    assert data.name == "300w_lp"
    assert len({sample.group for sample in data.samples}) == 3 + 4
    parts = split(data, 0.5, 0.25, seed=1)
    assert parts == split(data, 0.5, 0.25, seed=1) != split(data, 0.5, 0.25, seed=2)
    assert sorted(itertools.chain(*parts.values())) == [sample.name for sample in data.samples]
    group = {sample.name: sample.group for sample in data.samples}
    for first, second in itertools.combinations(parts.values(), 2):
        assert {group[name] for name in first}.isdisjoint(group[name] for name in second)


def test_a_split_keeps_fsanets_mirror_images_with_what_they_are_of(tmp_path: Path) -> None:
    """FSA-Net distributes 300W-LP as AFW.npz, AFW_Flip.npz and so on."""
    for name in ("AFW", "AFW_Flip", "HELEN", "HELEN_Flip"):
        np.savez(tmp_path / f"{name}.npz", image=np.zeros((3, 8, 8, 3), np.uint8), pose=np.zeros((3, 3)))
    data = read_dataset("fsanet", tmp_path)
    for seed in range(4):
        parts = split(data, 0.5, 0.5, seed)
        assert sorted({name.split("/")[0].removesuffix("_Flip") for name in names} for names in parts.values()) in (
            [{"AFW"}, {"HELEN"}],
            [{"HELEN"}, {"AFW"}],
        )
    with pytest.raises(DatasetError, match="2 photographs, people or recordings cannot be divided into 3 lists"):
        split(data, 0.7, 0.15, seed=0)


def test_a_split_keeps_people_whole_and_meets_the_shares(tmp_path: Path) -> None:
    for person, frame in itertools.product(range(1, 13), range(4)):
        folder = tmp_path / f"{person:02d}"
        folder.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(folder / f"frame_{frame:05d}_rgb.png")
        (folder / f"frame_{frame:05d}_pose.txt").write_text("1 0 0 0 1 0 0 0 1")
    done = datasets_command("split", tmp_path, "--train", 0.5, "--validation", 0.25, "--seed", 3, "--output", tmp_path)
    assert done.returncode == 0, done.stderr
    parts = {name: read_list(tmp_path / f"{name}.txt") for name in ("train", "validation", "test")}
    assert {name: len(names) for name, names in parts.items()} == {"train": 24, "validation": 12, "test": 12}
    people = [{name.split("/")[0] for name in names} for names in parts.values()]
    assert not people[0] & people[1]
    assert not (people[0] | people[1]) & people[2]
    data = read_dataset("biwi", tmp_path)
    assert [sample.name for sample in chosen_by_list(data, tmp_path / "test.txt").samples] == parts["test"]
    assert [set(split(data, *shares, seed=0)) for shares in ((1, 0), (0, 1))] == [{"train"}, {"validation"}]
    for train, validation in ((0.9, 0.2), (-0.1, 0.5), (float("nan"), 0.1)):
        with pytest.raises(DatasetError, match="expected shares"):
            split(data, train, validation, seed=0)


def test_renders_of_an_identity_stay_together(tmp_path: Path) -> None:
    for folder, person, yaw in itertools.product(("a", "b"), (1, 2), (0, 10)):
        place = tmp_path / folder / f"ID{person}"
        place.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(place / f"ID{person}_({yaw}_0_0).jpg")
    data = read_dataset("rendered", tmp_path)
    parts = split(data, 0.5, 0.5, seed=0)
    assert sorted(map(len, parts.values())) == [4, 4]
    assert {name[2:5] for name in parts["train"]} in ({"ID1"}, {"ID2"})
    with pytest.raises(DatasetError, match="2 photographs, people or recordings cannot be divided into 3"):
        split(data, 0.4, 0.3, seed=0)


def test_a_list_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    for name in ("a", "b", "c", "damaged"):
        write_pair(tmp_path, name, (0, 0, 0), **({"Pose_Para": None} if name == "damaged" else {}))
    data = read_dataset("aflw2000", tmp_path)
    (tmp_path / "l.txt").write_text("\ufeffb.jpg\r\n\r\na\r\n", encoding="utf-8")
    assert [sample.name for sample in chosen_by_list(data, tmp_path / "l.txt").samples] == ["a", "b"]
    for content, message in (
        ("a\nx\ny\n", r"of 3 names these are no labelled faces .* 2 \(x, y\); write the list again"),
        ("a\ndamaged\n", r"1 \(damaged\); 1 of them: label without Pose_Para"),
        ("a\nb\na\n", r"more than once: 1 \(a\)"),
        ("\n\n", "the list is empty"),
    ):
        (tmp_path / "l.txt").write_text(content)
        with pytest.raises(DatasetError, match=message):
            chosen_by_list(data, tmp_path / "l.txt")
    (tmp_path / "l.txt").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(DatasetError, match="UTF-8"):
        read_list(tmp_path / "l.txt")
    with pytest.raises(DatasetError, match="cannot be read"):
        read_list(tmp_path / "none.txt")


def test_labels_of_a_table_become_those_of_aflw2000_as_the_page_says(tmp_path: Path) -> None:
    page = (REPOSITORY / "docs" / "evaluation.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    folder = tmp_path / "my_photographs"
    folder.mkdir()
    Image.new("RGB", (64, 64)).save(folder / "a.jpg")
    table = "image,yaw,pitch,roll,left,top,right,bottom\na.jpg,-30.5,10,2,8,12.5,40,50\n"
    (folder / "labels.csv").write_text(table)
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (sample,) = read_dataset("aflw2000", folder).samples
    assert sample.angles == pytest.approx((-30.5, 10, 2))
    assert sample.box == (8, 12.5, 40, 50)
