"""Ablation: one change of the method at a time, on a real clip and on a pair of actors."""

from __future__ import annotations

from mystudio.bench import actors, real
from mystudio.bench.ledger import Ledger
from mystudio.bench.studio import PLAIN, STRAIGHT, Studio, Variant

VARIANTS = (
    Variant("plain", "as the recipe says"),
    Variant("no-pixels", "without mouth and iris pixels", ("reenact.mouth=0.0", "reenact.iris=0.0")),
    Variant("no-temporal", "without the temporal term", ("reenact.temporal=0.0",)),
    Variant("no-parts", "without normalisation by part", ("retarget.part_offsets=1.0",)),
    Variant("parts-only", "parts at zero mean (the paper's)", ("retarget.part_offsets=0.0",)),
    Variant("half-keypoints", "half the keypoints", ('retarget.keypoints="half"',)),
    Variant("no-pose-lid", "without the term for head pose and lids", ("reenact.pose_lid_weight=0.0",)),
    Variant("no-match", "start codes straight from the regressor", ("reenact.match=0.0",)),
    Variant("neutral-as-seen", "neutral faces as they were filmed", ('retarget.neutral="as seen"',)),
    STRAIGHT,
    Variant("frames30", "30 scan frames", ("scan.frames=30",)),
    Variant("frames100", "100 scan frames", ("scan.frames=100",)),
    Variant("frames250", "250 scan frames", ("scan.frames=250",)),
)
SCAN = "scan-glasses"


def chosen(names: tuple[str, ...]) -> tuple[Variant, ...]:
    """Return the variants with these names, or all if no name is given; the unchanged recipe always comes first."""
    return tuple(v for v in VARIANTS if not names or v.name in (*names, PLAIN.name))


def run(
    studio: Studio,
    ledger: Ledger,
    real_case: real.RealCase | None,
    actors_case: actors.ActorsCase | None,
    variants: tuple[Variant, ...] = VARIANTS,
) -> list[str]:
    """Measure all variants; returns the keys of all rows. A case that is None is skipped."""
    keys = []
    if real_case:
        for name in real_case.scans:
            keys += real.driven_by_itself(studio, ledger, real_case.person(name), "ablation", variants, {"scan": name})
    if actors_case:
        seed, driver = actors_case.people[0], actors_case.drivers[0]
        acted = actors.pair(studio, actors_case, seed, driver)
        labels = {"person": str(seed), "driver": f"{driver[0]}-{driver[1]}"}
        keys += actors.against_truth(studio, ledger, acted, "ablation", variants, labels)
    return keys
