"""How much a file may ask for, and how that is held. Real checkpoints stay far below every limit."""

from __future__ import annotations

from qualitygate.errors import CheckpointError

MAX_INSTRUCTIONS = 2_000_000
"""Pickle instructions in one file, nested pickles included. One of a training with optimizer state has about 100,000.
Every instruction makes at most one small object, so this bounds memory (hundreds of MB) and time (seconds) as well."""
MAX_VALUES = 2_000_000
"""Values in the finished tree, counted as a walk would meet them: what a list holds twice counts twice. Stops pickles
that double a list again and again, over which no walk ever ends."""
MAX_DEPTH = 100
"""Containers inside containers. A StyleGAN pickle has about 40; beyond a few hundred Python's own stack gives out."""
MAX_NESTED_FILES = 4
"""Torch files inside one another. NVIDIA's pickles hold one level."""
MAX_NAME = 500
"""Characters of a key, or of the flat name of a tensor. Known ones stay below 100."""
MAX_DIMENSIONS = 16
"""Dimensions of a tensor. The weights of networks have up to five."""
MAX_REPEATED = 2**20
"""Elements of a tensor that repeats its storage (stride 0); any other has no more elements than its storage."""
MAX_ENTRIES = 100_000
"""Entries of an archive. A training checkpoint has one for each tensor."""
MAX_COPIED = 8
"""Bytes that may be copied or unpacked, over the size of the file. Storages at odd addresses are copied once; weights
hardly compress, optimizer state that is still zero does."""
MAX_CONFIG = 16 * 2**20
"""Bytes of a ``config.json``. Real ones have a few thousand."""
_SMALL = 2**20  # bytes that any file may copy: small ones have little size to multiply


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
        self._instructions = MAX_INSTRUCTIONS
        self._copies = MAX_COPIED * size + _SMALL
        self.nested = 0

    def take_instruction(self) -> None:
        self._instructions -= 1
        if self._instructions < 0:
            raise over_limit("pickle instructions", MAX_INSTRUCTIONS)

    def take_copy(self, size: int) -> None:
        """Called before ``size`` bytes are copied or unpacked."""
        self._copies -= size
        if self._copies < 0:
            raise over_limit("times its own size to unpack", MAX_COPIED)
