"""Measuring a checkpoint in groups: the same images as the gate's, made once, and the numbers of each group what they would be alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from metrics.made_up import Projection, Squares
from small import image_set, small_dcgan
from small_policy import small_policy

from qualitygate import names
from qualitygate.errors import InputError
from qualitygate.gating.calibrate import calibrate
from qualitygate.gating.stage import GateStage, gate
from qualitygate.generators.base import sample_latents
from qualitygate.records.gate import Verdict
from qualitygate.studies.metrics import MetricsRequest
from qualitygate.studies.metrics.run import MetricsInputs, MetricsResult, measure

REQUEST = MetricsRequest(
    checkpoint="small", samples=150, score="low_rate_0.2", group_share=0.2, path_samples=6, path=("ppl_z_full",), fid_infinity=True
)
TRUNCATIONS = (0.5,)


def asked(inputs: MetricsInputs, **more: object) -> MetricsResult:
    return measure(inputs, REQUEST.model_copy(update=more), truncations=TRUNCATIONS)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MetricsInputs]:
    generator, other = small_dcgan(), small_dcgan(seed=1)
    real = image_set("others", other(sample_latents(other, range(80), 3)))
    profile = calibrate(generator, small_policy())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUALITYGATE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield MetricsInputs(generator, None, Projection(), Squares(), real, GateStage(generator, profile, profile.policy, seed=1))


@pytest.fixture(scope="module")
def measured(inputs: MetricsInputs) -> MetricsResult:
    return asked(inputs)


def test_every_group_is_there(measured: MetricsResult) -> None:
    groups = " ".join(row.group for row in measured.report.groups)
    assert groups == ("all random lowest highest accepted corrected_before rejected highest_corrected corrected kept psi_0.5")
    sizes = {row.group: row.samples for row in measured.report.groups}
    assert sizes["all"] == 150 == sizes["accepted"] + sizes["corrected"] + sizes["rejected"]
    assert sizes["lowest"] == sizes["highest"] == sizes["random"] == sizes["psi_0.5"] == sizes["highest_corrected"] == 30
    assert sizes["kept"] == sizes["accepted"] + sizes["corrected"]
    assert {one.metric for one in measured.report.order} == {"precision", "realism", "ppl"}
    whole = measured.report.row("all")
    assert {"fid_infinity", "ppl_z_full"} <= whole.measurements.keys()
    assert whole.measurements["fid"].extractor == "projection 6, seed 0; real images: as stored"
    assert measured.report.left_out == ()
    assert measured.report.remarks[0] == "80 real images are fewer than 1,000: which ones they are decides much"


def test_the_images_are_the_gates(inputs: MetricsInputs, measured: MetricsResult) -> None:
    """What the gate lets out, measured by itself, gives the same numbers."""
    from qualitygate.metrics.measured_set import Observer, RealSet
    from qualitygate.metrics.metric import Evaluator

    records, images = zip(*gate(inputs.generator, inputs.stage.profile, range(150)), strict=True)
    assert measured.samples[names.VERDICT] == [str(record.verdict) for record in records]
    observer = Observer(inputs.extractor, None, "cpu")
    order = [row for verdict in (Verdict.ACCEPT, Verdict.CORRECT) for row, record in enumerate(records) if record.verdict is verdict]
    observer.add(torch.stack([images[row] for row in order]))
    features = torch.cat([inputs.extractor(batch) for batch in inputs.real])
    alone = Evaluator().measure(observer.measured().against(RealSet("others", "d", features)))
    kept = measured.report.row("kept").measurements
    for name in (names.FID, names.KID, names.PRECISION, names.RECALL, names.REALISM):
        assert kept[name].value == pytest.approx(alone[name].value, rel=1e-4), name


def test_rejected_samples_are_looked_at_too(inputs: MetricsInputs, measured: MetricsResult) -> None:
    realism = measured.samples[names.REALISM]
    rejected = np.array(measured.samples[names.VERDICT]) == "reject"
    assert np.isfinite(realism).all()
    assert np.array_equal(np.isnan(measured.samples[names.RARITY]), measured.samples[names.PRECISION] == 0.0)
    assert measured.report.row("rejected").measurements["realism"].value == pytest.approx(realism[rejected].mean())


def test_path_lengths_are_of_the_first_samples_of_each_group(measured: MetricsResult) -> None:
    for row in measured.report.groups:
        if "ppl" in row.measurements:
            assert row.measurements["ppl"].samples == (30 if row.group == "all" else 6), row.group
    assert {row.group for row in measured.report.groups if "ppl" not in row.measurements} == {"corrected", "kept"}
    assert np.isfinite(measured.samples[names.PPL][:30]).all()
    assert np.isnan(measured.samples[names.PPL]).any()


def test_other_numbers_of_samples_leave_a_sample_as_it_is(inputs: MetricsInputs, measured: MetricsResult) -> None:
    fewer = asked(inputs, samples=70, path=(), fid_infinity=False)
    for name in (names.REALISM, names.DENSITY, "low_rate_0.2"):
        np.testing.assert_allclose(fewer.samples[name], measured.samples[name][:70], rtol=1e-4)


def test_without_real_images_gate_or_distance_the_rest_is_said(inputs: MetricsInputs) -> None:
    bare = asked(MetricsInputs(inputs.generator), score=None, path=())
    assert [row.group for row in bare.report.groups] == ["all", "random", "psi_0.5"]
    assert bare.report.left_out == ("everything that compares with real images: none were given", "path lengths: no distance was given")
    curvature = asked(replace(inputs, stage=None, real=None), score="cla/layer_1", samples=20, path_samples=2, path=())
    assert np.isfinite(curvature.samples["cla/layer_1"]).all()
    assert {"lowest", "highest"} <= {row.group for row in curvature.report.groups}


def test_refusals(inputs: MetricsInputs) -> None:
    with pytest.raises(InputError, match=r"There is no score low_rate_0\.7"):
        asked(inputs, score="low_rate_0.7")
    with pytest.raises(InputError, match="need a feature extractor"):
        asked(replace(inputs, extractor=None))
