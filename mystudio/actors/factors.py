"""The table of factors: the meaning of each of the 64 standard-normal numbers in an actor's code z.

The packaged base ``people128`` uses the first 58; the last six, which it does not use, add to the look.
"""

from __future__ import annotations

import numpy as np

LOOK_NAMES = (
    *(f"shape_{k}" for k in range(14)),  # identity modes of the head, 0.75 standard deviations each
    "skin_tone",  # deep to pale
    "skin_undertone",  # cool to warm
    "hair_lightness",  # black to blond
    "hair_grey",  # natural colour to grey
    "iris",  # brown to blue
    "lips",  # pale to red
    "brow_width",
    "beard",  # clean, stubble, beard
    "hairline",  # low to receding
    "hair_volume",
    "shirt_red",
    "shirt_green",
    "shirt_blue",
    "background_red",
    "background_green",
    "light_side",  # key light from the left to the right of the picture
    "key_light",  # dim to strong
    "light_warmth",  # cold to warm
)
MOTION_NAMES = (
    "jawOpen",
    "mouthSmile",
    "mouthFunnel",
    "mouthPucker",
    "mouthFrown",
    "mouthStretch",
    "mouthLowerDown",
    "mouthUpperUp",
    "browInnerUp",
    "browDown",
    "browOuterUp",
    "eyeBlink",
    "eyeSquint",
    "eyeWide",
    "cheekPuff",
    "noseSneer",
    "mouthLeft",
    "mouthRight",
    "gaze_x",
    "gaze_y",
    "yaw",
    "pitch",
    "roll",
    "x",
    "y",
    "z",
)
EXTRA_NAMES = (
    "hair_style",  # bald, cropped, short, wavy, chin-long, long, tied back: see hair.STYLES
    "glasses",  # none, then thin to thick frames
    "background_kind",  # plain, gradient, blurred lights, blurred room
    "light_setup",  # flat to dramatic, with a rim light
    "clothes",  # neckline and pattern
    "camera",  # exposure, sharpness and sensor noise
)
NAMES = LOOK_NAMES + MOTION_NAMES + EXTRA_NAMES
N_LOOK, N_MOTION, N_EXTRA = len(LOOK_NAMES), len(MOTION_NAMES), len(EXTRA_NAMES)
N_FACTORS = len(NAMES)
LOOK = slice(0, N_LOOK)
MOTION = slice(N_LOOK, N_LOOK + N_MOTION)
EXTRA = slice(N_LOOK + N_MOTION, N_FACTORS)


def look_of(code: np.ndarray) -> np.ndarray:
    """The 38 numbers of codes [..., 64] that are the look: the 32 look factors, then the six extra ones."""
    return np.concatenate([code[..., LOOK], code[..., EXTRA]], -1)


def join(look: np.ndarray, motion: np.ndarray) -> np.ndarray:
    """The code [..., 64] of a look [..., 38] and a motion [..., 26]."""
    return np.concatenate([look[..., :N_LOOK], motion, look[..., N_LOOK:]], -1)
