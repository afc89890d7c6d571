"""The table of factors: the meaning of each of the 64 standard-normal numbers in an actor's code z.

The first 58 are look and motion of the packaged base; the next six add to the look. A code of 67 numbers also has the
sides: what one side of the face does alone.
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
SIDE_NAMES = (  # positive: the person's own left side; negative: the right side
    "wink",
    "brow_side",  # one raised outer brow
    "smile_side",  # one drawn-up mouth corner
)
NAMES = LOOK_NAMES + MOTION_NAMES + EXTRA_NAMES
N_LOOK, N_MOTION, N_EXTRA = len(LOOK_NAMES), len(MOTION_NAMES), len(EXTRA_NAMES)
N_FACTORS = len(NAMES)
LOOK = slice(0, N_LOOK)
MOTION = slice(N_LOOK, N_LOOK + N_MOTION)
EXTRA = slice(N_LOOK + N_MOTION, N_FACTORS)
SIDES = slice(N_FACTORS, N_FACTORS + len(SIDE_NAMES))  # of a code [67]; a code [64] has no sides


def look_of(code: np.ndarray) -> np.ndarray:
    """The 38 numbers of codes [..., 64] that are the look: the 32 look factors, then the six extra ones."""
    return np.concatenate([code[..., LOOK], code[..., EXTRA]], -1)


def join(look: np.ndarray, motion: np.ndarray) -> np.ndarray:
    """The code [..., 64] of a look [..., 38] and a motion [..., 26]."""
    return np.concatenate([look[..., :N_LOOK], motion, look[..., N_LOOK:]], -1)
