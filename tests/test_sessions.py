"""What computes an ONNX network: short names, what is not there, and what onnxruntime would pass over in silence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from nlml_hpe.cli import main
from nlml_hpe.detection.detectors import open_detector
from nlml_hpe.files.atomic import ArtifactError
from nlml_hpe.files.images import RgbImage
from nlml_hpe.inference.engines import said_of_itself
from nlml_hpe.inference.estimator import HeadPoseEstimator
from nlml_hpe.model.format import METADATA, ONNX_FILE, SHIPPED
from nlml_hpe.sessions import ProviderError, open_session, resolve_providers

CPU = "CPUExecutionProvider"
THERE = onnxruntime.get_available_providers()
ABSENT = next(
    short
    for short, name in (("coreml", "CoreMLExecutionProvider"), ("cuda", "CUDAExecutionProvider"))
    if name not in THERE
)


@pytest.mark.parametrize("names", [(), "cpu", ["cpu"], ["CPU", "cpu"], [CPU]])
def test_the_cpu_is_there_once_and_last(names: list[str] | str) -> None:
    assert resolve_providers(names) == [CPU]


@pytest.mark.parametrize("name", [name for name in THERE if name != CPU])
def test_another_provider_is_asked_first(name: str) -> None:
    """Each that this onnxruntime has; the CPU's package has one more, which computes nothing by itself."""
    assert resolve_providers([name]) == [name, CPU]
    assert open_session(SHIPPED / ONNX_FILE, [name]).get_providers() == [name, CPU]
    with pytest.raises(ProviderError, match="'face_alignment' has no choice of providers; use 'facemesh_onnx'"):
        open_detector("face_alignment", providers=[name])


def test_a_provider_that_is_not_installed_names_its_package() -> None:
    with pytest.raises(ProviderError, match=rf"'{ABSENT}' was asked for(.|\n)*has {CPU if len(THERE) == 1 else ''}"):
        HeadPoseEstimator(providers=ABSENT)
    with pytest.raises(ProviderError, match=r"onnxruntime has it on macOS|pip install onnxruntime-gpu"):
        open_detector("facemesh_onnx", providers=[ABSENT, "cpu"])


def test_an_unknown_provider_lists_those_that_are_known() -> None:
    with pytest.raises(ProviderError, match=r"unknown provider 'gpu'; expected cpu, cuda, coreml, directml"):
        HeadPoseEstimator(providers=["gpu"])


def test_the_command_line_says_in_one_line_what_is_missing(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "docs/photograph.jpg", "--providers", f"{ABSENT},cpu"]) == 1
    error = capfd.readouterr().err
    assert error.startswith(f"error: provider '{ABSENT}' was asked for")
    assert error.count("\n") == 1


def test_the_cpu_by_name_is_the_default(photo: RgbImage) -> None:
    poses = []
    for providers in (("cpu",), [CPU]):
        with HeadPoseEstimator(providers=providers) as estimator:
            poses.append(estimator.predict(photo)[0].rotation)
    np.testing.assert_array_equal(*poses)


@pytest.mark.parametrize("content", [b"", b"no network", b"\x08\x08"])
def test_what_is_no_network_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "some.onnx").write_bytes(content)
    with pytest.raises(ArtifactError, match="damaged or no ONNX file"):
        open_session(content)
    with pytest.raises(ArtifactError, match=r"some.onnx is damaged or no ONNX file"):
        open_session(tmp_path / "some.onnx")


def test_what_a_file_says_of_itself_may_be_nested_without_end() -> None:
    with pytest.raises(ArtifactError, match="no ONNX model of this project"):
        said_of_itself(Path("some.onnx"), {METADATA: "[" * 100_000})


def test_a_network_that_is_missing_or_of_a_kind_that_nothing_computes_is_refused(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="onnx is an extra")
    with pytest.raises(ArtifactError, match=r"none\.onnx is missing"):
        open_session(tmp_path / "none.onnx")
    puts = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.BFLOAT16, [1]) for name in ("a", "b")]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Add", ["a", "a"], ["b"])], "graph", puts[:1], puts[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)
    with pytest.raises(ArtifactError, match=r"a network cannot be run by onnxruntime \d.*need 1\.\d+ or later.*Add"):
        open_session(model.SerializeToString())
