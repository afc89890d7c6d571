"""Shaders of skin, eyes, mouth and clothes under three lights (compiled; linear RGB)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mystudio.actors.cloth import cloth_albedo
from mystudio.actors.jit import ONE, inline, splice
from mystudio.actors.light import Triple, lit
from mystudio.actors.noise import sample


class Body(NamedTuple):
    """Further inputs of the shaders for a person in one frame; plain numbers, as in ``light.Lights``."""

    eyes: tuple[Triple, Triple]  # rest centres of the eyeballs, left and right
    iris: Triple  # linear RGB
    pupil: np.float32  # cosine of the pupil's angular radius
    lids: tuple[Triple, Triple]  # middles of the upper lids, cm, camera axes
    up: Triple  # the head's up direction
    forward: Triple  # the head's forward direction
    lip: Triple  # point between the lips, cm, camera axes
    freckles: np.float32  # 0..1
    frame: Triple  # colour of the glasses' frame
    detail: np.float32  # samples a cm: finer detail is left out
    camera: np.float32  # cm from the head's origin to the camera


@splice()
def clip(x):
    """x clamped to 0..1."""
    return min(max(x, np.float32(0.0)), np.float32(1.0))


@splice()
def smooth(x):
    """A smooth step from 0 to 1."""
    t = clip(x)
    return t * t * (np.float32(3) - t - t)


@splice()
def power16(x):
    """x to the 16th."""
    x = x * x
    x = x * x
    x = x * x
    return x * x


@inline()
def reflect(lights, nx, ny, nz, vx, vy, vz, reached, soft, sharp, wet):
    """Specular light (r, g, b) of three lights: weighted Blinn-Phong lobes of exponents 16, 64 and 512."""
    r = g = b = np.float32(0.0)
    for k in range(3):
        lx, ly, lz = lights.toward[k][0], lights.toward[k][1], lights.toward[k][2]
        facing = lx * nx + ly * ny + lz * nz
        if facing <= 0:
            continue
        hx, hy, hz = lx + vx, ly + vy, lz + vz
        scale = ONE / np.sqrt(hx * hx + hy * hy + hz * hz)
        lobe = power16(clip((nx * hx + ny * hy + nz * hz) * scale))
        fourth = lobe * lobe
        fourth *= fourth
        amount = soft * lobe + sharp * fourth
        if wet > 0:
            eighth = fourth * fourth
            eighth *= eighth
            amount += wet * eighth * eighth
        away = ONE - clip((lx * hx + ly * hy + lz * hz) * scale)
        amount *= (np.float32(0.3) + np.float32(5.0) * away * away * away) * min(facing * np.float32(4), ONE)
        if k == 0:
            amount *= reached
        r += amount * lights.colour[k][0]
        g += amount * lights.colour[k][1]
        b += amount * lights.colour[k][2]
    return r, g, b


@inline()
def diffuse(lights, nx, ny, nz, reached, wrap_r, wrap_g, wrap_b, opened):
    """Diffuse and ambient light (r, g, b). Wrapping per channel softens the terminator, like scattering in skin."""
    r = g = b = np.float32(0.0)
    for k in range(3):
        facing = lights.toward[k][0] * nx + lights.toward[k][1] * ny + lights.toward[k][2] * nz
        dr, dg, db = (
            clip((facing + wrap_r) / (ONE + wrap_r)),
            clip((facing + wrap_g) / (ONE + wrap_g)),
            clip((facing + wrap_b) / (ONE + wrap_b)),
        )
        block = reached if k == 0 else np.float32(0.4) + np.float32(0.6) * opened
        bleed = block * (ONE - block)
        r += dr * dr * lights.colour[k][0] * (block + wrap_r * bleed)
        g += dg * dg * lights.colour[k][1] * (block + wrap_g * bleed)
        b += db * db * lights.colour[k][2] * (block + wrap_b * bleed)
    up = np.float32(0.5) + np.float32(0.5) * ny
    front = np.float32(0.75) + np.float32(0.25) * nz
    bounce = np.float32(0.35) * (ONE - opened)  # light reflected by nearby skin is red
    r += (lights.sky[0] * up + lights.ground[0] * (ONE - up)) * front * (opened + bounce)
    g += (lights.sky[1] * up + lights.ground[1] * (ONE - up)) * front * (opened + np.float32(0.55) * bounce)
    b += (lights.sky[2] * up + lights.ground[2] * (ONE - up)) * front * (opened + np.float32(0.4) * bounce)
    return r, g, b


@inline()
def skin(lights, shadow, body, noise, ar, ag, ab, gloss, opened, x, y, z, wx, wy, wz, nx, ny, nz, vx, vy, vz):
    """Colour of skin with albedo (ar, ag, ab): pores, blotches and freckles, soft terminator, two highlights."""
    fine, value = clip((body.detail - np.float32(20)) / np.float32(50)), np.float32(0.0)
    if fine > 0:
        per_cm = np.float32(38)
        value, gx, gy, gz = sample(noise, x * per_cm, y * per_cm, z * per_cm)
        bump = np.float32(0.055) * fine
        nx, ny, nz = nx - bump * gx, ny - bump * gy, nz - bump * gz
        scale = ONE / np.sqrt(nx * nx + ny * ny + nz * nz)
        nx, ny, nz = nx * scale, ny * scale, nz * scale
    if body.freckles > 0:
        per_cm = np.float32(14)
        spots, sx, sy, sz = sample(noise, x * per_cm + np.float32(7), y * per_cm, z * per_cm)
        high = clip(ONE - abs(y - np.float32(0.5)) / np.float32(7))
        f = body.freckles * smooth((spots - ONE) * np.float32(0.7)) * high
        ar, ag = ar * (ONE - np.float32(0.3) * f), ag * (ONE - np.float32(0.5) * f)
        ab = ab * (ONE - np.float32(0.6) * f)
    dim = ONE - np.float32(0.06) * fine * value
    facing = lights.toward[0][0] * nx + lights.toward[0][1] * ny + lights.toward[0][2] * nz
    reached = np.float32(0.0)
    if facing > np.float32(-0.35):
        reached = lit(
            shadow, wx + nx * np.float32(0.3), wy + ny * np.float32(0.3), wz + nz * np.float32(0.3), np.float32(0.25)
        )
    reached *= np.float32(0.55) + np.float32(0.45) * clip(opened * np.float32(1.6))
    r, g, b = diffuse(lights, nx, ny, nz, reached, np.float32(0.42), np.float32(0.2), np.float32(0.14), opened)
    shine = gloss * opened * (ONE + np.float32(0.2) * value * fine)
    sr, sg, sb = reflect(
        lights,
        nx,
        ny,
        nz,
        vx,
        vy,
        vz,
        reached,
        np.float32(0.26) * shine,
        np.float32(0.22) * shine * gloss,
        np.float32(0.0),
    )
    edge = ONE - clip(nx * vx + ny * vy + nz * vz)
    sheen = np.float32(0.12) * edge * edge * edge * opened * (np.float32(0.5) + np.float32(0.5) * clip(facing + ONE))
    return (
        ar * dim * r + sr + sheen * lights.sky[0],
        ag * dim * g + sg + sheen * lights.sky[1],
        ab * dim * b + sb + sheen * lights.sky[2],
    )


@inline()
def eye(lights, shadow, body, opened, x, y, z, wx, wy, wz, nx, ny, nz, vx, vy, vz):
    """Colour of an eyeball: sclera, iris with fibres and a dark rim, pupil, wet highlights, shadow of the lid."""
    e = 0 if x > 0 else 1
    dx, dy, dz = x - body.eyes[e][0], y - body.eyes[e][1], z - body.eyes[e][2]
    scale = ONE / (np.sqrt(dx * dx + dy * dy + dz * dz) + np.float32(1e-6))
    dx, dy, dz = dx * scale, dy * scale, dz * scale
    angle = np.float32(np.arccos(min(max(dz, np.float32(-1.0)), np.float32(1.0))))
    iris, pupil = np.float32(0.405), np.float32(body.pupil)
    side = abs(dx)
    red = clip((side - np.float32(0.25)) * np.float32(1.6))
    ar, ag, ab = np.float32(0.70), np.float32(0.66) - np.float32(0.14) * red, np.float32(0.63) - np.float32(0.16) * red
    inside = smooth((iris - angle) / np.float32(0.05) + np.float32(0.5))
    if inside > 0:
        turn = np.float32(np.arctan2(dy, dx))
        fibres = (np.sin(turn * 23 + 2 * np.sin(turn * 5)) + np.sin(turn * 41 + 3 * np.sin(turn * 7))) * np.float32(
            0.12
        )
        f = (angle - pupil) / (iris - pupil)
        glow = (np.float32(0.75) + fibres + np.float32(0.5) * clip(f)) * (ONE - np.float32(0.72) * smooth(f * 3 - 2))
        dark = smooth((angle - pupil) / np.float32(0.04) + np.float32(0.5))
        ring = np.float32(1.0) + np.float32(0.35) * (ONE - clip(f * 2))
        ir, ig, ib = body.iris[0] * glow * dark * ring, body.iris[1] * glow * dark, body.iris[2] * glow * dark
        ar, ag, ab = ar + inside * (ir - ar), ag + inside * (ig - ag), ab + inside * (ib - ab)
    under = (
        (body.lids[e][0] - wx) * body.up[0] + (body.lids[e][1] - wy) * body.up[1] + (body.lids[e][2] - wz) * body.up[2]
    )  # cm below the upper lid's middle
    shade = clip(np.float32(0.38) + np.float32(1.0) * under) * (ONE - np.float32(0.45) * smooth(side * 2 - 1))
    reached = (
        lit(
            shadow, wx + nx * np.float32(0.25), wy + ny * np.float32(0.25), wz + nz * np.float32(0.25), np.float32(0.35)
        )
        * shade
    )
    r, g, b = diffuse(lights, nx, ny, nz, reached, np.float32(0.3), np.float32(0.2), np.float32(0.2), shade)
    sr, sg, sb = reflect(
        lights, nx, ny, nz, vx, vy, vz, np.float32(1.0), np.float32(0.0), np.float32(0.0), np.float32(2.2) * shade
    )
    return ar * r + sr, ag * g + sg, ab * b + sb


@inline()
def mouth(lights, shadow, body, teeth, x, y, z, wx, wy, wz, nx, ny, nz, vx, vy, vz):
    """Colour of teeth, or of gums, tongue and cheeks, which become darker and redder with depth."""
    deep = (
        (body.lip[0] - wx) * body.forward[0]
        + (body.lip[1] - wy) * body.forward[1]
        + (body.lip[2] - wz) * body.forward[2]
    )  # depth behind the lips, cm
    open_ = np.float32(np.exp(-max(deep - np.float32(0.8), np.float32(0.0)) * np.float32(0.42)))
    if teeth:
        ar, ag, ab, wet = np.float32(0.66), np.float32(0.60), np.float32(0.50), np.float32(0.5)
    else:
        ar, ag, ab, wet = np.float32(0.38), np.float32(0.115), np.float32(0.105), np.float32(0.3)
    facing = abs(nx * vx + ny * vy + nz * vz)
    reached = lit(shadow, wx + vx * np.float32(0.5), wy, wz + vz * np.float32(0.5), np.float32(0.4))
    reached = open_ * (np.float32(0.5) + np.float32(0.5) * reached)
    r, g, b = diffuse(
        lights, nx, ny, abs(nz), reached, np.float32(0.5), np.float32(0.35), np.float32(0.3), open_ * np.float32(0.85)
    )
    sr, sg, sb = reflect(lights, nx, ny, nz, vx, vy, vz, open_, np.float32(0.0), wet * open_, np.float32(0.0))
    dim = (np.float32(0.3) + np.float32(0.7) * open_) * (np.float32(0.6) + np.float32(0.4) * facing)
    return ar * r * dim + sr, ag * g * dim + sg, ab * b * dim + sb


@inline()
def fabric(lights, shadow, body, cloth, noise, depth_in, opened, x, y, z, wx, wy, wz, nx, ny, nz):
    """Colour of clothes ``depth_in`` cm from their hem: folds and weave."""
    ar, ag, ab = cloth_albedo(cloth, depth_in, x, y, z)
    fold, gx, gy, gz = sample(noise, x * np.float32(1.1), y * np.float32(0.7), z * np.float32(1.1))
    per_cm = np.float32(30)
    weave, hx, hy, hz = sample(noise, x * per_cm, y * per_cm, z * per_cm)
    amount = np.float32(0.22) * clip(depth_in * np.float32(0.5))
    nx, ny, nz = nx - amount * gx, ny - amount * gy, nz - amount * gz
    scale = ONE / np.sqrt(nx * nx + ny * ny + nz * nz)
    nx, ny, nz = nx * scale, ny * scale, nz * scale
    reached = lit(
        shadow, wx + nx * np.float32(0.4), wy + ny * np.float32(0.4), wz + nz * np.float32(0.4), np.float32(0.35)
    )
    opened = max(opened, np.float32(0.55)) if depth_in > 3 else opened
    r, g, b = diffuse(lights, nx, ny, nz, reached, np.float32(0.1), np.float32(0.1), np.float32(0.1), opened)
    tone = ONE + np.float32(0.05) * weave * clip((body.detail - np.float32(12)) / np.float32(40))
    return ar * tone * r, ag * tone * g, ab * tone * b
