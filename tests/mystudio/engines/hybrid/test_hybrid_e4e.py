"""e4e's encoder out of a user's file: the same codes as the published layout gives, written here a second time."""

import pytest
import torch
import torch.nn.functional as F
from foreign_files import torch_bytes
from torch import nn

from mystudio.engines.hybrid.e4e import load_e4e
from mystudio.engines.hybrid.network import ModelSettings
from mystudio.engines.hybrid.pyramid import PyramidShape
from mystudio.errors import BadCheckpoint
from mystudio.stylegan2.generator import Generator

SHAPE = PyramidShape((1, 2, 1, 1), (4, 8, 8, 16), 16)  # e4e's own is larger
SETTINGS = ModelSettings(64, SHAPE, 8, 16, 8, 2, until=16)


class Squeeze(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.avg_pool, self.relu, self.sigmoid = nn.AdaptiveAvgPool2d(1), nn.ReLU(), nn.Sigmoid()
        self.fc1 = nn.Conv2d(channels, channels // 16 or 1, 1, bias=False)
        self.fc2 = nn.Conv2d(channels // 16 or 1, channels, 1, bias=False)

    def forward(self, x):
        return x * self.sigmoid(self.fc2(self.relu(self.fc1(self.avg_pool(x)))))


class Bottleneck(nn.Module):
    def __init__(self, before, depth, stride):
        super().__init__()
        self.shortcut_layer = (
            nn.MaxPool2d(1, stride)
            if before == depth
            else nn.Sequential(nn.Conv2d(before, depth, (1, 1), stride, bias=False), nn.BatchNorm2d(depth))
        )
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(before),
            nn.Conv2d(before, depth, (3, 3), (1, 1), 1, bias=False),
            nn.PReLU(depth),
            nn.Conv2d(depth, depth, (3, 3), stride, 1, bias=False),
            nn.BatchNorm2d(depth),
            Squeeze(depth),
        )

    def forward(self, x):
        return self.res_layer(x) + self.shortcut_layer(x)


class Linear(nn.Module):
    def __init__(self, size, out):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(out, size)), nn.Parameter(torch.zeros(out))

    def forward(self, x):
        return F.linear(x, self.weight / self.weight.shape[1] ** 0.5, bias=self.bias)


class GradualStyle(nn.Module):
    def __init__(self, before, out, spatial):
        super().__init__()
        modules = [nn.Conv2d(before, out, 3, 2, 1), nn.LeakyReLU()]
        for _ in range(spatial.bit_length() - 2):
            modules += [nn.Conv2d(out, out, 3, 2, 1), nn.LeakyReLU()]
        self.convs, self.linear, self.out = nn.Sequential(*modules), Linear(out, out), out

    def forward(self, x):
        return self.linear(self.convs(x).view(-1, self.out))


class TheirEncoder(nn.Module):
    """As e4e's, for a generator with 8 layers; ends of the last three stages by index, as there."""

    def __init__(self):
        super().__init__()
        self.input_layer = nn.Sequential(nn.Conv2d(3, 4, 3, 1, 1, bias=False), nn.BatchNorm2d(4), nn.PReLU(4))
        self.body = nn.Sequential(
            Bottleneck(4, 4, 2), Bottleneck(4, 8, 2), Bottleneck(8, 8, 1), Bottleneck(8, 8, 2), Bottleneck(8, 16, 2)
        )
        self.styles = nn.ModuleList(GradualStyle(16, 16, 16 if i < 3 else 32 if i < 7 else 64) for i in range(8))
        self.latlayer1, self.latlayer2 = nn.Conv2d(8, 16, 1), nn.Conv2d(8, 16, 1)

    def forward(self, x):
        x = self.input_layer(x)
        for i, layer in enumerate(self.body):
            x = layer(x)
            if i == 2:
                c1 = x
            elif i == 3:
                c2 = x
            elif i == 4:
                c3 = x
        w0 = self.styles[0](c3)
        w = w0.repeat(8, 1, 1).permute(1, 0, 2)
        features = c3
        for i in range(1, 8):
            if i == 3:
                features = p2 = F.interpolate(c3, size=c2.shape[2:], mode="bilinear", align_corners=True)
                features = p2 = p2 + self.latlayer1(c2)
            elif i == 7:
                features = F.interpolate(p2, size=c1.shape[2:], mode="bilinear", align_corners=True)
                features = features + self.latlayer2(c1)
            w[:, i] += self.styles[i](features)
        return w


@pytest.fixture(scope="module")
def generator():
    torch.manual_seed(0)
    return Generator(32, 16, 16, 2, 256, 16).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def theirs():
    torch.manual_seed(1)
    net = TheirEncoder()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    return net.eval().requires_grad_(False)


AVERAGE = torch.randn(8, 16, generator=torch.Generator().manual_seed(3))


def file_of(net, path, drop=(), prefix="encoder.", average=True):
    state = {f"{prefix}{name}": value for name, value in net.state_dict().items() if name not in drop}
    content = {"state_dict": state, "opts": {"encoder_type": "Encoder4Editing"}}
    path.write_bytes(torch_bytes(content | ({"latent_avg": AVERAGE} if average else {})))
    return path


@pytest.mark.parametrize("prefix", ["encoder.", "module.encoder."])
def test_the_codes_are_theirs(generator, theirs, tmp_path, prefix):
    net = load_e4e(file_of(theirs, tmp_path / "e4e.pt", prefix=prefix), generator, SETTINGS, SHAPE).eval()
    images = torch.randn(2, 3, 256, 256)
    with torch.no_grad():
        expected = theirs(images) + AVERAGE
        found = net.identify(images)
    assert net.settings.resolution == 256 and torch.allclose(found.codes, expected, atol=1e-4)
    assert found.cells.shape == (2, 64, 16)


def test_other_files_are_refused(generator, theirs, tmp_path):
    with pytest.raises(BadCheckpoint, match="1 tensors are missing"):
        load_e4e(file_of(theirs, tmp_path / "a.pt", drop=("latlayer1.weight",)), generator, SETTINGS, SHAPE)
    with pytest.raises(BadCheckpoint, match="'latent_avg'"):
        load_e4e(file_of(theirs, tmp_path / "b.pt", average=False), generator, SETTINGS, SHAPE)
    with pytest.raises(BadCheckpoint, match=r"'encoder\.\*'"):
        load_e4e(file_of(theirs, tmp_path / "c.pt", prefix="decoder."), generator, SETTINGS, SHAPE)
    larger = Generator(64, 16, 16, 2, 256, 16)
    with pytest.raises(BadCheckpoint, match="10 layers .* import the base from the same file"):
        load_e4e(file_of(theirs, tmp_path / "d.pt"), larger, SETTINGS, SHAPE)
