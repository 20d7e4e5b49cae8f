"""Make the samples of a checkpoint once, look at each image, and keep the numbers: untouched, corrected, truncated.

No more than one block of images is ever held.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from qualitygate import names
from qualitygate.errors import InputError
from qualitygate.features.cache import SampleFeatures
from qualitygate.features.extractor import Extractor
from qualitygate.gating.curvature import exact_curvature
from qualitygate.gating.stage import GatedBlock, GateStage
from qualitygate.generators.base import Discriminator, EditsOfRows, Generator, sample_latents
from qualitygate.generators.passes import Reporter, micro_batches, padded_rows, scored_pass
from qualitygate.latents import Latents, Sampling
from qualitygate.metrics.measured_set import MeasuredSet, Observer
from qualitygate.records.gate import Verdict


@dataclass(frozen=True)
class Seen:
    """N samples of a checkpoint, looked at.

    Attributes:
        latents: what they were made from.
        untouched: every image as the generator makes it.
        columns: scores by name, float64 (N,); empty without a gate.
        verdict: of the gate (N,); None without one.
        corrected: the images of corrected samples as they are kept, in the order of their rows; None without a gate.
    """

    latents: Latents
    untouched: MeasuredSet
    columns: dict[str, np.ndarray]
    verdict: np.ndarray | None = None
    corrected: MeasuredSet | None = None

    def rows(self, verdict: Verdict) -> np.ndarray:
        """Rows of the samples with this verdict."""
        return np.flatnonzero(self.verdict == verdict) if self.verdict is not None else np.empty(0, dtype=np.int64)


class Observatory:
    """A checkpoint and what its images are looked at with.

    Args:
        generator: the generator.
        extractor: makes features; None for none.
        discriminator: the checkpoint's own, if there is one.
        seed: of the samples.
        sampling: how latents are drawn.
        reporter: shows progress.
    """

    def __init__(
        self,
        generator: Generator,
        extractor: Extractor | None,
        discriminator: Discriminator | None,
        *,
        seed: int,
        sampling: Sampling,
        reporter: Reporter,
    ) -> None:
        self.generator, self.seed, self.sampling = generator, seed, sampling
        self._extractor, self._discriminator, self._reporter = extractor, discriminator, reporter

    def look(self, count: int, stage: GateStage | None = None) -> Seen:
        """Samples 0 … count − 1, through the gate if there is one. Features that another command had made are not made again."""
        known = None if self._shelf is None else self._shelf.known(count)
        seen = self._ungated(count, known) if stage is None else self._through_the_gate(stage, count, known)
        if self._shelf is not None and seen.untouched.features is not None:
            self._shelf.keep(seen.untouched.features.cpu().numpy())
        return seen

    def latents(self, count: int, sampling: Sampling | None = None) -> Latents:
        """Latents of samples 0 … count − 1."""
        return sample_latents(self.generator, range(count), self.seed, sampling=sampling or self.sampling)

    def again(self, latents: Latents, phase: str, edits: EditsOfRows | None = None) -> MeasuredSet:
        """Images of these latents, edited or not, looked at."""
        return self._watched(self._observer(), latents, phase, edits)

    @cached_property
    def _shelf(self) -> SampleFeatures | None:
        """Where features of the untouched images are kept."""
        if self._extractor is None:
            return None
        return SampleFeatures(self.generator, self.sampling, self.seed, self._extractor)

    def _ungated(self, count: int, known: np.ndarray | None) -> Seen:
        latents = self.latents(count)
        if known is not None and len(known) == count and self._discriminator is None:  # no image would tell more
            return Seen(latents, MeasuredSet(count, torch.from_numpy(known).to(self.generator.device)), {})
        return Seen(latents, self._watched(self._observer(known), latents, "images"), {})

    def _watched(self, observer: Observer, latents: Latents, phase: str, edits: EditsOfRows | None = None) -> MeasuredSet:
        with self._reporter.phase(phase, len(latents)) as progress:
            for rows, batch in micro_batches(latents):
                count = rows.stop - rows.start
                with scored_pass():
                    images = self.generator(batch, edits(padded_rows(rows, len(batch))) if edits else None)[:count]
                observer.add(images, None if batch.labels is None else batch.labels[:count])
                progress(count)
        return observer.measured()

    def _through_the_gate(self, stage: GateStage, count: int, known: np.ndarray | None) -> Seen:
        untouched, corrected = self._observer(known), self._observer()
        blocks: list[GatedBlock] = []
        with self._reporter.phase("images", count) as progress:
            for block in stage.blocks(range(count)):
                labels = block.latents.labels
                untouched.add(self._untouched(block), labels)
                rows = np.flatnonzero(block.decisions.verdict == Verdict.CORRECT)
                corrected.add(_stacked(block, rows), None if labels is None else labels[torch.from_numpy(rows)])
                block.images.clear()
                blocks.append(block)
                progress(len(block.latents))
        return Seen(
            Latents.concatenated([block.latents for block in blocks]),
            untouched.measured(),
            _columns(blocks),
            np.concatenate([block.decisions.verdict for block in blocks]),
            corrected.measured(),
        )

    def _untouched(self, block: GatedBlock) -> Tensor:
        """Every image of a block before any correction; those that were accepted are there already."""
        accepted = block.decisions.verdict == Verdict.ACCEPT
        images = torch.empty((len(block.latents), *self.generator.image_shape))
        images[torch.from_numpy(accepted)] = _stacked(block, np.flatnonzero(accepted))
        others = np.flatnonzero(~accepted)
        for rows, batch in micro_batches(block.latents[others]):
            with scored_pass():
                made = self.generator(batch)[: rows.stop - rows.start].cpu()
            images[torch.from_numpy(others[rows])] = made
        return images.to(self.generator.device)

    def _observer(self, known: np.ndarray | None = None) -> Observer:
        return Observer(self._extractor, self._discriminator, self.generator.device, known)


def score_of(seen: Seen, generator: Generator, score: str, reporter: Reporter) -> np.ndarray:
    """A score of every sample, float64 (N,): as the gate measured it, or exact CLA.

    Raises:
        InputError: a score that nobody measured.
    """
    if score in seen.columns:
        return seen.columns[score]
    layer = names.cla_layer(score)
    if layer is None:
        known = ", ".join(sorted(name for name in seen.columns if not names.is_trial(name))) or "none: there is no profile"
        raise InputError(
            f"There is no score {score}",
            f"scores {known}",
            "one of them, or cla/layer_N",
            "give --profile, calibrated with a policy that counts it",
        )
    with reporter.phase("exact CLA", len(seen.latents)) as progress:
        return exact_curvature(generator, seen.latents, (generator.layer(layer).index,), progress=progress)[score]


def _stacked(block: GatedBlock, rows: np.ndarray) -> Tensor:
    images = [block.images[int(row)] for row in rows]
    return torch.from_numpy(np.stack(images)) if images else torch.empty(0)


def _columns(blocks: list[GatedBlock]) -> dict[str, np.ndarray]:
    """Scores that every block has; what only some needed (outcomes of corrections) is no score of a sample."""
    shared = set.intersection(*(set(block.columns) for block in blocks))
    return {name: np.concatenate([block.columns[name] for block in blocks]) for name in sorted(shared)}


def joined(parts: Iterator[tuple[MeasuredSet, np.ndarray]]) -> MeasuredSet:
    """Rows of several populations as one, without path lengths."""
    chosen = list(parts)
    count = sum(len(rows) for _, rows in chosen)
    features = [
        one.features[torch.from_numpy(rows).to(one.features.device)] for one, rows in chosen if one.features is not None and len(rows)
    ]
    values = [one.discriminator[rows] for one, rows in chosen if one.discriminator is not None and len(rows)]
    return MeasuredSet(count, torch.cat(features) if features else None, np.concatenate(values) if values else None)
