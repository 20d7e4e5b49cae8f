"""How much a file may ask for; real checkpoints stay far below every limit.

Together they see to it that no file, whole or refused, takes more memory than twice its size and 256 MB; pages of the file itself, which
is mapped, are not counted.
"""

from __future__ import annotations

from qualitygate.errors import CheckpointError

MAX_INSTRUCTIONS = 900_000
"""Pickle instructions in one file, nested pickles included. One of a training with optimizer state has about 100,000.
Every instruction makes at most one small object, so this bounds memory and time (seconds) as well."""
MAX_VALUES = 2_000_000
"""Values in the finished tree, counted as a walk would meet them: what a list holds twice counts twice. Stops pickles
that double a list again and again, over which no walk ever ends."""
MAX_DEPTH = 100
"""Containers inside containers. A StyleGAN pickle has about 40; beyond a few hundred Python's own stack gives out."""
MAX_NESTED_FILES = 4  # torch files inside one another; NVIDIA's pickles hold one level
MAX_NAME = 500  # characters of a key, of the name of a class, of the flat name of a tensor; known ones stay below 100
MAX_TUPLE_KEYS = 1000  # tuples as keys: values for them can be chosen so that all collide, and time goes by their square
MAX_DIMENSIONS = 16  # dimensions of a tensor; the weights of networks have up to five
MAX_TENSORS = 50_000  # tensors in a file; each costs about a kilobyte; a training checkpoint of a large network has 10,000
MAX_GROUPS = 10_000
"""Groups of tensors in a file: networks, and one for every parameter of an optimizer, which has some 1,000."""
MAX_PATH = 500  # characters of a group's path; known ones stay below 50
MAX_DIRECTORY = 8 * 2**20
"""Bytes of an archive's table of contents, about 80 for each tensor; it is not parsed if it has more."""
MAX_JSON = 8 * 2**20
"""Bytes of a ``config.json`` or of the header of a safetensors file. Real ones have some thousand, or 100 for each tensor."""
MAX_LINE = 2**25  # bytes of a text in the oldest protocol of pickles, decoded in one piece
TIMES = 2
"""Bytes that may be copied or unpacked, over the size of the file; and of all tensors together, those of half precision counted as the
float32 that they are used in. Views may repeat what is stored, but not without end."""
ALLOWANCE = 16 * 2**20  # bytes that any file may copy, and its tensors have: small ones have little size to multiply


class Damaged(Exception):  # noqa: N818 - a finding while reading, turned into a CheckpointError at the door
    """The bytes do not follow the format they begin with."""


def over_limit(what: str, limit: int) -> CheckpointError:
    """The error for a file that asks for more than one of the limits above."""
    return CheckpointError(
        "The checkpoint asks for more than a network needs",
        f"more than {limit:,} {what}",
        f"at most {limit:,}",
        "do not trust this file; if you know where it comes from, save its state dict as safetensors and use that",
    )


INSTRUCTIONS, TENSORS, TUPLE_KEYS = "pickle instructions", "tensors", "tuples as keys"
COPIES = "times its own size to unpack"  # in bytes
LAID_OUT = "times its own size in tensors"  # in bytes
_LIMITS = {INSTRUCTIONS: MAX_INSTRUCTIONS, TENSORS: MAX_TENSORS, TUPLE_KEYS: MAX_TUPLE_KEYS, COPIES: TIMES, LAID_OUT: TIMES}


class Budget:
    """What one file of ``size`` bytes may still ask for, shared with the files nested in it."""

    def __init__(self, size: int) -> None:
        self._left = _LIMITS | dict.fromkeys((COPIES, LAID_OUT), TIMES * size + ALLOWANCE)
        self.nested = 0

    def take(self, what: str, amount: int = 1) -> None:
        """Called before so much of it is made."""
        self._left[what] -= amount
        if self._left[what] < 0:
            raise over_limit(what, _LIMITS[what])
