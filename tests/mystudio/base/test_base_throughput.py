"""The plain reference of the throughput measurement gives the same results, so equal work is timed."""

import torch

from mystudio.base.settings import ModelSettings
from mystudio.bench.base_training import TrainingCase, measure, reference_discriminator, reference_synthesis
from mystudio.stylegan2.discriminator import Discriminator
from mystudio.stylegan2.generator import Generator


def test_the_reference_is_the_same_network():
    torch.manual_seed(0)
    g, d = Generator(32, 8, 8, 2, 256, 16).double(), Discriminator(32, 256, 16).double()
    with torch.no_grad():
        for net in (g, d):
            for name, p in net.named_parameters():
                if name.endswith("bias"):
                    p.add_(0.3 * torch.randn_like(p))
    ws = torch.randn(4, g.num_ws, 8, dtype=torch.float64)
    ours, plain = g(ws, "none").detach(), reference_synthesis(g, ws).detach()
    assert torch.allclose(ours, plain, atol=1e-8 * float(plain.abs().max()) + 1e-9)
    assert torch.allclose(d(ours), reference_discriminator(d, plain), rtol=1e-6, atol=1e-8)


def test_both_are_timed():
    case = TrainingCase(ModelSettings(16, 8, 8, 2, 64, 8), batch=4, steps=1, precision="float32")
    figures = measure(case, torch.device("cpu"))
    assert figures["ours"] > 0 and figures["times"] == figures["ours"] / figures["reference"]
