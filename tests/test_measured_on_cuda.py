"""What is measured of images on a GPU stays there until it is a number: every extractor, set metric and unit score, and the studies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_cuda import CUDA, fake_cuda, on_cuda
from small import image_set, small_dcgan, small_stylegan2
from small_policy import small_policy
from torch import Tensor, nn

import qualitygate
from qualitygate import names
from qualitygate.errors import InputError
from qualitygate.features import registry, vgg16
from qualitygate.features.dinov2 import DINOv2, DINOv2Extractor
from qualitygate.features.extractor import Extractor, SpatialExtractor, averaged_down, colours, extract, tf1_resized
from qualitygate.features.inception import Inception, InceptionExtractor
from qualitygate.features.module import DiscriminatorExtractor, ModuleExtractor
from qualitygate.gating.calibrate import calibrate
from qualitygate.gating.stage import GateStage
from qualitygate.generators.base import sample_latents
from qualitygate.generators.families.dcgan import DCGANDiscriminator
from qualitygate.generators.passes import Reporter, scored_pass
from qualitygate.latents import Sampling
from qualitygate.metrics.measured_set import Observer, RealSet
from qualitygate.metrics.metric import Evaluator
from qualitygate.metrics.path_length import KINDS, PER_SAMPLE, path_lengths
from qualitygate.policy.corrections import SequentialAblation
from qualitygate.policy.model import Limit, Rule
from qualitygate.records.dynamics import Neuron
from qualitygate.records.metrics import METRICS
from qualitygate.scores.low_rate import activation_rates
from qualitygate.studies.corrections.run import _reference as reference_of
from qualitygate.studies.corrections.run import against_truth, compare, worst_samples
from qualitygate.studies.dynamics import ScoringSettings
from qualitygate.studies.dynamics.measure import score
from qualitygate.studies.dynamics.pattern import plane_pattern, unit_activation
from qualitygate.studies.dynamics.run import AgainstReal
from qualitygate.studies.observation import SampleSource
from qualitygate.units.classifier import CLASSES, ArtifactClassifier, artifact_masks
from qualitygate.units.concepts import peaks, representative, unit_heat
from qualitygate.units.score import joined
from qualitygate.units.table import UNIT_SCORES, UnitInputs

IMAGES = torch.rand(70, 1, 64, 64) * 2.0 - 1.0


@pytest.fixture(autouse=True)
def nothing_fake_is_kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Random weights without the seconds that it takes to draw them; what is cached by device, or so made, is of one test."""
    cached = (colours, vgg16.random_vgg16, vgg16.random_convolutions)
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
    dinov2 = DINOv2(128, 2, 16, gated=False, registers=4)
    for network in (inception, published, dinov2):
        on_cuda(network)
    discriminator = DCGANDiscriminator([4, 5, 6, 7], 1)
    on_cuda(discriminator)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten())
    return [
        InceptionExtractor(inception, "inception"),
        vgg16.VGG16Extractor(published, "vgg16", tf1_resized),
        DINOv2Extractor(dinov2, "dinov2"),
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
        assert of_all.realism.shape == (70,)
    assert [name for name, one in found.items() if one.value is None] == [names.REALISM]  # what leaves the device is 1: all are copies


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


def test_the_study_of_corrections(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = small_dcgan()
    profile = calibrate(generator, small_policy())
    samples = worst_samples(generator, profile, profile.policy, 5, 60, seed=1)
    real = image_set("real", IMAGES)
    with fake_cuda(monkeypatch):
        on_cuda(generator)
        extractor = ModuleExtractor(nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten()), "means", device=CUDA)
        made = compare(generator, profile, profile.policy, {"one": SequentialAblation()}, samples.latents, extractor=extractor, show=3)
        assert not made.left_out
        assert len(made.shown) == 3
        normal = extract(extractor, IMAGES[:20])
        for one in (real, None):
            reference, measured = reference_of(samples, extractor, normal, one, CUDA, Reporter())
            assert reference is not None
            assert reference.images.features.device == CUDA
            assert measured is not None
            assert reference(measured).keys() == {names.FID, names.PRECISION}
        images = [on_device(3, 1, 8, 8) for _ in range(3)]
        assert against_truth(*images, torch.empty(8, 8, dtype=torch.bool, device=CUDA)).keys() == {"left", "mark_left", "damage"}


def test_the_study_of_dynamics(monkeypatch: pytest.MonkeyPatch) -> None:
    generator, discriminator = small_dcgan(), DCGANDiscriminator([4, 5, 6, 7], 1)
    settings = ScoringSettings(samples=3, axes=2, rate_samples=64, metric_samples=10, layers=(1,), early=(0,))
    real = image_set("real", IMAGES)
    with fake_cuda(monkeypatch):
        on_cuda(generator)
        on_cuda(discriminator)
        against = AgainstReal(real, DiscriminatorExtractor(discriminator), device=CUDA)
        scores = score(generator, settings, discriminator=discriminator, metrics=against)
        assert {names.KID, names.PRECISION, names.RECALL} <= scores.metrics.keys()
        one = sample_latents(generator, [0], 1)
        assert plane_pattern(generator, one, Neuron(1, 0, 0, 0), (0, 1)).values.ndim == 2
        assert unit_activation(generator, one, Neuron(1, 0, 0, 0)).shape == (8, 8)


def test_samples_of_the_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    generator, discriminator = small_dcgan(), DCGANDiscriminator([4, 5, 6, 7], 1)
    policy = small_policy(rules=[Rule(id="counts", score="low_rate_0.1", limit=Limit(value=0.5), action="reject")], correction=None)
    generator.origin = generator.identity()
    profile = calibrate(generator, policy)
    real = image_set("real", IMAGES)
    with fake_cuda(monkeypatch):
        on_cuda(generator)
        on_cuda(discriminator)
        extractor = ModuleExtractor(nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten()), "means", device=CUDA)
        of_real = RealSet.of(real, extractor, CUDA, Reporter())
        source = SampleSource(generator, extractor, discriminator, 1, Sampling(), Reporter(), of_real)
        seen = source.collect(70, GateStage(generator, profile, policy, seed=1))
        assert seen.untouched.count == 70
        assert seen.untouched.features is not None
        assert seen.untouched.features.device == CUDA


def test_numbers_leave_the_device_in_one_place() -> None:
    sources = Path(qualitygate.__file__).parent.rglob("*.py")
    assert [path.name for path in sources if ".cpu()" in path.read_text(encoding="utf8")] == []
