"""A network with twice the channels of a finished one, which at first answers as that does (Chen et al. 2016, Net2Net).

Every channel is there twice, and what reads both weighs them so that their sum is what it was. The two weights differ
at random, otherwise both copies would learn the same for ever.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nlml_hpe.image_networks.network import WeightsError

_OF_ITSELF, _OF_ALL = 0.5, 0.3
"""How far the weights of both copies lie from their mean: standard deviations, as shares of the weight itself and of
the layer's own standard deviation."""


def widen(network: nn.Module, narrow: nn.Module, seed: int) -> None:
    """Give a network, in place, the answers of one of half its width.

    Parameters
    ----------
    network, narrow : nn.Module
        Of one kind. Each layer of the first has as many channels as the other's, or twice as many.
    seed : int
        Of what the two copies of a channel differ by.

    Raises
    ------
    WeightsError
        For networks that have other layers than such.

    Examples
    --------
    >>> narrow, wide = (nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, 2)) for width in (4, 8))
    >>> widen(wide, narrow, seed=0)
    >>> inputs = torch.rand(5, 3)
    >>> torch.allclose(narrow(inputs), wide(inputs), atol=1e-5)
    True
    """
    generator = torch.Generator().manual_seed(seed)
    own, given = network.state_dict(), narrow.state_dict()
    if not all(_fits(given.get(name), own.get(name)) for name in own.keys() | given.keys()):
        unlike = [name for name in own if not _fits(given.get(name), own[name])]
        raise WeightsError(
            f"a {type(network).__name__} of this width cannot be widened from one of half: {len(unlike)} layers have "
            f"neither as many channels nor twice as many, such as {', '.join(unlike[:4])}"
        )
    network.load_state_dict({name: _widened(given[name], own[name], generator) for name in own})


def _fits(narrow: Tensor | None, wide: Tensor | None) -> bool:
    """Whether one tensor can be made of the other: the first two axes as long or twice as long, the others alike."""
    if narrow is None or wide is None or narrow.ndim != wide.ndim:
        return False
    pairs = list(zip(narrow.shape, wide.shape, strict=True))
    return all(new in (old, 2 * old) for old, new in pairs[:2]) and all(new == old for old, new in pairs[2:])


def _widened(narrow: Tensor, wide: Tensor, generator: torch.Generator) -> Tensor:
    """One tensor: copies of its channels, and what reads copies shared out between them."""
    if narrow.ndim and len(wide) > len(narrow):
        narrow = torch.cat([narrow, narrow])
    if narrow.ndim > 1 and wide.shape[1] > narrow.shape[1]:
        drawn, other = (torch.randn(narrow.shape, generator=generator) for _ in range(2))
        apart = _OF_ITSELF * narrow * drawn + _OF_ALL * narrow.std() * other
        narrow = torch.cat([narrow / 2 + apart, narrow / 2 - apart], dim=1)
    return narrow
