"""Random numbers of a training step, from (seed, step, purpose): runs resume exactly, and processes agree."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mystudio.base.augment import draw
from mystudio.base.parallel import Team
from mystudio.base.settings import BaseSettings

#: purposes: each one has its own random numbers in each step
G, D, REAL, FAKE, FAKE_D, R1, PATH, CODES, MIX, NOISE = range(10)


class StepRandom:
    """Random numbers for one process of a team.

    Latents are drawn for the whole batch on the CPU, and each process takes its share. So they do not depend on the
    number of processes. Each process draws its own noise inside the generator, on the device.

    Args:
        settings: of the run. num_ws: number of layers of a W+. code_size, coded_share: of the data (``data.Mixture``).
    """

    def __init__(
        self, settings: BaseSettings, num_ws: int, device: torch.device, team: Team, code_size: int, coded_share: float
    ):
        self._settings, self._num_ws, self._device, self._team = settings, num_ws, device, team
        self._code_size, self._coded_share = code_size, coded_share
        self._step, self._phase = 0, ""

    def begin(self, step: int, phase: str) -> None:
        """Set the step and the phase that the following numbers are for."""
        self._step, self._phase = step, phase

    def latents(self, purpose: int) -> Tensor:
        """This process's share of a step's z, [n, Z]."""
        count = getattr(self._settings, self._phase).batch
        z = torch.randn(count, self._settings.model.z_dim, generator=self._on_cpu(purpose))
        if self.split:
            side = torch.rand(count, generator=self._on_cpu(purpose, 1)) < self._coded_share
            z[:, -1] = z[:, -1].abs() * torch.where(side, 1.0, -1.0)
        return self._team.share(z).to(self._device, non_blocking=True)

    def with_codes(self, codes: Tensor) -> Tensor:
        """z [n, Z] for codes [n, C]: the code, then random numbers, which the generator learns to ignore."""
        z = torch.randn(len(codes) * self._team.size, self._settings.model.z_dim, generator=self._on_cpu(CODES))
        z = self._team.share(z).to(self._device)
        if self.split:
            z[:, -1] = z[:, -1].abs()
        return torch.cat([codes, z[:, codes.shape[1] :]], 1)

    def augmentation(self, purpose: int) -> Tensor:
        """This process's share of the augmentation's random numbers, [n, K]."""
        return self._team.share(draw(self._settings.adversarial.batch, self._on_cpu(purpose, 2)))

    def mixed(self, w: Tensor) -> Tensor:
        """Style mixing: w [n, D] -> W+ [n, L, D]; in some samples the last layers use another sample's w."""
        ws, share = w[:, None].expand(-1, self._num_ws, -1), self._settings.adversarial.mixing
        if not share:
            return ws
        rows = torch.rand(len(w) * self._team.size, 2, generator=self._on_cpu(MIX))
        chosen, where = self._team.share(rows).to(self._device).unbind(1)
        first = torch.where(chosen < share, 1 + (where * (self._num_ws - 1)).floor(), self._num_ws)
        layers = torch.arange(self._num_ws, device=self._device)
        return torch.where((layers < first[:, None])[..., None], ws, ws.roll(1, 0))

    def on_device(self, purpose: int, alike: bool = False) -> torch.Generator:
        """A random generator on the device, different in each process unless ``alike`` is set."""
        return torch.Generator(self._device).manual_seed(self._seed(purpose, 3, 0 if alike else 1 + self._team.rank))

    @property
    def split(self) -> bool:
        """Whether the sign of z's last number separates images with codes from images without."""
        both = self._phase == "adversarial" or self._settings.supervised.read
        return bool(
            both
            and self._settings.adversarial.split
            and 0 < self._coded_share < 1
            and self._code_size < self._settings.model.z_dim
        )

    def _on_cpu(self, purpose: int, part: int = 0) -> torch.Generator:
        return torch.Generator().manual_seed(self._seed(purpose, part))

    def _seed(self, *key: int) -> int:
        return int(np.random.SeedSequence((self._settings.train.seed, self._step, *key)).generate_state(1)[0])
