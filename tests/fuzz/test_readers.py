"""Every reader accepts a file or rejects it in one sentence, without other errors, processes, files or excess use."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutations import changed_bytes, changed_json
from readers import READERS, Reader
from watch import outcome

EXAMPLES = {"video": 5}
WAYS_IN = [(family, reader) for family, readers in READERS.items() for reader in readers]


def changed(reader: Reader) -> st.SearchStrategy[bytes]:
    """Yield mutations of the reader's valid files."""
    seeds = tuple(reader.seeds())
    found = st.sampled_from(seeds).flatmap(lambda seed: changed_bytes(seed, seeds))
    if reader.json:
        values = [json.loads(seed) for seed in seeds]
        tree = st.sampled_from(values).flatmap(changed_json).map(lambda value: json.dumps(value).encode())
        return found | tree | tree
    return found


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("MYSTUDIO_HOME", str(tmp_path / "home"))
    (tmp_path / "place").mkdir()
    return tmp_path / "place"


def check(family: str, reader: Reader, place, examples: int) -> None:
    late = (*reader.allowed, "ctypes.dlopen", "exec", "os.mkdir")  # imports happen in the first call
    told = [outcome(reader.read, seed, place, 1 << 20, late, 120.0) for seed in reader.seeds()]
    assert None in told, f"no honest file was read: {told}"

    @settings(
        max_examples=examples, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(changed(reader))
    def one(data):
        outcome(reader.read, data, place, reader.megabytes, reader.allowed, reader.seconds)

    one()


@pytest.mark.parametrize("family,reader", WAYS_IN, ids=[f"{family}: {reader.name}" for family, reader in WAYS_IN])
def test_it_is_read_or_refused_in_one_sentence(family, reader, place):
    check(family, reader, place, EXAMPLES.get(family, 15))


@pytest.mark.slow
@pytest.mark.timeout(3600)  # of the whole test; each file has its own limit
@pytest.mark.parametrize("family,reader", WAYS_IN, ids=[f"{family}: {reader.name}" for family, reader in WAYS_IN])
def test_it_is_read_or_refused_in_one_sentence_many_times(family, reader, place):
    check(family, reader, place, 300 if family == "video" else 4000)
