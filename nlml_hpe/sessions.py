"""ONNX files as sessions of onnxruntime: which hardware computes, by short names, and what to do where it is not there.

onnxruntime itself goes on with the CPU, and a warning, where a provider cannot be had. Here that is an error: who asks
for CUDA wants to know that it does not compute.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nlml_hpe.files.atomic import ArtifactError

if TYPE_CHECKING:  # loaded with the first session
    from onnxruntime import InferenceSession

CPU: tuple[str, ...] = ("cpu",)
"""The default: providers by their short names, the first choice first."""
OLDEST = "1.19"
"""The oldest onnxruntime that is known to run our networks, as pyproject.toml has it."""
_CPU_PROVIDER = "CPUExecutionProvider"
_INSTEAD = "pip uninstall onnxruntime, then pip install {} in its place"
_PROVIDERS = {
    "cpu": (_CPU_PROVIDER, "every onnxruntime has it"),
    "cuda": ("CUDAExecutionProvider", _INSTEAD.format("onnxruntime-gpu")),
    "coreml": ("CoreMLExecutionProvider", "onnxruntime has it on macOS"),
    "directml": ("DmlExecutionProvider", _INSTEAD.format("onnxruntime-directml") + " (Windows)"),
}
"""Short names: onnxruntime's own name, and how to get it. Of onnxruntime's distributions only one can be installed."""


class ProviderError(ValueError):
    """The provider that was asked for is unknown, not installed, or does not start; the message says what to do."""


def resolve_providers(names: Sequence[str] | str = CPU) -> list[str]:
    """Providers by onnxruntime's own names, once it is known that the installed onnxruntime has them.

    Parameters
    ----------
    names : sequence of str, or str
        "cpu", "cuda", "coreml", "directml", or a provider's own name such as "OpenVINOExecutionProvider", the first
        choice first. The CPU is always the last one: it computes the layers that no other provider has.

    Returns
    -------
    list of str
        As ``onnxruntime.InferenceSession`` takes them.

    Raises
    ------
    ProviderError
        For a name that is not known, and for a provider that the installed onnxruntime does not have.

    Examples
    --------
    >>> resolve_providers("cpu")
    ['CPUExecutionProvider']
    """
    import onnxruntime

    there = onnxruntime.get_available_providers()
    chosen = []
    for name in [names] if isinstance(names, str) else names:
        provider, remedy = _PROVIDERS.get(str(name).lower(), (str(name), ""))
        if provider in there:
            chosen.append(provider)
            continue
        has = f"onnxruntime {onnxruntime.__version__} has {', '.join(there)}"
        if not remedy:
            raise ProviderError(f"unknown provider {name!r}; expected {', '.join(_PROVIDERS)}; this {has}")
        raise ProviderError(f"provider {name!r} was asked for, but this {has}; {remedy}, or use 'cpu'")
    return list(dict.fromkeys([*chosen, _CPU_PROVIDER]))


def open_session(source: Path | bytes, providers: Sequence[str] | str = CPU, threads: int = 0) -> InferenceSession:
    """A session that runs an ONNX network.

    Parameters
    ----------
    source : Path or bytes
        The file, or what is in it.
    providers : sequence of str, or str
        What computes, as for ``resolve_providers``.
    threads : int
        Processor threads of this session; 0 leaves it to onnxruntime. One where processes run in parallel, and for
        networks so small that threads cost more than they save. Those that have nothing to do sleep.

    Returns
    -------
    onnxruntime.InferenceSession
        Ready to run.

    Raises
    ------
    ProviderError
        As ``resolve_providers``, and where a provider that is installed does not start, for instance for want of
        CUDA's own libraries.
    ArtifactError
        For a file that is missing, is no ONNX network, or has layers that this onnxruntime cannot compute.

    Examples
    --------
    >>> from nlml_hpe.model.format import ONNX_FILE, SHIPPED
    >>> [put.name for put in open_session(SHIPPED / ONNX_FILE).get_inputs()]
    ['landmarks', 'refine']
    """
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as failures

    wanted = resolve_providers(providers)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Otherwise threads wait in a loop, which takes a core from those that compute.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    content, what = (source, "a network") if isinstance(source, bytes) else (str(source), str(source))
    try:
        session = onnxruntime.InferenceSession(content, options, providers=wanted)
    except (failures.Fail, failures.InvalidArgument, failures.InvalidGraph, failures.InvalidProtobuf) as error:
        raise ArtifactError(f"{what} is damaged or no ONNX file ({error})") from error
    except failures.NoSuchFile as error:
        raise ArtifactError(f"{what} is missing") from error
    except (failures.NotImplemented, failures.RuntimeException) as error:
        text = f"{what} cannot be run by onnxruntime {onnxruntime.__version__}; our networks need {OLDEST} or later"
        raise ArtifactError(f"{text} ({error})") from error
    idle = [name for name in wanted if name not in session.get_providers()]
    if idle:
        raise ProviderError(
            f"{', '.join(idle)} is installed but does not start (onnxruntime's own message is above; often a driver or "
            "a library is missing or of another version); mend that, or use 'cpu'"
        )
    return session


def answers(
    session: InferenceSession, inputs: Mapping[str, NDArray[Any]], **shapes: tuple[int, ...]
) -> list[NDArray[np.float64]]:
    """What a network that anybody may have made says, once it is known to be what it should be.

    Parameters
    ----------
    session : onnxruntime.InferenceSession
        Of the network.
    inputs : mapping of str to array
        What it is shown.
    **shapes : tuple of int
        Of each answer that is wanted, by its name.

    Returns
    -------
    list of float64 arrays
        In the order of ``shapes``.

    Raises
    ------
    ArtifactError
        Where it does not have such an answer, or fails while it computes.

    Examples
    --------
    >>> from nlml_hpe.model.format import ONNX_FILE, SHIPPED
    >>> shown = {"landmarks": np.zeros((1, 468, 3), dtype=np.float32), "refine": np.array(False)}
    >>> answers(open_session(SHIPPED / ONNX_FILE), shown, angle=(1, 3))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    nlml_hpe.files.atomic.ArtifactError: the model's network cannot be computed (...Invalid output name:angle...
    """
    from onnxruntime.capi import onnxruntime_pybind11_state as failures

    try:
        values = session.run(list(shapes), inputs)
    except (failures.Fail, failures.InvalidArgument, failures.NotImplemented, failures.RuntimeException) as error:
        raise ArtifactError(f"the model's network cannot be computed ({error}); export it again") from error
    for (name, shape), value in zip(shapes.items(), values, strict=True):
        if not isinstance(value, np.ndarray) or value.shape != shape or value.dtype.kind != "f":
            kind = f"{value.dtype} of shape {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
            raise ArtifactError(
                f"the model's network says {kind} as its {name}; expected floats of shape {shape}; export it again"
            )
    return [value.astype(np.float64) for value in values]
