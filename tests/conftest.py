"""Fixtures: the shared real data, the real detector, and real runs of the pipeline, tiny and full."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from filelock import FileLock
from hypothesis import settings

from benchmarks.common import development_data
from nlml_hpe.detection.detectors import FaceMeshOnnx
from nlml_hpe.detection.facemesh import FaceMeshNetworks
from nlml_hpe.files.images import RgbImage
from nlml_hpe.model.components import put_component, require_component
from nlml_hpe.model.format import SHIPPED
from renderer.config import HeadsConfig
from renderer.heads.ict_kit import LANDMARKS, NEUTRAL, Kit
from renderer.heads.photo import PhotoHeads, embedded_photo
from renderer.mesh import Mesh
from stages import run_pipeline
from stages.config import Config, load_config

REPOSITORY = Path(__file__).parent.parent

# Where the tests run in the background of a shell, Ctrl-C is ignored and programs that they start inherit that; some of
# these are sent one.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine is no failure, and a run that fails fails again.
settings.register_profile("project", deadline=None, derandomize=True)
settings.load_profile("project")

TINY = {
    "seed": 3,
    "workers": 2,
    "grid": {
        "yaw": {"min": -30, "max": 30, "step": 20},
        "pitch": {"min": -20, "max": 20, "step": 20},
        "roll": {"min": -10, "max": 10, "step": 10},
    },
    "heads": {"train": 5, "validation": 2},
    "render": {"size": 160, "random_poses_validation": 8},
    "tucker": {"ranks": {"identity": 3}},
    "encoder": {"epochs": 3, "hidden": [32, 16]},
    "angle_heads": {"epochs": 3, "hidden": [16, 8], "samples": 500},
}


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """The random weights of a test, and of the fixtures made for it, are the same in every run."""
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """For networks that are too small to share: on a busy machine threads would wait for each other.

    Of a whole module, so that what its tests share is computed as they compute: threads differ in the last bits.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    folder = development_data()
    if not folder.is_dir():
        pytest.skip(f"the development data is not at {folder} (set NLML_HPE_TEST_DATA)")
    return folder


@pytest.fixture(scope="session")
def kit_of_few(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ICT-FaceKit with two identity modes and few expressions, and its cache beside it, read once."""
    whole, few = shared_data / "ict_facekit" / "FaceXModel", tmp_path_factory.mktemp("kit") / "FaceXModel"
    few.mkdir()
    shapes = ("identity000", "identity001", "jawOpen", "mouthSmile_L", "mouthSmile_R", "browDown_L")
    for name in (NEUTRAL, LANDMARKS, *(f"{shape}.obj" for shape in shapes)):
        shutil.copy(whole / name, few / name)
    Kit.open(few, few.parent / "cache" / "ict_facekit.npz")
    return few


@pytest.fixture(scope="session")
def detector() -> Iterator[FaceMeshOnnx]:
    with FaceMeshOnnx(max_faces=4) as opened:
        yield opened


@pytest.fixture(scope="session")
def networks() -> FaceMeshNetworks:
    return FaceMeshNetworks(threads=1)


@pytest.fixture(scope="session")
def photo() -> RgbImage:
    return embedded_photo()


@pytest.fixture(scope="session")
def head() -> Mesh:
    """A head made of that photograph."""
    return PhotoHeads.open(HeadsConfig(), seed=5).head(1)


def write_config(folder: Path, **changes: object) -> Path:
    """The tiny configuration with its workdir below ``folder``; returns the YAML's path."""
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump({"workdir": str(folder / "work"), **TINY, **changes}))
    return path


def digests(root: Path) -> dict[str, bytes]:
    """Every artefact file below ``root`` with its bytes; locks are no artefacts."""
    return {
        str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file() and p.suffix != ".lock"
    }


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """The whole chain, run undisturbed on a tiny grid, to be read alone: all processes that test share it."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "tiny"
    folder.mkdir(exist_ok=True)
    # The first to come makes it; for the others all is up to date.
    with FileLock(folder / "making.lock"):
        path = write_config(folder)
        run_pipeline.main(path, None, None, force=False)
    return load_config(path)


@pytest.fixture(scope="session")
def landmark_eye_alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped model without its image eye and their calibration."""
    folder = tmp_path_factory.mktemp("landmark_eye")
    component = require_component(SHIPPED, "landmark_eye")
    for name in component.sha256:
        shutil.copyfile(SHIPPED / name, folder / name)
    put_component(folder, "landmark_eye", component.settings)
    return folder
