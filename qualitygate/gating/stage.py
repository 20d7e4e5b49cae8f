"""The gate: early layers, scores, verdict; then the remaining layers of what is kept, or a correction judged again.

Ids are worked on in blocks. Within a block every micro-batch runs the early layers once; samples that pass go on from where the scores were
read, samples that fail are corrected with rising strength, and rejected ones are never finished. The verdicts of a block come from
`qualitygate.policy.decide`, the same function that decides again from records.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

import qualitygate
from qualitygate import names, timing
from qualitygate.errors import InputError, PolicyError
from qualitygate.gating.correcting import BlockBuffer, Corrector, FailedRows, LateLayers, trials
from qualitygate.gating.curvature import Screening, exact_curvature
from qualitygate.gating.profile import Profile, check_validated, detection_layers, scored_layers
from qualitygate.gating.scoring import Scorer, add_totals, joined
from qualitygate.generators.base import Generator, State, sample_latents
from qualitygate.latents import Latents
from qualitygate.policy.decide import Decisions, decide, initial_verdicts
from qualitygate.policy.model import Policy
from qualitygate.policy.suite import make_suite, merge_suite, suite_hash
from qualitygate.records import Provenance
from qualitygate.records.gate import SampleRecord, Verdict
from qualitygate.scores.local_activation import walked_in

_BLOCK_BYTES = 2**28  # finished images that a block may hold
_BLOCK_MOST = 512


@dataclass(frozen=True)
class GatedBlock:
    """Some gated samples: every raw score and every outcome of a correction as columns, float64 (N,); images by row, float32 (channels,
    height, width) in [-1, 1], of accepted and corrected samples only."""

    latents: Latents
    columns: dict[str, np.ndarray]
    decisions: Decisions
    images: dict[int, np.ndarray]


def gate(
    generator: Generator,
    profile: Profile,
    ids: range | Sequence[int] | None = None,
    *,
    seed: int = 1,
    latents: Latents | Tensor | None = None,
    policy: Policy | None = None,
) -> Iterator[tuple[SampleRecord, Tensor | None]]:
    """Gate samples: exactly one record for every id, in order, with its image if it is accepted or corrected.

    Args:
        ids: sample ids; or give ``latents``.
        seed: seed of the samples; not the calibration's.
        latents: the user's own latents, instead of ids.
        policy: by default the profile's.

    Yields:
        record, and image (channels, height, width), float32 in [-1, 1], or None for a rejected sample.

    Raises:
        ProfileError: the profile is of another checkpoint, or does not cover the policy.
        InputError: the calibration's seed.
    """
    stage = GateStage(generator, profile, policy or profile.policy, seed=seed if latents is None else None)
    for block in stage.blocks(ids, latents):
        for row, record in enumerate(stage.records(block)):
            image = block.images.get(row)
            yield record, None if image is None else torch.from_numpy(image)


class GateStage:
    """A generator, its profile and a policy, ready to gate.

    Args:
        seed: seed of the samples; None for the user's own latents.
        latents_sha256: of the file of the user's own latents.
        as_pixels: images come as they are written, uint8 (height, width, channels): a quarter of what has to leave the device.
        reference_profile: whose scores set the limits and the risk, of a checkpoint with the same layers; by default the profile.
    """

    def __init__(
        self,
        generator: Generator,
        profile: Profile,
        policy: Policy,
        *,
        seed: int | None,
        latents_sha256: str | None = None,
        as_pixels: bool = False,
        reference_profile: Profile | None = None,
    ) -> None:
        profile.check_generator(generator)
        if seed is not None:
            profile.check_seed(seed)
        check_validated(profile, policy)
        reference, chain = reference_profile or profile, profile.info.chain
        self.generator, self.profile, self.policy, self.seed, self._latents_sha256 = generator, profile, policy, seed, latents_sha256
        self._as_pixels = as_pixels
        self.limits, self._risk = reference.limits(policy), reference.risk(policy)
        self.detection, scored = detection_layers(policy, chain), scored_layers(policy, chain)
        rates = profile.rates.to(generator.device)
        self._score = Scorer(generator, rates, policy.detection.rates, scored, policy.read_scores, moments=policy.screens)
        self._screening = Screening(generator, profile, policy, scored, self.limits, self._risk) if policy.screens else None
        self.corrector = None if policy.correction is None else Corrector(generator, profile, policy, policy.correction, self.limits)

    @property
    def provenance(self) -> Provenance:
        """Of all samples, in micro-batches as they are now: a set that goes on may fix others after the stage was made."""
        return self._provenance.model_copy(update={"micro_batch": self.generator.micro_batch})

    @cached_property
    def _provenance(self) -> Provenance:
        origin = self.generator.identity()
        return Provenance(
            checkpoint=origin.name,
            checkpoint_sha256=origin.sha256,
            family=self.generator.family,
            precision=self.generator.precision,
            profile_id=self.profile.info.profile_id,
            policy_hash=self.policy.hash,
            suite_hash=suite_hash(self.suite(1)),  # whatever the number of samples
            package_version=qualitygate.__version__,
            torch_version=torch.__version__,
            device=str(self.generator.device),
            seed=self.seed,
            latents=self._latents_sha256,
        )

    @cached_property
    def _walked(self) -> Generator:
        return walked_in(self.generator, self.policy.detection.curvature_precision)

    def suite(self, samples: int) -> dict[str, Any]:
        """The expectation suite for so many samples: the policy's, and what was written by hand into the profile's."""
        return merge_suite(make_suite(self.policy, [rule.score for rule in self.policy.rules], samples), self.profile.suite)

    def blocks(self, ids: range | Sequence[int] | None = None, latents: Latents | Tensor | None = None) -> Iterator[GatedBlock]:
        """Gate ids, or the user's own latents or bare z (N, D), block by block, in order."""
        if (ids is None) == (latents is None):
            raise InputError("Nothing to gate, or too much", "both ids and latents" if ids is not None else "neither", "one of the two")
        given = self.generator.checked(latents) if latents is not None else ids or ()
        for start in range(0, len(given), self.block_size):
            few = given[start : start + self.block_size]
            yield self.block(few if isinstance(few, Latents) else self.latents(few))

    def latents(self, ids: Sequence[int] | np.ndarray) -> Latents:
        """The latents of these ids (N,), under the profile's sampling. The user's own are not drawn: an `InputError`."""
        if self.seed is None:
            raise InputError("These samples have no seed", "the user's own latents", "their rows in the file they came from")
        return sample_latents(self.generator, ids, self.seed, sampling=self.profile.info.sampling)

    @property
    def block_size(self) -> int:
        """Samples in a block: whole micro-batches, as many as the finished images' memory allows."""
        channels, height, width = self.generator.image_shape
        fit, size = _BLOCK_BYTES // (4 * channels * height * width), self.generator.micro_batch
        return max(size, min(_BLOCK_MOST, fit) // size * size)

    def block(self, latents: Latents) -> GatedBlock:
        """Gate some latents: scores and a first verdict of every micro-batch; the remaining layers of those that pass; then corrections."""
        buffer = BlockBuffer(len(latents), as_pixels=self._as_pixels)
        late = LateLayers(self.generator, buffer.receive)
        failed: FailedRows = []
        with self.generator.scored_pass():
            for rows, columns, state in self._scored(latents):
                buffer.write(np.arange(rows.start, rows.stop), columns)
                verdict = initial_verdicts(self.limits, columns).verdict
                passing, failing = (np.flatnonzero(verdict == one) for one in (Verdict.ACCEPT, Verdict.CORRECT))
                late.add(rows.start + passing, state, passing)
                if len(failing):
                    failed.append((rows.start + failing, state.rows(torch.from_numpy(failing).to(state.activation.device))))
            late.flush()
            if failed and self.corrector is not None:
                self.corrector.correct(latents, failed, buffer)
            with timing.part(timing.LATE):
                buffer.settle()
        decisions = decide(self.limits, buffer.columns)
        kept = np.flatnonzero(decisions.verdict != Verdict.REJECT).tolist()
        if missing := [row for row in kept if row not in buffer.images]:
            raise PolicyError(
                "Verdicts and images do not agree",
                f"no image of {len(missing)} of {len(kept)} kept samples",
                "one image for each kept sample",
                "this is a bug: please report it",
            )
        return GatedBlock(latents, buffer.columns, decisions, {row: buffer.images[row] for row in kept})

    def _scored(self, latents: Latents) -> Iterator[tuple[slice, dict[str, np.ndarray], State]]:
        """Rows of each micro-batch, all scores that its verdict needs, and the state that its early layers ended in. CLA is walked, or
        screened, for all micro-batches together."""
        batches: Iterable[tuple[slice, dict[str, np.ndarray], State]] = self._score.over(latents)
        at, curvature = self.policy.detection.rates, dict[str, np.ndarray]()
        if layers := self.policy.curvature_layers():
            batches = list(batches)
            if self._screening is None:
                curvature = exact_curvature(self._walked, latents, layers, self.policy.detection.curvature_precision)
            else:
                others = joined(columns for _, columns, _ in batches)
                add_totals(others, at, self.detection)
                curvature = self._screening(latents, others)
        for rows, columns, state in batches:
            add_totals(columns, at, self.detection)
            columns |= {name: values[rows] for name, values in curvature.items()}
            columns[names.RISK] = self._risk(columns)
            yield rows, columns, state

    def records(self, block: GatedBlock) -> Iterator[SampleRecord]:
        """The records of a block, in order."""
        return (self.record(block, row) for row in range(len(block.latents)))

    def record(self, block: GatedBlock, row: int) -> SampleRecord:
        """The record of one sample of a block."""
        decisions, columns, labels = block.decisions, block.columns, block.latents.labels
        strength, moved = decisions.strength[row], columns[names.MOVED][row]
        inner = (names.IMAGE_FINITE, names.MOVED)
        return SampleRecord(
            id=int(block.latents.ids[row]),
            label=None if labels is None else int(labels[row]),
            verdict=Verdict(str(decisions.verdict[row])),
            reasons=decisions.reasons[row],
            borderline=bool(decisions.borderline[row]),
            scores={n: float(column[row]) for n, column in columns.items() if not names.is_trial(n) and n not in inner},
            trials=tuple(trials(self.limits, columns, row)),
            strength=None if np.isnan(strength) else float(strength),
            moved=None if np.isnan(moved) else float(moved),
            provenance=self.provenance,
        )
