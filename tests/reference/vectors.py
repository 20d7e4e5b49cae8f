"""Reference vectors: inputs and outputs recorded from the original implementations (see `vectors/README.md` for the sources)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

FOLDER = Path(__file__).parent / "vectors"
TOLERANCE = 1e-4  # of the standard deviation of the recorded tensor


@dataclass(frozen=True)
class Vectors:
    """One file: tensors under their recorded keys, and the notes that came with them."""

    tensors: Mapping[str, Tensor]
    notes: Mapping[str, str]

    def under(self, prefix: str) -> dict[str, Tensor]:
        """The tensors below a prefix such as ``"state_dict/"``, without it."""
        return {key.removeprefix(prefix): tensor for key, tensor in self.tensors.items() if key.startswith(prefix)}

    def recorded(self, *prefixes: str) -> list[str]:
        return [key for key in self.tensors if key.startswith(prefixes)]

    def settings(self, name: str = "generator_kwargs") -> dict[str, Any]:
        return json.loads(self.notes[name])


def load(name: str) -> Vectors:
    with safe_open(FOLDER / f"{name}.safetensors", "pt") as file:
        names = list(file.keys())
        return Vectors({name: file.get_tensor(name) for name in names}, file.metadata())


def assert_agrees(ours: Tensor, recorded: Tensor, key: str) -> None:
    """Within the tolerance of the recorded tensor's own standard deviation; a w may be recorded once a style input."""
    if ours.ndim < recorded.ndim:
        ours = ours.unsqueeze(1).expand_as(recorded)
    assert ours.shape == recorded.shape, key
    error = float((ours - recorded).abs().max() / recorded.std())
    assert error <= TOLERANCE, f"{key}: {error:.1e} standard deviations"


@dataclass(frozen=True)
class Case:
    """How one file of vectors is checked.

    Attributes:
        file: name of the vectors, without the suffix.
        tree: the vectors arranged as the real file would hold them (what `Contents.tree` would be).
        layout: name of the layout that must recognise it.
        rename: recorded key (activation, style, rgb, w, disc/activation …) to the name of our inner tensor, of the generator for
            ``output/image`` or of the discriminator; None where there is none (then it must be in ``elsewhere``).
        images: recorded image key to the `Sampling` settings it was made with, e.g. ``{"output/image_psi0.7": {"psi": 0.7}}``.
        truncated: recorded key of truncated style inputs to the image key whose sampling they belong to; ours are called ``ws``.
        elsewhere: recorded keys that a test of their own covers, with the reason.
    """

    file: str
    tree: Callable[[Vectors], Any]
    layout: str
    rename: Callable[[str], str | None]
    images: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: {"output/image": {}})
    truncated: Mapping[str, str] = field(default_factory=dict)
    elsewhere: Mapping[str, str] = field(default_factory=dict)
