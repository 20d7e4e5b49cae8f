"""Grad-CAM of a classifier whose weights are known: it points where the artifact is."""

from __future__ import annotations

import sys

import pytest
import torch
from units.images import SQUARE, artifact_images, normal_images

from qualitygate.errors import MissingExtraError
from qualitygate.testing.extractors import PatchExtractor, random_patches
from qualitygate.units.classifier import ArtifactClassifier, train_classifier
from qualitygate.units.grad_cam import artifact_masks


def test_by_hand() -> None:
    """Two features, bright and dark pixels; the first speaks for the artifact, the second against it."""
    pytest.importorskip("captum")
    backbone = PatchExtractor(torch.tensor([1.0, -1.0]).view(2, 1, 1, 1), stride=1)
    weight = torch.tensor([[2.0, -3.0], [0.0, 0.0]])
    classifier = ArtifactClassifier(backbone, weight, torch.zeros(2), ("artifact", "normal"))
    image = torch.tensor([[1.0, 0.5], [0.0, -1.0]]).view(1, 1, 2, 2)
    dark = -torch.ones(1, 1, 2, 2)
    masks = artifact_masks(classifier, torch.cat((image, dark)))
    torch.testing.assert_close(masks[0], torch.tensor([[1.0, 0.5], [0.0, 0.0]]))
    assert torch.equal(masks[1], torch.zeros(2, 2))


def test_a_trained_classifier_points_at_the_artifact_and_leaves_nothing_behind() -> None:
    pytest.importorskip("captum")
    backbone = random_patches(1, channels=16)
    classifier, _ = train_classifier(backbone, {"artifact": artifact_images(40), "normal": normal_images(40)})
    images = artifact_images(70, seed=7)
    masks = artifact_masks(classifier, images)
    assert masks.shape == (70, 16, 16)
    assert masks.min() >= 0.0
    assert masks.amax(dim=(1, 2)).tolist() == [1.0] * 70
    inside = torch.zeros(16, 16, dtype=torch.bool)
    inside[SQUARE] = True
    assert masks[:, inside].mean() > 2 * masks[:, ~inside].mean()
    torch.testing.assert_close(masks[:3], artifact_masks(classifier, images[:3]))
    assert not images.requires_grad
    assert not classifier.spatial._forward_hooks
    assert all(parameter.grad is None for parameter in classifier.parameters())


def test_without_captum(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    classifier = ArtifactClassifier(random_patches(1, channels=2), torch.ones(2, 2), torch.zeros(2), ("artifact", "normal"))
    with pytest.raises(MissingExtraError, match=r"qualitygate\[metrics\]"):
        artifact_masks(classifier, normal_images(1))
