"""The demo's promise: on unseen people, off the grid, both routes stay below three degrees, and error bars hold."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator

import pytest
import yaml

from nlml_hpe.evaluation.faces import ask, landmark_route, rendered_faces
from nlml_hpe.evaluation.metrics import errors
from nlml_hpe.inference.torch_engine import TorchEngine
from nlml_hpe.manifold.tensor import LandmarkTensor
from nlml_hpe.model.folder import load_model
from stages import run_pipeline
from stages.common import Workdir
from stages.config import Config, load_config
from tests.conftest import REPOSITORY


@pytest.fixture(scope="module")
def demo_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Config]:
    """The whole chain as ``make demo`` runs it, in a folder of its own (minutes), which takes 0.3 GB.

    It learns from half of the demo's people, which takes a third less time; the promise must hold all the same.
    """
    folder = tmp_path_factory.mktemp("demo")
    data = yaml.safe_load((REPOSITORY / "configs" / "demo.yaml").read_text())
    path = folder / "demo.yaml"
    heads = {**data["heads"], "train": data["heads"]["train"] // 2}
    path.write_text(yaml.safe_dump({**data, "heads": heads, "workdir": str(folder / "work")}))
    run_pipeline.main(path, None, None, force=False)
    yield load_config(path)
    shutil.rmtree(folder)


@pytest.mark.parametrize("route", ["network", "exact"])
def test_unseen_people_off_the_grid(demo_run: Config, route: str) -> None:
    report = json.loads((demo_run.workdir / "test" / "metrics.json").read_text())["off_grid"]
    assert report["coverage"] >= 0.95
    assert report["routes"][route]["mae"]["mean"] <= 3.0


def test_error_bars_are_calibrated_on_unseen_people(demo_run: Config) -> None:
    """Intervals of one and 1.96 standard deviations hold 68% and 95% of the errors, within a few per cent."""
    work = Workdir(demo_run.workdir)
    engine = TorchEngine(load_model(work.model))
    faces = rendered_faces(LandmarkTensor.open(work.landmarks_validation), engine.point_set)["off_grid"]
    answered = ask(faces, {"exact": landmark_route(engine, "exact")})
    exact, known = answered.answers["exact"], answered.found
    scores = errors(exact.rotation[known], answered.true[known]).angle / exact.sigma[known]
    assert 0.60 <= (scores < 1).mean() <= 0.76
    assert 0.90 <= (scores < 1.96).mean() <= 0.98
