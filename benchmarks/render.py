"""Images a second, where the time goes, and other renderers on the same mesh: ``python benchmarks/render.py``.

Needs ICT-FaceKit (``--heads``, by default the development data) and ``pip install -e '.[train,benchmarks]'``. The
rivals draw the same textured head at the same poses and size in the same process; PyTorch3D is measured where
it is installed. ``--people`` heads go through the fused rendering and detection in all worker processes.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import stages.guard  # noqa: F401

import cv2
import numpy as np
import trimesh
import vtk
from numpy.typing import NDArray
from trimesh.ray.ray_pyembree import RayMeshIntersector
from vtk.util.numpy_support import numpy_to_vtk, numpy_to_vtkIdTypeArray, vtk_to_numpy

from benchmarks.common import development_data, report
from nlml_hpe.detection.detectors import FaceMeshOnnx
from nlml_hpe.manifold.extraction import Extraction
from nlml_hpe.manifold.tensor import LandmarkTensor
from nlml_hpe.rotation import Angles, rotation_from_angles
from renderer.appearance import Scene, draw_scene, expose
from renderer.camera import Camera
from renderer.drawing import HEAD_EXTENT_MM
from renderer.mesh import Mesh, vertex_normals
from renderer.rasterizers import RasterizerError, get_rasterizer
from renderer.shading import shade
from stages import Landmarks, Render
from stages.common import run_stage
from stages.config import Config, load_config

# Without a screen VTK would look for an X server first.
os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")
View = tuple[NDArray[np.float32], Camera]
_REPEATS = 3


def main(config: Config, n_views: int) -> None:
    """Measure the rivals, the shares of one image's time, and the whole chain."""
    mesh = config.people().open_heads().head(1)
    rng = np.random.default_rng(0)
    scenes = [draw_scene(config.render.appearance, config.render.size, rng) for _ in range(n_views)]
    poses = [pose for _, pose in config.people().off_grid("validation", 1)[:n_views]]
    turns = [rotation_from_angles(Angles.from_columns(pose)).astype(np.float32) for pose in poses]
    cameras = [Camera.framing(config.render.size, HEAD_EXTENT_MM, s.fraction, s.distance, s.shift) for s in scenes]
    views = [(camera.view(mesh.vertices, turn), camera) for camera, turn in zip(cameras, turns, strict=True)]
    rivals(config, mesh, views)
    shares(config, mesh, views, turns, scenes)
    chain(config)


def rivals(config: Config, mesh: Mesh, views: Sequence[View]) -> None:
    """Milliseconds a view of every renderer, and how well its silhouette agrees with ours."""
    size = config.render.size
    drawers: dict[str, Callable[[View], NDArray[np.bool_]]] = {
        "numba z-buffer, all that is needed to shade (ours)": partial(_ours, mesh, size, "numba_zbuffer"),
        "trimesh + Embree, face per pixel only": partial(_embree, *_embree_scene(mesh), size),
        "VTK, OpenGL in software, textured image": partial(_vtk, _vtk_scene(mesh, size), size),
    }
    try:
        get_rasterizer("pytorch3d")
        drawers["PyTorch3D on this CPU (2 views)"] = partial(_ours, mesh, size, "pytorch3d")
    except RasterizerError as error:
        print(f"left out: {error}")
    rows, own_masks, own_ms = [], None, None
    for name, draw in drawers.items():
        some = views[:2] if name.startswith("PyTorch3D") else views
        masks = [draw(view) for view in some]
        ms = statistics.median(_milliseconds(draw, view) for view in some for _ in range(_REPEATS))
        own_masks, own_ms = own_masks or masks, own_ms or ms
        overlap = [float((a & b).sum() / (a | b).sum()) for a, b in zip(masks, own_masks, strict=False)]
        rows.append({"renderer": name, "ms a view": ms, "over ours": ms / own_ms, "silhouette IoU": min(overlap)})
    head = f"{len(mesh.vertices)} vertices and {len(mesh.faces)} faces"
    note = f"One process; head of {head}, {size} px, {len(views)} views; medians."
    report("render_rivals", "Renderers on one head", rows, [note])


def _milliseconds(work: Callable[..., Any], *arguments: Any) -> float:
    start = time.perf_counter()
    work(*arguments)
    return (time.perf_counter() - start) * 1e3


def _ours(mesh: Mesh, size: int, rasterizer: str, view: View) -> NDArray[np.bool_]:
    return get_rasterizer(rasterizer)(view[0], mesh.faces, view[1], (size, size)).pix_to_face >= 0


def _embree_scene(mesh: Mesh) -> tuple[RayMeshIntersector, NDArray[np.float64]]:
    """The tree of the head's own frame, built once: rays are turned instead of the head."""
    made = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    return RayMeshIntersector(made), mesh.vertices.astype(np.float64)


def _embree(intersector: RayMeshIntersector, own: NDArray[np.float64], size: int, view: View) -> NDArray[np.bool_]:
    points, camera = view
    # The rigid motion from the head's frame to the camera's, from four of the points themselves.
    centred = [p[::500].astype(np.float64) - p[::500].mean(axis=0, dtype=np.float64) for p in (own, points)]
    left, _, right = np.linalg.svd(centred[1].T @ centred[0])
    turn = left @ right
    origin = (own[0] @ turn.T - points[0].astype(np.float64)) @ turn
    column, row = np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5)
    rays = np.stack([column - camera.centre[0], camera.centre[1] - row, np.full_like(row, -camera.focal)], axis=-1)
    turned = rays.reshape(-1, 3) @ turn
    return intersector.intersects_first(np.broadcast_to(origin, turned.shape), turned).reshape(size, size) >= 0


