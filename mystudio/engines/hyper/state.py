"""What an avatar of the engine hyper holds besides its generator."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from mystudio.base.encoder import Encoder
from mystudio.engines.hyper.weights import Networks, model_of, restored
from mystudio.errors import BadArtifact
from mystudio.stylegan2.generator import Generator
from mystudio.types import Avatar

NAME = "hyper"


@dataclass(frozen=True)
class State:
    """The engine's part of an avatar; with the networks, so that it outlives a new training."""

    look: Tensor  # [E] appearance by the base's encoder, mean of the photos
    maps: Tensor  # [C, 7, 7] appearance by the engine's network, mean of the photos
    source: Tensor  # [D] w of the photo itself
    encoder: dict[str, Tensor]  # state dict of the base's encoder, float16
    hyper: dict[str, Tensor]  # state dict of the engine's networks, float16
    width: int  # sizes of the networks, see ``ModelSettings``
    features: int
    rank: int
    identity: int
    appearance: str  # network that read the photo
    start: str  # w that the networks were trained for: "driver" or "source"

    def networks(self, generator: Generator) -> Networks:
        """The engine's networks for a generator of the base's shape, made once."""
        found = self.__dict__.get("_networks")
        if found is None:
            found = self.__dict__["_networks"] = restored(model_of(vars(self)), generator, self.hyper)
        return found

    @cached_property
    def encoder_net(self) -> Encoder:
        """The base's encoder, made once."""
        net = Encoder(len(self.source), len(self.look)).requires_grad_(False).eval()
        net.load_state_dict({name: value.float() for name, value in self.encoder.items()})
        return net


def state_of(avatar: Avatar) -> State:
    """An avatar's state as this engine's. Raises BadArtifact: another engine made it."""
    if not isinstance(avatar.state, State):
        raise BadArtifact(f"expected an avatar of the engine {NAME!r}, got one of {avatar.engine!r}; make it again")
    return avatar.state
