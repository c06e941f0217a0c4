"""ICT-FaceKit, the openly licensed morphable head (Li et al. 2020, USC ICT, MIT licence), on its own OBJ files.

A head is ``neutral + sum w_i (identity_i - neutral) + sum s_j (expression_j - neutral)`` with w from
the standard normal distribution and s in 0..1. Any subset of the kit's modes will do; which were
found is said in the manifest. The kit has no colours: they are painted (``renderer.painting``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nlml_hpe.files.atomic import read_json
from nlml_hpe.files.manifests import digest_of
from renderer.accessories import Extra, glasses, joined, long_hair, volume
from renderer.atlas import Texels, openness
from renderer.config import USUAL_EXPRESSIONS, HeadsConfig, KitFacing
from renderer.heads import HeadDataError
from renderer.looks import Looks
from renderer.mesh import Mesh, vertex_normals
from renderer.mesh_cache import Arrays, digest_of_meshes, read_cache, write_cache
from renderer.neck import head_share
from renderer.obj import ObjError, ObjMesh, read_obj, read_obj_vertices, split_by_texture
from renderer.painting import Anatomy, Canvas, Scalp

NEUTRAL, LANDMARKS = "generic_neutral_mesh.obj", "vertex_indices.json"

MAX_WEIGHT = 5.0
"""Standard deviations: one head in two million would have a greater weight."""
_DRAWN_LIMIT = 2.5
"""The same, of weights that are drawn."""
_MM_PER_UNIT = 10.0
_PIVOT_MM = np.array([0.0, 20.0, 20.0], dtype=np.float32)
"""The point the head turns about, between the ears and a little before them."""
_CACHE_VERSION = 2
_ATLAS = (640, 1024)
Chart = tuple[float, float, float, float]
"""A box of the atlas: left, top, width, height in texels."""
# Parts that are drawn, and their charts. Tear film, lashes and the mesh over the eye are transparent in the kit; the
# iris is painted on the eyeball before it.
_CHARTS: dict[str, Chart] = {
    "M_Face": (0, 0, 512, 512),
    "M_BackHead": (512, 0, 512, 512),
    "M_GumsTongue": (0, 512, 128, 128),
    "M_Teeth": (128, 512, 128, 128),
    "M_ScleraLeft": (256, 512, 128, 128),
    "M_ScleraRight": (384, 512, 128, 128),
}
_FRAME: Chart = (512, 512, 64, 128)
_LENS: Chart = (576, 512, 64, 128)
_LONG_HAIR: Chart = (640, 512, 384, 128)


@dataclass(frozen=True)
class Kit:
    """The kit in arrays. Lengths in mm from the kit's own origin.

    ``neutral`` (V, 3), ``identity`` (n, V, 3) and ``expression`` (m, V, 3) as differences from it,
    with their names; ``landmarks`` (68,) vertex indices. The atlas: ``source`` (A,) kit vertex of each
    mesh vertex, ``uv`` (A, 2), ``faces`` (F, 3), ``part`` (F,), and its ``texels``.
    """

    neutral: NDArray[np.float32]
    identity: NDArray[np.float32]
    identity_names: tuple[str, ...]
    expression: NDArray[np.float32]
    expression_names: tuple[str, ...]
    landmarks: NDArray[np.int64]
    source: NDArray[np.int64]
    uv: NDArray[np.float32]
    faces: NDArray[np.int32]
    part: NDArray[np.int8]
    texels: Texels

    @classmethod
    def open(cls, folder: Path, cache: Path | None) -> Kit:
        """The kit in ``folder`` (its FaceXModel), from the cache file where that was made from it.

        Raises ``HeadDataError`` where the folder is not the kit and ``ObjError`` where a file is damaged.
        """
        digest = digest_of([_CACHE_VERSION, digest_of_meshes(folder)]) if folder.is_dir() else ""
        kept = None if cache is None else _kept(cache, digest)
        if kept is not None:
            return kept
        kit = cls.read(folder)
        if cache is not None:
            _keep(kit, cache, digest)
        return kit

    @classmethod
    def read(cls, folder: Path) -> Kit:
        """The kit from its OBJ files. Raises as ``open`` does."""
        lines = check(folder)
        if any(line.startswith("missing") for line in lines):
            raise HeadDataError("\n".join([f"{folder} is no FaceXModel folder of ICT-FaceKit:", *lines]))
        neutral = read_obj(folder / NEUTRAL)
        absent = [name for name in _CHARTS if name not in neutral.triangles]
        if absent:
            raise ObjError(f"{folder / NEUTRAL}: no faces with usemtl {', '.join(absent)}; expected the kit's own file")
        base = neutral.vertices * _MM_PER_UNIT
        modes, expressions = _shapes(folder)
        moved = _differences(expressions, base)
        source, uv, faces, part = _atlas(neutral)
        visible = _visible(base, moved[[name == "jawOpen" for name in expressions]], source[faces].astype(np.int32))
        faces, part = faces[visible], part[visible]
        return cls(
            base,
            _differences(modes, base),
            tuple(modes),
            moved,
            tuple(expressions),
            _landmarks(folder / LANDMARKS, len(base)),
            source,
            uv,
            faces,
            part,
            Texels.of_mesh(_ATLAS, uv, faces, part, base[source]),
        )

    def expressions(self, config: HeadsConfig) -> tuple[str, ...]:
        """Names of the kit's expressions that people of this configuration make.

        Raises ``HeadDataError`` where the configuration names one that is not there; of the usual ones a kit of few
        files may lack some, of which ``check`` tells.
        """
        families = {family_of(name) for name in self.expression_names}
        wanted = families if config.expressions == "all" else set(config.expressions)
        if unknown := wanted - families - set(USUAL_EXPRESSIONS):
            raise HeadDataError(
                f"heads.expressions: the kit has no {', '.join(sorted(unknown))}; it has {', '.join(sorted(families))}"
            )
        return tuple(name for name in self.expression_names if family_of(name) in wanted)

    def facing(self, way: KitFacing) -> Kit:
        """The kit itself, or, for "mean", the kit whose people all face as the mean head does.

        Its modes nod the face, too, by 1.6 degrees as a rule, which no picture shows: which way a head faces is a
        convention. Here each mode loses ``w x (v - pivot)``, the turn that fits that of its 68 points best, as shapes
        are aligned before their modes are found (Cootes et al. 1995).
        """
        if way == "own":
            return self
        marks = self.neutral[self.landmarks].astype(np.float64)
        around = marks - marks.mean(axis=0)
        inertia = (around**2).sum() * np.eye(3) - around.T @ around
        # Where a mode shifts the points to has no part in the sum: ``around`` adds up to nought.
        turn = np.linalg.solve(inertia, np.cross(around, self.identity[:, self.landmarks]).sum(axis=1).T).T
        identity = self.identity - np.cross(turn[:, None], self.neutral - _PIVOT_MM)
        return replace(self, identity=identity.astype(np.float32))

    @cached_property
    def own_faces(self) -> NDArray[np.int32]:
        """The faces (F, 3) by their kit vertices, which charts of the atlas share."""
        return self.source[self.faces].astype(np.int32)

    @cached_property
    def outer(self) -> NDArray[np.float32]:
        """One for mesh vertices (A,) of the skin, which hair and cloth lift; nought in the mouth and on the eyes."""
        outer = np.zeros(len(self.source), dtype=np.float32)
        outer[np.concatenate([self._vertices_of("M_Face"), self._vertices_of("M_BackHead")])] = 1
        return outer

    @cached_property
    def share(self) -> NDArray[np.float32]:
        """How far each mesh vertex (A,) goes with the head, as ``neck.head_share``."""
        return head_share(self.neutral[self.source])

    @cached_property
    def scalp(self) -> Scalp:
        """What of hair is the same for everybody, at the kit vertices."""
        return Scalp.of(self.neutral)

    @cached_property
    def skull(self) -> NDArray[np.int64]:
        """The kit vertices (H,) of the skin that goes with the skull, from crown to chin, ears and face included."""
        used = np.unique(self.source)
        return np.asarray(used[head_share(self.neutral[used]) == 1], dtype=np.int64)

    @cached_property
    def canvas(self) -> Canvas:
        """What looks are painted on."""
        eyes = [self.neutral[self.source[self._vertices_of(name)]] for name in ("M_ScleraLeft", "M_ScleraRight")]
        # The ball's middle in depth: its cornea bulges, so the widest place is taken.
        centres = [[*ball[:, :2].mean(axis=0), ball[:, 2].min() + np.ptp(ball[:, 1]) / 2] for ball in eyes]
        anatomy = Anatomy(self.neutral[self.landmarks], np.array(centres, dtype=np.float32))
        return Canvas(self.texels, anatomy, tuple(_CHARTS))

    @property
    def skin(self) -> NDArray[np.float32]:
        """Those vertices (n, 3) of the neutral head that can be seen."""
        return self.neutral[np.unique(self.source[self.faces])]

    def _vertices_of(self, name: str) -> NDArray[np.int32]:
        return np.unique(self.faces[self.part == list(_CHARTS).index(name)])

    def draw_weights(self, variation: float, rng: np.random.Generator) -> NDArray[np.float64]:
        """Identity weights (n,) of a person, by lot; ``variation`` is their standard deviation, one as of people."""
        return np.clip(rng.standard_normal(len(self.identity)) * variation, -_DRAWN_LIMIT, _DRAWN_LIMIT)

    def shape(self, weights: ArrayLike, strengths: Mapping[str, float]) -> NDArray[np.float32]:
        """Vertices (V, 3) of identity ``weights`` (n,) and expression ``strengths`` by name.

        Raises ``ValueError`` for another number of weights, for a weight beyond ``MAX_WEIGHT`` standard
        deviations, for an expression that is not there, and for a strength outside 0..1.
        """
        w = np.asarray(weights, dtype=np.float32)
        if w.shape != (len(self.identity),) or not (np.abs(w) <= MAX_WEIGHT).all():
            raise ValueError(
                f"expected {len(self.identity)} identity weights within {MAX_WEIGHT:g} standard deviations; "
                f"received shape {w.shape}, largest {np.abs(w).max(initial=0):g}"
            )
        unknown = sorted(set(strengths) - set(self.expression_names))
        if unknown or not all(0 <= value <= 1 for value in strengths.values()):
            raise ValueError(
                f"expected expressions among {list(self.expression_names)} with strengths in 0..1; received {strengths}"
            )
        s = np.array([strengths.get(name, 0.0) for name in self.expression_names], dtype=np.float32)
        return np.asarray(
            self.neutral + np.tensordot(w, self.identity, 1) + np.tensordot(s, self.expression, 1), dtype=np.float32
        )

    def mesh(self, vertices: NDArray[np.float32], looks: Looks) -> Mesh:
        """The textured head of a shape (V, 3) with these looks, in the head frame."""
        skin = vertices[self.source] + _volume(self, vertices, looks)
        texture = self.canvas.paint(looks)
        meshes = [Extra(skin, self.faces, self.uv)]
        marks = vertices[self.landmarks]
        if looks.hair == "long" and looks.covering == "none":
            meshes.append(_placed(long_hair(skin, looks), _LONG_HAIR))
            _fill(texture, _LONG_HAIR, _hair_strip(looks))
        if looks.eyewear != "none":
            frame, lens = glasses(marks, ears(vertices), looks)
            meshes.append(_placed(frame, _FRAME))
            _fill(texture, _FRAME, np.array(looks.frame_color))
            if looks.eyewear == "sunglasses":
                meshes.append(_placed(lens, _LENS))
                _fill(texture, _LENS, np.array(looks.frame_color) * 0.5)
        whole = joined(meshes)
        return Mesh(whole.vertices - _PIVOT_MM, whole.faces, whole.uv, texture)


def check(folder: Path) -> list[str]:
    """What is there of the kit, line by line; what cannot be done without begins with ``missing``."""
    if not folder.is_dir():
        return [f"missing  folder {folder}", *_HOW_TO_GET]
    lines = [f"{'found  ' if (folder / name).is_file() else 'missing'}  {name}" for name in (NEUTRAL, LANDMARKS)]
    modes, others = _shapes(folder)
    lines.append(f"{'found  ' if modes else 'missing'}  {len(modes)} of 100 identity modes (identity000.obj ...)")
    lines.append(f"found    {len(others)} expressions (53 are published){': ' + ', '.join(others) if others else ''}")
    return lines if all(not line.startswith("missing") for line in lines) else [*lines, *_HOW_TO_GET]


def _shapes(folder: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    """Meshes of the identity modes and of the expressions, by their names in order; hidden files are none."""
    shapes = {path.stem: path for path in sorted(folder.glob("[!.]*.obj")) if path.name != NEUTRAL}
    modes = {name: path for name, path in shapes.items() if name.startswith("identity")}
    return modes, {name: path for name, path in shapes.items() if name not in modes}


_HOW_TO_GET = (
    "to get   git clone https://github.com/USC-ICT/ICT-FaceKit (MIT licence), and set",
    "         heads.folder to its FaceXModel folder",
)


def _differences(shapes: Mapping[str, Path], base: NDArray[np.float32]) -> NDArray[np.float32]:
    read = [read_obj_vertices(path, len(base)) * _MM_PER_UNIT - base for path in shapes.values()]
    return np.array(read, dtype=np.float32).reshape(-1, len(base), 3)


def _landmarks(path: Path, count: int) -> NDArray[np.int64]:
    data = read_json(path)
    indices = data.get("idx_to_landmark_verts") if isinstance(data, dict) else None
    listed = indices if isinstance(indices, list) and len(indices) == 68 else [None]
    if not all(isinstance(index, int) and 0 <= index < count for index in listed):
        raise HeadDataError(f"{path}: expected 68 vertex indices below {count} under idx_to_landmark_verts")
    return np.array(listed, dtype=np.int64)


def _atlas(mesh: ObjMesh) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int32], NDArray[np.int8]]:
    """Mesh vertices (one for each kit vertex and texture coordinate), their place in the atlas, faces, parts."""
    height, width = _ATLAS
    places = np.zeros_like(mesh.uv)
    for name, (left, top, chart_width, chart_height) in _CHARTS.items():
        used = np.unique(mesh.triangles[name][:, 1])
        own = mesh.uv[used] - np.floor(mesh.uv[used].min(axis=0))  # each part has a tile of its own (UDIM)
        places[used] = (own * [1, -1] + [0, 1]) * [chart_width, chart_height] + [left, top]
    source, texture, faces = split_by_texture(np.concatenate([mesh.triangles[name] for name in _CHARTS]))
    part = np.repeat(np.arange(len(_CHARTS)), [len(mesh.triangles[name]) for name in _CHARTS])
    return source, (places[texture] / [width, height]).astype(np.float32), faces, part.astype(np.int8)


def _visible(base: NDArray[np.float32], openings: NDArray[np.float32], faces: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Faces (F,) that can be seen, mouth closed or open, or touch one that can: a third are inside the head."""
    shapes = [base, *(base + opening for opening in openings)]
    seen = np.any([openness(shape, vertex_normals(shape, faces), faces) > 0 for shape in shapes], axis=0)
    visible: NDArray[np.bool_] = seen[faces].any(axis=1)
    return visible


