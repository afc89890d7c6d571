"""Train the packaged perceptual network: SqueezeNet's shape, taught on faces to make the embedding of LPIPS.

    python recipes/make_perceptual.py OUT --teacher SQUEEZENET --faces FACES --data ACTORS --minutes 9

SQUEEZENET is torchvision's squeezenet1_1, FACES a folder of portraits, ACTORS one of ``mystudio actors dataset``. Each
call resumes the last one. OUT/lpips_face.safetensors is the network, OUT/figures.json how near it is.

All weights start at random. First, each convolution learns alone: from the teacher's input of it, with noise, to its
output. Noise shows it directions that pictures of faces hardly have; gradients depend on them. Then the whole network
learns the embedding and the gradient of distances.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from scipy.stats import spearmanr
from torch import Tensor, nn

from mystudio.bases import find_base
from selfscan.io.pixels import to_tensor
from selfscan.perceptual.lpips_layers import TAPS, Fire, LpipsLayers, convolutions, find_heads

SIDES = (64, 64, 96, 96, 128, 128, 128, 160, 192, 224, 256, 384)  # px of the square images of a batch
PIXELS = 10 * 128 * 128  # of a batch
HELD_OUT = 10  # every tenth portrait and the last tenth of the actors are never trained on
LAYERWISE, WHOLE = 4000, 2000  # steps of the two phases
RATE = 2e-3  # Adam's, with cosine decay in each phase
NOISE = 0.5  # of the inputs' spread, the largest in the first phase
GRADIENTS = 0.3  # weight of the gradients' direction in the second phase
SAVE_EVERY = 120  # s between checkpoints
GRADIENT_SHARE = 4  # one in so many images gives a gradient


def main() -> None:
    """Train until the time limit or the end, then measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--faces", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="a folder of .npz files of images uint8 [N, H, H, 3]")
    parser.add_argument("--minutes", type=float, default=0.0, help="time limit of this call; 0 = until all is done")
    parser.add_argument("--measure", action="store_true", help="only measure the network as it is")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    run = Run(given.out, given.teacher)
    pictures = Pictures(given.faces, given.data)
    if not given.measure:
        run.train(pictures, time.monotonic() + 60 * given.minutes if given.minutes else None)
    figures = measure(run.teacher, run.student, pictures)
    (given.out / "figures.json").write_text(json.dumps({"step": run.step} | figures, indent=1) + "\n")
    print(json.dumps({"step": run.step} | figures))


