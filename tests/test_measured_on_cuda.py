"""What is measured of images on a GPU stays there until it is a number: every extractor, set metric and unit score, and the studies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from fake_cuda import CUDA, fake_cuda, on_cuda
from small import image_set, small_dcgan, small_stylegan2
from torch import Tensor, nn

from qualitygate.errors import InputError
from qualitygate.features import registry, vgg16
from qualitygate.features.extractor import Extractor, SpatialExtractor, averaged_down, extract, tf1_resized
from qualitygate.features.inception import Inception, InceptionExtractor
from qualitygate.features.module import DiscriminatorExtractor, ModuleExtractor
from qualitygate.generators.base import sample_latents
from qualitygate.generators.families.dcgan import DCGANDiscriminator
from qualitygate.generators.passes import Reporter, scored_pass
from qualitygate.metrics.measured_set import Observer, RealSet
from qualitygate.metrics.metric import Evaluator
from qualitygate.metrics.path_length import KINDS, PER_SAMPLE, path_lengths
from qualitygate.records.metrics import METRICS
from qualitygate.scores.low_rate import activation_rates
from qualitygate.units.classifier import CLASSES, ArtifactClassifier, artifact_masks
from qualitygate.units.concepts import peaks, representative, unit_heat
from qualitygate.units.score import joined
from qualitygate.units.table import UNIT_SCORES, UnitInputs

IMAGES = torch.rand(70, 1, 64, 64) * 2.0 - 1.0


@pytest.fixture(autouse=True)
def nothing_fake_is_kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Random weights without the seconds that it takes to draw them; what is cached by device, or so made, is of one test."""
    cached = (vgg16.colours, vgg16.random_vgg16, vgg16.random_convolutions)
    monkeypatch.setattr(vgg16, "_draw", lambda layer, index: None)
    for one in cached:
        one.cache_clear()
    yield
    for one in cached:
        one.cache_clear()


def on_device(*shape: int) -> Tensor:
    return torch.empty(shape, device=CUDA)


def extractors() -> list[Extractor]:
    """One of each. Within `fake_cuda`."""
    inception, published = Inception(), vgg16.VGG16()
    for network in (inception, published):
        on_cuda(network)
    discriminator = DCGANDiscriminator([4, 5, 6, 7], 1)
    on_cuda(discriminator)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten())
    return [
        InceptionExtractor(inception, "inception"),
        vgg16.VGG16Extractor(published, "vgg16", tf1_resized),
        registry.make_extractor("random-vgg16-32", device=CUDA),
        ModuleExtractor(module, "module", size=8, device=CUDA),
        DiscriminatorExtractor(discriminator),
    ]


def test_every_extractor(monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_cuda(monkeypatch):
        for extractor in extractors():
            with scored_pass():
                assert extractor(on_device(2, 1, 64, 64)).device == CUDA
            for images in (IMAGES[:3], on_device(3, 3, 64, 64)):
                features = extract(extractor, images)
                assert features.shape == (3, extractor.features)
                assert features.dtype == np.float32
            if isinstance(extractor, SpatialExtractor):
                assert extractor.spatial(on_device(2, 3, 64, 64)).device == CUDA


@pytest.mark.parametrize("name", registry.DISTANCES)
def test_every_distance_and_path_length(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    generator, mapped = small_dcgan(), small_stylegan2()
    with fake_cuda(monkeypatch):
        if name == "lpips":
            network = vgg16.Convolutions()
            on_cuda(network)
            distance = vgg16.StageDistance(network, name, averaged_down)
        else:
            distance = registry.make_distance("random-vgg16-32", device=CUDA)
        on_cuda(generator)
        on_cuda(mapped)
        lengths = path_lengths(generator, sample_latents(generator, range(70), 1), distance, replace(PER_SAMPLE, paths=2))
        assert lengths.shape == (70, 2)
        for settings in KINDS.values() if name != "lpips" else ():  # it takes no images of 8×8
            assert path_lengths(mapped, sample_latents(mapped, range(2), 1), distance, replace(settings, paths=1)).device.type == "cpu"


@pytest.mark.parametrize("intervals", [True, False])
def test_every_set_metric(intervals: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    images = image_set("real", torch.rand(70, 1, 8, 8))
    with fake_cuda(monkeypatch):
        inception, discriminator = Inception(), DCGANDiscriminator([4, 5, 6, 7], 1)
        for network in (inception, discriminator):
            on_cuda(network)
        few = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        extractor = ModuleExtractor(few, "means", device=CUDA)
        real = RealSet.of(images, extractor, CUDA, Reporter())
        observer = Observer(extractor, discriminator, CUDA, np.zeros((7, extractor.features), np.float32))
        for part in IMAGES.split(50):
            observer.add(part)
        classes = InceptionExtractor(inception, "inception").probabilities(on_device(70, 2048))
        of_all = replace(observer.measured().against(real), lengths=torch.ones(70, 2), classes=classes)
        assert of_all.features is not None
        assert {of_all.features.device, real.features.device, real.radii.device, classes.device} == {CUDA}
        evaluator = Evaluator(intervals=intervals)
        for rows in (None, np.arange(0, 70, 2)):
            found = evaluator.measure(of_all, rows)
            assert {name for name, info in METRICS.items() if info.of_groups} <= found.keys()
        for name in METRICS:
            found[name] = evaluator.measurement(name, of_all.group())
    assert not [name for name, one in found.items() if one.value is None]


def test_every_unit_score(monkeypatch: pytest.MonkeyPatch) -> None:
    generator, discriminator = small_dcgan(), DCGANDiscriminator([4, 5, 6, 7], 1)
    rates = activation_rates(generator, [0, 1], 100, seed=0)
    samples, artifacts, normal = (sample_latents(generator, ids, 0) for ids in (range(70), range(70, 80), range(80, 90)))
    real = image_set("real", IMAGES)
    with fake_cuda(monkeypatch):
        on_cuda(generator)
        on_cuda(discriminator)
        backbone = DiscriminatorExtractor(discriminator)
        inputs = UnitInputs(generator, rates, 0.3, (0, 1), samples, artifacts, normal, backbone, discriminator, real, 5, 2)
        assert {images.device for images in inputs.images(normal)} == {CUDA}
        with pytest.raises(InputError, match="cannot tell"):  # of features that are all alike
            _ = inputs.masks
        head = on_device(3, backbone.channels), on_device(3)
        inputs.__dict__["masks"] = artifact_masks(ArtifactClassifier(backbone, *head, CLASSES), inputs.images(artifacts))
        scores = [UNIT_SCORES[name].compute(inputs) for name in UNIT_SCORES]
        assert {one.layers for one in scores} == {(0, 1)}
        top = {layer: joined(scores).top(3, layer).tolist() for layer in (0, 1)}
        assert peaks(generator, artifacts, top).shape == (10, 6)
        assert representative(generator, artifacts, 1).device.type == "cpu"
        assert unit_heat(generator, artifacts, 1, 0).shape == (10, 64, 64)
