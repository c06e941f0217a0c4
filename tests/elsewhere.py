"""A device that every machine has, and that no tensor gets to by itself: to prove that code keeps to its inputs'.

Under `elsewhere` tensors of the device ``ELSEWHERE`` say that they are there and refuse to be mixed with tensors of
the CPU, as those of a GPU do. Their numbers lie in the CPU's memory all the same, so that control flow works.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

ELSEWHERE = torch.device("lazy")
"""A device type of torch that needs no hardware and no start-up; nothing else here uses it."""
_TO_NUMBER = torch.ops.aten._local_scalar_dense.default
_COPIES = (torch.ops.aten.copy_.default, torch.ops.aten._to_copy.default)


class _Tensor(torch.Tensor):
    """A tensor that says it is elsewhere, around one of the CPU."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> _Tensor:
        layout = {"strides": inner.stride(), "storage_offset": inner.storage_offset(), "dtype": inner.dtype}
        made = torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, device=ELSEWHERE, requires_grad=inner.requires_grad, **layout
        )
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _apply(operation, args, kwargs or {})


class _Mode(TorchDispatchMode):
    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _apply(operation, args, kwargs or {})


def _apply(operation: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    there = [tensor for tensor in tensors if isinstance(tensor, _Tensor)]
    # A number without dimensions may come from the CPU on real devices, too.
    strangers = [tensor for tensor in tensors if not isinstance(tensor, _Tensor) and tensor.dim()]
    if there and strangers and operation not in _COPIES:
        raise AssertionError(f"{operation} mixes a tensor of its inputs' device with one made on the CPU")
    inside = [tree_map(lambda leaf: leaf.inner if isinstance(leaf, _Tensor) else leaf, part) for part in (args, kwargs)]
    device = kwargs.get("device")
    if device is not None:
        inside[1]["device"] = torch.device("cpu")
    result = operation(*inside[0], **inside[1])
    stays = bool(there) if device is None else torch.device(device) == ELSEWHERE
    if operation is _TO_NUMBER or not stays:
        return result
    # In inference mode a view of a tensor from outside is no inference tensor.
    with torch.inference_mode(False):
        return tree_map(lambda leaf: _Tensor(leaf) if isinstance(leaf, torch.Tensor) else leaf, result)


@contextmanager
def elsewhere() -> Iterator[torch.device]:
    """Within the block the device can be used like any other."""
    with _Mode():
        yield ELSEWHERE
