"""Networks of twice the width: the same answers at first, and copies that do not stay copies."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from nlml_hpe.image_networks.config import ImageNetworkConfig
from nlml_hpe.image_networks.network import WeightsError
from nlml_hpe.image_networks.network_training import initial_network, network_of
from nlml_hpe.image_networks.registry import build
from nlml_hpe.image_networks.widening import widen
from tests.test_image_export import lively

NETWORKS = [
    ImageNetworkConfig(name="six_d", size=32, width=8),
    ImageNetworkConfig(name="mobilenetv2", size=32, width=16),
    ImageNetworkConfig(name="six_d", backbone="resnet50", size=64, width=8),
]


@pytest.mark.parametrize("config", NETWORKS, ids=["residual", "mobilenetv2", "resnet50"])
def test_a_widened_network_answers_as_the_narrow_one(config: ImageNetworkConfig, tmp_path: Path) -> None:
    crops = 255 * torch.rand(6, 3, config.size, config.size, generator=torch.Generator().manual_seed(0))
    narrow = lively(network_of(config, seed=1), crops)
    save_file(narrow.state_dict(), tmp_path / "narrow.safetensors")
    assert config.width is not None
    twice = {"width": 2 * config.width, "narrow_weights": tmp_path / "narrow.safetensors"}
    wide = initial_network(config.model_copy(update=twice), seed=2).eval()
    expected = narrow(crops).detach()
    # Single precision, whose sums are taken in another order.
    torch.testing.assert_close(wide(crops), expected, rtol=0, atol=1e-3 * float(expected.abs().max()))
    wide(crops).square().sum().backward()
    # The squeeze before the heads has as many channels in both.
    kernels = [each for name, each in wide.named_parameters() if each.ndim == 4 and "squeeze" not in name]
    for gradient in (weights.grad for weights in kernels):
        assert gradient is not None
        first, second = gradient.chunk(2)
        assert not torch.allclose(first, second, rtol=1e-3)


@pytest.mark.parametrize("other", [build("six_d", 32, width=16), build("mobilenetv2", 32, width=8)])
def test_weights_of_another_width_or_kind_are_refused(other: torch.nn.Module, tmp_path: Path) -> None:
    save_file(other.state_dict(), tmp_path / "other.safetensors")
    config = ImageNetworkConfig(name="six_d", size=32, width=16, narrow_weights=tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="another network"):
        initial_network(config, seed=0)


def test_what_cannot_be_widened_is_said() -> None:
    with pytest.raises(WeightsError, match=r"HopeNet of this width cannot be widened.*fc_finetune"):
        widen(build("hopenet", 32, width=16), build("hopenet", 32, width=8), seed=0)
    with pytest.raises(ValueError, match="even width"):
        ImageNetworkConfig(width=15, narrow_weights=Path("a.safetensors"))
    with pytest.raises(ValueError, match="leave out weights"):
        ImageNetworkConfig(width=16, narrow_weights=Path("a.safetensors"), weights=Path("b.safetensors"))