def _vtk_scene(mesh: Mesh, size: int) -> tuple[Any, Any, Any]:
    """Grabber, point array and camera of a textured head."""
    data, points, cells = vtk.vtkPolyData(), vtk.vtkPoints(), vtk.vtkCellArray()
    points.SetData(numpy_to_vtk(mesh.vertices.copy(), deep=True))
    cells.SetData(3, numpy_to_vtkIdTypeArray(mesh.faces.astype(np.int64).ravel(), deep=True))
    data.SetPoints(points)
    data.SetPolys(cells)
    data.GetPointData().SetTCoords(numpy_to_vtk(np.stack([mesh.uv[:, 0], 1 - mesh.uv[:, 1]], axis=1), deep=True))
    image, texture = vtk.vtkImageData(), vtk.vtkTexture()
    image.SetDimensions(mesh.texture.shape[1], mesh.texture.shape[0], 1)
    image.GetPointData().SetScalars(numpy_to_vtk(mesh.texture[::-1].reshape(-1, 3), deep=True))
    texture.SetInputData(image)
    mapper, actor, scene, window = vtk.vtkPolyDataMapper(), vtk.vtkActor(), vtk.vtkRenderer(), vtk.vtkRenderWindow()
    mapper.SetInputData(data)
    actor.SetMapper(mapper)
    actor.SetTexture(texture)
    scene.AddActor(actor)
    scene.SetBackground(0, 0, 1)
    window.SetOffScreenRendering(1)
    window.SetMultiSamples(0)
    window.SetSize(size, size)
    window.AddRenderer(scene)
    grab = vtk.vtkWindowToImageFilter()
    grab.SetInput(window)
    grab.ReadFrontBufferOff()
    return grab, points, scene


def _vtk(made: tuple[Any, Any, Any], size: int, view: View) -> NDArray[np.bool_]:
    grab, points, scene = made
    vertices, camera = view
    vtk_to_numpy(points.GetData())[:] = vertices
    points.Modified()
    seen = scene.GetActiveCamera()
    seen.SetPosition(0, 0, 0)
    seen.SetFocalPoint(0, 0, -1)
    seen.SetViewUp(0, 1, 0)
    seen.SetViewAngle(2 * np.degrees(np.arctan(size / 2 / camera.focal)))
    seen.SetWindowCenter(1 - 2 * camera.centre[0] / size, 2 * camera.centre[1] / size - 1)
    seen.SetClippingRange(10, 10000)
    grab.Modified()
    grab.Update()
    image = vtk_to_numpy(grab.GetOutput().GetPointData().GetScalars()).reshape(size, size, 3)[::-1]
    return (image != (0, 0, 255)).any(axis=2)


def shares(
    config: Config,
    mesh: Mesh,
    views: Sequence[View],
    turns: Sequence[NDArray[np.float32]],
    scenes: Sequence[Scene],
) -> None:
    """Milliseconds and shares of each step of one image, in one process."""
    size, draw = (config.render.size, config.render.size), get_rasterizer(config.render.rasterizer)
    normals = vertex_normals(mesh.vertices, mesh.faces)
    spent: dict[str, list[float]] = {name: [] for name in ("rasterise", "shade", "scene", "encode (JPEG)", "detect")}
    cv2.setNumThreads(1)
    with FaceMeshOnnx() as detector:
        for (points, camera), turn, scene in zip(views, turns, scenes, strict=True):
            ticks = [time.perf_counter()]
            fragments = draw(points, mesh.faces, camera, size)
            ticks.append(time.perf_counter())
            shaded = shade(fragments, mesh, normals @ turn.T, scene.light, scene.background)
            ticks.append(time.perf_counter())
            rng = np.random.default_rng(0)
            draw_scene(config.render.appearance, config.render.size, rng)
            image = expose(shaded, scene, rng)
            ticks.append(time.perf_counter())
            cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, config.render.jpeg_quality[0]])
            ticks.append(time.perf_counter())
            detector.detect(image)
            ticks.append(time.perf_counter())
            for name, ms in zip(spent, np.diff(ticks) * 1e3, strict=True):
                spent[name].append(ms)
    medians = {name: statistics.median(values) for name, values in spent.items()}
    total = sum(medians.values())
    rows = [{"step": name, "ms": ms, "share": f"{ms / total:.0%}"} for name, ms in medians.items()]
    note = "Medians in one process. The fused mode does not encode."
    report("render_shares", "Where one image's time goes", rows, [note])


def chain(config: Config) -> None:
    """Images a second of rendering and detecting in one go, heads painted and workers started included."""
    run_stage(Render.STAGE, config)
    folder = config.workdir / "landmarks_train"
    start = time.perf_counter()
    extraction = Extraction(config.grid.pose_grid(), config.landmarks, {}, {}, config.n_workers)
    Landmarks.extract_direct(config.people(), "train", folder, extraction)
    seconds = time.perf_counter() - start
    tensor = LandmarkTensor.open(folder)
    count = tensor.detected.size + tensor.random_detected.size
    found = int(tensor.detected.sum() + tensor.random_detected.sum())
    rows = [{"images": count, "found": found, "workers": config.n_workers, "images a second": count / seconds}]
    report("render_chain", "Render and landmarks in one go, nothing on disk", rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("configs/ict_facekit.yaml"))
    parser.add_argument("--heads", type=Path, default=development_data() / "ict_facekit" / "FaceXModel")
    parser.add_argument("--people", type=int, default=12)
    parser.add_argument("--views", type=int, default=60)
    given = parser.parse_args()
    loaded = load_config(given.config)
    with tempfile.TemporaryDirectory() as scratch:
        heads = loaded.heads.model_copy(update={"folder": given.heads, "train": given.people})
        main(loaded.model_copy(update={"heads": heads, "workdir": Path(scratch)}), given.views)
