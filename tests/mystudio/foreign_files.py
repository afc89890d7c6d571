"""Checkpoints in the formats of other code bases, written with the real pickle and torch.save."""

import contextlib
import io
import math
import pickle
import struct
import sys
import types
from collections import OrderedDict

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from mystudio.stylegan2.generator import Generator


def random_generator(resolution=32, seed=0, **config):
    """A tiny generator with random weights, biases and noise strengths."""
    torch.manual_seed(seed)
    g = Generator(
        resolution, **{"z_dim": 16, "w_dim": 24, "mapping_layers": 2, "channel_base": 512, "channel_max": 32, **config}
    ).eval()
    for name, value in g.named_parameters():
        if name.endswith(("bias", "noise_strength")):
            value.data += torch.randn_like(value) * (30 if "mapping" in name else 0.3)
    g.mapping.w_avg.normal_()
    return g


# ---- pieces of pickles by hand ----


def text(value):
    """Opcode that pushes a text."""
    raw = str(value).encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def glob(module, name):
    """Opcode that pushes a global."""
    return f"c{module}\n{name}\n".encode()


# ---- official form: a tree of "persistent" modules ----


@contextlib.contextmanager
def official_modules():
    """Modules of the official names, only while pickling; their functions must never run when we read."""

    def _reconstruct_persistent_obj(meta):
        raise AssertionError("the reader called into the checkpoint's code base")

    class EasyDict(dict):
        pass

    names = {
        "torch_utils": {},
        "torch_utils.persistence": {"_reconstruct_persistent_obj": _reconstruct_persistent_obj},
        "dnnlib": {},
        "dnnlib.util": {"EasyDict": EasyDict},
    }
    for name, members in names.items():
        module = types.ModuleType(name)
        for key, value in members.items():
            value.__module__, value.__qualname__ = name, key
            setattr(module, key, value)
        sys.modules[name] = module
    try:
        yield sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj, EasyDict
    finally:
        for name in names:
            del sys.modules[name]


def official_pickle(
    g, marker=None, protocol=4, change=None, class_name="Generator", keys=("G", "D", "G_ema"), alone=False
):
    """A network snapshot of ``g`` as the official training loop writes it.

    Args:
        marker: a file that the embedded source would create if it were executed.
        change: called with (module name, state) of each module before it is pickled.
        alone: pickle the network itself, without a dictionary around it.
    """
    source = f"open({str(marker)!r}, 'w').close()\n" if marker else "class Generator: pass\n"
    with official_modules() as (reconstruct, easy_dict):

        class Persistent:
            def __init__(self, name, state):
                self.name, self.state = name, state

            def __reduce__(self):
                return (
                    reconstruct,
                    (dict(type="class", version=6, module_src=source, class_name=self.name, state=self.state),),
                    None,
                )

        def wrap(module, name):
            state = {
                "training": False,
                "_parameters": OrderedDict(module._parameters),
                "_buffers": OrderedDict(module._buffers),
                "_non_persistent_buffers_set": set(),
                "_backward_hooks": OrderedDict(),
                "_is_full_backward_hook": None,
                "_modules": OrderedDict((key, wrap(part, f"{name}{key}.")) for key, part in module._modules.items()),
            }
            state |= {"_init_args": (), "_init_kwargs": easy_dict(w_dim=512, mapping_kwargs=easy_dict(num_layers=2))}
            state |= layer_facts(module)
            if change:
                change(name, state)
            return Persistent(class_name if not name else type(module).__name__, state)

        if alone:
            return pickle.dumps(wrap(g, ""), protocol=protocol)
        snapshot = {key: wrap(g, "") for key in keys}
        snapshot |= {"augment_pipe": None, "training_set_kwargs": easy_dict(path="faces.zip", use_labels=False)}
        return pickle.dumps(snapshot, protocol=protocol)


def layer_facts(module):
    """Return plain attributes as in the official classes, including numpy numbers."""
    kind = type(module).__name__
    if kind == "FullyConnected":
        return {
            "activation": "lrelu" if module.activation else "linear",
            "bias_gain": module.bias_gain,
            "weight_gain": np.float64(module.weight_gain),
        }
    if kind == "SynthesisLayer":
        return {"activation": "lrelu", "conv_clamp": 256, "act_gain": np.sqrt(2), "use_noise": True}
    if kind == "Generator":
        return {"c_dim": 0, "z_dim": module.z_dim, "img_channels": 3}
    return {}


# ---- the form of stylegan2-pytorch: its forward pass, written from its definition ----


class EqualLinear(nn.Module):
    def __init__(self, n_in, n_out, rate=1.0, activate=False, bias=0.0):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_out, n_in) / rate)
        self.bias = nn.Parameter(torch.full((n_out,), bias))
        self.rate, self.activate = rate, activate

    def forward(self, x):
        y = x @ (self.weight * self.rate / math.sqrt(x.shape[1])).t() + self.bias * self.rate
        return F.leaky_relu(y, 0.2) * 2**0.5 if self.activate else y


