"""Where a classifier sees the artifact: Grad-CAM (Selvaraju et al. 2017) of the artifact class, through captum (extra ``metrics``)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from qualitygate.errors import MissingExtraError
from qualitygate.generators.passes import MICRO_BATCH, Progress, scored_pass, silent
from qualitygate.units.classifier import ArtifactClassifier
from qualitygate.units.labels import ARTIFACT


def artifact_masks(classifier: ArtifactClassifier, images: Tensor | Iterable[Tensor], progress: Progress = silent) -> Tensor:
    """Masks L_a of what is wrong in each image, float32 (N, height, width) in [0, 1] at the size of the images, on the CPU.

    The spatial features are summed with the gradients' means over positions as weights; what speaks against the artifact becomes 0; the
    rest is enlarged bilinearly and divided by its maximum in the image. A mask is 0 everywhere where nothing speaks for the artifact.

    Args:
        classifier: a trained classifier.
        images: (N, 1 or 3, height, width) in [-1, 1], or batches of such.
        progress: called with the number of images finished.

    Raises:
        MissingExtraError: captum is not installed.
    """
    try:
        from captum.attr import LayerGradCam
    except ImportError as error:
        raise MissingExtraError("Grad-CAM needs captum", str(error), "the extra `metrics`", "pip install 'qualitygate[metrics]'") from error
    explain = LayerGradCam(classifier, classifier.spatial)
    target = classifier.classes.index(ARTIFACT)
    parts = []
    for batch in images.split(MICRO_BATCH) if isinstance(images, Tensor) else images:
        with scored_pass(), torch.enable_grad():
            heat = explain.attribute(batch.clone().requires_grad_(), target=target, relu_attributions=True)
        parts.append(_as_masks(heat.detach(), (batch.shape[2], batch.shape[3])).cpu())
        progress(len(batch))
    return torch.cat(parts)


def _as_masks(heat: Tensor, size: tuple[int, int]) -> Tensor:
    """Heat (N, 1, h, w), at least 0, at the size of the image and over its own maximum."""
    large = F.interpolate(heat, size=size, mode="bilinear", align_corners=False)[:, 0]
    highest = large.amax(dim=(1, 2), keepdim=True)
    return torch.where(highest > 0, large / highest, 0.0).clamp(0.0, 1.0)
