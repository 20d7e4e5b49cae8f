"""A classifier of artifacts (Tousi et al., CVPR 2021, section 3.1), and where it sees them: Grad-CAM (Selvaraju et al. 2017).

A frozen image backbone and one fully connected layer. A classifier that cannot tell artifacts from normal images would point anywhere,
so training one that is no better than chance is an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qualitygate.errors import InputError, MissingExtraError
from qualitygate.features.extractor import SpatialExtractor
from qualitygate.generators.passes import IMAGE_BATCH, Progress, on_host, scored_pass, silent
from qualitygate.metrics.estimate import wilson
from qualitygate.units.labels import ARTIFACT, NORMAL

REAL = "real"
CLASSES = (ARTIFACT, NORMAL, REAL)
"""In the order of the classifier's outputs; real images are optional."""
VALIDATION = 0.25
"""Share of each class that the layer is not trained on."""
DECAY = 1e-2
"""Weight of the squared weights in the loss, over standardised features: few labels must do for many features."""
LEAST = 8
"""Images of a class below which nothing can be said about a classifier."""


@dataclass(frozen=True)
class Classification:
    """How good a classifier is, with the key of its backbone. ``confusion``, int64 (classes, classes), counts the validation images: a row
    for what they are, a column for what was said. The accuracies are means over artifact and normal of the share that was told right from
    the other, so that chance is 0.5 whatever the numbers of images; real images have no part in them. ``interval`` is the 95 % one of the
    validation accuracy. ``images`` counts both parts together."""

    classes: tuple[str, ...]
    confusion: np.ndarray
    training_accuracy: float
    validation_accuracy: float
    interval: tuple[float, float]
    images: Mapping[str, int]
    backbone: str

    def describe(self) -> dict[str, Any]:
        as_json = {"classes": list(self.classes), "confusion": self.confusion.tolist(), "interval": list(self.interval)}
        return {**vars(self), **as_json, "images": dict(self.images)}


