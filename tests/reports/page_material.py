"""Made-up material for pages: a gated set, metrics, and a baseline; no generator."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from reports.made_up import SCORE, item, limits
from small_records import PROVENANCE

from qualitygate import names, storage
from qualitygate.records.gate import ExhibitRole, ExpectationResult, GateSummary, SuiteResult, Verdict
from qualitygate.reports.material import EXHIBIT, Gated, Shown, exhibit_columns, read_exhibit

HOSTILE = 'models/<script>alert(1)</script> & "x" {{ 7 * 7 }} $y$.pt'
SAMPLES = 200


def gated(seed: int = 1, checkpoint: str = "models/faces.pt", passed: bool = True, exhibit: bool = True) -> Gated:
    random = np.random.default_rng(seed)
    score = np.rint(random.gamma(8.0, 30.0, SAMPLES))
    verdict = np.where(score > 370.0, "correct", "accept")
    counts = {one: int((verdict == one.value).sum()) for one in Verdict}
    result = ExpectationResult(
        id="batch/yield",
        type="expect_column_values_to_be_between",
        severity="critical",
        success=passed,
        observed=0.7,
        kwargs={"min_value": 0.8},
    )
    summary = GateSummary(
        samples=SAMPLES,
        accepted=counts[Verdict.ACCEPT],
        corrected=counts[Verdict.CORRECT],
        rejected=0,
        borderline=2,
        metrics={},
        reasons={"over_limit:low_rate": counts[Verdict.CORRECT]},
        limits=tuple(limits()),
        seconds={},
        suite=SuiteResult(passed=passed, evaluated=1, results=(result,)),
        provenance=PROVENANCE.model_copy(update={"checkpoint": checkpoint}),
    )
    cla = np.where(np.arange(SAMPLES) < 20, score / 50.0, np.nan)
    columns = {names.ID: np.arange(SAMPLES), names.VERDICT: verdict, SCORE: score, names.cla(1): cla}
    return Gated("gated", summary, columns, {SCORE: np.sort(score)}, units(seed), shown() if exhibit else ())


def units(seed: int) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            names.UNIT_KEY: [names.unit_key(layer, unit) for layer in (0, 1) for unit in range(12)],
            names.LAYER: np.repeat([0, 1], 12),
            names.UNIT: np.tile(np.arange(12), 2),
            names.UNIT_LOW_RATE: random.permutation(24).astype(float),
            names.UNIT_CLA: np.nan,
        }
    )


def shown() -> list[Shown]:
    items = [
        item(3),
        item(5, ExhibitRole.WORST, "correct", corrected=True),
        item(5, ExhibitRole.CORRECTED, "correct", corrected=True),
        item(8, ExhibitRole.BORDERLINE, nan=True),
    ]
    with TemporaryDirectory() as folder:
        storage.write_table(Path(folder) / EXHIBIT, exhibit_columns(items))
        return read_exhibit(Path(folder) / EXHIBIT)
