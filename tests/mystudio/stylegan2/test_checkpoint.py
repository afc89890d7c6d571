"""mystudio's generator files: exact round trips, and every kind of damage is detected."""

import random
import resource
import shutil
import subprocess
import sys

import pytest
import torch
from foreign_files import random_generator
from safetensors.torch import load_file, save_file

from mystudio.errors import BadCheckpoint, OutputFailed
from mystudio.stylegan2.checkpoint import digest, load_generator, read_info, save_generator


def save(tmp_path, g=None, **options):
    path = tmp_path / "g.safetensors"
    save_generator(g or random_generator(), path, **options)
    return path


def test_round_trip_is_exact(tmp_path):
    g = random_generator(64, z_dim=5, w_dim=9, mapping_layers=1, channel_base=300, channel_max=30)
    loaded = load_generator(save(tmp_path, g))
    assert loaded.config == g.config and not loaded.training
    for name, value in g.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    ws = torch.randn(2, g.num_ws, 9)
    assert torch.equal(loaded(ws), g(ws))
    loaded(ws).sum().backward()  # it can be tuned
    assert loaded.synthesis.b64.conv1.weight.is_contiguous(memory_format=torch.channels_last)


def test_loading_does_not_import_the_compiler(tmp_path):
    code = (
        "import sys\nfrom mystudio.stylegan2.checkpoint import load_generator\n"
        f"load_generator({str(save(tmp_path))!r})\n"
        "print(*(name in sys.modules for name in ('torch', 'torch._dynamo', 'sympy')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False", "False"]


def test_half_rounds_to_float16_once(tmp_path):
    g = random_generator()
    path = save(tmp_path, g, half=True)
    stored = load_file(path)
    loaded = load_generator(path)
    for name, value in g.state_dict().items():
        if value.numel() >= 128:
            assert stored[name].dtype == torch.float16 and torch.equal(stored[name], value.half())
        else:
            assert torch.equal(stored[name], value)
        assert loaded.state_dict()[name].dtype == torch.float32
    save_generator(loaded, tmp_path / "again.safetensors", half=True)
    assert digest(tmp_path / "again.safetensors") == digest(path)


def test_half_keeps_what_float16_cannot_hold(tmp_path):
    g = random_generator()
    g.mapping.fc1.weight.data[0, 0] = 1e6
    assert load_generator(save(tmp_path, g, half=True)).mapping.fc1.weight[0, 0] == 1e6


def test_header_facts(tmp_path):
    g = random_generator()
    info = {"training": "größe ✓", "steps": 12, "kind": "a lie", "resolution": 4}
    facts = read_info(save(tmp_path, g, info=info))
    assert facts.pop("content_sha256") and facts == {
        "kind": "stylegan2-generator",
        "noise": "const",
        "training": "größe ✓",
        "steps": "12",
        "resolution": "32",
        "z_dim": "16",
        "w_dim": "24",
        "mapping_layers": "2",
        "channel_base": "512",
        "channel_max": "32",
    }


def test_equal_generators_are_equal_files(tmp_path):
    info = {f"fact {i}": i for i in range(20)}
    first = save(tmp_path, info=info).read_bytes()
    assert all(save(tmp_path, info=info).read_bytes() == first for _ in range(3))
    assert save(tmp_path, random_generator(seed=1), info=info).read_bytes() != first


def test_the_actor_base_loads_without_a_checksum(shared):
    assert load_generator(shared / "weights/actors128.safetensors").resolution == 128


def test_truncation_is_noticed(tmp_path):
    path = save(tmp_path)
    whole, choice = path.read_bytes(), random.Random(0)
    for cut in [0, 7, 8, 9, len(whole) - 1, *(choice.randrange(len(whole)) for _ in range(40))]:
        path.write_bytes(whole[:cut])
        with pytest.raises(BadCheckpoint) as refusal:
            load_generator(path)
        assert "\n" not in str(refusal.value)
    path.write_bytes(whole + b"x")
    with pytest.raises(BadCheckpoint):
        load_generator(path)


