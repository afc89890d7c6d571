"""A synthetic person: 38 standard-normal numbers determine the look."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from mystudio.actors import backdrop, cloth, glasses, hair, light, paint
from mystudio.actors.basis import Basis, load_basis
from mystudio.actors.camera import Sensor
from mystudio.actors.factors import EXTRA_NAMES, LOOK_NAMES, N_EXTRA, N_LOOK, look_of
from mystudio.actors.head import Head, make_head
from mystudio.actors.mesh import Mesh
from mystudio.actors.raster import vertex_normals
from mystudio.actors.strands import Strands

_NAMES = LOOK_NAMES + EXTRA_NAMES
_IDENTITY = 14  # identity modes of the basis that are used
_BACKDROPS = 97  # number of different layouts
_IDENTITY_SCALE = 0.75  # standard deviations a unit: heads stay within the range of the basis's scans


@dataclass(frozen=True, eq=False, repr=False)
class Actor:
    """One synthetic person.

    Args:
        look: [38] standard-normal: the 32 look factors, then the six extra ones (see factors.NAMES); with 32 only,
            the extra ones are zero.
        basis: the morphable head; None = the imported one.
    """

    look: np.ndarray
    basis: Basis = field(default_factory=load_basis)

    def __post_init__(self):
        look = np.asarray(self.look, np.float32).ravel()
        if look.size == N_LOOK:
            look = np.concatenate([look, np.zeros(N_EXTRA, np.float32)])
        if look.shape != (N_LOOK + N_EXTRA,) or not np.isfinite(look).all():
            raise ValueError(f"look: expected {N_LOOK + N_EXTRA} finite factors, got {look.size}")
        object.__setattr__(self, "look", look)

    @classmethod
    def from_seed(cls, seed: int, basis: Basis | None = None) -> Actor:
        """A random person, determined by the seed."""
        return cls(np.random.default_rng(seed).normal(size=N_LOOK + N_EXTRA), basis or load_basis())

    @classmethod
    def from_code(cls, code: np.ndarray, basis: Basis | None = None) -> Actor:
        """The person that a code [64] describes."""
        return cls(look_of(np.asarray(code)), basis or load_basis())

    def share(self, name: str) -> float:
        """A factor's approximate percentile among all people, 0..1."""
        return float(0.5 * (1 + np.tanh(0.8 * self.look[_NAMES.index(name)])))

    @cached_property
    def head(self) -> Head:
        """The geometry that all actors share."""
        return make_head(self.basis)

    @cached_property
    def identity(self) -> np.ndarray:
        """[20] weights of the basis's identity modes."""
        weights = np.zeros(len(self.basis.identity), np.float32)
        weights[:_IDENTITY] = _IDENTITY_SCALE * self.look[:_IDENTITY]
        return weights

    @cached_property
    def shape(self) -> np.ndarray:
        """[V', 3] the neutral face with shoulders, cm."""
        moved = np.tensordot(self.identity[:_IDENTITY], self.basis.identity[:_IDENTITY], 1)
        return self.head.with_shoulders(self.basis.neutral + moved)

    @cached_property
    def normals(self) -> np.ndarray:
        """Vertex normals [V', 3] of the neutral face."""
        out = np.empty_like(self.shape)
        vertex_normals(self.shape, self.head.faces, out)
        return out

    @cached_property
    def style(self) -> hair.Style:
        """How the hair is worn."""
        return hair.choose(self.share("hair_style"))

    @cached_property
    def beard(self) -> float:
        """0 clean shaven, up to 0.5 stubble, up to 1 a beard; rarer with long hair."""
        amount = max(0.0, (self.share("beard") - 0.5) / 0.5)
        return amount if not self.style.long else max(0.0, amount - 0.8)

    @cached_property
    def colours(self) -> paint.Colours:
        """Colours of skin and hair, and the parameters of painted features."""
        tone, grey = self.share("skin_tone"), self.share("hair_grey")
        lightness = self.share("hair_lightness") * min(1.0, 0.12 + 1.25 * tone**1.5)  # darker skin, darker hair
        return paint.Colours(
            paint.skin_tone(tone, self.share("skin_undertone")),
            paint.hair_colour(lightness, grey),
            self.share("lips"),
            0.22 + 0.3 * self.share("brow_width"),
            min(1.0, 1.6 * self.beard),
            self.style.scalp,
            self.share("hairline"),
        )

    @cached_property
    def painted(self) -> tuple[np.ndarray, np.ndarray]:
        """Albedo [V', 3] linear RGB and gloss [V']."""
        return paint.paint(self.head, self.colours)

    @cached_property
    def mesh(self) -> Mesh:
        """Triangles of head and glasses."""
        return Mesh.of(self)

    @cached_property
    def strands(self) -> list[Strands]:
        """Hair, brows, lashes and beard."""
        return hair.grow_all(self)

    @cached_property
    def glasses(self) -> glasses.Glasses | None:
        """The glasses, which about a fifth of all people wear, or None."""
        return glasses.fit(self)

    @cached_property
    def iris(self) -> np.ndarray:
        """[3] linear RGB: brown, hazel, green, blue."""
        stops = np.array(
            [[0.035, 0.016, 0.008], [0.085, 0.040, 0.016], [0.13, 0.085, 0.03], [0.09, 0.13, 0.085], [0.09, 0.17, 0.26]]
        )
        lightest = min(1.0, 0.2 + 1.3 * self.share("skin_tone"))  # people with dark skin have dark eyes
        at = self.share("iris") * lightest * (len(stops) - 1)
        k = min(int(at), len(stops) - 2)
        return (stops[k] * (1 - at + k) + stops[k + 1] * (at - k)).astype(np.float32)

    @cached_property
    def freckles(self) -> float:
        """Strength of freckles, 0..1; only pale, warm skin has them."""
        return max(0.0, min(1.0, 3 * (self.share("skin_undertone") - 0.62) + 2 * (self.share("skin_tone") - 0.75)))

    @cached_property
    def cloth(self) -> cloth.Cloth:
        """The clothes."""
        shirt = np.array([self.share(f"shirt_{c}") for c in ("red", "green", "blue")])
        return cloth.choose(self.share("clothes"), 0.02 + 0.6 * shirt**2)

    @cached_property
    def backdrop(self) -> np.ndarray:
        """Backdrop [96, 96, 3], linear RGB; it is twice as wide as the camera's view."""
        red, green = self.share("background_red"), self.share("background_green")
        colour = np.array([red, green, 0.5 * (red + green)])
        colour = 0.02 + 0.5 * (0.45 * colour + 0.55 * colour.mean()) ** 1.6
        kind = self.share("background_kind")
        return backdrop.draw(backdrop.choose(kind), colour, seed=int(kind * _BACKDROPS))

    @cached_property
    def lights(self) -> light.Lights:
        """Key, fill and rim light, without shadows."""
        return light.set_up(
            self.share("light_side") - 0.5,
            self.share("key_light"),
            self.share("light_warmth") - 0.5,
            self.share("light_setup"),
            self.backdrop.mean((0, 1)),
        )

    @cached_property
    def sensor(self) -> Sensor:
        """Lens and sensor."""
        quality, warm = self.share("camera"), self.share("light_warmth") - 0.5
        return Sensor(
            exposure=1.0 + 0.35 * (quality - 0.5),
            balance=(1 + 0.06 * warm, 1.0, 1 - 0.06 * warm),
            blur=0.25 + 0.5 * max(0.0, 0.6 - quality),
            noise=0.006 + 0.03 * max(0.0, 0.55 - quality),
        )
