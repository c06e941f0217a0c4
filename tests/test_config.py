"""The configuration: one home for every default, and errors that say what to change."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from nlml_hpe.config import AxisConfig, GridConfig
from nlml_hpe.pose_grid import image_stem, parse_image_name
from stages.config import Config, load_config
from stages.yaml_file import ConfigError
from tests.conftest import REPOSITORY


def load(folder: Path, text: str) -> object:
    path = folder / "some.yaml"
    path.write_text(text)
    return load_config(path)


def test_every_shipped_config_reads() -> None:
    configs = sorted((REPOSITORY / "configs").glob("*.yaml"))
    assert configs
    for path in configs:
        load_config(path)


def test_the_default_grid_is_the_papers() -> None:
    assert GridConfig().pose_grid().shape == (11, 9, 7)


@pytest.mark.parametrize("step", [0.1, 0.25, 0.01])
def test_steps_that_names_can_hold_are_read(step: float) -> None:
    axis = AxisConfig(min=-9.5, max=9.5, step=step)
    assert [parse_image_name(image_stem(1, angle, 0, 0))[1][0] for angle in axis.values()] == list(axis.values())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("workdir: w\nrender:\n  sise: 3\n", ["some.yaml, line 3", "'render.sise'", "'render.size'"]),
        ("workdir: w\nrendr: {}\n", ["line 2", "'rendr'", "'render'"]),
        (
            "workdir: w\nimage_trainer:\n  data:\n  - {kind: crops}\n  - kind: crops\n    wheight: 2\n",
            ["line 6", "'image_trainer.data.1.wheight'", "'image_trainer.data.1.weight'"],
        ),
        (
            "workdir: w\nimage_trainer: {validation: [{kind: unlabelled, root: r, pseudo_labels: {modle: m}}]}\n",
            ["line 2", "'image_trainer.validation.0.pseudo_labels.model'"],
        ),
        ("workdir: w\nimage_trainer: {data: [{kind: crops, kind: crops}]}\n", ["data.0.kind", "already set in line 2"]),
        ("workdir: w\nheads: {train: many}\n", ["line 2", "heads.train", "'many'"]),
        ("workdir: w\ngrid:\n  yaw: {min: -50, max: 50, step: 15}\n", ["line 3", "step 15 does not divide", "-50..50"]),
        ("workdir: w\ngrid: {yaw: {min: -10, max: 10, step: 6.6666666666667}}\n", ["-3.333333333", "fewer decimals"]),
        ("workdir: w\ngrid: {yaw: {min: 100.0005, max: 100.0025, step: 0.001}}\n", ["100.0005", "fewer decimals"]),
        ("workdir: w\ngrid: {roll: {min: 0.00001, max: 1.00001, step: 1}}\n", ["1e-05", "fewer decimals"]),
        ("workdir: w\nseed: 1\nseed: 2\n", ["line 3", "'seed'", "line 2"]),
        ("seed: 1\n", ["workdir", "required"]),
        ("- a\n- b\n", ["expected a mapping"]),
        ("a: [\n", ["not valid YAML"]),
        ("workdir: w\nrender: {appearance: {ambient: [0.9, 0.2]}}\n", ["ambient", "low <= high"]),
        ("workdir: w\ngrid: {yaw: {min: -50, max: .inf, step: 10}}\n", ["line 2", "grid.yaw.max", "finite"]),
        ("workdir: w\ngrid: {yaw: {min: -50, max: 50, step: .nan}}\n", ["line 2", "grid.yaw.step", "finite"]),
        ("workdir: w\ngrid: {yaw: {min: -50, max: 50, step: 1.0e-320}}\n", ["grid.yaw.step", "0.001"]),
        (
            "workdir: w\ngrid:\n  yaw: {min: -50, max: 50, step: 0.01}\n  pitch: {min: -50, max: 50, step: 0.01}\n",
            ["line 2", "at most 1,000,000", "greater steps"],
        ),
        ("workdir: w\nencoder: {hidden: [-4, 0]}\n", ["line 2", "encoder.hidden.0", "-4", "encoder.hidden.1"]),
        ("workdir: w\nencoder: {hidden: []}\n", ["encoder.hidden", "at least 1"]),
        ("workdir: w\nencoder: {learning_rate: .nan}\n", ["encoder.learning_rate", "finite"]),
        ("workdir: w\nseed: 99999999999999999999\n", ["line 2", "seed", "2147483647"]),
        (f"workdir: w\nseed: {'9' * 5000}\n", ["not valid YAML", "4300 digits"]),
        (f"workdir: w\nseed: 0x{'f' * 5000}\n", ["line 2", "seed", "2147483647", "a number of 20000 bits"]),
        (f"workdir: w\nheads: [0x{'f' * 5000}]\n", ["line 2", "heads", "a number of 20000 bits"]),
        (f"workdir: w\ngrid: {{0x{'f' * 5000}: 1}}\n", ["line 2", "grid"]),
        ("workdir: w\nseed: 2020-13-45\n", ["not valid YAML", "month"]),
        ("workdir: w\nheads: {train: yes}\n", ["line 2", "train: expected no true or false"]),
        ("workdir: w\nheads: {train: 100001}\n", ["heads.train", "less than 100001"]),
        ("workdir: w\nheads: {looks: {melanin: [1, 0]}}\n", ["melanin", "lightest <= darkest"]),
        ("workdir: w\nheads: {photos: ~nobody.at.all/x}\n", ["heads.photos", "home directory"]),
        ('workdir: "a\\0b"\n', ["workdir", "NUL"]),
        ("workdir: w\nrender: {jpeg_quality: [90, 80]}\n", ["jpeg_quality", "low <= high"]),
        ("workdir: w\nrender: {appearance: {distance_mm: [1, 2]}}\n", ["distance_mm", "300 <= low"]),
        ("workdir: w\nframe: {yaw: 3}\n", ["frame", "another name than 'own'"]),
        ("workdir: w\nheads: &a {looks: *a}\n", ["unknown key 'heads.looks.looks'"]),
        (f"workdir: w\nx: {'[' * 5000}\n", ["nested too deeply"]),
        ("workdir: w\nworkdir_: !!python/object:os.system x\n", ["not valid YAML"]),
        ("workdir: w\nencoder: {hidden: [yes, 3]}\n", ["line 2", "hidden: expected no true or false"]),
        (
            "workdir: w\nheads: {folder: scans}\n",
            ["line 2", "heads.folder is of source ict_facekit or facescape or scan; heads.source is 'photo'"],
        ),
        (
            "workdir: w\nheads: {source: scan, folder: f, photos: p}\n",
            ["heads.photos is of source photo; heads.source is 'scan', which does not look at it"],
        ),
        ("workdir: w\nheads: {looks: {bald: 0.5}}\n", ["heads.looks is of source ict_facekit"]),
        ("workdir: w\nheads: {source: facescape, folder: f, tone_variation: 2}\n", ["heads.tone_variation is of"]),
        ("workdir: w\nscenes: {size: 64, smallest_px: 60}\n", ["no head would count", "0.85 of 64 px"]),
        ("workdir: w\nscenes: {empty: 1}\n", ["scenes.empty", "less than 1"]),
        (
            "workdir: w\nrefinement_trainer: {augmentation: {turn_deg: 5, shift: 0}}\n",
            ["refinement_trainer: augmentation: leave out turn_deg, shift"],
        ),
        (
            "workdir: w\nimage_network: {weights: a.pkl, backbone_weights: b.pth}\n",
            ["line 2", "weights: leave out backbone_weights, which they would replace"],
        ),
        (
            "workdir: w\nimage_network: {backbone_weights: b.pth}\nimage_trainer: {start_share: 0.15}\n",
            ["image_trainer.start_share: expected weights that the training begins with"],
        ),
    ],
)
def test_a_mistake_is_named_with_file_line_and_remedy(tmp_path: Path, text: str, expected: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    for part in expected:
        assert part in str(caught.value)


@pytest.mark.parametrize("form", ["a{0}: &a{0} {{<<: [{1}]}}\n", "a{0}: &a{0} [{1}]\n"])
def test_aliases_that_fill_the_memory_are_refused(tmp_path: Path, form: str) -> None:
    """Each line has ten times what the line before has; PyYAML writes out what is merged."""
    lines = (form.format(number, ", ".join([f"*a{number - 1}"] * 10)) for number in range(1, 12))
    with pytest.raises(ConfigError, match=r"some\.yaml: more than 100000 values, aliases written out"):
        load(tmp_path, "workdir: w\na0: &a0 {x: 1}\n" + "".join(lines))


def test_of_very_many_mistakes_some_are_named(tmp_path: Path) -> None:
    """The nearest valid key was looked for to each: minutes."""
    with pytest.raises(ConfigError, match="and 19980 mistakes more") as caught:
        load(tmp_path, "workdir: w\n" + "".join(f"k{number}: 1\n" for number in range(20_000)))
    assert len(str(caught.value).splitlines()) == 21


def test_a_list_with_a_mistake_is_not_called_too_short(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, "workdir: w\nimage_trainer: {data: [{kind: crops, foo: 1}]}\n")
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"image_trainer\.data: Tuple should have at least 1 item"):
        load(tmp_path, "workdir: w\nimage_trainer: {data: []}\n")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such configuration file"):
        load_config(tmp_path / "none.yaml")


def numbers(section: type[BaseModel], path: str = "") -> Iterator[tuple[str, dict[str, object]]]:
    """JSON schemas of all numbers of a section and those in it, with their paths."""
    schema = section.model_json_schema()

    def walk(node: object, path: str) -> Iterator[tuple[str, dict[str, object]]]:
        if isinstance(node, dict):
            if node.get("type") in ("number", "integer"):
                yield path, node
            for key in ("properties", "$defs"):
                for name, inner in node.get(key, {}).items():
                    yield from walk(inner, f"{path}.{name}")
            for key in ("items", "prefixItems", "anyOf", "allOf"):
                inner = node.get(key, [])
                for part in inner if isinstance(inner, list) else [inner]:
                    yield from walk(part, path)

    yield from walk(schema, path)


# Their validators bound both ends together.
BOUNDED_AS_RANGE = ("blur_px", "noise", "distance_mm", "head_fraction", "ambient")


def test_every_number_has_bounds() -> None:
    found = list(numbers(Config))
    assert len(found) > 50
    for path, schema in found:
        low, high = ({name for name in schema if name.lower().endswith(f"{end}imum")} for end in ("min", "max"))
        assert (low and high) or path.endswith(BOUNDED_AS_RANGE), f"{path}: {schema}"


def test_a_home_folder_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    config = load(tmp_path, "workdir: ~/work\n")
    assert isinstance(config, Config)
    assert config.workdir == tmp_path / "work"