class Pictures:
    """Faces as tuning meets them: whole or a part, any size, blurred, noisy, miscoloured, drawn by a generator."""

    def __init__(self, faces: Path, data: Path):
        read = [cv2.imread(str(file)) for file in sorted(faces.glob("*.jpg"))]
        portraits = [cv2.cvtColor(image, cv2.COLOR_BGR2RGB) for image in read]
        actors = np.concatenate([np.load(file)["images"] for file in sorted(data.glob("*.npz"))])
        last = len(actors) - len(actors) // HELD_OUT
        self.sources = [[p for k, p in enumerate(portraits) if k % HELD_OUT], actors[:last]]
        self.unseen = [portraits[::HELD_OUT], actors[last:]]
        self.generator = find_base("people128").generator.eval().requires_grad_(False)

    def batch(self, rng: np.random.Generator) -> Tensor:
        """Images [N, 3, S, S] in [-1, 1]."""
        side = int(rng.choice(SIDES))
        count = max(4, PIXELS // side**2)
        drawn = count // 6
        images = [self.view(self.sources, rng, side) for _ in range(count - drawn)]
        return torch.cat([to_tensor(np.stack(images)), self.drawn(drawn, side, rng)])

    def view(self, sources: list, rng: np.random.Generator, side: int) -> np.ndarray:
        """A disturbed square part [S, S, 3] uint8 of a random image."""
        source = sources[int(rng.random() < 0.4)]
        image = np.asarray(source[rng.integers(len(source))])
        if rng.random() < 0.5:
            image = image[:, ::-1]
        full = image.shape[0]
        if rng.random() < 0.6:
            part = int(full * rng.uniform(0.25, 1))
            y, x = rng.integers(0, full - part + 1, 2)
            image = image[y : y + part, x : x + part]
        if rng.random() < 0.25:  # a mixture, as the average face at a tuning's start
            other = np.asarray(source[rng.integers(len(source))])
            other = cv2.resize(other, image.shape[1::-1], interpolation=cv2.INTER_AREA)
            image = cv2.addWeighted(
                np.ascontiguousarray(image), float(a := rng.uniform(0.3, 0.7)), other, 1 - float(a), 0
            )
        way = cv2.INTER_AREA if image.shape[0] > side else cv2.INTER_CUBIC
        return disturb(cv2.resize(np.ascontiguousarray(image), (side, side), interpolation=way), rng)

    @torch.no_grad()
    def drawn(self, count: int, side: int, rng: np.random.Generator) -> Tensor:
        """Pictures of the base [N, 3, S, S], some with changed weights, as in the middle of a tuning."""
        seeded = torch.Generator().manual_seed(int(rng.integers(1 << 31)))
        ws = self.generator.mapping(torch.randn(count, self.generator.z_dim, generator=seeded))
        if rng.random() < 0.5:
            ws = ws.mean(0, keepdim=True).lerp(ws, float(rng.uniform(0.2, 1.6)))
        made = self.generator(ws[:, None].expand(-1, self.generator.num_ws, -1)).clamp(-1.2, 1.2)
        return F.interpolate(made, (side, side), mode="bilinear", antialias=True, align_corners=False).clamp(-1, 1)


def disturb(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blur, noise, colours, enlarged pixels or nothing."""
    found = image.astype(np.float32)
    if rng.random() < 0.3:
        found = cv2.GaussianBlur(found, (0, 0), float(rng.uniform(0.3, image.shape[0] / 24)))
    if rng.random() < 0.15:
        small = max(8, int(image.shape[0] * rng.uniform(0.15, 0.6)))
        found = cv2.resize(found, (small, small), interpolation=cv2.INTER_AREA)
        found = cv2.resize(
            found, image.shape[1::-1], interpolation=int(rng.choice([cv2.INTER_LINEAR, cv2.INTER_NEAREST]))
        )
    if rng.random() < 0.3:
        found = 127.5 + (found - 127.5) * rng.uniform(0.5, 1.4) + rng.normal(0, 25, 3)
    if rng.random() < 0.1:
        found = found @ (np.eye(3) + rng.normal(0, 0.25, (3, 3))).astype(np.float32)
    if rng.random() < 0.25:
        found = found + rng.normal(0, rng.uniform(1, 20), found.shape)
    return np.clip(np.rint(found), 0, 255).astype(np.uint8)


class Run:
    """Teacher, student, Adam and the step; a checkpoint replaces the last one at once."""

    def __init__(self, out: Path, teacher: Path):
        heads = find_heads("squeeze")
        if heads is None:
            raise SystemExit("expected the package lpips, which carries the heads; install it")
        self.teacher = LpipsLayers("squeeze", teacher, heads).eval().requires_grad_(False)
        torch.manual_seed(0)
        self.student = LpipsLayers("squeeze", teacher, heads)
        self.student.features = convolutions("squeeze")
        for module in self.student.features.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)
        for net in (self.teacher, self.student):
            net.to(memory_format=torch.channels_last)
        self.adam = torch.optim.Adam(self.student.features.parameters(), lr=RATE, betas=(0.9, 0.99))
        self.file, self.made, self.log = out / "run.safetensors", out / "lpips_face.safetensors", out / "metrics.jsonl"
        self.step = self._resume() if self.file.is_file() else 0

    def train(self, pictures: Pictures, ends: float | None) -> None:
        """Train until the end or the time limit; write a checkpoint every few minutes."""
        saved, losses = time.monotonic(), []
        while self.step < LAYERWISE + WHOLE and (ends is None or time.monotonic() < ends):
            first = self.step < LAYERWISE
            done = self.step / LAYERWISE if first else (self.step - LAYERWISE) / WHOLE
            rate = RATE * (1 if first else 0.5) * (0.5 + 0.5 * np.cos(np.pi * done)) * min(1, (self.step + 1) / 100)
            self.adam.param_groups[0]["lr"] = float(rate) + 1e-6
            images = pictures.batch(np.random.default_rng([0, self.step])).contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16, enabled=first):
                loss = self._layers(images, self.step) if first else self._whole(images, self.step)
            self.adam.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.student.features.parameters(), 5.0)
            self.adam.step()
            losses.append(float(loss.detach()))
            self.step += 1
            if self.step % 50 == 0:
                with self.log.open("a") as log:
                    log.write(json.dumps({"step": self.step, "loss": float(np.mean(losses)), "at": time.time()}) + "\n")
                losses = []
            if time.monotonic() - saved > SAVE_EVERY:
                self._save()
                saved = time.monotonic()
        self._save()

    def _layers(self, images: Tensor, step: int) -> Tensor:
        """Relative squared error of each convolution's output, from the teacher's input; the mean over them."""
        x = (images - self.teacher.shift) / self.teacher.scale
        seeded = torch.Generator().manual_seed(step)
        losses = []

        def learn(taught: nn.Conv2d, learnt: nn.Conv2d, given: Tensor) -> Tensor:
            """Compare both convolutions on the noisy input; return the teacher's output of the clean one."""
            with torch.no_grad():
                spread = NOISE * torch.rand(len(given), 1, 1, 1, generator=seeded) * given.std()
                noisy = given + spread * torch.randn(given.shape, generator=seeded)
                aim, clean = taught(noisy), taught(given)
            losses.append(relative(learnt(noisy), aim))
            return clean

        for taught, learnt in zip(self.teacher.features, self.student.features):
            if isinstance(taught, nn.Conv2d):
                x = learn(taught, learnt, x)
            elif isinstance(taught, Fire):
                inner = F.relu(learn(taught.squeeze, learnt.squeeze, x))
                outer = [learn(getattr(taught, n), getattr(learnt, n), inner) for n in ("expand1x1", "expand3x3")]
                x = F.relu(torch.cat(outer, 1))
            else:
                x = taught(x)
        return torch.stack(losses).mean()

    def _whole(self, images: Tensor, step: int) -> Tensor:
        """Relative squared error of features and embedding, and the gradients' direction on a share of the images."""
        x = (images - self.teacher.shift) / self.teacher.scale
        with torch.no_grad():
            aims = features(self.teacher, x)
        found = features(self.student, x)
        total = images.new_zeros(())
        for k, (made, aim) in enumerate(zip(found, aims)):
            root = getattr(self.teacher, f"root{k}")[:, None, None]
            total = total + 0.3 * relative(made, aim) + relative(unit(made) * root, unit(aim) * root)
        total = total / len(aims)
        count = max(2, len(images) // GRADIENT_SHARE // 2 * 2)
        if GRADIENTS:
            part = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(step))[:count]]
            total = total + GRADIENTS * (1 - alignment(self.teacher, self.student, part, True).mean())
        return total

    def _save(self) -> None:
        state = {f"student.{k}": v.contiguous() for k, v in self.student.features.state_dict().items()}
        for name, parameter in self.student.features.named_parameters():
            if parameter in self.adam.state:
                kept = self.adam.state[parameter]
                state |= {f"m.{name}": kept["exp_avg"].contiguous(), f"v.{name}": kept["exp_avg_sq"].contiguous()}
        save(state, self.file, {"step": str(self.step)})
        half = {f"features.{k}": v.half().contiguous() for k, v in self.student.features.state_dict().items()}
        save(half, self.made, {"step": str(self.step)})

    def _resume(self) -> int:
        state = load_file(self.file)
        self.student.features.load_state_dict(
            {k.removeprefix("student."): v for k, v in state.items() if k.startswith("student.")}
        )
        with safe_open(self.file, "pt") as file:
            step = int(file.metadata()["step"])
        for name, parameter in self.student.features.named_parameters():
            if f"m.{name}" in state:
                self.adam.state[parameter] = {
                    "step": torch.tensor(float(step)),
                    "exp_avg": state[f"m.{name}"],
                    "exp_avg_sq": state[f"v.{name}"],
                }
        return step


def save(state: dict[str, Tensor], file: Path, told: dict[str, str]) -> None:
    """Write tensors beside the file, then replace it."""
    save_file(state, beside := file.with_suffix(".part"), told)
    os.replace(beside, file)


def blocks(net: nn.Sequential) -> Iterator[nn.Sequential]:
    """The modules between two layers of the embedding."""
    start = 0
    for tap in TAPS["squeeze"]:
        yield net[start : tap + 1]
        start = tap + 1


def features(net: LpipsLayers, x: Tensor) -> list[Tensor]:
    """Activations [N, C, h, w] of the layers of the embedding, of scaled images."""
    found = []
    for block in blocks(net.features):
        x = block(x)
        found.append(x)
    return found


def unit(f: Tensor) -> Tensor:
    """Features of unit length at each pixel; differentiable twice."""
    return f * (f.square().sum(1, keepdim=True) + 1e-12).rsqrt()


def relative(made: Tensor, aim: Tensor) -> Tensor:
    """Squared error over the aim's variance."""
    return (made - aim).square().mean() / (aim - aim.mean((0, 2, 3), keepdim=True)).square().mean()


def alignment(teacher: LpipsLayers, student: LpipsLayers, x: Tensor, train: bool) -> Tensor:
    """Cosines [N / 2] of the two networks' gradients of the distance of image pairs (first half to second half)."""
    half = len(x) // 2

    def gradient(net: LpipsLayers, keep: bool) -> Tensor:
        point = x[:half].detach().requires_grad_(True)
        with torch.no_grad():
            other = [unit(f) for f in features(net, x[half:])]
        value = x.new_zeros(())
        for k, (a, b) in enumerate(zip(features(net, point), other)):
            root = getattr(net, f"root{k}")[:, None, None]
            value = value + ((unit(a) - b) * root).square().sum((1, 2, 3)).div(a.shape[2] * a.shape[3]).sum()
        return torch.autograd.grad(value, point, create_graph=keep)[0]

    return F.cosine_similarity(gradient(teacher, False).flatten(1), gradient(student, train).flatten(1))


def measure(teacher: LpipsLayers, student: LpipsLayers, pictures: Pictures) -> dict:
    """Spearman's correlation of distances and the gradients' mean cosine, on people that were never trained on."""
    figures: dict[str, float] = {}
    rng = np.random.default_rng(1)
    for side in (64, 128, 256):
        pairs = pictures_pairs(pictures, rng, side, 200)
        ours, true, cosines = [], [], []
        for x, y in pairs:
            with torch.no_grad():
                ours.append(distance(student, x, y))
                true.append(distance(teacher, x, y))
            if len(cosines) < 10:
                both = (torch.cat([x, y]) - teacher.shift) / teacher.scale
                cosines.append(alignment(teacher, student, both, False))
        a, b = torch.cat(ours).numpy(), torch.cat(true).numpy()
        figures[f"spearman_{side}"] = float(spearmanr(a, b).statistic)
        figures[f"ratio_{side}"] = float(np.median(a[b > 1e-6] / b[b > 1e-6]))
        figures[f"cosine_{side}"] = float(torch.cat(cosines).mean())
    return figures


def pictures_pairs(pictures: Pictures, rng: np.random.Generator, side: int, count: int) -> list[tuple[Tensor, Tensor]]:
    """Pairs of unseen people: an image and the same disturbed, or another image; in tens."""
    found = []
    for _ in range(count // 10):
        first = [pictures.view(pictures.unseen, rng, side) for _ in range(10)]
        second = [disturb(f, rng) if k % 2 else pictures.view(pictures.unseen, rng, side) for k, f in enumerate(first)]
        found.append((to_tensor(np.stack(first)), to_tensor(np.stack(second))))
    return found


def distance(net: LpipsLayers, x: Tensor, y: Tensor) -> Tensor:
    """Distances [N] of image pairs by a network's embedding."""
    return torch.stack([(a - b).square().sum((1, 2, 3)) for a, b in zip(net(x), net(y))]).sum(0)


if __name__ == "__main__":
    main()
