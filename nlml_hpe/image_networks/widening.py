"""A network with twice the channels of a finished one, which at first answers as that does (Chen et al. 2016, Net2Net).

Every channel is there twice, and what reads both weighs them so that their sum is what it was. The two weights differ
at random, otherwise both copies would learn the same for ever.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from nlml_hpe.image_networks.network import WeightsError
from nlml_hpe.image_networks.weights import read_state

_OF_ITSELF, _OF_ALL = 0.5, 0.3
"""How far the weights of both copies lie from their mean: standard deviations, as shares of the weight itself and of
the layer's own standard deviation."""


def load_widened(network: nn.Module, path: Path, seed: int) -> None:
    """Give a network, in place, the answers of a narrower one.

    Parameters
    ----------
    network : nn.Module
        Each of its layers has as many channels as the narrower one's, or twice as many.
    path : Path
        Weights of the narrower one.
    seed : int
        Of what the two copies of a channel differ by.

    Raises
    ------
    WeightsError
        As ``weights.read_state`` does, and for weights of another network than one of half the width.

    Examples
    --------
    >>> import tempfile
    >>> from safetensors.torch import save_file
    >>> narrow, wide = (nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, 2)) for width in (4, 8))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_file(narrow.state_dict(), Path(folder) / "narrow.safetensors")
    ...     load_widened(wide, Path(folder) / "narrow.safetensors", seed=0)
    >>> inputs = torch.rand(5, 3)
    >>> torch.allclose(narrow(inputs), wide(inputs), atol=1e-5)
    True
    """
    narrow, generator = read_state(path), torch.Generator().manual_seed(seed)
    own = network.state_dict()
    if differing := sorted(own.keys() ^ narrow.keys()):
        raise WeightsError(f"{path}: weights of another network, which differs in {', '.join(differing[:4])}")
    network.load_state_dict({name: _widened(narrow[name], own[name], f"{path}: {name}", generator) for name in own})


def _widened(narrow: Tensor, wide: Tensor, name: str, generator: torch.Generator) -> Tensor:
    """One tensor: copies of its channels, and what reads copies shared out between them."""
    times = [new / old for new, old in zip(wide.shape, narrow.shape, strict=False)]
    if narrow.ndim != wide.ndim or any(each not in (1, 2) for each in times) or any(each != 1 for each in times[2:]):
        raise WeightsError(
            f"{name} is {tuple(narrow.shape)}; expected that of a network of half the width, here {tuple(wide.shape)}"
        )
    if times and times[0] == 2:
        narrow = torch.cat([narrow, narrow])
    if len(times) > 1 and times[1] == 2:
        drawn, other = (torch.randn(narrow.shape, generator=generator) for _ in range(2))
        apart = _OF_ITSELF * narrow * drawn + _OF_ALL * narrow.std() * other
        narrow = torch.cat([narrow / 2 + apart, narrow / 2 - apart], dim=1)
    return narrow
