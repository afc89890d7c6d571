"""Small trained weights of the hybrid engine for the packaged base, made once in a run of the tests.

The network reads sources at 32 px. It is trained in the first stage alone, on fixed samples of the base.
"""

from dataclasses import replace
from pathlib import Path

import torch
from once import once

from mystudio.bases import Base, find_base
from mystudio.engines.hybrid import samples, stages
from mystudio.engines.hybrid.network import Hybrid, ModelSettings
from mystudio.engines.hybrid.pyramid import PyramidShape
from mystudio.engines.hybrid.samples import Samples
from mystudio.engines.hybrid.settings import LossSettings
from mystudio.engines.hybrid.weights import to_bytes
from selfscan.face.facemesh import load_facemesh

FOLDER: Path | None = None  # where the processes of a run of the tests share the weights
SMALL = ModelSettings(32, PyramidShape((1, 1, 1, 1), (8, 16, 32, 64), 16), 32, 64, 64, 2, pixels=False)
ROWS, STEPS, BATCH = 160, 500, 16


def base() -> Base:
    """The packaged base at another place, with small trained weights beside it."""
    assert FOLDER is not None
    folder = FOLDER / "hybrid"
    made = Base("people128", folder / "people128.safetensors")

    def make(path: Path) -> None:
        path.mkdir()
        source = find_base("people128")
        made.path.symlink_to(source.path)
        net = trained(source)
        made.companion_path("hybrid").write_bytes(to_bytes(net, source.digest))

    once(folder, make)
    return made


def trained(source: Base) -> Hybrid:
    """A small network after the first stage."""
    factors, generator = samples.factors_of(source.info), source.generator
    assert factors
    parts = [samples.draw(generator, load_facemesh(), factors, 20, 1000 + k) for k in range(ROWS // 20)]
    rows = Samples(*(torch.cat([getattr(p, name) for p in parts]) for name in vars(parts[0])))
    rows = replace(rows, images=torch.nn.functional.interpolate(rows.images, (32, 32), mode="area"))
    torch.manual_seed(0)
    net = Hybrid(generator, SMALL)
    net.measure(generator)
    adam = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=1e-2)
    plan = torch.optim.lr_scheduler.OneCycleLR(adam, 2e-3, STEPS)
    draw = torch.Generator().manual_seed(0)
    for step in range(STEPS):
        picked = torch.randint(ROWS, (BATCH,), generator=draw)
        part = Samples(*(getattr(rows, name)[picked] for name in vars(rows)))
        terms = stages.latent_terms(net, generator, part, part.signals)
        adam.zero_grad()
        stages.weighted(terms, LossSettings()).backward()
        adam.step()
        plan.step()
        net.deformation.remember(net.deformation.read(part.signals), step)
    return net.eval().requires_grad_(False)