def _volume(kit: Kit, vertices: NDArray[np.float32], looks: Looks) -> NDArray[np.float32]:
    """Displacement (A, 3) of the skin by hair and cloth; teeth and eyes stay where they are."""
    # Normals of the kit's own vertices: charts that meet are pushed the same way.
    normals = vertex_normals(vertices, kit.own_faces)
    height = volume(kit.scalp, looks)
    return np.asarray((normals * height[:, None])[kit.source] * kit.outer[:, None], dtype=np.float32)


def family_of(expression: str) -> str:
    """An expression's name without its side: ``mouthSmile`` of ``mouthSmile_L``."""
    return expression.removesuffix("_L").removesuffix("_R")


def ears(vertices: NDArray[np.float32]) -> NDArray[np.float32]:
    """The outermost points (2, 3) of a head (V, 3) above the neck, image left first."""
    head = vertices[vertices[:, 1] > -20]
    return np.stack([head[head[:, 0].argmin()], head[head[:, 0].argmax()]])


def _placed(piece: Extra, chart: Chart) -> Extra:
    """The piece with its texture coordinates in a chart, a texel inside its edge."""
    left, top, width, height = chart
    inside = np.array([left + 1, top + 1]) + piece.uv * [width - 2, height - 2]
    return piece._replace(uv=(inside / [_ATLAS[1], _ATLAS[0]]).astype(np.float32))


