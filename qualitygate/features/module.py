"""Extractors of other networks: any module or function of images, and the checkpoint's own discriminator."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from qualitygate.errors import InputError
from qualitygate.features.extractor import Extractor, SpatialExtractor, eight_bit, in_colour, smooth_resized
from qualitygate.generators.base import Discriminator
from qualitygate.generators.module import import_object
from qualitygate.generators.network import tensor_digest
from qualitygate.generators.passes import on_host, scored_pass
from qualitygate.latents import Purpose, uniforms

_FORM = "package.module:attribute, with @SIZE after it where it wants images of one size"
_PROBES, _PROBE = 4, 64  # images that it is tried with, and their size where none is named
_ROUNDING = 1e-3
_ALONE = "call eval() on every module in it, and leave out dropout, noise and whatever looks across the batch"


class ModuleExtractor(Extractor):
    """What a module makes of RGB images float32 (N, 3, height, width) in [-1, 1].

    Its output (N, features) is taken as it is, so an image's features must not depend on the others in the batch, nor on chance: an
    `nn.Module` is set to evaluation mode, and `check_alone` looks at whatever it is. `key` has its name, and a hash of its weights where it
    is an `nn.Module`; it and the images, of height and width ``size`` or as they are, are brought to the device.

    Raises:
        InputError: it fails, does not return features, or fails `check_alone`.
    """

    kept = False

    def __init__(
        self, module: Callable[[Tensor], Tensor], name: str, *, size: int | None = None, device: torch.device | str | None = None
    ) -> None:
        self._device = torch.device(device or "cpu")
        self._module = module.to(self._device).eval() if isinstance(module, nn.Module) else module
        self._name, self._size, probe = name, size, size or _PROBE
        weights = f"weights {tensor_digest(module)}" if isinstance(module, nn.Module) else "a function"
        resizing = "as they are" if size is None else f"smooth bilinear to {size}"
        self.key = f"{name}, {weights}, images {resizing}, float32"
        try:
            with torch.no_grad():
                self.features = self(torch.zeros(2, 3, probe, probe)).shape[1]
        except InputError:
            raise
        except Exception as error:  # somebody else's code
            found, needed = f"{type(error).__name__}: {error}", "a module that takes RGB images (N, 3, height, width) in [-1, 1]"
            remedy = "name the size that it takes: @SIZE"
            raise InputError(f"{self._name} fails on images of {probe}×{probe}", found, needed, remedy) from error
        check_alone(self, name, probe)

    def __call__(self, images: Tensor) -> Tensor:
        images = in_colour(images.to(self._device))
        features = self._module(smooth_resized(images, self._size) if self._size else images)
        if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != len(images):
            found = f"shape {tuple(features.shape)}" if isinstance(features, Tensor) else f"a {type(features).__name__}"
            raise InputError(f"{self._name} does not return features", found, f"a tensor ({len(images)}, features)")
        return features.float()


def check_alone(extractor: Extractor, name: str, size: int) -> None:
    """See whether an extractor makes the same features of the same few images, height and width ``size``: again, in another order, and each
    alone. They may differ by a thousandth of the largest: more than rounding makes of another batch in float32, and less than dropout or
    batch statistics do.

    Raises:
        InputError: they differ by more, or are not finite, or it fails.
    """
    images = torch.from_numpy(uniforms(0, Purpose.SUBSET, np.arange(_PROBES), 3 * size * size)).float().view(_PROBES, 3, size, size)
    images = eight_bit(2.0 * images - 1.0)
    asked = {
        "once": lambda: extractor(images),
        "run a second time": lambda: extractor(images),
        "in another order": lambda: extractor(images.flip(0)).flip(0),
        "each alone": lambda: torch.cat([extractor(one) for one in images.split(1)]),
    }
    first = largest = torch.zeros(())
    for how, ask in asked.items():
        try:
            with scored_pass():
                found = ask().double()
        except InputError:
            raise
        except Exception as error:  # somebody else's code
            reason, needed = f"{type(error).__name__}: {error}", "features of an image, whatever else is in the batch"
            raise InputError(f"{name} fails on images of {size}×{size} {how}", reason, needed, _ALONE) from error
        if how == "once":
            first, largest = found, found.abs().max()
        moved = (found - first).abs().max()
        if not on_host(moved <= _ROUNDING * largest):  # nor where it is NaN
            raise InputError(
                f"{name} does not make the same features of the same images {how}",
                f"a difference of {float(on_host(moved)):.2g}, where the largest feature is {float(on_host(largest)):.2g}",
                f"features of an image alone, equal to {_ROUNDING:g} of the largest",
                _ALONE,
            )


def extractor_at(spec: str, device: torch.device | str | None = None) -> Extractor:
    """The extractor at an import path, ``package.module:attribute`` or ``package.module:attribute@SIZE``: an `Extractor`, an `nn.Module`
    or a function of images, or a class of the former two that needs no arguments. An `Extractor` chooses its own device.
    The package is imported, which runs its code: name only what you would run. Features are never `kept`, as that code may be edited."""
    path, _, size = spec.partition("@")
    if size and not size.isdigit():
        raise InputError("This is no import path", repr(spec), _FORM)
    made = import_object(path, _FORM)
    if isinstance(made, type):
        made = made()
    if isinstance(made, Extractor):
        made.kept = False
        check_alone(made, path, int(size) if size else _PROBE)
        return made
    if not callable(made):
        raise InputError(f"{spec} cannot be used", f"a {type(made).__name__}", "an nn.Module or a function of images")
    return ModuleExtractor(made, path, size=int(size) if size else None, device=device)


class DiscriminatorExtractor(SpatialExtractor):
    """The last hidden activation of a discriminator, on its device: what its value is a linear function of; as spatial features, the last
    activation that has a place in the image. Each image is seen alone, also by families that measure how much a batch varies (their spatial
    features come before that). Conditional discriminators are shown class 0: neither activation depends on the label."""

    def __init__(self, discriminator: Discriminator) -> None:
        self._discriminator = discriminator.alone()
        size = "×".join(map(str, discriminator.image_shape[1:]))
        self.key = f"discriminator of {discriminator.family}, {discriminator.fingerprint()}, smooth bilinear to {size}, float32"
        with torch.no_grad():
            probe = torch.zeros(1, *discriminator.image_shape, device=discriminator.device)
            self.features = self._seen(probe, "vector").shape[1]
            self.channels = self._seen(probe, "features").shape[1]

    def __call__(self, images: Tensor) -> Tensor:
        return self._seen(images, "vector")

    def spatial(self, images: Tensor) -> Tensor:
        return self._seen(images, "features")

    def _seen(self, images: Tensor, name: str) -> Tensor:
        judge = self._discriminator
        channels, size, _ = judge.image_shape
        images = in_colour(images.to(judge.device))
        images = smooth_resized(images if channels == 3 else images.mean(dim=1, keepdim=True), size)
        labels = torch.zeros(len(images), dtype=torch.int64, device=judge.device) if judge.label_size else None
        return judge.taps(images, labels, names=[name])[name]
