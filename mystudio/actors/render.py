"""Render one image of an actor, with exact ground truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mystudio.actors import camera as cameras
from mystudio.actors import glasses, light, materials, place, shade
from mystudio.actors.actor import Actor
from mystudio.actors.basis import EXPRESSION_ID, EXPRESSIONS
from mystudio.actors.camera import DISTANCE, Camera
from mystudio.actors.motion import gaze_angles, rotation
from mystudio.actors.noise import volume
from mystudio.actors.raster import NOTHING, draw_strands, rasterize, vertex_normals
from mystudio.actors.strands import Strands

SUPERSAMPLE = 2  # samples a pixel in each direction
_CASTS = 2000  # groups of fewer strands cast no shadow
_EYE_BACK = 0.05  # cm: eyeballs are drawn so much farther back, so that lids close over the cornea
_EYE_BACK_CLOSED = 0.35  # cm, for closed eyes


@dataclass(frozen=True, eq=False, repr=False)
class Frame:
    """An image and its ground truth."""

    image: np.ndarray  # [S, S, 3] uint8 RGB
    pose: np.ndarray  # [6] yaw, pitch, roll in radians, x, y, z in cm
    expression: np.ndarray  # [53] ARKit weights, in the order of basis.EXPRESSIONS
    gaze: np.ndarray  # [2, 2] left and right eye: yaw and pitch in radians, in the head's axes
    landmarks: np.ndarray  # [68, 2] px of the image, 0..S, Multi-PIE order
    identity: np.ndarray  # [38] look of the actor
    camera: Camera


def render(
    actor: Actor, expression: np.ndarray, pose: np.ndarray, size: int = 256, crop: str | None = None, seed: int = 0
) -> Frame:
    """Draw one frame.

    Args:
        expression: [53] ARKit weights. pose: [6] yaw, pitch, roll in radians and x, y, z in cm.
        size: px. crop: None for the camera's view, "ffhq" for the aligned square. seed: of the sensor's noise.
    """
    expression, pose = np.asarray(expression, np.float32), np.asarray(pose, np.float32)
    if expression.shape != (len(EXPRESSIONS),) or pose.shape != (6,):
        raise ValueError(f"expected expression [{len(EXPRESSIONS)}] and pose [6], got {expression.shape}, {pose.shape}")
    gaze = gaze_angles(expression)
    head = _Posed(actor, expression, pose, gaze)
    camera = cameras.aim(cameras.in_frame(head.landmarks.astype(np.float64)), size, crop)
    light_ = _draw(actor, head, camera, expression)
    image = cameras.develop(light_, actor.sensor, seed)
    return Frame(image, pose, expression, gaze, camera.project(head.landmarks).astype(np.float32), actor.look, camera)


class _Posed:
    """An actor's geometry in one frame, in camera axes."""

    def __init__(self, actor: Actor, expression: np.ndarray, angles: np.ndarray, gaze: np.ndarray):
        self.actor, head, basis = actor, actor.head, actor.basis
        self.blink = expression[[EXPRESSION_ID["eyeBlink_L"], EXPRESSION_ID["eyeBlink_R"]]]
        self.turn, self.shift = rotation(*angles[:3]), angles[3:]
        used = np.flatnonzero(expression)
        moved = actor.shape.copy()
        if len(used):
            flat = basis.expression[used].reshape(len(used), -1)
            moved[: len(basis.neutral)] += (expression[used] @ flat).reshape(-1, 3)
        for eye, side in enumerate("lr"):
            span = basis.part(f"sclera_{side}")
            centre = head.eyes[eye] + moved[span].mean(0) - basis.neutral[span].mean(0)
            moved[span] = (moved[span] - centre) @ rotation(gaze[eye, 0], gaze[eye, 1], 0).T + centre
        self.change = moved - actor.shape
        self.world = self.pose(moved, head.follow)
        self.landmarks = self.world[basis.landmarks]
        if actor.glasses:
            bridge = basis.landmarks[27]
            self.ride = 0.5 * self.change[bridge]
            self.world = np.concatenate([self.world, self.pose(actor.glasses.vertices + self.ride)])
        self.normals = np.empty_like(self.world)
        vertex_normals(self.world, actor.mesh.faces, self.normals)

    def pose(self, places: np.ndarray, follow: np.ndarray | None = None) -> np.ndarray:
        """Points [..., 3] from rest position to camera axes. follow: [...] share of the pose; None = all of it."""
        if follow is None:
            follow = np.ones(places.shape[:-1], np.float32)
        out = np.empty((follow.size, 3), np.float32)
        place.pose(places.reshape(-1, 3), follow.reshape(-1), self.turn, self.shift, out)
        return out.reshape(places.shape)

    def strands(self, strands: Strands) -> np.ndarray:
        """Points [S, P, 3] of strands in camera axes, moved with the skin under their roots and tips."""
        out = np.empty_like(strands.points)
        place.carry(strands.points, self.change, strands.root, strands.tip, out)
        return self.pose(out, strands.follow)


