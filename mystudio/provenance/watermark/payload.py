"""Payload bits with an error-correcting code: CRC-16, then a tail-biting convolutional code with soft decoding."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from mystudio.errors import StudioError

BITS = 48  # bits of the payload: the first 12 hex digits of a digest
CHECK_BITS = 16
MESSAGE = BITS + CHECK_BITS
GENERATORS = (0o557, 0o663, 0o711)  # rate 1/3, constraint length 9, free distance 18
STATES = 256
CODED = MESSAGE * len(GENERATORS)
CRC_POLYNOMIAL = 0x1021  # CRC-16/CCITT-FALSE
CRC_START = 0xFFFF


def payload_of(digest: str) -> int:
    """Return the payload of a sha256 digest in hex: its first 48 bits.

    Raises: StudioError: fewer than 12 hex digits.
    """
    try:
        if len(digest) < BITS // 4:
            raise ValueError
        return int(digest[: BITS // 4], 16)
    except ValueError:
        raise StudioError(f"expected a digest of at least 12 hex digits, got {digest!r}; give an avatar's") from None


def checksum(payload: int) -> int:
    """Return the CRC-16/CCITT-FALSE of the payload's six bytes."""
    register = CRC_START
    for byte in payload.to_bytes(BITS // 8, "big"):
        register ^= byte << 8
        for _ in range(8):
            register = (register << 1) ^ (CRC_POLYNOMIAL if register & 0x8000 else 0)
        register &= 0xFFFF
    return register


def encode(payload: int) -> np.ndarray:
    """Return the code word of a payload.

    Args:
        payload: 0 to 2^48 - 1.
    Returns: [192] float32 of -1 and +1.
    Raises: StudioError: the payload has more than 48 bits.
    """
    if not 0 <= payload < 1 << BITS:
        raise StudioError(f"expected a payload of {BITS} bits, got {payload}; use payload_of(digest)")
    message = payload << CHECK_BITS | checksum(payload)
    bits = [message >> (MESSAGE - 1 - i) & 1 for i in range(MESSAGE)]
    signs, state = [], 0
    for bit in bits[-8:]:  # tail-biting: the encoder starts in the state it will end in
        state = (state << 1 | bit) & (STATES - 1)
    for bit in bits:
        register = state << 1 | bit
        signs += [1 - 2 * (bin(register & g).count("1") & 1) for g in GENERATORS]
        state = register & (STATES - 1)
    return np.array(signs, np.float32)


def decode(soft: np.ndarray) -> int | None:
    """Return the payload of a received word, or None if its CRC is wrong.

    Viterbi decoding runs over three copies of the word; in the middle copy it has reached the starting state.

    Args:
        soft: [192] log-likelihood ratios up to a common factor, positive for +1.
    """
    branches = np.tile(np.reshape(soft, (MESSAGE, -1)) @ _branch_signs(), (3, 1)).reshape(-1, 2, STATES)
    first, second = _predecessors()
    metric, chosen = np.zeros(STATES), np.empty((3 * MESSAGE, STATES), np.int64)
    for step, branch in enumerate(branches):
        one, other = metric[first] + branch[0], metric[second] + branch[1]
        chosen[step] = np.where(one >= other, first, second)
        metric = np.maximum(one, other)
    state, message = int(metric.argmax()), 0
    for step in range(3 * MESSAGE - 1, MESSAGE - 1, -1):
        if step < 2 * MESSAGE:
            message |= (state & 1) << (2 * MESSAGE - 1 - step)
        state = int(chosen[step, state])
    payload = message >> CHECK_BITS
    return payload if checksum(payload) == message & (1 << CHECK_BITS) - 1 else None


@lru_cache
def _predecessors() -> np.ndarray:
    """Return [2, 256] states that precede each state."""
    states = np.arange(STATES)
    return np.stack([states >> 1, states >> 1 | STATES >> 1])


@lru_cache
def _branch_signs() -> np.ndarray:
    """Return [3, 2 * 256] code bits of the transitions to each state."""
    registers = (_predecessors() << 1 | (np.arange(STATES) & 1)).ravel().tolist()
    return np.array([[1.0 - 2.0 * (bin(r & g).count("1") & 1) for r in registers] for g in GENERATORS])
