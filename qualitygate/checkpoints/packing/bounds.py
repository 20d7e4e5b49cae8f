"""How much a file may ask for, and how the limit is kept. Real checkpoints stay far below every one of these."""

from __future__ import annotations

from dataclasses import dataclass

from qualitygate.errors import CheckpointError

MAX_INSTRUCTIONS = 2_000_000
"""Pickle instructions in one file, nested pickles included. A training checkpoint with optimizer state has about 100,000. Every instruction makes at
most one small object, so this bounds memory (about 200 MB) and time (a few seconds) as well."""
MAX_VALUES = 4_000_000
"""Values in the finished tree, counted as a walk would meet them: a list that holds another one twice counts it twice. Stops the
pickles that double a list again and again: a walk over what they make never ends."""
MAX_DEPTH = 100
"""Containers inside containers. A StyleGAN pickle has about 40; beyond a few hundred Python's own stack gives out."""
MAX_NESTED_FILES = 4
"""Torch files inside pickles inside torch files. NVIDIA's pickles hold one level."""
MAX_DIMENSIONS = 16
"""Dimensions of a tensor. The weights of networks have up to five."""
MAX_REPEATED = 2**20
"""Elements of a tensor that repeats its storage (stride 0); any other tensor has no more elements than its storage."""
MAX_TEXT = 64 * 2**20
"""Bytes of one text, or of a safetensors header or a ``config.json``."""
MAX_INFLATION = 50
"""Size of a compressed archive unpacked, over the file's own size. Weights hardly compress; optimizer state that is still zero does."""
MAX_ENTRIES = 100_000
"""Entries of an archive. A training checkpoint has one for each tensor."""


def over_limit(what: str, limit: int) -> CheckpointError:
    """The error for a file that asks for more than one of the limits above."""
    return CheckpointError(
        "The checkpoint asks for more than a network needs",
        f"more than {limit:,} {what}",
        f"at most {limit:,}",
        "do not trust this file; if you know where it comes from, save its state dict as safetensors and use that",
    )


@dataclass
class Budget:
    """What one file has left, shared with the pickles nested in it."""

    instructions: int = MAX_INSTRUCTIONS
    values: int = MAX_VALUES
    nested_files: int = 0

    def take_instruction(self) -> None:
        self.instructions -= 1
        if self.instructions < 0:
            raise over_limit("pickle instructions", MAX_INSTRUCTIONS)
