"""Indices of MediaPipe's 478 face landmarks, by part of the face. Right and left are the person's own."""

from __future__ import annotations

from selfscan.types import NUM_LANDMARKS

MESH_POINTS = 468  # the skin, lips and lids; the irises follow
IRISES = ((468, 469, 470, 471, 472), (473, 474, 475, 476, 477))  # right, left: centre, then four on the rim
MESH = slice(0, MESH_POINTS)
assert max(IRISES[1]) == NUM_LANDMARKS - 1

# Single points and pairs
EYE_CORNERS = ((33, 133), (362, 263))  # right: outer, inner; left: inner, outer
OUTER_EYE_CORNERS = (33, 263)  # right, left
MOUTH_CORNERS = (61, 291)  # right, left
LIP_GAP = (13, 14)  # middle of the upper and of the lower lip's inner rim
NOSE_BRIDGE, NOSE_BASE, NOSE_TIP = 168, 2, 4
STABLE = (168, 6, 2)  # along the nose; expressions do not move them
EXTREMES = (234, 454, 10, 152)  # right, left, top and bottom of the face
LID_PAIRS = (((159, 145), (158, 153), (160, 144)), ((386, 374), (385, 380), (387, 373)))  # right, left: upper, lower

# Contours, points in order
OVAL = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
    152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)  # fmt: skip
INNER_LIPS = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95)
LIDS = (
    (33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7),
    (362, 398, 384, 385, 386, 387, 388, 466, 263, 249, 390, 373, 374, 380, 381, 382),
)  # right, left

# Sets
BROWS = (105, 66, 107, 65, 55, 334, 296, 336, 295, 285)  # both
LIPS = (61, 291, 0, 17, 13, 14, 37, 267, 84, 314)  # on the outer and inner rims
MOVING = (
    0,
    7,
    13,
    14,
    17,
    33,
    37,
    39,
    40,
    46,
    52,
    53,
    55,
    61,
    63,
    65,
    66,
    70,
    78,
    80,
    81,
    82,
    84,
    87,
    88,
    91,
    95,
    105,
    107,
    133,
    144,
    145,
    146,
    153,
    154,
    155,
    157,
    158,
    159,
    160,
    161,
    163,
    173,
    178,
    181,
    185,
    191,
    246,
    249,
    263,
    267,
    269,
    270,
    276,
    282,
    283,
    285,
    291,
    293,
    295,
    296,
    300,
    308,
    310,
    311,
    312,
    314,
    317,
    318,
    321,
    324,
    334,
    336,
    362,
    373,
    374,
    375,
    380,
    381,
    382,
    384,
    385,
    386,
    387,
    388,
    390,
    398,
    402,
    405,
    409,
    415,
    466,
)  # fmt: skip; lips, lids and brows: expressions change the colour there
SKIN = tuple(sorted(set(range(MESH_POINTS)) - set(MOVING)))
#: points that expressions move little, each with its mirror image
RIGID_PARTS: dict[str, tuple[int, ...]] = {
    "forehead": (10, 151, 9, 8, 109, 338, 67, 297, 103, 332),
    "nose": (168, 6, 197, 195, 5, 4, 1, 2, 98, 327),
    "eye_corners": (33, 133, 362, 263),
    "cheeks": (117, 346, 50, 280, 123, 352, 127, 356),
}
RIGID = tuple(index for part in RIGID_PARTS.values() for index in part)
#: equivalents of the points that FFHQ's alignment uses (68-point order)
FFHQ_POINTS: dict[str, tuple[int, ...]] = {
    "right_eye": (33, 160, 158, 133, 153, 144),  # 36..41
    "left_eye": (362, 385, 387, 263, 373, 380),  # 42..47
    "mouth": MOUTH_CORNERS,  # 48 and 54
}
#: 66 keypoints by part, for the objective of reenactment (PGR, arXiv 2307.06307, does not list its keypoints).
#: Each part is centred on its mean. An iris centre is therefore grouped with its eye: alone it would lose the gaze.
#: Outer and inner lips are separate parts so that opening the mouth moves one against the other.
KEYPOINT_PARTS: dict[str, tuple[int, ...]] = {
    "oval": (10, 338, 389, 454, 361, 397, 152, 172, 132, 234, 162),
    "right_brow": (46, 53, 52, 65, 55),
    "left_brow": (276, 283, 282, 295, 285),
    "right_eye": (33, 160, 159, 158, 133, 153, 145, 144, 468),
    "left_eye": (263, 387, 386, 385, 362, 380, 374, 373, 473),
    "nose": (168, 6, 4, 2, 98, 327, 5),
    "outer_lips": (61, 40, 37, 0, 267, 270, 291, 321, 314, 17, 84, 91),
    "inner_lips": (78, 81, 13, 311, 308, 402, 14, 178),
}
KEYPOINTS = tuple(index for part in KEYPOINT_PARTS.values() for index in part)
