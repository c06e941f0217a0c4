"""One experiment: every section in one file, the pose grid written once.

An unknown key is an error that names the key, the nearest valid one, the file and the line.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from nlml_hpe.config import (
    AngleHeadsConfig,
    EncoderConfig,
    EvaluationConfig,
    FrameConfig,
    GridConfig,
    LandmarksConfig,
    Section,
    TrainingConfig,
    TuckerConfig,
    UserPath,
)
from nlml_hpe.device import DeviceName
from nlml_hpe.head_network.config import HeadTrainerConfig, RefinementTrainerConfig
from nlml_hpe.image_networks.config import (
    ImageModelConfig,
    ImageNetworkConfig,
    ImageQuantizerConfig,
    ImageTrainerConfig,
)
from nlml_hpe.threads import usable_cores
from renderer.config import CropsConfig, HeadsConfig, RenderConfig, ScenesConfig, SpritesConfig
from renderer.people import People
from stages.yaml_file import read_section


class Config(Section):
    """One experiment. Paths are relative to the working directory."""

    workdir: UserPath
    # The greatest seed that every library behind takes, with room for the numbers that are added to it.
    seed: int = Field(default=0, ge=0, le=2**31 - 1)
    workers: int | None = Field(default=None, ge=1, le=4096, description="processes; without it one per CPU core")
    cluster: str | None = Field(default=None, description="tcp://HOST:PORT of a Dask scheduler in place of workers")
    device: DeviceName = Field(default="auto", description="where torch computes; auto: cuda, mps or cpu, as there is")
    grid: GridConfig = GridConfig()
    heads: HeadsConfig = HeadsConfig()
    render: RenderConfig = RenderConfig()
    crops: CropsConfig = CropsConfig()
    landmarks: LandmarksConfig = LandmarksConfig()
    tucker: TuckerConfig = TuckerConfig()
    encoder: EncoderConfig = EncoderConfig()
    angle_heads: AngleHeadsConfig = AngleHeadsConfig()
    image_network: ImageNetworkConfig = ImageNetworkConfig()
    image_trainer: ImageTrainerConfig = ImageTrainerConfig()
    image_quantizer: ImageQuantizerConfig = ImageQuantizerConfig()
    image_model: ImageModelConfig = ImageModelConfig()
    sprites: SpritesConfig = SpritesConfig()
    scenes: ScenesConfig = ScenesConfig()
    head_trainer: HeadTrainerConfig = HeadTrainerConfig()
    refinement_trainer: RefinementTrainerConfig = RefinementTrainerConfig()
    frame: FrameConfig = FrameConfig()
    test: EvaluationConfig = EvaluationConfig()

    @model_validator(mode="before")
    @classmethod
    def _device_of_the_machine(cls, data: Any) -> Any:
        """Files that were written when the Tucker section alone knew a device mean the same by it."""
        tucker = data.get("tucker") if isinstance(data, dict) else None
        if not isinstance(tucker, dict) or "device" not in tucker:
            return data
        rest = {key: value for key, value in tucker.items() if key != "device"}
        return {"device": tucker["device"], **data, "tucker": rest}

    @model_validator(mode="after")
    def _begins_with_what_it_keeps(self) -> Config:
        network = self.image_network
        if self.image_trainer.start_share and network.weights is None and network.narrow_weights is None:
            raise ValueError(
                "image_trainer.start_share: expected weights that the training begins with, image_network.weights or "
                "narrow_weights; random ones would be mixed into the trained ones"
            )
        return self

    @property
    def n_workers(self) -> int:
        """Number of worker processes; it never changes a result."""
        return self.workers or usable_cores()

    def people(self) -> People:
        """The people whose images are rendered; what is slow to read of their heads is kept in the workdir."""
        grid = self.grid.pose_grid()
        return People(grid, self.heads, self.render, self.seed, self.workdir / "cache", self.device)

    def sections(self, *names: str) -> dict[str, Any]:
        """JSON form of some sections: what a stage's artefact depends on. Whether curves are drawn changes none."""
        whole = self.model_dump(mode="json")
        return {name: _without_curves(whole[name]) for name in names}


def _without_curves(section: Any) -> Any:
    curves = TrainingConfig.CURVES
    return {**section, curves: False} if isinstance(section, dict) and curves in section else section


def load_config(path: str | Path) -> Config:
    """Read and check a YAML file. Raises ``ConfigError`` with file, line and the nearest valid key."""
    return read_section(Path(path), Config)
