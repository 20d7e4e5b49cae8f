"""Perceptual path length (Karras et al. 2019), how fast the image changes between latents: ``E[d(G(z(t)), G(z(t + ε))) / ε²]``.

Slerp in z, lerp in w, ε = 1e-4, the label of a path fixed. Paths end at latents of a random stream of their own, by sample id and number of
the path: nothing depends on the batch. *Per sample* (**choice**): paths that start at the sample, t = 0, so that a group has a path length.

The published code puts latents on the unit sphere, right only where the generator normalises z. Here a path keeps the lengths of its ends
(their directions are slerped, their lengths lerped): it starts at the sample itself in every family, and nothing changes in those.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, cast

import numpy as np
import torch
from torch import Tensor

from qualitygate import names
from qualitygate.errors import InputError
from qualitygate.features.extractor import PerceptualDistance
from qualitygate.generators.base import EditsOfRows, Generator
from qualitygate.generators.passes import IMAGE_BATCH, Progress, micro_batches, on_host, padded_rows, silent
from qualitygate.latents import Latents, Purpose, normals, uniforms
from qualitygate.metrics.estimate import Estimate, Resampling, ratio
from qualitygate.metrics.measured_set import Group
from qualitygate.metrics.metric import SetMetric


@dataclass(frozen=True)
class PathSettings:
    """How paths are laid and measured.

    Attributes:
        space: slerp in z or lerp in w.
        where: at the start of the path (t = 0), or at a random t of [0, 1).
        paths: paths of each sample.
        epsilon: length of the step in t.
        seed: of the ends.
    """

    space: Literal["z", "w"] = "z"
    where: Literal["end", "full"] = "end"
    paths: int = 16
    epsilon: float = 1e-4
    seed: int = 0


PER_SAMPLE = PathSettings()
KINDS: Mapping[str, PathSettings] = {
    names.PPL_Z_END: PathSettings("z", "end"),
    names.PPL_Z_FULL: PathSettings("z", "full"),
    names.PPL_W_END: PathSettings("w", "end"),
    names.PPL_W_FULL: PathSettings("w", "full"),
}
"""Other path lengths, of whole sets."""


class PathLength(SetMetric):
    """PPL of a group: the mean over all paths of its samples, the tails of them all dropped; resamples keep what was dropped."""

    def settings(self, group: Group) -> Mapping[str, float | str]:
        assert group.of.lengths is not None
        how = KINDS.get(self.info.name, PER_SAMPLE)
        return {"space": how.space, "where": how.where, "epsilon": how.epsilon, "paths": float(group.of.lengths.shape[1])}

    def compute(self, group: Group, how: Resampling | None) -> Estimate:
        assert group.of.lengths is not None
        lengths = group.of.lengths[group.rows]
        counted = inlier_mask(lengths)
        return ratio((lengths * counted).sum(dim=1).numpy(), counted.sum(dim=1).numpy(), how)


def path_lengths(
    generator: Generator,
    latents: Latents | Tensor,
    distance: PerceptualDistance,
    settings: PathSettings = PER_SAMPLE,
    *,
    edits: EditsOfRows | None = None,
    progress: Progress = silent,
) -> Tensor:
    """``d / ε²`` of every path of every sample: float64 (N, paths), on the CPU.

    Args:
        latents: where the paths start, in z.
        distance: between images, on the generator's device.
        edits: of a correction: the paths are then those of the corrected generator. Asked for by rows of the latents.

    Raises:
        InputError: paths in w of a family without a mapping network; latents in w.
    """
    latents = generator.checked(latents)
    if latents.space != "z" or (settings.space == "w" and generator.styles(latents[:1]) is None):
        raise InputError(
            f"There are no such paths in {generator.family}",
            f"paths in {settings.space} from latents in {latents.space}",
            "latents in z, and a mapping network for paths in w",
        )
    parts = []
    with generator.scored_pass():
        for rows, batch in micro_batches(latents, min(generator.micro_batch, IMAGE_BATCH)):
            render = partial(generator, edits=edits(padded_rows(rows, len(batch))) if edits else None)
            columns, first = [], None
            for path in range(settings.paths):
                t = np.zeros((len(batch), 1))
                if settings.where == "full":
                    t = uniforms(settings.seed, Purpose.PATH + 16 * (settings.paths + path), batch.ids, 1)
                ends = normals(settings.seed, Purpose.PATH + 16 * path, batch.ids, batch.z.shape[1]).astype(np.float32)
                point = partial(_between, generator, settings.space, batch, replace(batch, z=torch.from_numpy(ends)))
                if first is None or settings.where == "full":  # paths that start at the sample share the image there
                    first = render(point(torch.from_numpy(t)))
                second = render(point(torch.from_numpy(t + settings.epsilon)))
                columns.append(distance(first, second))
            parts.append(on_host(torch.stack(columns, dim=1)[: rows.stop - rows.start]).double() / settings.epsilon**2)
            progress(rows.stop - rows.start)
    return torch.cat(parts)


def inlier_mask(lengths: Tensor) -> Tensor:
    """Which distances of all paths of a set, of any shape, count: bool, those between the 1st percentile (the value below it) and the 99th
    (the value above it), both included.

    Raises:
        InputError: no paths, or distances that are not finite.
    """
    if not lengths.numel() or not bool(torch.isfinite(lengths).all()):
        raise InputError(
            "There is no path length of these distances",
            f"{lengths.numel()} distances, {int((~torch.isfinite(lengths)).sum())} of them not finite",
            "finite distances",
        )
    flat = lengths.double().flatten().numpy()
    low, high = np.quantile(flat, 0.01, method="lower"), np.quantile(flat, 0.99, method="higher")
    return (lengths >= low) & (lengths <= high)


def slerp(start: Tensor, end: Tensor, t: Tensor | float) -> Tensor:
    """Spherical interpolation of directions (N, D), none of them zero, the length going from that of the start to that of the end; in
    float64, with t (N, 1), or one number for all."""
    start, end = start.double(), end.double()
    lengths = [torch.linalg.vector_norm(one, dim=1, keepdim=True) for one in (start, end)]
    a, b = start / lengths[0], end / lengths[1]
    cosine = (a * b).sum(dim=1, keepdim=True).clamp(-1.0, 1.0)
    beside = torch.nn.functional.normalize(b - cosine * a, dim=1)
    angle = t * torch.acos(cosine)
    return torch.lerp(lengths[0], lengths[1], torch.as_tensor(t, dtype=torch.float64)) * (a * angle.cos() + beside * angle.sin())


def _between(generator: Generator, space: Literal["z", "w"], start: Latents, end: Latents, t: Tensor) -> Latents:
    """The latents at t, float64 (N, 1), on the way from start to end, with the sample's own label."""
    if space == "z":
        return replace(start, z=slerp(start.z, end.z, t).float())
    first, second = (cast(Tensor, generator.styles(one)) for one in (start, end))  # truncation acts afterwards, on every point of the way
    return replace(start, z=torch.lerp(first.double(), second.double(), t.to(first.device)).float(), space="w")
