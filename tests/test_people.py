"""People of an experiment: who they are does not depend on how many others there are."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nlml_hpe.pose_grid import image_stem
from renderer.config import FIRST_VALIDATION_PERSON, HeadsConfig, RenderConfig
from renderer.heads import place_in_order
from renderer.heads.photo import embedded_photo
from renderer.people import People
from stages.config import Config


def people(train: int = 3, validation: int = 2, seed: int = 1, **render: object) -> People:
    settings = {"size": 64, "random_poses_train": 4, "random_poses_validation": 5, **render}
    heads = HeadsConfig(train=train, validation=validation)
    config = Config(workdir=Path("unused"), seed=seed, heads=heads, render=RenderConfig.model_validate(settings))
    return config.people()


def test_one_more_person_changes_nobody() -> None:
    few, more = people(), people(train=4, validation=3)
    for split in ("train", "validation"):
        before, after = few.keys(split), more.keys(split)
        assert len(after) == len(before) + 1
        assert before.items() <= after.items()


def test_numbers_of_the_splits_do_not_meet() -> None:
    numbers = people(train=FIRST_VALIDATION_PERSON - 1).numbers()
    assert not set(numbers["train"]) & set(numbers["validation"])


@pytest.mark.parametrize("change", [{"seed": 2}, {"size": 96}, {"random_margin_deg": (9, 9, 9)}])
def test_what_changes_an_image_changes_the_key(change: dict[str, object]) -> None:
    before, after = people(), people(**change)  # type: ignore[arg-type]
    assert not set(before.keys("train").values()) & set(after.keys("train").values())
    # A margin is that of training people alone.
    same = before.keys("validation") == after.keys("validation")
    assert same == ("random_margin_deg" in change)


def test_what_crops_alone_are_dressed_from_changes_no_key() -> None:
    """Landmarks' renders, hours of them, were made anew for it."""
    heads = HeadsConfig(source="ict_facekit", folder=Path("kit"), train=1, validation=1)
    crowds = [
        Config(workdir=Path("unused"), heads=heads.model_copy(update={"makehuman": folder})).people()
        for folder in (None, Path("makehuman"))
    ]
    before, after = ((crowd.keys("train"), crowd.settings()) for crowd in crowds)
    assert before == after


def test_a_grown_crowd_is_rendered_to_the_same_pixels() -> None:
    few, more = people(), people(train=7)
    for person in (1, FIRST_VALIDATION_PERSON):
        for one, other in zip(few.cells(person, [0, 400]), more.cells(person, [0, 400]), strict=True):
            assert (one == other).all()
    own, others = (next(few.cells(person, [400])) for person in (1, FIRST_VALIDATION_PERSON))
    assert np.abs(own.astype(int) - others).mean() > 1


def people_of(photos: Path) -> People:
    """As a worker gets them."""
    heads = HeadsConfig(train=1, validation=1, photos=photos)
    config = Config(workdir=Path("unused"), seed=1, heads=heads, render=RenderConfig(size=64))
    return config.people()


def test_another_photograph_is_seen_by_a_process_that_has_read_the_one_before(tmp_path: Path) -> None:
    """As workers of a cluster have, which outlive a run."""
    photo, drawn = embedded_photo(), []
    for pixels in (photo, 255 - photo // 2):
        Image.fromarray(pixels).save(tmp_path / "me.png")
        drawn.append(next(people_of(tmp_path).cells(1, [0])))
    assert np.abs(drawn[0].astype(int) - drawn[1]).mean() > 5


def test_people_speak_of_the_photographs_that_they_found(tmp_path: Path) -> None:
    """What a worker reads by and what the manifest says at the end of a run are one digest."""
    Image.fromarray(embedded_photo()).save(tmp_path / "me.png")
    crowd = people_of(tmp_path)
    found = crowd.inputs()
    (tmp_path / "me.png").write_bytes(b"")
    assert crowd.inputs() == pickle.loads(pickle.dumps(crowd)).inputs() == found
    assert people_of(tmp_path).inputs() != found


def test_what_a_system_leaves_beside_photographs_is_no_change_of_them(tmp_path: Path) -> None:
    """A window that showed the folder had all people rendered anew, and a copy from a Mac ended the run."""
    Image.fromarray(embedded_photo()).save(tmp_path / "me.png")
    found, keys = people_of(tmp_path).inputs(), people_of(tmp_path).keys("train")
    (tmp_path / ".DS_Store").write_bytes(b"window")
    (tmp_path / "._me.png").write_bytes(b"\0\5\x16\7")
    again = people_of(tmp_path)
    assert (again.inputs(), again.keys("train")) == (found, keys)
    assert again.open_heads().describe()["photos"] == ["me.png"]


def test_heads_in_files_are_taken_from_both_ends() -> None:
    order = ["a", "b", "c", "d", "e"]
    for train in (1, 2, 3):
        crowd = people(train=train).numbers()
        taken = {split: [order[place_in_order(n, 5)] for n in numbers] for split, numbers in crowd.items()}
        assert taken == {"train": order[:train], "validation": ["e", "d"]}


STILL = {"min": 0, "max": 0, "step": 1}
ONE_AXIS = {"yaw": {"min": -1, "max": 1, "step": 1}, "pitch": STILL, "roll": STILL}


def of_one_axis(**render: object) -> People:
    return Config.model_validate({"workdir": "unused", "seed": 1, "grid": ONE_AXIS, "render": render}).people()


@pytest.mark.parametrize("split", ["train", "validation"])
def test_no_random_pose_is_drawn_twice(split: str) -> None:
    """The image of one would overwrite that of the other, whose name is the same."""
    crowd = of_one_axis(random_poses_train=201, random_margin_deg=(1, 0, 0), random_poses_validation=201)
    for person in crowd.numbers()[split][:3]:
        drawn = crowd.off_grid(split, person)
        assert len({image_stem(person, *pose) for _, pose in drawn}) == len(drawn)
        assert all(-2 <= yaw <= 2 for _, (yaw, _, _) in drawn)
        assert all(-1 <= yaw <= 1 for number, (yaw, _, _) in drawn if split == "validation" or number % 2)


def test_poses_that_differ_are_the_first_that_were_drawn() -> None:
    crowd = of_one_axis(random_poses_validation=60)
    person = FIRST_VALIDATION_PERSON
    first = np.round(np.random.default_rng([1, person, 1]).uniform((-1, 0, 0), (1, 0, 0), (60, 3)), 2)
    _, places = np.unique(first[:, 0], return_index=True)
    drawn = {number - 3: pose for number, pose in crowd.off_grid("validation", person)}
    assert len(places) < 60
    assert all(drawn[place] == tuple(first[place]) for place in places)


def test_a_range_without_room_for_the_poses_is_refused() -> None:
    with pytest.raises(ValueError, match=r"holds 201 different poses .* render\.random_poses_validation"):
        of_one_axis(random_poses_validation=202).keys("validation")
    with pytest.raises(ValueError, match=r"holds 201 different poses .* render\.random_poses_train"):
        of_one_axis(random_poses_train=202, random_margin_deg=(90, 0, 0)).keys("train")
