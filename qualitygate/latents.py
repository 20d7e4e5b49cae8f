"""Seed and sample id to latent and label: the one source of randomness, independent of batch, order, worker and device.

The numbers are the raw 64-bit words of numpy's ``Philox`` bit generator, whose stream numpy promises never to change. The key is
``(seed, purpose)``; sample ``id`` owns the words ``[id·K, (id + 1)·K)``. Words become uniforms in the open interval (0, 1), pairs of
uniforms become normals by Box-Muller in float64, and the result is rounded to float32. This can never change: records name images
by seed and id, and the tests hold golden values.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from qualitygate.errors import LatentsError


class Purpose(IntEnum):
    """Second half of the Philox key: streams that must never overlap."""

    LATENT = 0
    LABEL = 1
    RANDOM_ABLATION = 2  # one stream a layer: purpose + 16 · layer
    TRUNCATION = 3  # one stream an attempt: purpose + 16 · attempt
    PLANTING = 4  # one stream a choice: purpose + 16 · choice
    PATH = 5  # where paths end, and how far along them: one stream a path: purpose + 16 · path
    RANDOM_UNITS = 6  # one stream a layer: purpose + 16 · layer
    EMBEDDING = 7  # weights of random networks, one stream a layer: purpose + 16 · layer
    SUBSET = 8  # subsets, groups, blocks and resamples of a set of samples: one stream a use: purpose + 16 · use


class Sampling(BaseModel):
    """How latents are drawn. Part of every profile: gating under another sampling is refused.

    Attributes:
        psi: truncation, in (0, 1]; 1 is none. In ``w`` for families with a mapping network; in ``z`` elsewhere, where components
            beyond ``psi`` are drawn again (scaling z would do nothing before a pixel norm).
        cutoff: number of style inputs that are truncated, all if None. Only for families with a mapping network.
        noise: noise inputs are constant or left out, so that image and score are functions of the latent alone.
        labels: ``"uniform"`` over the classes, a fixed class, or one probability a class.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    psi: float = Field(1.0, gt=0.0, le=1.0)
    cutoff: int | None = Field(None, ge=0)
    noise: Literal["const", "none"] = "const"
    labels: Literal["uniform"] | int | tuple[float, ...] = "uniform"


@dataclass(frozen=True)
class Latents:
    """Latents of a run of samples.

    Attributes:
        ids: int64 array (N,), the sample ids (rows of the file for a user's own latents).
        seed: seed they were drawn with; None for a user's own.
        z: float32 tensor (N, D); points of W instead of Z when ``space`` is ``"w"``.
        labels: int64 tensor (N,) of classes, or float32 (N, label size) of label vectors; None for unconditional generators.
        sampling: how they were drawn; its truncation in w and its noise are applied by the generator.
        space: ``"z"`` or ``"w"``.
    """

    ids: np.ndarray
    seed: int | None
    z: Tensor
    labels: Tensor | None = None
    sampling: Sampling = field(default_factory=Sampling)
    space: Literal["z", "w"] = "z"

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: slice | np.ndarray | Sequence[int]) -> Latents:
        rows = np.arange(len(self))[index]
        picked = torch.from_numpy(rows)
        labels = None if self.labels is None else self.labels[picked]
        return replace(self, ids=self.ids[rows], z=self.z[picked], labels=labels)

    @staticmethod
    def concatenated(parts: Sequence[Latents]) -> Latents:
        """Several runs of samples, drawn alike, as one."""
        first = parts[0]
        labels = None if first.labels is None else torch.cat([part.labels for part in parts if part.labels is not None])
        return replace(first, ids=np.concatenate([part.ids for part in parts]), z=torch.cat([part.z for part in parts]), labels=labels)

    def to(self, device: torch.device | str) -> Latents:
        labels = None if self.labels is None else self.labels.to(device)
        return replace(self, z=self.z.to(device), labels=labels)

    def padded(self, size: int) -> Latents:
        """The same latents with the last one repeated until there are ``size``: passes of one shape give one result."""
        return self if len(self) == size else self[np.minimum(np.arange(size), len(self) - 1)]


def draw_latents(
    ids: range | Sequence[int] | np.ndarray,
    seed: int,
    latent_size: int,
    *,
    label_size: int = 0,
    sampling: Sampling | None = None,
    truncate_z: bool = False,
) -> Latents:
    """Latents of the given sample ids, each in ``[0, 2**48)``, with a seed in ``[0, 2**64)``: z float32 (len(ids), D).

    The label size is the number of classes, 0 for unconditional generators. The caller knows whether ``sampling.psi`` acts on z
    (redrawing). Raises `LatentsError` for ids or a seed out of range, and labels that the classes do not have.
    """
    sampling = sampling or Sampling()
    try:
        ids = np.asarray(ids, dtype=np.int64)
    except OverflowError:
        raise LatentsError("A sample id is out of range", "more than 64 bits", "ids in [0, 2**48)") from None
    if ids.ndim != 1:
        raise LatentsError("Sample ids must be a flat list", f"shape {ids.shape}", "one dimension")
    if len(ids) and not (ids.min() >= 0 and ids.max() < 2**48):
        raise LatentsError("A sample id is out of range", f"{ids.min()} … {ids.max()}", "ids in [0, 2**48)")
    if not 0 <= seed < 2**64:
        raise LatentsError("The seed is out of range", str(seed), "an integer in [0, 2**64)")
    z = normals(seed, Purpose.LATENT, ids, latent_size)
    if truncate_z and sampling.psi < 1.0:
        for attempt in itertools.count(1):  # each from a stream of its own, until no component is left that is beyond psi
            rows = np.flatnonzero((np.abs(z) > sampling.psi).any(axis=1))
            if not len(rows):
                break
            fresh = normals(seed, Purpose.TRUNCATION + 16 * attempt, ids[rows], latent_size)
            z[rows] = np.where(np.abs(z[rows]) > sampling.psi, fresh, z[rows])
    labels = _draw_labels(ids, seed, label_size, sampling) if label_size else None
    return Latents(ids, seed, torch.from_numpy(z.astype(np.float32)), labels, sampling)