def _fill(texture: NDArray[np.uint8], chart: Chart, color: NDArray[np.floating]) -> None:
    left, top, width, height = (int(value) for value in chart)
    texture[top : top + height, left : left + width] = np.clip(color, 0, 255).astype(np.uint8)


def _hair_strip(looks: Looks) -> NDArray[np.float64]:
    """Strands (128, 384, 3) of long hair, darker towards the neck."""
    rng = np.random.default_rng([looks.seed, 3])
    strands = (
        1 + 0.22 * rng.normal(size=(1, int(_LONG_HAIR[2]), 1)) + 0.05 * rng.normal(size=(int(_LONG_HAIR[3]), 1, 1))
    )
    return np.asarray(np.array(looks.hair_color) * strands, dtype=np.float64)


_ARRAYS = ("neutral", "identity", "expression", "landmarks", "source", "uv", "faces", "part")
_TEXELS = ("part", "position", "normal", "openness")


def _keep(kit: Kit, cache: Path, digest: str) -> None:
    arrays: Arrays = {name: getattr(kit, name) for name in _ARRAYS}
    arrays |= {f"texel_{name}": getattr(kit.texels, name) for name in _TEXELS}
    write_cache(cache, digest, {"identity": kit.identity_names, "expression": kit.expression_names}, arrays)


def _kept(cache: Path, digest: str) -> Kit | None:
    """The kit of the cache, or None where it is not there or another's: then it is made again."""
    known = read_cache(cache, digest)
    if known is None:
        return None
    names, arrays = known
    try:
        texels = Texels(**{name: arrays[f"texel_{name}"] for name in _TEXELS})
        chosen: dict[str, Any] = {name: arrays[name] for name in _ARRAYS}
        identity, expression = tuple(names["identity"]), tuple(names["expression"])
    except (KeyError, TypeError):
        return None
    return Kit(**chosen, identity_names=identity, expression_names=expression, texels=texels)
