"""A small gated folder, as the gate writes it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from qualitygate import names
from qualitygate.policy.model import Policy, policy_yaml
from qualitygate.records import Provenance
from qualitygate.records.gate import ExpectationResult, GateSummary, RuleLimit, SuiteResult, Verdict
from qualitygate.tracking.spool import State, sendable, tracking_state

SHA256 = "c0ffee" + "0" * 58
UNITS = 260  # more than the ranking table shows


def write_gated_folder(
    folder: Path,
    *,
    seed: int = 1,
    suite: SuiteResult | None = None,
    metrics: dict[str, float] | None = None,
    checkpoint: str = "models/faces.v2.safetensors",
    policy: Policy | None = None,
) -> Path:
    """Everything that tracking reads, and images that it must leave alone. ``seed`` makes sets differ."""
    policy = policy or Policy()
    folder.mkdir(parents=True)
    made = summary(seed, policy, suite or suite_result(), metrics or {}, checkpoint)
    text = json.dumps(made.model_dump(mode="json"))  # writes NaN and Infinity as such
    (folder / "summary.json").write_text(text, encoding="utf8")
    (folder / "policy.yaml").write_text(policy_yaml(policy), encoding="utf8")
    (folder / "suite.json").write_text('{"name": "policy", "expectations": []}', encoding="utf8")
    pq.write_table(_samples(seed), folder / "samples.parquet")
    pq.write_table(_units(), folder / "units.parquet")
    for index, path in enumerate(["gallery/best.png", "gallery/rejected.png", "figures/low_rate_0.1.png", "images/0.png"]):
        _picture(folder / path, index)
    return folder


def summary(seed: int, policy: Policy, suite: SuiteResult, metrics: dict[str, float], checkpoint: str) -> GateSummary:
    shares = {names.ACCEPTED_SHARE: 0.5, names.CORRECTED_SHARE: 0.25, names.REJECTED_SHARE: 0.25, names.YIELD: 0.75}
    quantiles = {names.quantile(names.low_rate(0.1), 0.5): 3.0, names.quantile(names.low_rate(0.1, 2), 0.9): 5.0}
    provenance = Provenance(
        checkpoint=checkpoint,
        checkpoint_sha256=SHA256,
        family="dcgan",
        profile_id="p" * 64,
        policy_hash=policy.hash,
        suite_hash="s" * 64,
        package_version="0.1.0",
        torch_version="2.13.0",
        device="cpu",
        seed=seed,
    )
    return GateSummary(
        samples=4,
        accepted=2,
        corrected=1,
        rejected=1,
        borderline=1,
        metrics=shares | quantiles | metrics,
        reasons={"over_limit:low_rate": 2, "not_repaired": 1},
        limits=(RuleLimit(rule="low_rate", score="low_rate_0.1", limit=17.5, source="quantile 0.9", action=Verdict.CORRECT),),
        seconds={"early": 0.5},
        suite=suite,
        provenance=provenance,
    )


def suite_result(*failed: str) -> SuiteResult:
    """Two expectations, of which the named ones fail."""
    results = tuple(
        ExpectationResult(
            id=id,
            type="expect_column_values_to_be_between",
            severity="critical",
            success=id not in failed,
            observed=0.75,
            kwargs={"min_value": 0.5},
        )
        for id in ("yield", "accepted")
    )
    return SuiteResult(passed=not failed, evaluated=2, results=results)


def _samples(seed: int) -> pa.Table:
    return pa.table(
        {
            names.ID: pa.array([0, 1, 2, 3], pa.int64()),
            names.SEED: pa.array([seed] * 4, pa.int64()),
            names.LABEL: pa.array([None] * 4, pa.int64()),
            names.VERDICT: ["accept", "accept", "correct", "reject"],
            names.STRENGTH: pa.array([None, None, 0.2, None], pa.float64()),
            names.REASONS: [[], [], ["over_limit:low_rate"], ["over_limit:low_rate", "not_repaired"]],
            names.low_rate(0.1): [1.0, 3.0, 20.0, 30.0],
        }
    )


def _units() -> pa.Table:
    """CLA was computed for the first two only; the last unit has the highest low-rate activity."""
    return pa.table(
        {
            names.LAYER: [1] * UNITS,
            names.UNIT: list(range(UNITS)),
            names.UNIT_KEY: [f"layer1/unit{unit}" for unit in range(UNITS)],
            names.UNIT_RATE: np.linspace(0.0, 1.0, UNITS),
            names.UNIT_LOW_RATE: np.arange(UNITS, dtype=np.float64),
            names.UNIT_CLA: pa.array([1.0, 2.0] + [None] * (UNITS - 2), pa.float64()),
            names.UNIT_CLA_PLAIN: pa.array([1.0, 2.0] + [None] * (UNITS - 2), pa.float64()),
        }
    )


def _picture(path: Path, index: int) -> None:
    path.parent.mkdir(exist_ok=True)
    pixels = np.random.default_rng(index).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def pending(root: Path) -> list[Path]:
    """Folders at or below ``root`` that are still to be sent."""
    return [folder for folder in sendable(root) if tracking_state(folder).state is State.PENDING]
