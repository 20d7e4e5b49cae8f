"""The sample that a check looks at: it grows from look to look, and nothing of it is made twice."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from qualitygate import names
from qualitygate.features.extractor import Extractor, PerceptualDistance
from qualitygate.gating.profile import Profile
from qualitygate.gating.stage import GateStage
from qualitygate.generators.passes import MICRO_BATCH, Reporter
from qualitygate.metrics.path_length import PER_SAMPLE, path_lengths
from qualitygate.metrics.population import discriminator_values
from qualitygate.policy.model import Policy
from qualitygate.records.gate import Verdict
from qualitygate.scores.local_activation import local_activation
from qualitygate.studies.check.images import image_features, images_of
from qualitygate.studies.check.subject import Subject


@dataclass
class Sample:
    """What is known of samples 0 … N − 1 of a subject.

    Args:
        subject: the checkpoint; its generator is there.
        policy: what its samples are judged by.
        ruler: profile that sets the limits.
        reporter: shows progress.

    Attributes:
        columns: scores, and 1 or 0 for each verdict under the name of its share, float64 (N,).
        features: float32 (N, F).
        discriminator: value of each image, float64 (N,).
        curvature: CLA of the units of each layer for the first samples, float64 (M, units).
        lengths: path lengths of the first samples, float64 (P, paths).
    """

    subject: Subject
    policy: Policy
    ruler: Profile
    reporter: Reporter
    ids: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    columns: dict[str, np.ndarray] = field(default_factory=dict)
    features: Tensor | None = None
    discriminator: np.ndarray | None = None
    curvature: dict[int, np.ndarray] = field(default_factory=dict)
    lengths: Tensor | None = None

    def __post_init__(self) -> None:
        assert self.subject.generator is not None
        self.generator = self.subject.generator
        self.stage = GateStage(self.generator, self.subject.profile, self.policy, seed=self.policy.check.seed, ruler=self.ruler)

    def gate(self, count: int) -> None:
        """Scores and verdicts of samples 0 … count − 1, those that are not known yet."""
        start = len(self.ids)
        if start >= count:
            return
        with self.reporter.phase("gate", count - start) as progress:
            for block in self.stage.blocks(range(start, count)):
                verdict, scores = block.decisions.verdict, dict(block.columns)
                parts = {name: column for name, column in scores.items() if not names.is_trial(name)}
                self._append(block.latents.ids, {**parts, **_verdict_columns(verdict, block.decisions.borderline)})
                progress(len(block.latents))

    def extract(self, extractor: Extractor, count: int) -> None:
        """Features of the untouched images of samples 0 … count − 1; made once for a checkpoint, whichever command asks."""
        if self.features is not None and len(self.features) >= count:
            return
        seed = self.policy.check.seed
        self.features = image_features(self.subject, extractor, range(count), seed, self.reporter, self.features)

    def judge(self, count: int) -> None:
        """The discriminator's value of the untouched images of samples 0 … count − 1."""
        judge = self.subject.discriminator
        start = 0 if self.discriminator is None else len(self.discriminator)
        if judge is None or start >= count:
            return
        with self.reporter.phase("discriminator", count - start) as progress:
            values = [
                discriminator_values(judge, images, labels)
                for images, labels in images_of(self.generator, self.stage.latents(range(start, count)), progress)
            ]
        self.discriminator = np.concatenate([*([] if self.discriminator is None else [self.discriminator]), *values])

    def walk(self, layer: int, count: int) -> None:
        """Exact CLA of the units of a layer for samples 0 … count − 1."""
        known = self.curvature.get(layer)
        start = 0 if known is None else len(known)
        if start >= count:
            return
        with self.reporter.phase(f"exact CLA of layer {layer}", count - start) as progress:
            latents = self.stage.latents(range(start, count))
            parts = [
                local_activation(self.generator, latents[at : at + MICRO_BATCH], (layer,), progress=progress).unit_score[layer]
                for at in range(0, len(latents), MICRO_BATCH)
            ]
            rows = torch.cat(parts).cpu().numpy()
        self.curvature[layer] = rows if known is None else np.concatenate([known, rows])

    def lay_paths(self, distance: PerceptualDistance, count: int) -> None:
        """Path lengths of samples 0 … count − 1."""
        start = 0 if self.lengths is None else len(self.lengths)
        if start >= count:
            return
        with self.reporter.phase("path lengths", count - start) as progress:
            new = path_lengths(self.generator, self.stage.latents(range(start, count)), distance, PER_SAMPLE, progress=progress)
        self.lengths = new if self.lengths is None else torch.cat([self.lengths, new])

    def _append(self, ids: np.ndarray, columns: dict[str, np.ndarray]) -> None:
        self.ids = np.concatenate([self.ids, ids])
        for name, values in columns.items():
            self.columns[name] = np.concatenate([self.columns.get(name, np.empty(0)), values])


def _verdict_columns(verdict: np.ndarray, borderline: np.ndarray) -> dict[str, np.ndarray]:
    """1 for the samples that count for a share, else 0, under the share's name."""
    kinds = {
        names.ACCEPTED_SHARE: (Verdict.ACCEPT,),
        names.CORRECTED_SHARE: (Verdict.CORRECT,),
        names.REJECTED_SHARE: (Verdict.REJECT,),
        names.YIELD: (Verdict.ACCEPT, Verdict.CORRECT),
    }
    columns = {share: np.isin(verdict, kind).astype(np.float64) for share, kind in kinds.items()}
    return columns | {names.BORDERLINE_SHARE: borderline.astype(np.float64)}
