"""Accuracy of a scan's identity check: distributions, false rejections, misses, spliced clips.

    python -m mystudio.bench.persons CLIP ... -o FOLDER [--same NAME,NAME] [--actors N] [--faces FOLDER]
                                     [--identity-net FILE] [--changes]

--same lists the clips of one person, by file name without suffix. Each actor (mystudio[actors]) is rendered twice: as a
self-scan, and talking with different light, clothes and background.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from mystudio.bench.clips import first_seconds
from selfscan.face.facemesh import load_facemesh
from selfscan.face.observe import iter_crops, measure, observe
from selfscan.face.recognition import load_recognition
from selfscan.scan import identity
from selfscan.scan.identity import CELL_SECONDS, SAME, WINDOW, Faces

ACTOR_SECONDS, ACTOR_FPS, ACTOR_SIZE, FIRST_ACTOR = 10, 10, 320, 5000
OF_THE_RECORDING = ("shirt_red", "shirt_green", "shirt_blue", "background_red", "background_green", "light_side",
                    "key_light", "light_warmth", "background_kind", "light_setup", "clothes", "camera")  # fmt: skip
SPLICES = (1.0, 1.5, 2.0, 2.5, 3.0)  # s of another person in the middle of a clip
CHANGED_SECONDS = 3.0  # seconds from the beginning of each clip
NET_FRAMES = 12  # frames of each clip for the independent network


@dataclass(frozen=True)
class Clip:
    """One recording of one person."""

    person: str
    seen: Faces
    vector: np.ndarray | None  # [E] embedding by the independent network


def film_actor(seed: int, folder: Path) -> list[Path]:
    """Render two clips of one synthetic person, once; returns their paths."""
    from mystudio.actors.actor import Actor
    from mystudio.actors.factors import EXTRA_NAMES, LOOK_NAMES
    from mystudio.actors.film import write_clip
    from mystudio.actors.motion import perform

    look = np.random.default_rng(seed).normal(size=len(LOOK_NAMES + EXTRA_NAMES))
    paths = []
    for k, script in enumerate(("selfscan", "talk")):
        paths.append(folder / f"actor-{seed}-{k}.mp4")
        if k:
            changed = [(LOOK_NAMES + EXTRA_NAMES).index(name) for name in OF_THE_RECORDING]
            look[changed] = np.random.default_rng(2 * FIRST_ACTOR + seed).normal(size=len(changed))
        if not paths[-1].is_file():
            score = perform(script, ACTOR_SECONDS, ACTOR_FPS, seed=100 * seed + k)
            write_clip(paths[-1], Actor(look.copy()), score, ACTOR_SIZE, seed=2 * seed + k)
    return paths


def observe_once(path: Path, person: str, kept: Path, net) -> Clip:
    """Observe a clip, or read the observation from ``kept`` if it is stored there."""
    file = kept / f"{path.stem}.faces.npz"  # an actor's clip has a NAME.npz of its own
    if not file.is_file():
        seen = observe(path)
        found = identity.faces_of(seen)
        np.savez(
            file,
            start=found.start,
            total=found.total,
            count=found.count,
            vector=_vector(seen, net) if net else np.zeros(0),
        )
    with np.load(file) as data:
        return Clip(
            person,
            Faces(data["start"], data["total"], data["count"]),
            data["vector"] if data["vector"].size else None,
        )


def _vector(seen, net) -> np.ndarray:
    wanted = np.flatnonzero(seen.track.valid)
    wanted = set(wanted[np.linspace(0, len(wanted) - 1, NET_FRAMES).astype(int)].tolist())
    frames = [(index, image) for index, image in iter_crops(seen) if index in wanted]
    return net.embed(np.stack([image for _, image in frames]), seen.landmarks[[index for index, _ in frames]]).mean(0)


def part(seen: Faces, wanted: np.ndarray | slice) -> Faces:
    """Return a clip's faces in some of its half seconds."""
    return Faces(seen.start[wanted], seen.total[wanted], seen.count[wanted])


