"""NaN and out-of-memory errors in the middle of real steps."""

import numpy as np
import pytest
from kills import leftovers, redone
from work import STAGES

from mystudio.storage.artifacts import load
from mystudio.types import TAKE_OUTCOMES, Avatar, Take

GENERATOR = "mystudio.stylegan2.generator:Generator"
MEMORY = {  # stage -> (real function that runs out of memory, at which call)
    "scan": ("selfscan.perceptual.metric:Perceptual.embed", 1),
    "personalize": ("mystudio.motion.losses:pixel", 8),
    "edit": ("mystudio.editing:apply", 1),
    "evaluate": ("mystudio.evaluation.observers:EvaluationNets.measure", 1),
    "live": ("mystudio.live.follow:Live.draw", 3),
    "base train": ("mystudio.base.trainer:Trainer.step", 7),
}


@pytest.mark.quick("base train")
def test_memory_that_runs_out_is_told_and_the_command_goes_on(stage, studio, begun, place, expected):
    if stage.name not in MEMORY:
        pytest.skip(f"{stage.name} has no large step, or goes on with less (below)")
    begun(stage)
    target, call = MEMORY[stage.name]
    failed = studio.run(*stage.command(place), target=target, call=call, how="memory")
    assert "memory ran out" in failed.sentence
    assert stage.name == "base train" or not (place / stage.makes).exists()
    again = studio.run(*stage.command(place))
    assert again.code == 0 and redone(stage, [failed, again]) == ""
    assert stage.state(place / stage.makes) == expected(stage)
    assert leftovers(place) == []


def test_a_reenactment_goes_on_with_smaller_windows(studio, begun, place, template):
    stage = STAGES["reenact"]
    begun(stage)
    ended = studio.run(*stage.command(place), target="mystudio.engines.personal.problem:measure", call=2, how="memory")
    assert ended.code == 0 and ended.stderr.count("out of memory: continuing with") == 1
    made, whole = (load(folder / stage.makes, Take) for folder in (place, template))
    assert np.array_equal(made.outcome, whole.outcome) and abs(made.codes["axes"] - whole.codes["axes"]).max() < 0.01
    assert leftovers(place) == []


def test_a_render_goes_on_with_fewer_images_at_a_time(studio, begun, place):
    stage = STAGES["render"]
    begun(stage)
    command = [*stage.command(place), "--option", "render.precision=float32"]  # bfloat16 shows how batches round
    assert studio.run(*command).code == 0
    same_times, whole = stage.state(place / stage.makes)
    ended = studio.run(*command, "--force", target=f"{GENERATOR}.synthesize", call=1, how="memory", times=2)
    assert ended.code == 0 and ended.stderr.count("out of memory: continuing with") == 2
    before = stage.state(place / stage.makes)
    times, made = before
    levels = np.abs(np.frombuffer(made, np.uint8).astype(int) - np.frombuffer(whole, np.uint8))
    assert times == same_times and levels.mean() < 0.5  # smaller batches round in another order
    begun_again = studio.run(*command, "--force", target=f"{GENERATOR}.synthesize", call=1, how="memory", times=99)
    assert "memory ran out" in begun_again.stderr.splitlines()[-1] and begun_again.code == 1
    assert stage.state(place / stage.makes) == before


@pytest.mark.quick()
def test_an_address_space_that_is_too_small(stage, studio, begun, place, expected):
    """Out of memory in any library gives one sentence or ends the process; no result is lost."""
    begun(stage)
    codes = []
    for megabytes in (1, 20, 60, 150, 400):
        ended = studio.run(*stage.command(place), memory_mb=megabytes)
        codes.append(ended.code)
        if ended.code == 1:
            assert ended.sentence
        assert (place / stage.makes).exists() == (ended.code == 0) or stage.name == "base train"
    again = studio.run(*stage.command(place))
    assert again.code == 0 and stage.state(place / stage.makes) == expected(stage)
    assert codes[0] != 0 or stage.name in ("edit", "pack", "unpack")  # these stages need almost no memory
    print(f"address space, {stage.name}: {codes}")


def test_personalizing_never_hangs_where_the_address_space_ends(studio, begun, place, expected):
    """OpenBLAS retries a failed allocation forever, which happened with 106 to 146 MB."""
    stage = STAGES["personalize"]
    begun(stage)
    for megabytes in (60, 106, 114, 138, 258):
        ended = studio.begin(*stage.command(place), memory_mb=megabytes).wait(60)
        assert ended is not None, f"with {megabytes} MB it hangs"
        assert ended.code == 0 or "memory ran out" in ended.sentence
        assert (place / stage.makes).exists() == (ended.code == 0)
    assert studio.run(*stage.command(place)).code == 0
    assert stage.state(place / stage.makes) == expected(stage)


@pytest.mark.slow
def test_tuning_rolls_back_from_a_step_that_is_no_number(studio, begun, place):
    stage = STAGES["personalize"]
    begun(stage)
    assert studio.run(*stage.command(place), target="mystudio.motion.losses:pixel", call=9, how="nan").code == 0
    made = load(place / stage.makes, Avatar)
    assert made.info["rollbacks"] == 1 and made.info["steps"] == 12
    assert all(bool(v.isfinite().all()) for v in made.generator.state_dict().values())


@pytest.mark.slow
def test_tuning_that_stays_no_number_says_what_to_do_and_keeps_its_checkpoint(studio, begun, place, expected):
    stage = STAGES["personalize"]
    begun(stage)
    failed = studio.run(*stage.command(place), target="mystudio.motion.losses:pixel", call=9, how="nan", times=1000)
    assert "lower personalize.rate" in failed.sentence
    again = studio.run(*stage.command(place))
    assert redone(stage, [failed, again]) == "" and stage.state(place / stage.makes) == expected(stage)


@pytest.mark.parametrize("call", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_a_frame_whose_landmarks_are_no_numbers_is_held(call, studio, begun, place):
    stage = STAGES["reenact"]
    begun(stage)
    ended = studio.run(
        *stage.command(place), target="mystudio.engines.personal.measure:crop_landmarks", call=call, how="nan"
    )
    assert ended.code == 0, ended.stderr
    take = load(place / stage.makes, Take)
    assert len(take) == 8 and bool(take.codes["axes"].isfinite().all())
    assert set(take.outcome) <= set(TAKE_OUTCOMES)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["selfscan.face.track:head_pose", "selfscan.face.facemesh:FaceMesh.forward"])
def test_a_scan_leaves_out_frames_that_are_no_numbers(target, studio, begun, place):
    stage = STAGES["scan"]
    begun(stage)
    ended = studio.run(*stage.command(place), target=target, call=3, how="nan")
    if ended.code == 0:
        assert all(np.isfinite(v).all() for v in _arrays(place / stage.makes))
    else:
        assert ended.sentence


def _arrays(folder):
    from safetensors.numpy import load_file

    return load_file(folder / "arrays.safetensors").values()