class ArtifactClassifier(nn.Module):
    """Images to one value a class: the spatial features of a frozen backbone, their mean over positions, and one linear layer with
    ``weight``, float32 (classes, channels), and ``bias``, (classes,), on the backbone's device."""

    def __init__(self, backbone: SpatialExtractor, weight: Tensor, bias: Tensor, classes: Sequence[str]) -> None:
        super().__init__()
        self.backbone, self.spatial = backbone, nn.Identity()  # the latter is a layer that explanations can listen to
        self.head = nn.Linear(weight.shape[1], weight.shape[0])
        self.head.weight, self.head.bias = nn.Parameter(weight), nn.Parameter(bias)
        self.classes = tuple(classes)
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Values (N, classes) of images (N, 1 or 3, height, width) in [-1, 1], before any softmax."""
        return self.head(self.spatial(self.backbone.spatial(images)).mean(dim=(2, 3)))


def train_classifier(
    backbone: SpatialExtractor,
    images: Mapping[str, Iterable[Tensor] | Tensor],
    *,
    seed: int = 0,
    decay: float = DECAY,
    progress: Progress = silent,
) -> tuple[ArtifactClassifier, Classification]:
    """Train the linear layer on images of each class: cross-entropy, every class with the same weight however many images it has.

    The features are computed once; the problem is small, convex, and solved to its end by L-BFGS in float64, from zero, on the CPU: each of
    its steps reads the loss. The images of each class
    (`CLASSES`; ``real`` may be missing) are (N, 1 or 3, height, width) in [-1, 1], or batches of such; the seed splits them into training
    and validation. Raises `InputError` if a class is missing or has too few images, or if the classifier is no better than chance: its
    interval of validation accuracy reaches 0.5.
    """
    classes = tuple(name for name in CLASSES if name in images)
    pooled = [_pooled(backbone, images[name], progress) for name in classes]
    device, features = pooled[0].device if pooled else "cpu", [on_host(one) for one in pooled]
    counts = {name: len(one) for name, one in zip(classes, features, strict=True)}
    if not {ARTIFACT, NORMAL} <= counts.keys() or min(counts.values()) < LEAST:
        needed, remedy = f"{LEAST} of each class, {ARTIFACT} and {NORMAL}", "label more samples; the paper has about 2,000"
        raise InputError("Too few labelled images for a classifier", str(counts), needed, remedy)
    orders = [np.random.default_rng(seed + index).permutation(len(one)) for index, one in enumerate(features)]
    held_out = [np.isin(np.arange(len(order)), order[: round(VALIDATION * len(order))]) for order in orders]
    training = [one[torch.from_numpy(~out)] for one, out in zip(features, held_out, strict=True)]
    validation = [one[torch.from_numpy(out)] for one, out in zip(features, held_out, strict=True)]
    weight, bias = _fitted(training, decay)
    outputs = [F.linear(one, weight, bias) for one in validation]
    accuracy, interval = _balanced(outputs)
    found = Classification(
        classes=classes,
        confusion=np.stack([np.bincount(one.argmax(dim=1).numpy(), minlength=len(classes)) for one in outputs]),
        training_accuracy=_balanced([F.linear(one, weight, bias) for one in training])[0],
        validation_accuracy=accuracy,
        interval=interval,
        images=counts,
        backbone=backbone.key,
    )
    if interval[0] <= 0.5:
        how_good = f"validation accuracy {accuracy:.2f}, 95 % interval {interval[0]:.2f} to {interval[1]:.2f}, chance 0.5; {counts}"
        remedy = "label more samples, use another extractor, or choose groups by a score that means something here"
        raise InputError("The classifier cannot tell artifacts from normal images", how_good, "an interval above 0.5", remedy)
    return ArtifactClassifier(backbone, weight.float().to(device), bias.float().to(device), classes), found


def _pooled(backbone: SpatialExtractor, images: Iterable[Tensor] | Tensor, progress: Progress) -> Tensor:
    """Mean spatial features of images, float64 (N, channels)."""
    parts = []
    with scored_pass():
        for batch in [images] if isinstance(images, Tensor) else images:
            for part in batch.split(IMAGE_BATCH):
                parts.append(backbone.spatial(part).mean(dim=(2, 3)).double())
                progress(len(part))
    return torch.cat(parts) if parts else torch.empty(0, backbone.channels, dtype=torch.float64)


def _fitted(features: Sequence[Tensor], decay: float) -> tuple[Tensor, Tensor]:
    """Weight and bias of the layer, float64, on the features as they come."""
    x = torch.cat(list(features))
    y = torch.cat([torch.full((len(one),), index, device=x.device) for index, one in enumerate(features)])
    balance = x.new_tensor([len(x) / (len(features) * len(one)) for one in features])
    mean, deviation = x.mean(dim=0), x.std(dim=0)
    deviation = torch.where(deviation > 0, deviation, 1.0)  # a constant feature says nothing and gets no weight
    standard = (x - mean) / deviation
    weight = x.new_zeros(len(features), x.shape[1], requires_grad=True)
    bias = x.new_zeros(len(features), requires_grad=True)
    solver = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        solver.zero_grad()
        value = F.cross_entropy(F.linear(standard, weight, bias), y, weight=balance) + decay * weight.square().sum()
        value.backward()
        return value

    solver.step(loss)
    # the standardisation becomes part of the layer
    return (scaled := weight.detach() / deviation), bias.detach() - scaled @ mean


def _balanced(outputs: Sequence[Tensor]) -> tuple[float, tuple[float, float]]:
    """Accuracy between artifact and normal (the first two classes), each counting the same, and its interval from those of the two shares
    (Newcombe's combination of Wilson's)."""
    middle, below, above = 0.0, 0.0, 0.0
    for index, of_class in enumerate(outputs[:2]):
        right = int((of_class[:, index] > of_class[:, 1 - index]).sum())
        share = right / len(of_class)
        low, high = map(float, wilson(right, len(of_class)))
        middle, below, above = middle + share / 2.0, below + (share - low) ** 2, above + (high - share) ** 2
    return middle, (middle - below**0.5 / 2.0, middle + above**0.5 / 2.0)


def artifact_masks(classifier: ArtifactClassifier, images: Tensor | Iterable[Tensor], progress: Progress = silent) -> Tensor:
    """Masks L_a of what is wrong in each image, float32 (N, height, width) in [0, 1] at the size of the images, on the CPU. The images are
    (N, 1 or 3, height, width) in [-1, 1], or batches of such.

    The spatial features are summed with the gradients' means over positions as weights; what speaks against the artifact becomes 0; the
    rest is enlarged bilinearly and divided by its maximum in the image. A mask is 0 everywhere where nothing speaks for the artifact.
    Raises `MissingExtraError` if captum is not installed.
    """
    try:
        from captum.attr import LayerGradCam
    except ImportError as error:
        raise MissingExtraError("Grad-CAM needs captum", str(error), "captum", "pip install captum") from error
    explain = LayerGradCam(classifier, classifier.spatial)
    target = classifier.classes.index(ARTIFACT)
    parts = []
    for batch in chain.from_iterable(one.split(IMAGE_BATCH) for one in ([images] if isinstance(images, Tensor) else images)):
        with scored_pass(), torch.enable_grad():
            heat = explain.attribute(batch.clone().requires_grad_(), target=target, relu_attributions=True)
        large = F.interpolate(heat.detach(), size=batch.shape[2:], mode="bilinear", align_corners=False)[:, 0]
        highest = large.amax(dim=(1, 2), keepdim=True)
        parts.append(on_host(torch.where(highest > 0, large / highest, 0.0).clamp(0.0, 1.0)))
        progress(len(batch))
    return torch.cat(parts)
