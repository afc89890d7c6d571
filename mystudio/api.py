"""The stages as functions over files: the public API of ``import mystudio``.

Each function takes paths, writes one result and returns its path, like the command of the same name. A result that is
up to date is not computed again, and a stage that was stopped continues. ``load`` reads a result into memory. The
stages without files are in ``mystudio.pipeline``'s imports; docs/examples shows both.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any, Literal, TypeVar, overload

from mystudio import engines, pipeline
from mystudio.errors import BadArtifact, BadRecipe
from mystudio.recipe import Recipe, resolve
from mystudio.storage import artifacts
from mystudio.storage.manifest import open_folder, with_article
from mystudio.types import Avatar, Edit, Performance, Progress, Take, silent
from selfscan.types import WHOLE, Scan, Span

Artifact = TypeVar("Artifact", Scan, Performance, Avatar, Take)


def scan(
    video: str | Path | Sequence[str | Path],
    out: str | Path,
    consent: str,
    *,
    fictional: bool = False,
    consent_clip: str | Path | None = None,
    face: str = "largest",
    span: Span = WHOLE,
    recipe: Recipe | str | Path = "default",
    options: Mapping[str, Any] | None = None,
    progress: Progress = silent,
    force: bool = False,
) -> Path:
    """Choose sharp, diverse, aligned images of one person from a clip, or from several.

    Args:
        video: clip of one person, 20 to 30 s; or up to eight clips of this person.
        out: folder of the scan.
        consent: name of the person shown, who is you or has agreed. It is stored with the scan.
        fictional: the person does not exist, and ``consent`` is the character's name.
        consent_clip: a separate clip in which the person agrees.
        face: which face to take where there are several: "largest", "left", "right", or a number from 1.
        span: the part of each clip to use, ``Span(start, end)`` in s.
        recipe: a recipe's name, its TOML file, or resolved settings.
        options: settings that differ from the recipe's, such as ``{"scan.frames": 60}``.
        progress: called with (stage, done, total).
        force: compute again although the result is up to date.
    Returns: ``out``.
    Raises: SelfscanError, StudioError: one sentence says what was expected, what came and what to do.
    """
    return pipeline.run_scan(
        Path(video) if isinstance(video, (str, Path)) else [Path(one) for one in video],
        Path(out),
        consent,
        _resolved(recipe, options),
        progress,
        fictional=fictional,
        span=span,
        consent_clip=Path(consent_clip) if consent_clip else None,
        face=face,
        force=force,
    )


def personalize(
    scan: str | Path,
    out: str | Path,
    *,
    base: str | Path = "people128",
    engine: str = engines.DEFAULT,
    recipe: Recipe | str | Path = "default",
    options: Mapping[str, Any] | None = None,
    minutes: float = 0.0,
    until_good: bool = False,
    without: Sequence[int] = (),
    device: str = "auto",
    progress: Progress = silent,
    force: bool = False,
    tell: Callable[[str], None] = pipeline.unheard,
) -> Path:
    """Make the avatar of a scan: a generator tuned until it draws this person. This is the long stage.

    ``out`` can be used after the first minute, and is replaced as the avatar improves.

    Args:
        scan: folder of the scan.
        out: folder of the avatar.
        base: name or file of the generator to start from.
        engine: name of the engine that makes and drives the avatar.
        recipe, options, progress, force: see ``scan``.
        minutes: stop after so many minutes with the avatar of that moment; the same call goes on. 0 = no limit.
        until_good: stop as soon as more time would change little.
        without: numbers of images that are left out: those of ``load(scan).frame_index``.
        device: "auto", "cpu" or "cuda".
        tell: called with a sentence each time a usable avatar was stored.
    Returns: ``out``.
    Raises: StudioError: see ``scan``.
    """
    return pipeline.run_personalize(
        Path(scan),
        Path(out),
        str(base),
        _resolved(recipe, options),
        progress,
        engine=engine,
        device=device,
        force=force,
        minutes=minutes,
        until_good=until_good,
        without=without,
        tell=tell,
    )


def reenact(
    avatar: str | Path,
    video: str | Path,
    out: str | Path,
    *,
    face: str = "largest",
    others: Literal["drive", "leave-out"] = "drive",
    span: Span = WHOLE,
    recipe: Recipe | str | Path = "default",
    options: Mapping[str, Any] | None = None,
    device: str = "auto",
    progress: Progress = silent,
    force: bool = False,
    tell: Callable[[str], None] = pipeline.unheard,
) -> Path:
    """Drive an avatar with a clip: the take holds codes over time and no pixels.

    The measured clip is stored beside ``out`` as a performance, which other avatars use again.

    Args:
        avatar: folder of the avatar.
        video: the driving clip, of any person.
        out: folder of the take.
        face: see ``scan``.
        others: after a cut to another person, that person drives, or the avatar waits ("leave-out").
        span: see ``scan``.
        recipe, options, progress, force: see ``scan``. device: see ``personalize``.
        tell: takes sentences on what the avatar will not be able to follow, before the frames are solved.
    Returns: ``out``.
    Raises: SelfscanError, StudioError: see ``scan``.
    """
    found = _resolved(recipe, options)
    return pipeline.run_reenact(
        Path(avatar),
        Path(video),
        Path(out),
        found,
        progress,
        face=face,
        others=others,
        span=span,
        device=device,
        force=force,
        tell=tell,
    )


def edit(
    take: str | Path,
    out: str | Path,
    edits: Mapping[str, float | Sequence[tuple[float, float]]] | Sequence[Edit],
    *,
    edge: str = "project",
    directions: str | Path | None = None,
    force: bool = False,
) -> Path:
    """Move a take along named directions: another take.

    Args:
        take: folder of the take, which is not changed.
        out: folder of the edited take.
        edits: ``{"smile": 1.0, "gaze_x": [(0.0, 0.0), (1.5, -1.0)]}``, strengths or (seconds, strength) keyframes;
            or ``Edit`` objects. They are applied in their order.
        edge: treatment of codes outside the avatar's range, for edits given as a mapping: "project", "stop" or
            "continue" (see ``mystudio.types.Edit``).
        directions: file of more directions in W (.safetensors, .npz, .npy, .pt, .pth): name -> [D] or [L, D].
    Returns: ``out``.
    Raises: BadEdit: an unknown direction or edge, or a strength that is not finite.
    """
    if isinstance(edits, Mapping):
        edits = [_edit(name, strength, edge) for name, strength in edits.items()]
    return pipeline.run_edit(
        Path(take), Path(out), edits, directions=Path(directions) if directions else None, force=force
    )


def render(
    take: str | Path,
    out: str | Path,
    *,
    view: str | None = None,
    audio_track: int | None = None,
    recipe: Recipe | str | Path = "default",
    options: Mapping[str, Any] | None = None,
    device: str = "auto",
    progress: Progress = silent,
    force: bool = False,
) -> Path:
    """Write a take as a video, with the driving clip's time stamps and sound, or as pictures.

    Args:
        take: folder of the take.
        out: its ending says the container: .mp4, .m4v, .mov, .mkv, .webm, .gif, one picture (.png, .webp), or with a
            slash at the end a folder of PNGs.
        audio_track: sound track of the driving clip, from 1; None = its default, or the first that is not silent.
        view: "aligned", "side-by-side" or "paste"; None takes the recipe's ``render.view``.
        recipe, options, progress, force: see ``scan``. device: see ``personalize``.
    Returns: ``out``.
    Raises: StudioError: see ``scan``.
    """
    changed = {**(options or {}), **({"render.view": view} if view else {})}
    resolved = _resolved(recipe, changed)
    pipeline.run_render(Path(take), out, resolved, progress, audio_track=audio_track, device=device, force=force)
    return Path(out)


def evaluate(
    take: str | Path,
    out: str | Path,
    *,
    truth: str | Path | None = None,
    identity_net: str | Path | None = None,
    blendshapes: str | Path | None = None,
    device: str = "auto",
    progress: Progress = silent,
    force: bool = False,
) -> Path:
    """Measure a take: ``metrics.json`` and ``report.html`` in a folder.

    Args:
        take: folder of the take.
        out: folder of the report.
        truth: clip of the true result, frame by frame; "same" where the driving clip shows the avatar's own person.
        identity_net: ONNX file of a further face network.
        blendshapes: MediaPipe's face_landmarker.task.
        progress, force: see ``scan``. device: see ``personalize``.
    Returns: ``out``.
    Raises: StudioError: see ``scan``.
    """
    return pipeline.run_evaluate(
        Path(take),
        Path(out),
        progress,
        truth="same" if truth == "same" else Path(truth) if truth else None,
        identity_net=Path(identity_net) if identity_net else None,
        blendshapes=Path(blendshapes) if blendshapes else None,
        device=device,
        force=force,
    )


@overload
def load(path: str | Path) -> Scan | Performance | Avatar | Take: ...
@overload
def load(path: str | Path, kind: type[Artifact]) -> Artifact: ...
def load(path: str | Path, kind: type[Any] | None = None) -> Any:
    """Read a scan, performance, avatar or take into memory, every file verified.

    Args:
        path: folder of the artifact.
        kind: the type that is expected, such as ``Take``; None = whatever the folder holds.
    Raises: BadArtifact: missing, damaged, or of another kind.
    """
    folder = Path(path)
    found = open_folder(folder, artifacts.KINDS[kind] if kind else None).manifest.type
    if found == artifacts.KINDS[Performance]:
        return artifacts.load_performance(folder)  # also finds its clip
    for cls, name in artifacts.KINDS.items():
        if found == name:
            return artifacts.load(folder, cls)
    expected = ", ".join(artifacts.KINDS.values())
    raise BadArtifact(f"{folder} is {with_article(found)}, expected one of {expected}; read the files in it instead")


def _resolved(recipe: Recipe | str | Path, options: Mapping[str, Any] | None) -> Recipe:
    if not isinstance(recipe, Recipe):
        return resolve(recipe, [f"{key}={_toml(key, value)}" for key, value in (options or {}).items()])
    if options:
        raise BadRecipe("expected options beside a recipe's name or file, got a resolved recipe; resolve it with them")
    return recipe


def _toml(key: str, value: Any) -> str:
    """Return an option as TOML; numbers, strings, booleans and lists are written alike in JSON and TOML."""
    try:
        return json.dumps(str(value) if isinstance(value, Path) else value, ensure_ascii=False)
    except (TypeError, ValueError):
        raise BadRecipe(f"option {key}: expected a number, word, truth value or list, got {value!r:.80}") from None


def _edit(name: str, strength: float | Sequence[tuple[float, float]], edge: str) -> Edit:
    if isinstance(strength, (int, float, Real)):
        return Edit(name, float(strength), edge=edge)
    return Edit(name, keys=tuple((float(second), float(value)) for second, value in strength), edge=edge)
