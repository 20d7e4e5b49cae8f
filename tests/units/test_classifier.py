"""The classifier: what it can tell, what it says of itself, that chance stops it, and that its Grad-CAM points at the artifact."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor

from qualitygate.errors import InputError, MissingExtraError
from qualitygate.testing.toys import PatchExtractor, random_patches
from qualitygate.units.classifier import ArtifactClassifier, artifact_masks, train_classifier

SQUARE = slice(8, 16), slice(0, 8)
"""Where the square is."""


def normal_images(count: int, seed: int = 0) -> Tensor:
    noise = torch.randn(count, 1, 16, 16, generator=torch.Generator().manual_seed(seed))
    return (0.2 * noise).clamp(-1.0, 1.0)


def artifact_images(count: int, seed: int = 1) -> Tensor:
    images = normal_images(count, seed)
    images[:, :, *SQUARE] = 1.0
    return images


BACKBONE = random_patches(1, channels=16)


def test_tells_artifacts_from_normal_images() -> None:
    classifier, found = train_classifier(BACKBONE, {"artifact": artifact_images(40), "normal": normal_images(60)})
    assert found.validation_accuracy == found.training_accuracy == 1.0
    assert found.classes == ("artifact", "normal")
    assert found.confusion.tolist() == [[10, 0], [0, 15]]
    assert found.interval[0] > 0.5
    assert found.interval[1] == pytest.approx(1.0)
    assert found.images == {"artifact": 40, "normal": 60}
    said = classifier(artifact_images(5, seed=9)).argmax(dim=1)
    assert said.tolist() == [0] * 5
    assert found.describe()["backbone"] == BACKBONE.key


def test_real_images_are_a_third_class() -> None:
    real = -normal_images(24, seed=5).abs()
    images = {"real": real.split(10), "normal": normal_images(24), "artifact": artifact_images(24)}
    classifier, found = train_classifier(BACKBONE, images)
    assert found.classes == ("artifact", "normal", "real")
    assert found.confusion.shape == (3, 3)
    assert found.confusion.sum() == 18
    assert classifier(real).argmax(dim=1).float().mean() > 1.5


def test_no_better_than_chance_is_an_error() -> None:
    with pytest.raises(InputError, match="cannot tell artifacts from normal") as error:
        train_classifier(BACKBONE, {"artifact": normal_images(40, 1), "normal": normal_images(40, 2)})
    assert "chance 0.5" in str(error.value)


def test_a_third_class_that_is_easy_does_not_hide_chance() -> None:
    images = {"artifact": normal_images(40, 1), "normal": normal_images(40, 2), "real": artifact_images(400)}
    with pytest.raises(InputError, match="cannot tell artifacts from normal"):
        train_classifier(BACKBONE, images)


@pytest.mark.parametrize("images", [{"artifact": artifact_images(40)}, {"artifact": artifact_images(7), "normal": normal_images(40)}])
def test_too_few_labels(images: dict[str, torch.Tensor]) -> None:
    with pytest.raises(InputError, match="Too few labelled images"):
        train_classifier(BACKBONE, images)


def test_seeded_and_every_argument_has_an_effect() -> None:
    faint = 0.7 * normal_images(60, 3) + 0.05 * artifact_images(60, 4)
    images = {"artifact": faint, "normal": normal_images(60)}
    first, again, other, plain = (
        train_classifier(BACKBONE, images, seed=seed, decay=decay)[0].head.weight
        for seed, decay in ((0, 0.01), (0, 0.01), (1, 0.01), (0, 1.0))
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert plain.norm() < first.norm()


def test_unequal_classes_count_the_same() -> None:
    """With a hundred normal images for each artifact, calling all of them normal would be right for 99 % of them."""
    _, found = train_classifier(BACKBONE, {"artifact": artifact_images(12), "normal": normal_images(600)})
    assert found.confusion[0].tolist() == [3, 0]


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
    with pytest.raises(MissingExtraError, match="pip install captum"):
        artifact_masks(classifier, normal_images(1))
