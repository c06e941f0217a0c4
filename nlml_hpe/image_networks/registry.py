"""Image networks by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from nlml_hpe.image_networks.custom_cnn import CustomCNN
from nlml_hpe.image_networks.hopenet import HopeNet
from nlml_hpe.image_networks.mobilenet import MobileNetV2
from nlml_hpe.image_networks.network import ImageNetwork
from nlml_hpe.image_networks.six_d import SixD

NETWORKS: dict[str, Callable[..., ImageNetwork]] = {
    "hopenet": HopeNet,
    "custom_cnn": CustomCNN,
    "mobilenetv2": MobileNetV2,
    "six_d": SixD,
}


def build(name: str, size: int, **settings: object) -> ImageNetwork:
    """A network of this name with random weights.

    Parameters
    ----------
    name : str
        ``hopenet``, ``custom_cnn``, ``mobilenetv2`` or ``six_d``.
    size : int
        Pixels on a side of a crop.
    **settings
        Of the network's own: ``alpha`` of the first two; ``answer`` and ``width``; ``backbone`` and ``width``.

    Raises
    ------
    ValueError
        For an unknown name, and for a setting that this network does not have.

    Returns
    -------
    ImageNetwork
        On the CPU, its weights drawn from torch's generator.

    Examples
    --------
    >>> build("mobilenetv2", 64, answer="angles").size
    64
    """
    if name not in NETWORKS:
        raise ValueError(f"unknown image network {name!r}; expected one of {sorted(NETWORKS)}")
    known = set(inspect.signature(NETWORKS[name]).parameters) - {"size"}
    if unknown := sorted(settings.keys() - known):
        raise ValueError(f"{name} has no setting {', '.join(unknown)}; it has {', '.join(sorted(known))}")
    return NETWORKS[name](size=size, **settings)
