"""Photographs of two different people, both frontal, of which the tests of this folder make clips."""

import pytest
from face_clips import photographs

ALICE, BOB = 3, 12  # numbers of the photographs


@pytest.fixture(scope="module")
def alice(shared):
    return photographs(shared, ALICE)[0]


@pytest.fixture(scope="module")
def bob(shared):
    return photographs(shared, BOB)[0]