class Kernel(nn.Module):
    """Slow zero insertion, padding and convolution with the filter."""

    def __init__(self, up, pad):
        super().__init__()
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
        self.register_buffer("kernel", torch.outer(taps, taps) / 64 * 4)
        self.up, self.pad = up, pad

    def forward(self, x):
        n, c, h, w = x.shape
        wide = x.new_zeros(n, c, h * self.up, w * self.up)
        wide[:, :, :: self.up, :: self.up] = x
        wide = F.pad(wide, (self.pad[0], self.pad[1]) * 2).reshape(n * c, 1, h * self.up + sum(self.pad), -1)
        y = F.conv2d(wide, self.kernel.flip((0, 1))[None, None])
        return y.reshape(n, c, *y.shape[2:])


class ModulatedConv(nn.Module):
    def __init__(self, n_in, n_out, size, style_dim, demodulate=True, up=False):
        super().__init__()
        if up:
            self.blur = Kernel(1, (1, 1))
        self.weight = nn.Parameter(torch.randn(1, n_out, n_in, size, size))
        self.modulation = EqualLinear(style_dim, n_in, bias=1.0)
        self.demodulate, self.up = demodulate, up

    def forward(self, x, style):
        _, n_out, n_in, k, _ = self.weight.shape
        w = self.weight / math.sqrt(n_in * k * k) * self.modulation(style)[:, None, :, None, None]
        if self.demodulate:
            w = w * torch.rsqrt(w.square().sum((2, 3, 4), keepdim=True) + 1e-8)
        if self.up:
            y = [F.conv_transpose2d(x[i : i + 1], w[i].transpose(0, 1), stride=2) for i in range(len(x))]
            return self.blur(torch.cat(y))
        return torch.cat([F.conv2d(x[i : i + 1], w[i], padding=k // 2) for i in range(len(x))])


class StyledConv(nn.Module):
    def __init__(self, n_in, n_out, style_dim, up=False):
        super().__init__()
        self.conv = ModulatedConv(n_in, n_out, 3, style_dim, up=up)
        self.noise, self.activate = nn.Module(), nn.Module()
        self.noise.weight = nn.Parameter(torch.randn(1))
        self.activate.bias = nn.Parameter(torch.randn(n_out))

    def forward(self, x, style, noise):
        y = self.conv(x, style) + self.noise.weight * noise
        return F.leaky_relu(y + self.activate.bias[:, None, None], 0.2) * 2**0.5


class ToRgb(nn.Module):
    def __init__(self, n_in, style_dim, up=True):
        super().__init__()
        if up:
            self.upsample = Kernel(2, (2, 1))
        self.conv = ModulatedConv(n_in, 3, 1, style_dim, demodulate=False)
        self.bias = nn.Parameter(torch.randn(1, 3, 1, 1))

    def forward(self, x, style, skip=None):
        y = self.conv(x, style) + self.bias
        return y if skip is None else y + self.upsample(skip)


class RosinalityGenerator(nn.Module):
    """Same names, shapes and arithmetic as the generator of stylegan2-pytorch; ``widths`` from 4 px up."""

    def __init__(self, widths=(40, 40, 32, 16), style_dim=20, layers=3):
        super().__init__()
        self.style = nn.Sequential(
            nn.Identity(), *[EqualLinear(style_dim, style_dim, 0.01, True) for _ in range(layers)]
        )
        for fc in list(self.style)[1:]:
            fc.bias.data.normal_(std=30)
        self.input = nn.Module()
        self.input.input = nn.Parameter(torch.randn(1, widths[0], 4, 4))
        self.conv1 = StyledConv(widths[0], widths[0], style_dim)
        self.to_rgb1 = ToRgb(widths[0], style_dim, up=False)
        self.convs, self.to_rgbs, self.noises = nn.ModuleList(), nn.ModuleList(), nn.Module()
        for n_in, n_out in zip(widths, widths[1:]):
            self.convs.extend([StyledConv(n_in, n_out, style_dim, up=True), StyledConv(n_out, n_out, style_dim)])
            self.to_rgbs.append(ToRgb(n_out, style_dim))
        for i in range(2 * len(widths) - 1):
            size = 4 << (i + 1) // 2
            self.noises.register_buffer(f"noise_{i}", torch.randn(1, 1, size, size))

    def mapping(self, z):
        return self.style(z * torch.rsqrt(z.square().mean(1, keepdim=True) + 1e-8))

    def forward(self, w):
        noise = [getattr(self.noises, f"noise_{i}") for i in range(len(self.convs) + 1)]
        x = self.conv1(self.input.input.expand(len(w), -1, -1, -1), w, noise[0])
        skip = self.to_rgb1(x, w)
        for i, to_rgb in enumerate(self.to_rgbs):
            x = self.convs[2 * i](x, w, noise[2 * i + 1])
            x = self.convs[2 * i + 1](x, w, noise[2 * i + 2])
            skip = to_rgb(x, w, skip)
        return skip


def torch_bytes(value, legacy=False):
    """Return the bytes that torch.save writes for ``value``."""
    stream = io.BytesIO()
    torch.save(value, stream, _use_new_zipfile_serialization=not legacy)
    return stream.getvalue()