def test_every_flipped_bit_is_noticed(tmp_path):
    path = save(tmp_path, random_generator(8, z_dim=4, w_dim=4, channel_base=32, channel_max=4))
    whole, choice = path.read_bytes(), random.Random(1)
    header = 8 + int.from_bytes(whole[:8], "little")
    name = whole.index(b"content_sha256")  # a flipped bit in this key only disables the check
    positions = [*range(0, header, 5), *(choice.randrange(header, len(whole)) for _ in range(200))]
    for position in positions:
        if name <= position < name + len("content_sha256"):
            continue
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1 << choice.randrange(8)]) + whole[position + 1 :])
        with pytest.raises(BadCheckpoint):
            load_generator(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_must_be_finite(tmp_path, value):
    g = random_generator()
    path = save(tmp_path, g)
    before = path.read_bytes()
    g.synthesis.b8.conv0.weight.data[0, 0, 0, 0] = value
    with pytest.raises(BadCheckpoint, match="finite.*b8.conv0.weight"):
        save_generator(g, path)
    assert path.read_bytes() == before
    state = {name: tensor.contiguous() for name, tensor in g.state_dict().items()}
    save_file(state, path, {k: v for k, v in read_info(path).items() if k != "content_sha256"})
    with pytest.raises(BadCheckpoint, match="finite.*b8.conv0.weight"):
        load_generator(path)


@pytest.mark.parametrize(
    "lie",
    [
        {"resolution": "64"},
        {"resolution": "33"},
        {"resolution": "1" + "0" * 30},
        {"resolution": "-32"},
        {"resolution": "1048576"},
        {"resolution": "0"},
        {"resolution": "³²"},
        {"z_dim": "17"},
        {"w_dim": ""},
        {"w_dim": "8000", "z_dim": "8000"},
        {"mapping_layers": "3"},
        {"mapping_layers": "99999999"},
        {"channel_max": "1e3"},
        {"channel_base": "16"},
        {"channel_base": "4194304", "channel_max": "8192"},
        {"kind": "encoder"},
    ],
)
def test_headers_that_lie(tmp_path, lie):
    path = save(tmp_path)
    facts = {k: v for k, v in read_info(path).items() if k != "content_sha256"}
    save_file(load_file(path), path, facts | lie)
    with pytest.raises(BadCheckpoint):
        load_generator(path)
    save_file(load_file(path), path, {k: v for k, v in facts.items() if k not in lie})
    with pytest.raises(BadCheckpoint):
        load_generator(path)


def test_tensors_that_do_not_fit_the_header(tmp_path):
    path = save(tmp_path)
    facts = {k: v for k, v in read_info(path).items() if k != "content_sha256"}
    state = load_file(path)
    for change, message in (
        ({"more": torch.zeros(2)}, "unknown"),
        ({"mapping.w_avg": torch.zeros(23)}, "shape"),
        ({"mapping.w_avg": torch.zeros(24, dtype=torch.int32)}, "floating-point"),
    ):
        save_file(state | change, path, facts)
        with pytest.raises(BadCheckpoint, match=message):
            load_generator(path)
    del state["mapping.w_avg"]
    save_file(state, path, facts)
    with pytest.raises(BadCheckpoint, match="1 missing.*w_avg"):
        load_generator(path)


def test_a_header_that_promises_too_much_costs_nothing(tmp_path):
    """Sizes are checked before weights are allocated: a header of 20 GB does not raise memory use."""
    path = save(tmp_path)
    facts = {k: v for k, v in read_info(path).items() if k != "content_sha256"}
    save_file(load_file(path), path, facts | {"channel_base": "262144", "channel_max": "8192"})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(BadCheckpoint, match="larger one"):
        load_generator(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


def test_other_things_are_no_generators(tmp_path):
    for path in (tmp_path / "absent.safetensors", tmp_path):
        for read in (load_generator, read_info, digest):
            with pytest.raises(BadCheckpoint):
                read(path)
    garbage = tmp_path / "x.safetensors"
    for content in (b"", b"PK\x03\x04", b"\xff" * 100, b"\x80\x04N.", (1 << 63).to_bytes(8, "little") + b"{}"):
        garbage.write_bytes(content)
        with pytest.raises(BadCheckpoint):
            load_generator(garbage)


def test_digest_is_the_files_sha256(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert digest(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_full_disk_leaves_the_old_file_whole(tmp_path):
    path = save(tmp_path)
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, hard))
    try:
        with pytest.raises(OutputFailed):
            save_generator(random_generator(seed=5), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == [path.name]


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file" / "g.safetensors", tmp_path):
        with pytest.raises(OutputFailed):
            save_generator(random_generator(8), path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file"]


def test_unusual_names_and_missing_folders(tmp_path):
    path = tmp_path / "neuer ordner" / "größe ✓" / ("n" * 200 + ".safetensors")
    save_generator(random_generator(8), path)
    assert load_generator(path).resolution == 8
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_loaded_generator_outlives_its_file(tmp_path):
    path = save(tmp_path)
    g = load_generator(path)
    expected = {name: value.clone() for name, value in g.state_dict().items()}
    path.write_bytes(bytes(path.stat().st_size))  # overwritten in place, not replaced
    shutil.rmtree(tmp_path)
    assert all(torch.equal(value, expected[name]) for name, value in g.state_dict().items())
