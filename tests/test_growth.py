"""More people later: those who are there are neither rendered nor detected again, and nothing of them changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nlml_hpe.files.atomic import ArtifactError, read_json, write_json
from nlml_hpe.files.manifests import MANIFEST
from nlml_hpe.manifold import extraction
from nlml_hpe.manifold.tensor import LandmarkTensor
from renderer.config import FIRST_VALIDATION_PERSON
from stages import Landmarks, Render
from stages.common import Workdir, run_stage
from stages.config import Config, load_config
from tests.conftest import write_config

POINT = {"min": 0, "max": 0, "step": 10}
GRID = {"yaw": {"min": -20, "max": 20, "step": 20}, "pitch": POINT, "roll": POINT}
RENDER = {"size": 96, "random_poses_train": 1, "random_poses_validation": 2, "image_format": "png"}


def crowd(folder: Path, train: int, **render: object) -> Config:
    folder.mkdir(exist_ok=True)
    heads = {"train": train, "validation": 1}
    return load_config(write_config(folder, grid=GRID, heads=heads, render={**RENDER, **render}, workers=1))


def images(config: Config) -> dict[str, int]:
    """Every image with the time at which it was written."""
    root = Workdir(config.workdir).renders
    return {str(path.relative_to(root)): path.stat().st_mtime_ns for path in root.rglob("*.png")}


@pytest.fixture
def detected(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many people each pass of detection is given; the real work goes on."""
    counts: list[int] = []
    real: Callable[..., Any] = extraction.run_tasks

    def counted(task: Any, arguments: Any, *rest: Any) -> Any:
        counts.append(len(arguments))
        return real(task, arguments, *rest)

    monkeypatch.setattr(extraction, "run_tasks", counted)
    return counts


def tensor(config: Config, split: str) -> LandmarkTensor:
    return LandmarkTensor.open(config.workdir / f"landmarks_{split}")


@pytest.mark.parametrize("keep_images", [True, False])
def test_one_more_person_costs_one_person(tmp_path: Path, detected: list[int], keep_images: bool) -> None:
    for train in (2, 3):
        config = crowd(tmp_path / "grown", train, keep_images=keep_images)
        before = images(config)
        run_stage(Render.STAGE, config)
        run_stage(Landmarks.STAGE, config)
        assert before.items() <= images(config).items()
    assert len(images(config)) == (3 * 4 + 5 if keep_images else 0)
    # Training and validation people, first and then grown.
    assert detected == [2, 1, 1, 0]
    at_once = crowd(tmp_path / "at once", 3, keep_images=keep_images)
    run_stage(Render.STAGE, at_once)
    run_stage(Landmarks.STAGE, at_once)
    for split in ("train", "validation"):
        one, other = tensor(config, split), tensor(at_once, split)
        assert one.people == other.people
        assert dict(one.keys) == dict(other.keys)
        for name in ("features", "routes", "boxes", "random_features", "random_angles", "random_boxes"):
            assert (np.asarray(getattr(one, name)) == np.asarray(getattr(other, name))).all(), name


def test_people_whom_render_has_not_declared_are_not_drawn(tmp_path: Path) -> None:
    """Without images nothing else says of whom the tensor is: another seed's was taken for that of the renders."""
    config = crowd(tmp_path, 1, keep_images=False)
    run_stage(Render.STAGE, config)
    for other in (config.model_copy(update={"seed": 9}), crowd(tmp_path, 2, keep_images=False)):
        with pytest.raises(ArtifactError, match=r"renders is of other people.*run Render with this configuration"):
            run_stage(Landmarks.STAGE, other)
    assert not (tmp_path / "work" / "landmarks_train").exists()
    run_stage(Landmarks.STAGE, config)
    assert tensor(config, "train").people == (1,)


def test_a_split_of_own_images_that_is_finished_is_not_detected_again_for_the_other(
    tmp_path: Path, detected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered = crowd(tmp_path / "rendered", 2)
    run_stage(Render.STAGE, rendered)
    places = {f"{split}_images": Workdir(rendered.workdir).renders / split for split in Landmarks.SPLITS}
    config = rendered.model_copy(
        update={"workdir": tmp_path / "own", "landmarks": rendered.landmarks.model_copy(update=places)}
    )
    real = Landmarks.plot_misses

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Landmarks, "plot_misses", stopped)
    with pytest.raises(KeyboardInterrupt):
        run_stage(Landmarks.STAGE, config)
    monkeypatch.setattr(Landmarks, "plot_misses", real)
    run_stage(Landmarks.STAGE, config)
    assert detected == [2, 1]
    run_stage(Landmarks.STAGE, config, force=True)
    assert detected == [2, 1, 2, 1]


def test_fewer_people_leave_nothing_behind(tmp_path: Path) -> None:
    run_stage(Render.STAGE, crowd(tmp_path, 2))
    before = images(crowd(tmp_path, 2))
    config = crowd(tmp_path, 1)
    run_stage(Render.STAGE, config)
    root = Workdir(config.workdir).renders
    assert images(config) == {name: time for name, time in before.items() if "/ID2/" not in name}
    assert not (root / "train" / "ID2").exists()
    assert (root / "validation" / f"ID{FIRST_VALIDATION_PERSON}").is_dir()
    run_stage(Landmarks.STAGE, config)
    assert tensor(config, "train").people == (1,)


def test_nothing_outside_of_the_renders_is_removed(tmp_path: Path) -> None:
    """Whatever their manifest names: it is a file that anybody may have changed."""
    run_stage(Render.STAGE, crowd(tmp_path, 1))
    thesis = tmp_path / "home" / "thesis" / "chapter.tex"
    thesis.parent.mkdir(parents=True)
    thesis.write_text("years")
    manifest = Workdir(crowd(tmp_path, 1).workdir).renders / MANIFEST
    written = read_json(manifest)
    files = {**written["files"], "../../home/thesis/chapter.tex": {"bytes": 5, "sha256": "0"}}
    write_json(manifest, {**written, "files": files})
    run_stage(Render.STAGE, crowd(tmp_path, 2))
    assert thesis.read_text() == "years"


def test_renders_may_lie_on_another_disk(tmp_path: Path) -> None:
    """By a link, which stays, be they rendered first, grown or rendered anew."""
    disk, work = tmp_path / "disk" / "renders", Workdir(crowd(tmp_path, 1).workdir)
    work.root.mkdir()
    work.renders.symlink_to(disk)
    for train, force in ((1, False), (2, False), (2, True)):
        run_stage(Render.STAGE, crowd(tmp_path, train), force=force)
        assert work.renders.is_symlink()
        assert len(list(disk.rglob("*.png"))) == train * 4 + 5
    assert (work.root / "renders_sheet.jpg").is_file()
    assert run_stage(Landmarks.STAGE, crowd(tmp_path, 2)).is_dir()


def test_other_settings_and_force_render_anew(tmp_path: Path, detected: list[int]) -> None:
    config = crowd(tmp_path, 1)
    run_stage(Render.STAGE, config)
    run_stage(Landmarks.STAGE, config)
    before = images(config)
    run_stage(Render.STAGE, config, force=True)
    assert not set(before.values()) & set(images(config).values())
    before = images(config)
    other = crowd(tmp_path, 1, size=128)
    run_stage(Render.STAGE, other)
    assert not set(before.values()) & set(images(other).values())
    run_stage(Landmarks.STAGE, other)
    run_stage(Landmarks.STAGE, other, force=True)
    assert detected == [1, 1] * 3
