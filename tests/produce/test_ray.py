"""The same worker on Ray: the same set, and what the cluster does not have is said at once."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from shard_helpers.making import Small, assert_whole, entries, records

from qualitygate.errors import CheckpointError, InputError, MissingExtraError
from qualitygate.generators.passes import Reporter
from qualitygate.produce import executor as cluster
from qualitygate.produce.run import make

IDS = range(150)
TESTS = Path(__file__).parents[1]


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"'ray\[data\]'"):
        cluster.connect("cpu", 1)


@pytest.fixture(scope="module")
def ray() -> Iterator[object]:
    ray = pytest.importorskip("ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), str(TESTS.parent)]))
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("OMP_NUM_THREADS", "1")
        ray.init(num_cpus=2, num_gpus=0, include_dashboard=False, log_to_driver=False, logging_level="error")
        yield ray
        ray.shutdown()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_ray_makes_the_same_set_and_fails_as_we_do(ray: object, small: Small, tmp_path: Path) -> None:
    start = time.monotonic()
    with pytest.raises(InputError, match=r"does not have the GPUs asked for(.|\n)*found: 0 GPUs\n(.|\n)*needed: 4"):
        cluster.connect("cuda", 4)
    assert time.monotonic() - start < 10
    assert cluster.connect("auto", None) == ("cpu", 2)
    job = small.job(tmp_path / "ray", ids=IDS)
    summary = make(cluster.RayExecutor(job, "cpu", 2, "cpu"), Reporter())
    assert_whole(tmp_path / "ray", IDS, summary)
    small.produce(tmp_path / "here", ids=IDS)
    assert entries(tmp_path / "ray") == entries(tmp_path / "here")
    assert records(tmp_path / "ray") == records(tmp_path / "here")
    wrong = small.job(tmp_path / "wrong", ids=IDS)
    wrong = type(wrong)(wrong.source, wrong.plan.model_copy(update={"checkpoint_sha256": "0" * 64}), wrong.place)
    with pytest.raises(CheckpointError, match="another one than the set was begun with"):
        make(cluster.RayExecutor(wrong, "cpu", 1, "cpu"), Reporter())
