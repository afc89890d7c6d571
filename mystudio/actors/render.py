"""One picture of an actor, with its exact truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mystudio.actors import camera as cameras
from mystudio.actors import glasses, hair, light, materials, shade
from mystudio.actors.basis import EXPRESSION_ID, EXPRESSIONS
from mystudio.actors.camera import DISTANCE, Camera
from mystudio.actors.head import EYE, FRAME, MOUTH, PIVOT, SKIN, TEETH
from mystudio.actors.look import Actor
from mystudio.actors.motion import gaze_angles, rotation
from mystudio.actors.noise import volume
from mystudio.actors.raster import NOTHING, draw_strands, rasterize, vertex_normals

SUPERSAMPLE = 2  # samples a pixel in each direction
_CASTS = 2000  # strands: fewer cast no shadow
_EYE_BACK = 0.05  # cm that eyeballs are drawn farther back, so that lids close over the cornea
_EYE_BACK_CLOSED = 0.35  # more, for closed eyes


@dataclass(frozen=True, eq=False, repr=False)
class Frame:
    """A picture and everything that is true of it."""

    image: np.ndarray  # [S, S, 3] uint8 RGB
    pose: np.ndarray  # [6] yaw, pitch, roll in radians, x, y, z in cm
    expression: np.ndarray  # [53] ARKit weights, in the order of basis.EXPRESSIONS
    gaze: np.ndarray  # [2, 2] left and right eye: yaw and pitch in radians, in the head's axes
    landmarks: np.ndarray  # [68, 2] px of the image, 0..S, Multi-PIE order
    identity: np.ndarray  # [38] look of the actor
    camera: Camera


def render(actor: Actor, expression: np.ndarray, pose: np.ndarray, size: int = 256, crop: str | None = None,
           seed: int = 0) -> Frame:
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

    def __init__(self, actor: Actor, expression: np.ndarray, pose: np.ndarray, gaze: np.ndarray):
        self.actor, head, basis = actor, actor.head, actor.basis
        self.blink = expression[[EXPRESSION_ID["eyeBlink_L"], EXPRESSION_ID["eyeBlink_R"]]]
        self.turn, self.shift = rotation(*pose[:3]), pose[3:]
        used = np.flatnonzero(expression)
        moved = actor.shape.copy()
        if len(used):
            flat = basis.expression[used].reshape(len(used), -1)
            moved[:len(basis.neutral)] += (expression[used] @ flat).reshape(-1, 3)
        for eye, side in enumerate("lr"):
            span = basis.part(f"sclera_{side}")
            centre = head.eyes[eye] + moved[span].mean(0) - basis.neutral[span].mean(0)
            moved[span] = (moved[span] - centre) @ rotation(*gaze[eye], 0).T + centre
        self.moved = moved
        self.world = self.pose(moved, head.follow)
        self.landmarks = self.world[basis.landmarks]
        self.faces, self.material = head.faces, head.material
        if actor.glasses:
            self.ride = 0.5 * (self.moved[basis.landmarks[27]] - actor.shape[basis.landmarks[27]])
            self.world = np.concatenate([self.world, self.pose(actor.glasses.vertices + self.ride, np.float32(1))])
            self.faces = np.concatenate([head.faces, actor.glasses.faces + len(head.rest)])
            self.material = np.concatenate([head.material, np.full(len(actor.glasses.faces), FRAME, np.int8)])
        self.normals = np.empty_like(self.world)
        vertex_normals(self.world, self.faces, self.normals)

    def pose(self, places: np.ndarray, follow) -> np.ndarray:
        """Places [..., 3] of the rest position in camera axes."""
        turned = (places - PIVOT) @ self.turn.T + PIVOT
        follow = np.asarray(follow, np.float32)[..., None]
        return (places + follow * (turned - places) + self.shift).astype(np.float32)

    def strands(self, strands: hair.Strands) -> np.ndarray:
        """Places [S, P, 3] of strands, carried by the skin under their roots and tips."""
        change = self.moved - self.actor.shape
        root, tip = change[strands.root][:, None], change[strands.tip][:, None]
        t = np.linspace(0, 1, strands.points.shape[1], dtype=np.float32)[:, None]
        return self.pose(strands.points + root + t * (tip - root), strands.follow)


def _draw(actor: Actor, posed: _Posed, camera: Camera, expression: np.ndarray) -> np.ndarray:
    size = camera.size * SUPERSAMPLE
    points = _screen(posed.world, camera)
    depth, shown = np.full((size, size), NOTHING, np.float32), np.full((size, size), -1, np.int32)
    hairs = [(strands, posed.strands(strands)) for strands in actor.strands]
    cast = [places for _, places in hairs if len(places) > _CASTS]
    solid = (posed.material == SKIN) | (posed.material == FRAME)
    lights = light.with_shadow(actor.lights, posed.world, posed.faces[solid], cast,
                               posed.pose(np.array([0, 1, 0], np.float32), 1))
    _rasterize(actor, posed, points, depth, shown)
    surface = _surface(actor, posed, points, expression)
    body = _body(actor, posed, camera)
    image = np.empty((size, size, 3), np.float32)
    into = np.linalg.inv(np.concatenate([camera.image_from_frame * SUPERSAMPLE, [[0, 0, 1]]]))[:2]
    middle = actor.backdrop.shape[0]
    into = (into * middle / 2 + [[0, 0, middle / 4]] * 2).astype(np.float32)  # it shows twice the camera's view
    shade.shade(surface, body, actor.cloth, lights, shown, depth, actor.backdrop, into, image)
    if actor.glasses:
        lenses = posed.pose(actor.glasses.lenses + posed.ride, np.float32(1))
        glasses.draw_lenses(_screen(lenses, camera), lights, depth, image)
    for strands, places in hairs:
        _draw_hair(strands, places, camera, lights, depth, image)
    return image


def _screen(places: np.ndarray, camera: Camera) -> np.ndarray:
    """Samples and depth [..., 3] of places in camera axes."""
    away = places[..., 2:] - np.float32(DISTANCE)
    into = (camera.image_from_frame * SUPERSAMPLE).astype(np.float32)
    seen = places[..., :2] * np.array([1, -1], np.float32) * np.float32(-camera.focal / 2) / away + np.float32(0.5)
    return np.concatenate([seen @ into[:, :2].T + into[:, 2], away], -1)


def _rasterize(actor: Actor, posed: _Posed, points: np.ndarray, depth: np.ndarray, shown: np.ndarray) -> None:
    """Skin first; what is inside the mouth only where the lips may be open."""
    size, lm = depth.shape[0], points[actor.basis.landmarks[48:]]
    eyes = points.copy()
    for side, closed in zip("lr", posed.blink):
        eyes[actor.basis.part(f"sclera_{side}"), 2] -= _EYE_BACK + _EYE_BACK_CLOSED * closed
    inside = np.isin(posed.material, (MOUTH, TEETH))
    cull = np.isin(posed.material, (SKIN, EYE, FRAME))
    low, high = np.floor(lm[:, :2].min(0)).astype(int), np.ceil(lm[:, :2].max(0)).astype(int)
    box = (max(0, low[0]), max(0, low[1]), min(size, high[0]), min(size, high[1]))
    order = np.argsort(inside, kind="stable")
    outer = int((~inside).sum())
    faces = posed.faces[order]
    rasterize(eyes, faces[:outer], cull[order][:outer], (0, 0, size, size), depth, shown)
    inner = np.full_like(shown, -1)
    rasterize(eyes, faces[outer:], cull[order][outer:], box, depth, inner)
    shown[:] = np.where(inner >= 0, inner + outer, shown)
    shown[shown >= 0] = order[shown[shown >= 0]]


def _surface(actor: Actor, posed: _Posed, points: np.ndarray, expression: np.ndarray) -> shade.Surface:
    head, jaw = actor.head, min(1.0, float(expression[EXPRESSION_ID["jawOpen"]]) / 0.6)
    albedo, gloss = actor.painted
    rest, open_ = head.rest, head.open + np.float32(jaw) * (head.open_jaw - head.open)
    extra = len(points) - len(rest)
    if extra:
        rest = np.concatenate([rest, np.zeros((extra, 3), np.float32)])
        albedo, gloss = np.concatenate([albedo, np.zeros((extra, 3), np.float32)]), np.append(gloss, np.ones(extra))
        open_ = np.append(open_, np.ones(extra))
    return shade.Surface(points, posed.world, posed.normals, rest, albedo.astype(np.float32),
                         gloss.astype(np.float32), open_.astype(np.float32), posed.faces, posed.material)


def _body(actor: Actor, posed: _Posed, camera: Camera) -> materials.Body:
    lm = posed.landmarks
    lids = np.stack([lm[[43, 44]].mean(0), lm[[37, 38]].mean(0)]).astype(np.float32)
    up, forward = (posed.turn @ np.array(axis, np.float32) for axis in ((0, 1, 0), (0, 0, 1)))
    scale = np.linalg.norm(camera.image_from_frame[:, 0]) * SUPERSAMPLE * camera.focal / (2 * camera.distance)
    frame = actor.glasses.colour if actor.glasses else np.zeros(3, np.float32)
    pupil = 0.15 + 0.05 * (1 - actor.share("key_light"))
    return materials.Body(actor.head.eyes, actor.iris, np.float32(pupil), lids, up, forward,
                      lm[[62, 66]].mean(0).astype(np.float32), np.float32(actor.freckles), frame,
                      np.float32(scale), np.float32(DISTANCE), volume())


def _draw_hair(strands: hair.Strands, places: np.ndarray, camera: Camera, lights: light.Lights, depth: np.ndarray,
               image: np.ndarray) -> None:
    count, per_strand = places.shape[:2]
    scale = np.linalg.norm(camera.image_from_frame[:, 0]) * SUPERSAMPLE * camera.focal / 2
    screen = _screen(places, camera)
    width = strands.width * scale / (DISTANCE - places[..., 2])
    points = np.concatenate([screen, np.maximum(width, 0.9)[..., None]], -1).reshape(-1, 4).astype(np.float32)
    alpha = (np.minimum(width / 0.9, 1) * strands.alpha).reshape(-1).astype(np.float32)
    colours = np.empty((count * per_strand, 3), np.float32)
    shade.shade_strands(places.reshape(-1, 3), points, depth, strands.colour, strands.inside,
                        np.float32(strands.gloss), per_strand, lights, alpha, colours)
    draw_strands(points, colours, alpha, per_strand, depth, image)
