"""One seed for a run, from which every random thing takes one of its own."""

import zlib


def derive_seed(seed: int, name: str) -> int:
    """A seed in [0, 2**31) for the thing called `name`.

    It depends on nothing but the two arguments: not on the order in which things are made, nor on the process (Python's
    `hash` of a string does).
    """
    return zlib.crc32(f"{seed}/{name}".encode()) & 0x7FFFFFFF
