"""Where tensors live: the name in a configuration, or on a command line, to the device of torch.

A device belongs to the machine, as the number of workers does: it is no part of what an artefact depends on. The
same seed gives the same bytes on one kind of device; another kind rounds differently.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:  # a configuration names a device, and reading one must not import torch
    import torch

DeviceName = Literal["auto", "cpu", "cuda", "mps"]
DEVICES: tuple[DeviceName, ...] = get_args(DeviceName)
DEVICE_HELP = "where the model is computed (default: the first of cuda, mps and cpu that is there)"
"""Of the option ``--device``, whose choices are ``DEVICES``."""


class DeviceError(ValueError):
    """The device that was asked for is unknown or not in this machine."""


def resolve_device(name: str = "auto") -> torch.device:
    """The device of this name, once it is known to be there.

    Parameters
    ----------
    name : {"auto", "cpu", "cuda", "mps"}
        ``auto`` is the first of cuda, mps and cpu that this machine has.

    Returns
    -------
    torch.device
        The device. ``mps`` (Apple) has no float64: what is computed in double precision (the exact inverse, the
        later sweeps of the Tucker decomposition) stays on the CPU there; see `double_device`.

    Raises
    ------
    DeviceError
        For another name, or where this machine or this build of torch lacks the device.

    Examples
    --------
    >>> resolve_device("cpu")
    device(type='cpu')
    """
    import torch

    present = _present()
    if name == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if present[kind]()))
    if name not in present:
        raise DeviceError(f"unknown device {name!r}; expected one of {', '.join(('auto', *present))}")
    if not present[name]():
        raise DeviceError(
            f"device {name!r} was asked for, but torch {torch.__version__} finds none in this machine; "
            "use 'auto' or 'cpu', or install a build of torch for it"
        )
    return torch.device(name)


def double_device(device: torch.device) -> torch.device:
    """Where float64 is computed for work that is done on ``device``: there, but for mps, which has none.

    Parameters
    ----------
    device : torch.device
        The device of the work.

    Returns
    -------
    torch.device
        The same device, or the CPU for mps.

    Examples
    --------
    >>> import torch
    >>> double_device(torch.device("mps"))
    device(type='cpu')
    """
    import torch

    return torch.device("cpu") if device.type == "mps" else device


def _present() -> dict[str, Callable[[], bool]]:
    """By the name of each device, what says whether it is there."""
    import torch

    return {"cpu": lambda: True, "cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available}
