"""Generated and real images as numbers: features, what the discriminator says, path lengths. Never the images themselves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import numpy as np
import torch
from torch import Tensor

from qualitygate.errors import InputError
from qualitygate.features.cache import real_features
from qualitygate.features.extractor import Extractor, extract
from qualitygate.features.images import ImageSet
from qualitygate.generators.base import Discriminator
from qualitygate.generators.passes import IMAGE_BATCH, Reporter, on_host, padded_rows, scored_pass
from qualitygate.metrics.estimate import Resampling, blocks_of
from qualitygate.metrics.neighbourhoods import RARE, K, Neighbourhoods, neighbour_radii, neighbourhoods
from qualitygate.records.metrics import MOST_NAMED, Need, RealInfo

P = ParamSpec("P")
T = TypeVar("T")


class _Remembering:
    def once(self, work: Callable[Concatenate[Self, P], T], *args: P.args, **options: P.kwargs) -> T:
        """What a function makes of this set, worked out when it is first asked for: a metric's dear part that all groups share."""
        made: dict[Any, T] = self.__dict__.setdefault("_made", {})
        key = (work, args, *options.items())
        if key not in made:
            made[key] = work(self, *args, **options)
        return made[key]


@dataclass(frozen=True)
class RealSet(_Remembering):
    """Real images under an extractor: features, float32 (M, F), and the hash of the images. What groups are held against is worked out
    once, when it is first needed. Only numbers of one key can be compared: it names the extractor, and how the images were brought to size.

    Raises:
        InputError: no more images than neighbours that are looked for; no extractor.
    """

    name: str
    digest: str
    features: Tensor
    k: int = K
    key: str | None = None
    preparation: str = ""

    def __post_init__(self) -> None:
        if len(self.features) <= self.k:
            raise InputError(f"There are too few real images in {self.name}", str(len(self.features)), f"more than {self.k}")

    @classmethod
    def of(cls, images: ImageSet, extractor: Extractor | None, device: torch.device | str, reporter: Reporter) -> Self:
        """Read the images, or find what was computed of them before; they are compared on ``device``."""
        if extractor is None:
            raise InputError("Real images need a feature extractor", "none", "an extractor", "give --extractor")
        with reporter.phase("real images", len(images)) as progress:
            features = torch.from_numpy(real_features(extractor, images, progress)).to(device)
        key = f"{extractor.key}; real images: {images.preparation}"
        return cls(images.name, images.sha256, features, key=key, preparation=images.preparation)

    @property
    def info(self) -> RealInfo:
        """What a report says of them."""
        return RealInfo(
            name=self.name,
            digest=self.digest,
            samples=len(self.features),
            preparation=self.preparation,
            duplicates=len(self.duplicates),
            repeated=tuple(self.duplicates[:MOST_NAMED].tolist()),
        )

    @cached_property
    def radii(self) -> Tensor:
        """Distance of each image to its k-th neighbour, float64 (M,)."""
        return neighbour_radii(self.features, self.k)

    @cached_property
    def _distinct(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the different images, the first of each, int64 (D,), and which of them each image equals, int64 (M,)."""
        rows = np.ascontiguousarray(on_host(self.features).numpy() + 0.0)  # −0 is 0
        words = rows.view(np.dtype((np.void, rows.itemsize * rows.shape[1])))[:, 0]
        _, first, which = np.unique(words, return_index=True, return_inverse=True)
        return first, which

    @cached_property
    def duplicates(self) -> np.ndarray:
        """Images that equal an earlier one: rows, int64 (n,)."""
        return np.setdiff1d(np.arange(len(self.features)), self._distinct[0])

    @cached_property
    def apart(self) -> Tensor:
        """Distance of each image to its k-th nearest different one, float64 (M,): `radii` where no two are equal, 0 if there are no k. What
        is in a set several times is what generators memorise, and its radius is 0."""
        if not len(self.duplicates):
            return self.radii
        first, which = (torch.from_numpy(rows).to(self.features.device) for rows in self._distinct)
        return neighbour_radii(self.features[first], self.k)[which] if len(first) > self.k else torch.zeros_like(self.radii)

    @cached_property
    def has_realism(self) -> bool:
        """Whether realism scores can be made: the median radius is no 0, as it is where half of the images have k copies."""
        return bool(on_host(self.radii.quantile(0.5)) > 0.0)

    @cached_property
    def rare_from(self) -> float:
        """Rarity score above which a sample is rare: it lies in balls of the sparsest images alone."""
        return float(on_host(self.radii.quantile(RARE)))


@dataclass(frozen=True)
class MeasuredSet(_Remembering):
    """N generated images, as numbers. How each stands to the real set, whatever group it is in, is worked out once, when first needed.

    Attributes:
        count: N.
        features: float32 (N, F), on the extractor's device; None without an extractor.
        discriminator: value of each image, float64 (N,), higher = more real; None without a discriminator.
        lengths: of the paths that start at each sample, float64 (N, paths), NaN where they were not measured; None if nowhere.
        classes: probabilities of an image classifier, float32 (N, classes); None without one.
        real: what they are held against; None without real images.
    """

    count: int
    features: Tensor | None = None
    discriminator: np.ndarray | None = None
    lengths: Tensor | None = None
    classes: Tensor | None = None
    real: RealSet | None = None

    def against(self, real: RealSet | None) -> Self:
        """The same images, held against this real set."""
        return replace(self, real=real)

    def has(self, need: Need) -> bool:
        """Whether it holds what a metric needs."""
        if need == "real":
            return self.real is not None and self.features is not None
        return {"discriminator": self.discriminator, "paths": self.lengths, "classes": self.classes}[need] is not None

    def group(self, rows: np.ndarray | None = None) -> Group:
        """Rows (n,) of the set as a group; by default all."""
        return Group(self, np.arange(self.count) if rows is None else rows)

    @property
    def sides(self) -> tuple[Tensor, RealSet]:
        """The features, float32 (N, F), and the real set that is compared with: of a set that has both."""
        assert self.features is not None
        assert self.real is not None
        return self.features, self.real

    def neighbourhoods(self, how: Resampling | None = None) -> Neighbourhoods:
        """How all of them lie among the real images, with the blocks of a jackknife that is drawn so; by default with those, if any, that
        were asked for first."""
        seed = None if how is None else how.seed
        first: int | None = self.__dict__.setdefault("_first_seed", seed)
        return self.once(_meet, first if how is None else seed)

    @property
    def inside(self) -> np.ndarray:
        """1 if it lies in a real ball, else 0: its part of precision. float64 (N,)."""
        return _numpy(self.neighbourhoods().inside > 0)

    @property
    def density(self) -> np.ndarray:
        """Its part of density, float64 (N,)."""
        return _numpy(self.neighbourhoods().strictly) / self.sides[1].k

    @property
    def realism(self) -> np.ndarray:
        """Its realism score, float64 (N,); infinite for a copy of a real image, NaN where this real set gives none."""
        return _numpy(self.neighbourhoods().realism) if self.sides[1].has_realism else np.full(self.count, np.nan)

    @property
    def copied(self) -> np.ndarray:
        """1 if it is a copy of a real image, or nearly, else 0: float64 (N,)."""
        return _numpy(self.neighbourhoods().copied)

    @property
    def rarity(self) -> np.ndarray:
        """Its rarity score, float64 (N,); NaN for a sample that lies in no real ball."""
        return _numpy(self.neighbourhoods().rarity)

    @property
    def rare(self) -> np.ndarray:
        """1 if it lies in balls of the sparsest real images alone, else 0, as where it lies in none: float64 (N,)."""
        return (self.rarity > self.sides[1].rare_from).astype(np.float64)


@dataclass(frozen=True)
class Group(_Remembering):
    """Samples of a measured set: rows, int64 (n,)."""

    of: MeasuredSet
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def at(self) -> Tensor:
        """The rows, int64 (n,), on the features' device."""
        return torch.from_numpy(self.rows).to(self.of.sides[0].device)

    @cached_property
    def features(self) -> Tensor:
        """Features of the group, float32 (n, F)."""
        return self.of.sides[0][self.at]

    @property
    def real(self) -> RealSet:
        """What it is held against."""
        return self.of.sides[1]

    @property
    def sides(self) -> tuple[Tensor, RealSet]:
        """The features of the group, float32 (n, F), and the real set."""
        return self.features, self.real

    def neighbourhoods(self, how: Resampling | None) -> Neighbourhoods:
        """How its samples, as if there were no others, lie among the real images."""
        if np.array_equal(self.rows, np.arange(self.of.count)):
            return self.of.neighbourhoods(how)
        return self.once(_meet, None if how is None else how.seed)


def discriminator_values(discriminator: Discriminator, images: Tensor, labels: Tensor | None = None) -> np.ndarray:
    """Value of each image: float64 (N,), each judged as if it were alone. Passes have a fixed size, as everywhere.

    Images are float32 (N, channels, height, width) in [-1, 1], labels int64 (N,), if there are classes.
    """
    judge, parts = discriminator.alone(), []
    for start in range(0, len(images), IMAGE_BATCH):
        part = slice(start, min(start + IMAGE_BATCH, len(images)))
        rows = torch.from_numpy(padded_rows(part, IMAGE_BATCH))
        batch = images[rows.to(images.device)].to(discriminator.device)
        own = None if labels is None else labels[rows.to(labels.device)].to(discriminator.device)
        with scored_pass():
            parts.append(on_host(judge(batch, own)[: part.stop - start].double()).numpy())
    return np.concatenate(parts)


class Observer:
    """Turns images into a measured set, some at a time. Features are kept on ``device``, for the distances between them; those of the first
    M images may be ``known`` already, float32 (M, F)."""

    def __init__(
        self, extractor: Extractor | None, discriminator: Discriminator | None, device: torch.device | str, known: np.ndarray | None = None
    ) -> None:
        self._extractor, self._discriminator, self._device = extractor, discriminator, device
        self._known = 0 if known is None else len(known)
        self._features: list[np.ndarray] = [] if known is None else [known]
        self._values: list[np.ndarray] = []
        self._waiting: list[tuple[Tensor, Tensor | None]] = []
        self._count = 0

    def add(self, images: Tensor, labels: Tensor | None = None) -> None:
        """Look at images (N, channels, height, width), float32 in [-1, 1], with their labels if there are classes. A few wait for others,
        so that a pass over them is not mostly padding."""
        if len(images):
            self._waiting.append((images, labels))
        if sum(len(images) for images, _ in self._waiting) >= IMAGE_BATCH:
            self._look()

    def _look(self) -> None:
        if not self._waiting:
            return
        images = torch.cat([images for images, _ in self._waiting])
        known = [labels for _, labels in self._waiting if labels is not None]
        labels, self._waiting = torch.cat(known) if known else None, []
        unknown = images[max(0, self._known - self._count) :]
        self._count += len(images)
        if self._extractor is not None and len(unknown):
            first = self._count - len(unknown)
            self._features.append(extract(self._extractor, unknown, called=lambda row: f"image {first + row}"))
        if self._discriminator is not None:
            self._values.append(discriminator_values(self._discriminator, images, labels))

    def measured(self) -> MeasuredSet:
        """What was seen, in the order in which it came."""
        self._look()
        features = torch.from_numpy(np.concatenate(self._features)).to(self._device) if self._features else None
        return MeasuredSet(self._count, features, np.concatenate(self._values) if self._values else None)


def _meet(samples: MeasuredSet | Group, seed: int | None) -> Neighbourhoods:
    """Neighbourhoods of samples among real ones, with the blocks of this seed, where enough is left without each."""
    features, real = samples.sides
    blocks = [] if seed is None else blocks_of(len(features), seed=seed)
    if blocks and len(features) - len(blocks[0]) <= real.k:
        blocks = []
    parts = [torch.from_numpy(block).to(features.device) for block in blocks]
    return neighbourhoods(features, real.features, real.radii, real.k, parts, apart=real.apart)


def _numpy(values: Tensor) -> np.ndarray:
    return on_host(values.double()).numpy()
