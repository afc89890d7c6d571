"""Drawing takes on the GPU: render in every view, the edit sheet, live."""

from dataclasses import replace

import live_person
import numpy as np
import pytest
import torch
from simulated_gpu import simulated_gpu

from mystudio.compute.compilation import drawer
from mystudio.compute.device import choose, feature_dtype
from mystudio.editing import sheet
from mystudio.engines.personal import ReenactSettings
from mystudio.engines.personal.state import AXES
from mystudio.live.follow import Live, LiveSettings
from mystudio.rendering.render import RenderSettings, frames


def pictures(avatar, take, performance, **settings) -> np.ndarray:
    return np.stack(list(frames(avatar, take, performance, RenderSettings(batch=3, **settings))))


@pytest.mark.parametrize("view", ["aligned", "side-by-side", "paste"])
def test_render_draws_what_the_cpu_draws(tiny_avatar, take, performance, view, avatar_there):
    found = pictures(avatar_there, take, performance, view=view, precision="float32")
    expected = pictures(tiny_avatar, take, performance, view=view, precision="float32")
    assert np.abs(found.astype(int) - expected).max() <= 1


def test_auto_is_bfloat16_where_the_gpu_multiplies_in_it(gpu, monkeypatch, avatar_there, take, performance):
    assert choose("auto") == choose("cuda") == torch.device("cuda")
    assert feature_dtype("auto", gpu) == torch.bfloat16 and feature_dtype("float32", gpu) == torch.float32
    draw = drawer(avatar_there.generator, gpu, "auto")
    w = torch.randn(2, avatar_there.generator.w_dim, device=gpu)
    assert draw(avatar_there.generator.broadcast(w)).dtype == torch.float32
    assert pictures(avatar_there, take, performance).std() > 0
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_: False)
    assert feature_dtype("auto", gpu) == torch.float32


def test_the_sheet_of_edits(tiny_avatar, take, gpu, avatar_there):
    directions = {"smile": torch.randn(tiny_avatar.generator.w_dim, generator=torch.Generator().manual_seed(0))}
    state = replace(tiny_avatar.state, directions=directions)
    here, there = (replace(avatar, state=state) for avatar in (tiny_avatar, avatar_there))
    for shown in (None, take):
        assert np.abs(sheet(there, shown).astype(int) - sheet(here, shown)).max() <= 1


def follow(device) -> list:
    live = Live(live_person.avatar(), ReenactSettings(), LiveSettings(precision="float32"), device=device)
    try:
        return [live(frame, time) for time, frame in live_person.frames(4)]
    finally:
        live.close()
        live_person.avatar().generator.cpu()


def test_live_shows_what_it_shows_on_the_cpu():
    expected = follow("cpu")
    with simulated_gpu() as gpu:
        found = follow(gpu)
    for mine, theirs in zip(found, expected):
        assert mine.outcome == theirs.outcome and torch.allclose(mine.codes[AXES], theirs.codes[AXES], atol=1e-4)
        assert np.abs(mine.picture.astype(int) - theirs.picture).max() <= 2