def spliced(a: Faces, b: Faces, seconds: float) -> Faces:
    """Return clip ``a`` with its middle replaced by ``seconds`` from the middle of ``b``."""
    count, half = round(seconds / CELL_SECONDS), len(a.start) // 2
    first = max(0, len(b.start) // 2 - count // 2)
    middle = part(b, slice(first, first + count))
    total, count = (
        np.concatenate([getattr(a, k)[:half], getattr(middle, k), getattr(a, k)[half:]]) for k in ("total", "count")
    )
    return Faces(np.arange(len(total)) * CELL_SECONDS, total, count)


def same_clip(clips: Sequence[Clip]) -> Iterator[float]:
    """Yield the likeness of each window of a clip to the rest, without the seconds next to it."""
    for clip in clips:
        count = len(clip.seen.start)
        for k in range(count - WINDOW + 1):
            rest = (np.arange(count) < k - 1) | (np.arange(count) > k + WINDOW)
            yield identity.likeness(part(clip.seen, slice(k, k + WINDOW)), part(clip.seen, rest))


def thirds(clips: Sequence[Clip]) -> Iterator[float]:
    """Yield the likeness between the thirds of each clip."""
    for clip in clips:
        pieces = [part(clip.seen, piece) for piece in np.array_split(np.arange(len(clip.seen.start)), 3)]
        yield from (identity.likeness(pieces[i], pieces[j]) for i in range(3) for j in range(i))


def pairs(clips: Sequence[Clip], same: bool) -> Iterator[tuple[Clip, Clip]]:
    """Yield pairs of different clips, of the same person or of two people."""
    for i, a in enumerate(clips):
        yield from ((a, b) for b in clips[:i] if (a.person == b.person) == same)


def faces_against(clips: Sequence[Clip], folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compare single images of other people with clips: likeness [N, C], crops and landmarks of the images."""
    mesh, images, marks = load_facemesh(), [], []
    files = sorted([*folder.glob("*.jpg"), *folder.glob("*.png")])
    for start in range(0, len(files), 16):
        batch = np.stack([cv2.imread(str(file))[..., ::-1] for file in files[start : start + 16]])
        found, presence = measure(mesh, batch)
        small = [cv2.resize(x, (identity.SIDE,) * 2, interpolation=cv2.INTER_AREA) for x in batch[presence > 0.9]]
        images += small
        marks.append(found[presence > 0.9])
    images, marks = np.stack(images), np.concatenate(marks)
    singles = [Faces(np.zeros(1), row[None], np.ones(1)) for row in load_recognition().embed(images, marks)]
    return np.array([[identity.likeness(one, clip.seen) for clip in clips] for one in singles]), images, marks


def changed(path: Path, kept: Path) -> dict[str, float]:
    """Return the likeness of a clip's beginning to itself after each change in CHANGES; landmarks are unchanged."""
    seen = observe(first_seconds(path, kept / f"{path.stem}-beginning.mp4", CHANGED_SECONDS))
    wanted = [
        (index, image) for index, image in iter_crops(seen, identity.SIDE) if index % 4 == 0 and seen.track.valid[index]
    ]
    marks = seen.landmarks[[index for index, _ in wanted]]

    def faces(change: Callable[[np.ndarray, int], np.ndarray]) -> Faces:
        rows = load_recognition().embed(np.stack([change(image, index) for index, image in wanted]), marks)
        return Faces(np.zeros(1), rows.sum(0)[None], np.array([len(rows)]))

    plain = faces(lambda image, _: image)
    return {name: identity.likeness(plain, faces(change)) for name, change in CHANGES.items()}


def lit_from_the_side(image: np.ndarray, _: int) -> np.ndarray:
    """Multiply the picture by a horizontal ramp from 0.3 to 1.7."""
    ramp = np.linspace(0.3, 1.7, image.shape[1])[None, :, None]
    return np.clip(image * ramp, 0, 255).astype(np.uint8)


def dark_and_noisy(image: np.ndarray, index: int) -> np.ndarray:
    """Reduce the light to one third and add sensor noise."""
    noise = np.random.default_rng(index).normal(0, 6, image.shape)
    return np.clip(image / 3.0 + noise, 0, 255).astype(np.uint8)


def small(image: np.ndarray, _: int) -> np.ndarray:
    """Downscale to a quarter of the side length and back."""
    down = cv2.resize(image, (image.shape[1] // 4,) * 2, interpolation=cv2.INTER_AREA)
    return cv2.resize(down, image.shape[:2], interpolation=cv2.INTER_CUBIC)


def compressed(image: np.ndarray, _: int) -> np.ndarray:
    """JPEG of quality 15."""
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 15])[1], cv2.IMREAD_COLOR)


CHANGES = {
    "light from the side": lit_from_the_side,
    "a third of the light, noise": dark_and_noisy,
    "a quarter of the pixels a side": small,
    "JPEG 15": compressed,
}


def line(name: str, values: Sequence[float] | np.ndarray, different: bool) -> str:
    """Return a row of the table: percentiles, and the share on the wrong side of the threshold."""
    x = np.array([v for v in values if not np.isnan(v)])
    if not len(x):
        return f"| {name} | 0 | | | | | |"
    wrong = (x >= SAME) if different else (x < SAME)
    cells = [f"{np.percentile(x, q):.2f}" for q in ((50, 95, 99, 100) if different else (50, 5, 1, 0))]
    return f"| {name} | {len(x)} | " + " | ".join(cells) + f" | {100 * wrong.mean():.2f} % ({wrong.sum()}) |"


def spread(groups: Mapping[str, Sequence[Clip]]) -> Iterator[str]:
    """The tables of likeness."""
    yield "| same person | pairs | median | 5 % | 1 % | least | refused |\n|---|---|---|---|---|---|---|"
    for name, clips in groups.items():
        yield line(f"{name}: 1.5 s, rest of the clip", list(same_clip(clips)), False)
        yield line(
            f"{name}: the least like 1.5 s of each, as a scan judges them",
            [low for clip in clips if (low := identity.find_strangers(clip.seen)[0].lowest) is not None],
            False,
        )
        yield line(f"{name}: thirds of a clip", list(thirds(clips)), False)
        yield line(
            f"{name}: two recordings", [identity.likeness(a.seen, b.seen) for a, b in pairs(clips, same=True)], False
        )
    yield "\n| different people | pairs | median | 95 % | 99 % | most | missed |\n|---|---|---|---|---|---|---|"
    for name, clips in groups.items():
        yield line(
            f"{name}: whole clips", [identity.likeness(a.seen, b.seen) for a, b in pairs(clips, same=False)], True
        )


def spliced_clips(groups: Mapping[str, Sequence[Clip]]) -> Iterator[str]:
    """Yield the table of rejections: clips of one person, and clips with another person spliced in."""
    yield "\n| refused | honest clips |" + "".join(f" {s:g} s of another |" for s in SPLICES) + " half of another |"
    yield "|---|---|" + "---|" * (len(SPLICES) + 1)
    for name, clips in groups.items():
        cells = [_refused([clip.seen for clip in clips])]
        foreign = [(a.seen, b.seen) for x in clips for a, b in ((x, y) for y in clips if y.person != x.person)]
        for seconds in SPLICES:
            cells.append(_refused([spliced(a, b, seconds) for a, b in foreign]))
        cells.append(_refused([spliced(part(a, slice(len(a.start) // 2)), b, 99) for a, b in foreign]))
        yield f"| {name} | " + " | ".join(cells) + " |"


def _refused(clips: Sequence[Faces]) -> str:
    count = sum(bool(identity.find_strangers(seen)[1]) for seen in clips)
    return f"{count} of {len(clips)}"


def cosine_of(a: np.ndarray, b: np.ndarray) -> float:
    """Return the cosine of the angle between two embeddings [E]."""
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def by_the_net(groups: Mapping[str, Sequence[Clip]]) -> Iterator[str]:
    """Yield the table for the same pairs of clips, measured with an independent face network."""
    yield "\n| independent network | same person, least | different people, most | correlation with ours |"
    yield "|---|---|---|---|"
    for name, clips in groups.items():
        cosine = {
            same: [
                cosine_of(a.vector, b.vector)
                for a, b in pairs(clips, same)
                if a.vector is not None and b.vector is not None
            ]
            for same in (True, False)
        }
        ours = [identity.likeness(a.seen, b.seen) for same in (True, False) for a, b in pairs(clips, same)]
        agreement = np.corrcoef(ours, cosine[True] + cosine[False])[0, 1]
        yield f"| {name} | {min(cosine[True], default=np.nan):.2f} | {max(cosine[False]):.2f} | {agreement:.2f} |"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder of actors' clips and what was seen")
    parser.add_argument("--same", default="", help="stems of clips of one person, with commas")
    parser.add_argument("--actors", type=int, default=0)
    parser.add_argument("--faces", type=Path, help="folder of FFHQ-aligned images of other people")
    parser.add_argument("--changes", action="store_true", help="also change light, noise, size and compression")
    parser.add_argument("--identity-net", type=Path, help="ONNX file of an independent face network")
    given = parser.parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    from mystudio.evaluation.face_nets import IdentityNet

    net, one = IdentityNet(given.identity_net) if given.identity_net else None, set(given.same.split(","))
    clips = [observe_once(p, given.same if p.stem in one else p.stem, given.out, net) for p in given.clips]
    groups = {"clips": clips}
    if given.actors:
        groups["actors"] = [
            observe_once(path, str(seed), given.out, net)
            for seed in range(FIRST_ACTOR, FIRST_ACTOR + given.actors)
            for path in film_actor(seed, given.out)
        ]
    for text in (*spread(groups), *spliced_clips(groups), *(by_the_net(groups) if net else ())):
        print(text, flush=True)
    if given.faces:
        found, images, marks = faces_against(clips, given.faces)
        print("\n" + line("single images of other people, clips", found.ravel(), True))
        if net:
            vectors = net.embed(images, marks)
            for n, c in np.argwhere(found >= SAME):
                mine = clips[c].vector / np.linalg.norm(clips[c].vector)
                print(
                    f"taken for one: image {n}, {clips[c].person}: likeness {found[n, c]:.2f}, network "
                    f"{float(vectors[n] @ mine):.2f}"
                )
    if not given.changes:
        return
    found = [changed(path, given.out) for path in given.clips]
    print(f"\n| the first {CHANGED_SECONDS:g} s, changed |" + "".join(f" {path.stem} |" for path in given.clips))
    for name in CHANGES:
        print(f"| {name} |" + "".join(f" {values[name]:.2f} |" for values in found))


if __name__ == "__main__":
    main()
