"""People of ICT-FaceKit by number: seeded weights, expressions and looks of its kit (``ict_kit``)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from renderer.config import HeadsConfig
from renderer.heads.ict_kit import Kit, family_of
from renderer.looks import draw_looks
from renderer.mesh import Mesh

_SPREAD_SHAPES = ("jawOpen", "mouthPucker", "mouthSmile", "eyeBlink", "browInnerUp")


@dataclass(frozen=True)
class IctHeads:
    """People of the kit by number: seeded weights, expressions and looks."""

    kit: Kit
    config: HeadsConfig
    seed: int

    @classmethod
    def open(cls, config: HeadsConfig, seed: int, cache: Path | None) -> IctHeads:
        """Read the kit that the configuration names.

        Parameters
        ----------
        config : HeadsConfig
            With the kit's folder.
        seed : int
            By which people are drawn.
        cache : Path or None
            Folder for the kit as it reads fast.

        Returns
        -------
        IctHeads
            Its people.

        Raises
        ------
        HeadDataError, ObjError
            As ``Kit.open`` and ``Kit.expressions`` do.
        """
        kit = Kit.open(config.source_folder, cache and cache / "ict_facekit.npz")
        kit.expressions(config)  # raises now, not with the first head
        return cls(kit.facing(config.facing), config, seed)

    @property
    def expressions(self) -> tuple[str, ...]:
        """Names of the kit's expressions that these people make."""
        return self.kit.expressions(self.config)

    def describe(self) -> dict[str, object]:
        """Which modes were found, and which expressions are made."""
        return {
            "source": "ict_facekit",
            "vertices": len(self.kit.neutral),
            "identity_modes": list(self.kit.identity_names),
            "expressions": list(self.expressions),
        }

    def head(self, person: int) -> Mesh:
        """The head of a person, drawn by seed and number."""
        rng = np.random.default_rng([self.seed, person])
        weights = self.kit.draw_weights(self.config.shape_variation, rng)
        strengths = _draw_expression(self.expressions, self.config.expression, rng)
        return self.kit.mesh(self.kit.shape(weights, strengths), draw_looks(self.config.looks, rng))


def _draw_expression(names: tuple[str, ...], share: float, rng: np.random.Generator) -> dict[str, float]:
    """A neutral face, or a mixture of a few expressions; both sides of the face nearly alike."""
    families = sorted({family_of(name) for name in names})
    strengths: dict[str, float] = {}
    if not families or rng.uniform() >= share:
        return strengths
    usual = [name for name in families if name in _SPREAD_SHAPES]
    for _ in range(int(rng.integers(1, 4))):
        # Most faces in photographs smile, talk or narrow their eyes; the rest of the kit comes less often.
        pool = usual if usual and rng.uniform() < 0.75 else families
        family = pool[int(rng.integers(len(pool)))]
        strength = float(rng.uniform(0, 0.45 if family == "jawOpen" else 0.75))
        for name in (family, f"{family}_L", f"{family}_R"):
            if name in names:
                strengths[name] = float(np.clip(strength * rng.normal(1, 0.12), 0, 1))
    return strengths
