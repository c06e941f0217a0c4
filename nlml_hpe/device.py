"""Where tensors live, and what networks are trained in there: the name in a configuration, or on a command line, to the
device of torch and to a precision that it computes in.

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
_BFLOAT16_CAPABILITY = (8, 0)
"""CUDA's compute capability from which a GPU has instructions for bfloat16 (Ampere)."""
_BFLOAT16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16")
"""Of processors, as ``torch.cpu.get_capabilities`` names them."""


Precision = Literal["float32", "bfloat16"]
PrecisionName = Literal["auto", "float32", "bfloat16"]


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


def resolve_precision(name: PrecisionName, device: torch.device) -> Precision:
    """What the products of a training are computed in.

    Parameters
    ----------
    name : {"auto", "float32", "bfloat16"}
        ``auto`` is bfloat16 where the device has instructions for it, otherwise float32: a processor that has none
        takes many times as long in bfloat16.
    device : torch.device
        Where it is trained.

    Returns
    -------
    {"float32", "bfloat16"}
        The precision. ``auto`` is float32 on mps, and on a processor with a torch that cannot tell (of before 2.10).

    Examples
    --------
    >>> import torch
    >>> resolve_precision("bfloat16", torch.device("cpu")), resolve_precision("auto", torch.device("mps"))
    ('bfloat16', 'float32')
    """
    if name != "auto":
        return name
    return "bfloat16" if _has_bfloat16(device) else "float32"


def _has_bfloat16(device: torch.device) -> bool:
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= _BFLOAT16_CAPABILITY
    if device.type != "cpu" or not hasattr(torch.cpu, "get_capabilities"):
        return False
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in _BFLOAT16_INSTRUCTIONS)


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
