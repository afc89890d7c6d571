"""A take in which another person is left out says so, and so do its edits; one that this person drives says that."""

from dataclasses import replace

import numpy as np
import pytest

from mystudio.motion.performance import without_others
from mystudio.storage import artifacts, workspace
from selfscan.face.notes import ANOTHER

DRIVES = f"{ANOTHER}0.40 to 0.48 s; with --others leave-out it does not."
LEFT_OUT = "Another person's face is left out at 0.40 to 0.48 s; there the avatar waits."


def written(path, artifact, inputs, settings):
    with workspace.stage(path, artifacts.KINDS[type(artifact)], inputs, settings) as job:
        artifacts.save(artifact, job)
    return path


@pytest.mark.parametrize("others,said", [({}, DRIVES), ({"others": "leave-out"}, LEFT_OUT)])
def test_what_became_of_another_person_is_told_also_of_an_edited_take(tmp_path, performance, take, others, said):
    seen = replace(performance.observation, warnings=("The clip is cut.", DRIVES))
    two = replace(performance, observation=seen, other=np.arange(len(performance)) >= 10)
    inputs = {"performance": written(tmp_path / "p", two, {}, {})}
    first = written(tmp_path / "first.take", take, inputs, others)
    edited = written(tmp_path / "edited.take", take, inputs | {"take": first}, {"edits": []})
    for path in (first, edited):
        assert artifacts.driver_warnings(path) == ("The clip is cut.", said)
        assert artifacts.others_of(path) == others.get("others", "drive")
    assert without_others(two).observation.warnings == ("The clip is cut.", LEFT_OUT)
