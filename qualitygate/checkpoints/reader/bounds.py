"""How much a file may ask for, and how that is held. Real checkpoints stay far below every limit.

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
MAX_NESTED_FILES = 4
"""Torch files inside one another. NVIDIA's pickles hold one level."""
MAX_NAME = 500
"""Characters of a key, of the name of a class, of the flat name of a tensor. Known ones stay below 100."""
MAX_TUPLE_KEYS = 1000
"""Tuples as keys: values for them can be chosen so that all collide, and time goes by their square."""
MAX_DIMENSIONS = 16
"""Dimensions of a tensor. The weights of networks have up to five."""
MAX_TENSORS = 50_000
"""Tensors in a file; each costs about a kilobyte. A training checkpoint of a large network has 10,000."""
MAX_DIRECTORY = 8 * 2**20
"""Bytes of an archive's table of contents, about 80 for each tensor; it is not parsed if it has more."""
MAX_JSON = 8 * 2**20
"""Bytes of a ``config.json`` or of the header of a safetensors file. Real ones have some thousand, or 100 for each tensor."""
MAX_LINE = 2**25
"""Bytes of a text in the oldest protocol of pickles, decoded in one piece."""
TIMES = 2
"""Bytes that may be copied or unpacked, over the size of the file; and of all tensors together, those of half precision counted as the
float32 that they are used in. Views may repeat what is stored, but not without end."""
ALLOWANCE = 16 * 2**20
"""Bytes that any file may copy, and its tensors have: small ones have little size to multiply."""


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


class Budget:
    """What one file may still ask for, shared with the files nested in it.

    Args:
        size: of the file, in bytes.
    """

    def __init__(self, size: int) -> None:
        self._instructions, self._tensors, self._tuple_keys = MAX_INSTRUCTIONS, MAX_TENSORS, MAX_TUPLE_KEYS
        self._copies = self._laid_out = TIMES * size + ALLOWANCE
        self.nested = 0

    def take_instruction(self) -> None:
        self._instructions -= 1
        if self._instructions < 0:
            raise over_limit("pickle instructions", MAX_INSTRUCTIONS)

    def take_tuple_key(self) -> None:
        self._tuple_keys -= 1
        if self._tuple_keys < 0:
            raise over_limit("tuples as keys", MAX_TUPLE_KEYS)

    def take_copy(self, size: int) -> None:
        """Called before ``size`` bytes are copied or unpacked."""
        self._copies -= size
        if self._copies < 0:
            raise over_limit("times its own size to unpack", TIMES)

    def take_tensor(self, size: int) -> None:
        """Called before a tensor is made whose values fill ``size`` bytes."""
        self._tensors -= 1
        if self._tensors < 0:
            raise over_limit("tensors", MAX_TENSORS)
        self._laid_out -= size
        if self._laid_out < 0:
            raise over_limit("times its own size in tensors", TIMES)
