"""A report with every part there is, of folders that the commands themselves wrote, on the smallest checkpoint that has all of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import yaml
from cli.conftest import POLICY, Call, dcgan_state_dict
from cli.test_units import discriminator_state_dict
from studies.dynamics.snapshots import write

from qualitygate.checkpoints.load import load_generator
from qualitygate.gating.calibrate import calibrate
from qualitygate.policy.model import load_policy


@dataclass(frozen=True)
class Folders:
    """What the commands wrote, and the pages of it."""

    gated: Path
    sharded: Path
    metrics: Path
    units: Path
    dynamics: Path
    page: Path
    comparison: Path


def write_real_report(call: Call, at: Path, ids: str = "0:80") -> Folders:
    """Run ``gate``, ``gate --shards``, ``units``, ``metrics``, ``dynamics``, ``report`` and ``compare``."""
    made = Folders(at / "gated", at / "sharded", at / "metrics", at / "units", at / "dynamics", at / "report.html", at / "comparison.html")
    model, profile = at / "model.pt", at / "profile"
    torch.save({"netG": dcgan_state_dict(), "netD": discriminator_state_dict()}, model)
    (at / "policy.yaml").write_text(yaml.safe_dump(POLICY), encoding="utf8")
    calibrate(load_generator(model), load_policy(at / "policy.yaml")).save(profile)
    np.savez(at / "real.npz", images=np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8))
    (at / "snapshots").mkdir()
    for kimg in (0, 100):
        write(at / "snapshots", kimg)

    def run(*words: object) -> None:
        done = call(*words)
        assert done.code == 0, done.stderr

    gate = ("gate", model, "--profile", profile, "--no-track")
    run(*gate, "--ids", ids, "--curvature", 4, "--out", made.gated)
    run(*gate, "--ids", ids, "--seed", 2, "--shards", "webdataset", "--shard-size", 64, "--out", made.sharded)
    own = ("--extractor", "discriminator")
    run(
        "units",
        model,
        "--profile",
        profile,
        *own,
        "--samples",
        100,
        "--group",
        60,
        "--curvature",
        2,
        "--images",
        20,
        "--top",
        3,
        "--no-track",
        "--out",
        made.units,
    )
    run(
        "metrics",
        model,
        "--gated",
        made.gated,
        "--real",
        at / "real.npz",
        *own,
        "--distance",
        "none",
        "--group-share",
        0.2,
        "--out",
        made.metrics,
    )
    run(
        "dynamics",
        at / "snapshots",
        "--samples",
        2,
        "--axes",
        2,
        "--rate-samples",
        16,
        "--layers",
        "3",
        "--no-track",
        "--out",
        made.dynamics,
    )
    run(
        "report",
        made.gated,
        "--metrics",
        made.metrics,
        "--units",
        made.units,
        "--dynamics",
        made.dynamics,
        "--baseline",
        made.sharded,
        "--out",
        made.page,
    )
    run("compare", made.gated, made.sharded, "--metrics", made.metrics, "--no-track", "--out", made.comparison)
    return made
