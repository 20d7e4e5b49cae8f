from __future__ import annotations

from io import BytesIO

import pytest
from PIL import Image
from small_records import metrics_report

from qualitygate.records.metrics import GroupRow, Histogram, Measurement, MetricsReport
from qualitygate.reports.study_figures import discriminator_figure, group_figure, precision_recall_figure

VALUES = {
    "all": (0.6, 0.5),
    "random": (0.6, 0.4),
    "lowest": (0.9, 0.3),
    "highest": (0.3, 0.45),
    "psi_0.3": (0.8, 0.1),
    "psi_0.7": (0.7, 0.3),
}


def report(values: dict[str, tuple[float | None, float]], histogram: Histogram | None = None) -> MetricsReport:
    def one(name: str, value: float | None) -> Measurement:
        return Measurement(metric=name, value=value, low=value and value - 0.05, high=value and value + 0.05, samples=100)

    rows = [
        GroupRow(group=group, samples=100, what="", measurements={"precision": one("precision", p), "recall": one("recall", r)})
        for group, (p, r) in values.items()
    ]
    return metrics_report(*rows, histogram=histogram)


@pytest.mark.parametrize("draw", [precision_recall_figure, group_figure])
def test_size_and_that_the_numbers_decide(draw) -> None:
    drawn = draw(report(VALUES))
    assert Image.open(BytesIO(drawn)).size[0] == 900
    assert drawn == draw(report(VALUES))
    assert drawn != draw(report(VALUES | {"lowest": (0.5, 0.3)}))
    assert draw(report(VALUES | {"lowest": (None, 0.3)})) != drawn


def test_the_histogram() -> None:
    found = Histogram(edges=(0.0, 1.0, 2.0), counts={"all": (3, 1), "lowest": (0, 0)})
    drawn = discriminator_figure(report(VALUES, found))
    assert Image.open(BytesIO(drawn)).size[0] == 900
    assert drawn != discriminator_figure(report(VALUES, found.model_copy(update={"counts": {"all": (1, 3)}})))


def test_nothing_to_draw() -> None:
    assert discriminator_figure(report({})) is None
    assert precision_recall_figure(report({})) is None
    assert group_figure(report({})) is None
