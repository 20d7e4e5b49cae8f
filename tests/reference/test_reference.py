"""Every family against its original implementation: one table of cases, every recorded tensor, number for number."""

from __future__ import annotations

import importlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from qualitygate.checkpoints import save as native
from qualitygate.checkpoints.contents import Contents, TensorGroup
from qualitygate.checkpoints.load import Checkpoint, assemble_contents
from qualitygate.latents import Latents, Sampling
from reference.vectors import Case, Vectors, assert_agrees, load

_MODULES = sorted(path.stem for path in Path(__file__).parent.glob("cases_*.py"))
CASES: list[Case] = [case for module in _MODULES for case in importlib.import_module(f"reference.{module}").CASES]
_NOT_OUTPUTS = ("state_dict/", "disc/state_dict/", "checkpoint/", "input/")


@dataclass(frozen=True)
class Subject:
    """A case with its vectors and the networks made from them."""

    case: Case
    vectors: Vectors
    loaded: Checkpoint

    @property
    def recorded(self) -> list[str]:
        return [key for key in self.vectors.tensors if not key.startswith(_NOT_OUTPUTS)]

    def latents(self, image: str = "output/image") -> Latents:
        z = self.vectors.tensors["input/z"]
        sampling = Sampling(**self.case.images.get(image, {}))
        latents = Latents(np.arange(len(z)), None, z, self.labels, sampling)
        return latents[: len(self.vectors.tensors[image])]

    @property
    def labels(self) -> Tensor | None:
        """Classes or label vectors, whichever was recorded."""
        labels = self.vectors.tensors.get("input/c")
        return labels.long() if labels is not None and labels.ndim == 1 else labels

    def image(self, latents: Latents) -> Tensor:
        """In raw range, as the originals give it."""
        generator = self.loaded.generator
        return generator.finish(generator.run(generator.start(latents), generator.layers[-1].index))

    def renamed(self, of: str = "") -> dict[str, str]:
        """Recorded key to our name, for inner tensors of the generator or, with ``of="disc/"``, the discriminator."""
        keys = [key for key in self.recorded if key.startswith("disc/") == bool(of)]
        names = {key: self.case.rename(key) for key in keys if key not in self.case.elsewhere}
        return {key: name for key, name in names.items() if name is not None}


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.file)
def subject(request: pytest.FixtureRequest) -> Subject:
    case: Case = request.param
    vectors = load(case.file)
    return Subject(case, vectors, assemble_contents(Contents("test", case.tree(vectors)), case.file))


def test_the_layout_is_recognised(subject: Subject) -> None:
    assert subject.loaded.layout == subject.case.layout


def test_inner_tensors(subject: Subject) -> None:
    renamed = subject.renamed()
    seen = subject.loaded.generator.taps(subject.latents(), names=list(renamed.values()))
    for key, name in renamed.items():
        assert_agrees(seen[name], subject.vectors.tensors[key], key)


def test_images(subject: Subject) -> None:
    for key in subject.case.images:
        assert_agrees(subject.image(subject.latents(key)), subject.vectors.tensors[key], key)


def test_truncated_styles(subject: Subject) -> None:
    for key, image in subject.case.truncated.items():
        seen = subject.loaded.generator.taps(subject.latents(image), names=["ws"])
        assert_agrees(seen["ws"], subject.vectors.tensors[key], key)


def test_discriminator(subject: Subject) -> None:
    recorded = subject.vectors.tensors.get("disc/output")
    if recorded is None or "disc/output" in subject.case.elsewhere:
        assert not subject.renamed(of="disc/")
        return
    discriminator = subject.loaded.discriminator
    assert discriminator is not None
    inputs = subject.vectors.tensors["output/image"], subject.labels
    assert_agrees(discriminator(*inputs), recorded.flatten(), "disc/output")
    renamed = subject.renamed(of="disc/")
    seen = discriminator.taps(*inputs, names=list(renamed.values()))
    for key, name in renamed.items():
        assert_agrees(seen[name], subject.vectors.tensors[key], key)


def test_every_recorded_tensor_is_checked(subject: Subject) -> None:
    case = subject.case
    checked = {*subject.renamed(), *subject.renamed(of="disc/"), *case.images, *case.truncated, "disc/output"}
    assert set(subject.recorded) <= checked | set(case.elsewhere)
    assert set(case.elsewhere) <= set(subject.recorded)


def test_stopping_anywhere_and_resuming_changes_nothing(subject: Subject) -> None:
    generator = subject.loaded.generator
    start = generator.start(subject.latents())
    image = generator.resume(start)
    for layer, state in zip(generator.layers, list(generator.states(start)), strict=True):
        assert state.layer == layer.index
        assert state.activation.shape[1:] == (layer.units, layer.height, layer.width)
        assert torch.equal(generator.resume(state), image)


def test_an_edit_of_any_layer_changes_the_image(subject: Subject) -> None:
    generator = subject.loaded.generator
    start = generator.start(subject.latents())
    image = generator.resume(start)
    for layer in generator.layers:
        assert not torch.allclose(generator.resume(start, {layer.index: torch.zeros_like}), image)


def test_operations_grow_along_the_chain(subject: Subject) -> None:
    generator = subject.loaded.generator
    counts = [layer.operations for layer in generator.layers]
    assert counts[0] > 0
    assert counts == sorted(set(counts))
    assert counts[-1] <= generator.operations


def test_our_own_file_holds_the_same_generator(subject: Subject) -> None:
    generator = subject.loaded.generator
    settings = {native.METADATA_KEY: json.loads(native.metadata(generator)[native.METADATA_KEY])}
    again = assemble_contents(Contents("test", TensorGroup("", generator.state_dict(), settings)), "again").generator
    assert again.settings == generator.settings
    assert torch.equal(again(subject.latents()), generator(subject.latents()))
