"""Train the packaged perceptual network: SqueezeNet's shape, taught on faces to make the embedding of LPIPS.

    python recipes/make_perceptual.py OUT --teacher SQUEEZENET --faces FACES --data ACTORS --minutes 9

SQUEEZENET is torchvision's squeezenet1_1, FACES a folder of portraits, ACTORS one of ``mystudio actors dataset``. Each
call resumes the last one. OUT/lpips_face.safetensors is the network, OUT/figures.json how near it is.

All weights start at random. Each convolution learns alone: from the teacher's input of it, with noise, to the teacher's
output. Noise shows it directions that pictures of faces hardly have; gradients of distances depend on them.
"""

from __future__ import annotations

import argparse
import json
import os
import time
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
from selfscan.perceptual.lpips_layers import Fire, LpipsLayers, convolutions, find_heads

SIDES = (64, 64, 96, 96, 128, 128, 128, 160, 192, 224, 256, 384)  # px of the square images of a batch
PIXELS = 10 * 128 * 128  # of a batch
HELD_OUT = 10  # every tenth portrait and the last tenth of the actors are never trained on
STEPS = 4000
RATE = 2e-3  # Adam's, with cosine decay
NOISE = 0.5  # the largest, as a share of the inputs' spread
SAVE_EVERY = 120  # s between checkpoints


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
        while self.step < STEPS and (ends is None or time.monotonic() < ends):
            rate = RATE * (0.5 + 0.5 * np.cos(np.pi * self.step / STEPS)) * min(1, (self.step + 1) / 100)
            self.adam.param_groups[0]["lr"] = float(rate) + 1e-6
            images = pictures.batch(np.random.default_rng([0, self.step])).contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16):
                loss = self._layers(images, self.step)
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


def relative(made: Tensor, aim: Tensor) -> Tensor:
    """Squared error over the aim's variance."""
    return (made - aim).square().mean() / (aim - aim.mean((0, 2, 3), keepdim=True)).square().mean()


def measure(teacher: LpipsLayers, student: LpipsLayers, pictures: Pictures) -> dict:
    """Compare both networks' distances and gradients on people and pictures that were never trained on.

    Returns: by size of the pictures Spearman's correlation of the distances, their median ratio, and the mean cosine of
    the gradients.
    """
    figures: dict[str, float] = {}
    rng = np.random.default_rng(1)
    for side in (64, 128, 256):
        ours, true, cosines = [], [], []
        for x, y in pairs_of_unseen(pictures, rng, side, 200):
            (a, along), (b, true_along) = slope(student, x, y), slope(teacher, x, y)
            ours.append(a)
            true.append(b)
            cosines.append(F.cosine_similarity(along.flatten(1), true_along.flatten(1)))
        a, b, cosine = torch.cat(ours).numpy(), torch.cat(true).numpy(), torch.cat(cosines).numpy()
        differ = b > 1e-6  # an undisturbed picture has neither a distance nor a gradient
        figures[f"spearman_{side}"] = float(spearmanr(a, b).statistic)
        figures[f"ratio_{side}"] = float(np.median(a[differ] / b[differ]))
        figures[f"cosine_{side}"] = float(cosine[differ].mean())
    return figures


def slope(net: LpipsLayers, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Distances [N] of image pairs by a network's embedding, and their gradients [N, 3, S, S] in x."""
    point = x.clone().requires_grad_(True)
    found = torch.stack([(a - b).square().sum((1, 2, 3)) for a, b in zip(net(point), net(y))]).sum(0)
    return found.detach(), torch.autograd.grad(found.sum(), point)[0]


def pairs_of_unseen(pictures: Pictures, rng: np.random.Generator, side: int, count: int) -> list[tuple[Tensor, Tensor]]:
    """Pairs of unseen people: an image and the same disturbed, or another image; in tens."""
    found = []
    for _ in range(count // 10):
        first = [pictures.view(pictures.unseen, rng, side) for _ in range(10)]
        second = [disturb(f, rng) if k % 2 else pictures.view(pictures.unseen, rng, side) for k, f in enumerate(first)]
        found.append((to_tensor(np.stack(first)), to_tensor(np.stack(second))))
    return found


if __name__ == "__main__":
    main()
