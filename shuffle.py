"""Randomness without state: bits and permutations that are functions of a key and a number.

Nothing is drawn one after the other, so whoever knows the key can begin anywhere, on any process, and gets the same.
"""

import numpy as np

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
FEISTEL_ROUNDS = 4


def random_bits(numbers: np.ndarray, *key: int) -> np.ndarray:
    """64 random bits for each number under a key of integers: element `number` of a SplitMix64 sequence that the key begins."""
    begin = np.zeros(1, np.uint64)
    for part in key:
        begin = _mix(begin + GOLDEN + np.uint64(part))
    return _mix(begin + GOLDEN * (np.asarray(numbers).astype(np.uint64) + np.uint64(1)))


def _mix(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def permute(numbers: np.ndarray, size: int, *key: int) -> np.ndarray:
    """A random permutation of range(size), evaluated at `numbers` without ever being stored.

    A Feistel network permutes the power of four at or above `size`; an image that falls outside is sent through again
    until it lands inside, which keeps the map one to one.
    """
    half = np.uint64(max(1, (max(size - 1, 1).bit_length() + 1) // 2))
    mask = np.uint64((1 << int(half)) - 1)
    result = np.asarray(numbers).astype(np.uint64)
    outside = np.ones(result.shape, bool)
    while outside.any():
        left, right = result[outside] >> half, result[outside] & mask
        for round_number in range(FEISTEL_ROUNDS):
            left, right = right, left ^ (random_bits(right, *key, round_number) & mask)
        result[outside] = left << half | right
        outside = result >= size
    return result.astype(np.int64)
