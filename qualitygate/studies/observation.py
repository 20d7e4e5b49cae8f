"""Make the samples of a checkpoint once, and keep numbers of each image: untouched, corrected, truncated.

No more than one block of images is ever held.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor

from qualitygate import names
from qualitygate.features.cache import SampleFeatures
from qualitygate.features.extractor import Extractor
from qualitygate.gating.stage import GatedBlock, GateStage
from qualitygate.generators.base import Discriminator, EditsOfRows, Generator, sample_latents
from qualitygate.generators.passes import Reporter, on_host
from qualitygate.latents import Latents, Sampling
from qualitygate.metrics.measured_set import MeasuredSet, Observer, RealSet
from qualitygate.records.gate import Verdict


@dataclass(frozen=True)
class CollectedSamples:
    """N samples of a checkpoint, as numbers: every image as the generator makes it; and where there is a gate, scores by name, float64
    (N,), verdicts (N,), and the images of corrected samples as they are kept, in the order of their rows."""

    latents: Latents
    untouched: MeasuredSet
    columns: dict[str, np.ndarray] = field(default_factory=dict)
    verdict: np.ndarray | None = None
    corrected: MeasuredSet | None = None

    def rows(self, verdict: Verdict) -> np.ndarray:
        """Rows of the samples with this verdict: none without a gate."""
        return np.flatnonzero(self.verdict == verdict)


@dataclass(frozen=True)
class SampleSource:
    """A checkpoint, what its images are turned into numbers with, and the real images they are held against."""

    generator: Generator
    extractor: Extractor | None
    discriminator: Discriminator | None
    seed: int
    sampling: Sampling
    reporter: Reporter
    real: RealSet | None = None

    def latents(self, count: int, sampling: Sampling | None = None) -> Latents:
        """Latents of samples 0 … count − 1."""
        return sample_latents(self.generator, range(count), self.seed, sampling=sampling or self.sampling)

    def collect(self, count: int, stage: GateStage | None = None) -> CollectedSamples:
        """Samples 0 … count − 1, through the gate if there is one. Features that another command had made are not made again."""
        cached = None if self.extractor is None else SampleFeatures(self.generator, self.sampling, self.seed, self.extractor)
        if stage is None and cached is not None and self.discriminator is None:  # no image would tell more
            features = torch.from_numpy(cached.get(count, self.reporter)).to(self.generator.device)
            return CollectedSamples(self.latents(count), MeasuredSet(count, features, real=self.real))
        known = None if cached is None else cached.known(count)
        if stage is None:
            latents = self.latents(count)
            collected = CollectedSamples(latents, self.regenerate(latents, "images", known=known))
        else:
            collected = self._through_the_gate(stage, count, known)
        if cached is not None and collected.untouched.features is not None:
            cached.keep(on_host(collected.untouched.features).numpy())
        return collected

    def regenerate(self, latents: Latents, phase: str, edits: EditsOfRows | None = None, known: np.ndarray | None = None) -> MeasuredSet:
        """Images of these latents, edited or not; features (M, F) of the first M may be known already."""
        observer = Observer(self.extractor, self.discriminator, self.generator.device, known)
        with self.reporter.phase(phase, len(latents)) as progress:
            for rows, images in self.generator.image_batches(latents, edits, progress):
                observer.add(images, None if latents.labels is None else latents.labels[rows])
        return observer.measured().against(self.real)

    def _through_the_gate(self, stage: GateStage, count: int, known: np.ndarray | None) -> CollectedSamples:
        observe = partial(Observer, self.extractor, self.discriminator, self.generator.device)
        untouched, corrected = observe(known), observe()
        blocks: list[GatedBlock] = []
        with self.reporter.phase("images", count) as progress:
            for block in stage.blocks(range(count)):
                labels = block.latents.labels
                untouched.add(self._untouched(block), labels)
                rows = np.flatnonzero(block.decisions.verdict == Verdict.CORRECT)
                corrected.add(_stacked(block, rows), None if labels is None else labels[torch.from_numpy(rows)])
                block.images.clear()
                blocks.append(block)
                progress(len(block.latents))
        scores = sorted(name for name in blocks[0].columns if not names.is_trial(name))
        return CollectedSamples(
            Latents.concatenated([block.latents for block in blocks]),
            untouched.measured().against(self.real),
            {name: np.concatenate([block.columns[name] for block in blocks]) for name in scores},
            np.concatenate([block.decisions.verdict for block in blocks]),
            corrected.measured().against(self.real),
        )

    def _untouched(self, block: GatedBlock) -> Tensor:
        """Every image of a block before any correction; those that were accepted are there already."""
        accepted, device = block.decisions.verdict == Verdict.ACCEPT, self.generator.device
        images = torch.empty((len(block.latents), *self.generator.image_shape), device=device)
        if len(those := np.flatnonzero(accepted)):
            images[torch.from_numpy(those).to(device)] = _stacked(block, those).to(device)
        others = np.flatnonzero(~accepted)
        for rows, made in self.generator.image_batches(block.latents[others]):
            images[torch.from_numpy(others[rows]).to(device)] = made
        return images


def _stacked(block: GatedBlock, rows: np.ndarray) -> Tensor:
    images = [block.images[int(row)] for row in rows]
    return torch.from_numpy(np.stack(images)) if images else torch.empty(0)


def joined(*parts: tuple[MeasuredSet, np.ndarray]) -> MeasuredSet:
    """Rows of several sets of images, held against one real set, as one without path lengths."""
    chosen = [(one, rows) for one, rows in parts if len(rows)]
    features = [one.features[torch.from_numpy(rows).to(one.features.device)] for one, rows in chosen if one.features is not None]
    values = [one.discriminator[rows] for one, rows in chosen if one.discriminator is not None]
    return MeasuredSet(
        sum(len(rows) for _, rows in chosen),
        torch.cat(features) if features else None,
        np.concatenate(values) if values else None,
        real=parts[0][0].real,
    )