def _draw(actor: Actor, posed: _Posed, camera: Camera, expression: np.ndarray) -> np.ndarray:
    size, mesh = camera.size * SUPERSAMPLE, actor.mesh
    into = (camera.image_from_frame * SUPERSAMPLE).astype(np.float32)
    points = _seen(posed.world, into)
    depth, shown = np.full((size, size), NOTHING, np.float32), np.full((size, size), -1, np.int32)
    hairs = [(strands, posed.strands(strands)) for strands in actor.strands]
    dense = [places for _, places in hairs if len(places) > _CASTS]
    lights = actor.lights
    shadow = light.cast(
        lights,
        posed.world,
        [mesh.faces[part] for part in mesh.solid],
        dense,
        posed.pose(np.array([0, 1, 0], np.float32)),
    )
    _rasterize(actor, posed, points, depth, shown)
    jaw = min(1.0, float(expression[EXPRESSION_ID["jawOpen"]]) / 0.6)
    seen = np.empty((len(points), shade.POSED), np.float32)
    seen[:, shade.SEEN : shade.WORLD] = points[:, :2]
    seen[:, shade.WORLD : shade.NORMAL] = posed.world
    seen[:, shade.NORMAL : shade.OPEN] = posed.normals
    seen[:, shade.OPEN] = mesh.open + np.float32(jaw) * (mesh.open_jaw - mesh.open)
    surface = shade.Surface(seen, mesh.still, mesh.faces, mesh.material)
    body = _body(actor, posed, camera)
    image = np.empty((size, size, 3), np.float32)
    behind = np.linalg.inv(np.concatenate([camera.image_from_frame * SUPERSAMPLE, [[0, 0, 1]]]))[:2]
    middle = actor.backdrop.shape[0]
    behind = (behind * middle / 2 + [[0, 0, middle / 4]] * 2).astype(np.float32)  # it is twice as wide as the view
    shade.shade(surface, body, actor.cloth, lights, shadow, volume(), shown, depth, actor.backdrop, behind, image)
    if actor.glasses:
        lenses = posed.pose(actor.glasses.lenses + posed.ride)
        glasses.draw_lenses(_seen(lenses, into), lights, depth, image)
    for strands, places in hairs:
        _draw_hair(strands, places, into, lights, shadow, depth, image)
    return image


def _seen(places: np.ndarray, into: np.ndarray) -> np.ndarray:
    """Samples and depth [..., 3] of points in camera axes (``place.see``)."""
    out = np.empty((places.size // 3, 3), np.float32)
    place.see(places.reshape(-1, 3), into, out)
    return out.reshape(places.shape)


def _rasterize(actor: Actor, posed: _Posed, points: np.ndarray, depth: np.ndarray, shown: np.ndarray) -> None:
    """Draw the skin first, then the inside of the mouth, only in the bounding box of the lips."""
    size, lm, mesh = depth.shape[0], points[actor.basis.landmarks[48:]], actor.mesh
    points = points.copy()
    for side, closed in zip("lr", posed.blink):
        points[actor.basis.part(f"sclera_{side}"), 2] -= _EYE_BACK + _EYE_BACK_CLOSED * closed
    low, high = np.floor(lm[:, :2].min(0)).astype(int), np.ceil(lm[:, :2].max(0)).astype(int)
    lips = (max(0, low[0]), max(0, low[1]), min(size, high[0]), min(size, high[1]))
    for part, box in ((slice(0, mesh.outer), (0, 0, size, size)), (slice(mesh.outer, None), lips)):
        rasterize(points, mesh.faces[part], mesh.cull[part], part.start, box, depth, shown)


def _body(actor: Actor, posed: _Posed, camera: Camera) -> materials.Body:
    lm = posed.landmarks
    lids = np.stack([lm[[43, 44]].mean(0), lm[[37, 38]].mean(0)])
    up, forward = (posed.turn @ np.array(axis, np.float32) for axis in ((0, 1, 0), (0, 0, 1)))
    scale = np.linalg.norm(camera.image_from_frame[:, 0]) * SUPERSAMPLE * camera.focal / (2 * camera.distance)
    frame = actor.glasses.colour if actor.glasses else np.zeros(3)
    pupil = 0.15 + 0.05 * (1 - actor.share("key_light"))
    numbers = light.numbers
    return materials.Body(
        numbers(actor.head.eyes),
        numbers(actor.iris),
        np.float32(pupil),
        numbers(lids),
        numbers(up),
        numbers(forward),
        numbers(lm[[62, 66]].mean(0)),
        np.float32(actor.freckles),
        numbers(frame),
        np.float32(scale),
        np.float32(DISTANCE),
    )


def _draw_hair(
    strands: Strands,
    places: np.ndarray,
    into: np.ndarray,
    lights: light.Lights,
    shadow: light.Shadow,
    depth: np.ndarray,
    image: np.ndarray,
) -> None:
    count, per_strand = places.shape[:2]
    points, alpha = np.empty((count * per_strand, 4), np.float32), np.empty(count * per_strand, np.float32)
    flat = places.reshape(-1, 3)
    place.see(flat, into, points)
    place.see_width(flat, into, strands.width, np.float32(strands.alpha), points, alpha)
    colours = np.empty((count * per_strand, 3), np.float32)
    shade.shade_strands(
        flat,
        points,
        depth,
        strands.colour,
        strands.inside,
        np.float32(strands.gloss),
        per_strand,
        lights,
        shadow,
        alpha,
        colours,
    )
    draw_strands(points, colours, alpha, per_strand, depth, image)