def uniforms(seed: int, purpose: int, ids: np.ndarray, count: int) -> np.ndarray:
    """``count`` uniforms in the open interval (0, 1) for each id: float64 (len(ids), count)."""
    words = np.empty((len(ids), count), dtype=np.uint64)
    breaks = np.flatnonzero(np.diff(ids) != 1) + 1
    # consecutive ids are one call to the generator
    for start, stop in itertools.pairwise([0, *breaks.tolist(), len(ids)] if len(ids) else []):
        stream = np.random.Philox(key=np.array([seed, purpose], dtype=np.uint64))
        blocks, offset = divmod(int(ids[start]) * count, 4)  # one step of the counter yields four 64-bit words
        stream.advance(blocks)
        words[start:stop] = stream.random_raw(offset + (stop - start) * count)[offset:].reshape(-1, count)
    return ((words >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def normals(seed: int, purpose: int, ids: np.ndarray, count: int) -> np.ndarray:
    """``count`` standard normals for each id, by Box-Muller over pairs of uniforms: float64, shape (len(ids), count)."""
    pairs = (count + 1) // 2
    u = uniforms(seed, purpose, ids, 2 * pairs).reshape(len(ids), pairs, 2)
    radius, angle = np.sqrt(-2.0 * np.log(u[..., 0])), 2.0 * np.pi * u[..., 1]
    both = np.stack((radius * np.cos(angle), radius * np.sin(angle)), axis=-1)
    return both.reshape(len(ids), 2 * pairs)[:, :count]


def load_latents(path: str | Path) -> Latents:
    """A user's own latents from an ``.npz`` file with an array ``z`` or ``w`` of shape (N, D) and, optionally, ``labels`` (N,).

    Raises:
        LatentsError: no such file, not such a file, wrong shapes, or values that are not finite.
    """
    path = Path(path)
    needed = "an .npz file with an array 'z' (or 'w') of shape (N, D), and 'labels' of shape (N,) if there are classes"
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise LatentsError(f"No latents at {path}", "no such file", needed) from None
    except Exception as error:
        raise LatentsError(f"Cannot read latents from {path}", str(error), needed) from error
    spaces = [name for name in ("z", "w") if name in arrays]
    if len(spaces) != 1 or arrays[spaces[0]].ndim != 2 or not len(arrays[spaces[0]]):
        shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items()) or "no arrays"
        raise LatentsError(f"Cannot use the latents of {path}", shapes, needed)
    given = arrays[spaces[0]]
    if given.dtype.kind not in "fiu":
        raise LatentsError(f"Cannot use the latents of {path}", f"{spaces[0]} of type {given.dtype}", "real numbers")
    with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and refused below
        values = given.astype(np.float32)
    if not np.isfinite(values).all():
        row = int(np.argmin(np.isfinite(values).all(axis=1)))
        raise LatentsError(f"Latents of {path} are not finite", f"NaN or infinity in row {row}", "finite numbers")
    labels = arrays.get("labels")
    if labels is not None:
        if labels.shape != (len(values),) or not np.issubdtype(labels.dtype, np.integer):
            raise LatentsError(f"Cannot use the labels of {path}", f"{labels.dtype} {labels.shape}", f"integers ({len(values)},)")
        if labels.min() < 0:
            raise LatentsError(f"Cannot use the labels of {path}", f"label {labels.min()}", "classes, from 0")
    classes = None if labels is None else torch.from_numpy(labels.astype(np.int64))
    ids = np.arange(len(values), dtype=np.int64)
    return Latents(ids, None, torch.from_numpy(values), classes, space="z" if spaces[0] == "z" else "w")


def _draw_labels(ids: np.ndarray, seed: int, label_size: int, sampling: Sampling) -> Tensor:
    choice = sampling.labels
    if isinstance(choice, int):
        if not 0 <= choice < label_size:
            raise LatentsError("No such class", str(choice), f"a class in [0, {label_size})")
        return torch.full((len(ids),), choice, dtype=torch.int64)
    shares = np.full(label_size, 1.0 / label_size) if choice == "uniform" else np.asarray(choice, dtype=np.float64)
    if shares.shape != (label_size,) or (shares < 0).any() or not np.isclose(shares.sum(), 1.0):
        found, needed = f"{shares.shape} summing to {shares.sum():g}", f"{label_size} probabilities that sum to 1"
        raise LatentsError("The label distribution does not fit", found, needed)
    u = uniforms(seed, Purpose.LABEL, ids, 1)[:, 0]
    edges = np.cumsum(shares)[:-1]
    return torch.from_numpy(np.searchsorted(edges, u, side="right").astype(np.int64))
