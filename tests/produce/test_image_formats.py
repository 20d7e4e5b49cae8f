"""Sets in every format of images: read again by all that reads sets, apart from sets in another one, and PNG as it always was."""

from __future__ import annotations

import hashlib
import io
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from shard_helpers.making import JPEG, WEBP, Small, entries

from qualitygate import names, timing
from qualitygate.cli.gate import shown_set
from qualitygate.errors import InputError
from qualitygate.features.images import open_images
from qualitygate.produce import shards, worker
from qualitygate.produce.executor import InProcess
from qualitygate.produce.manifest import Plan
from qualitygate.produce.request import Form
from qualitygate.produce.run import produce
from qualitygate.produce.worker import ShardWorker
from qualitygate.records.gate import GateSummary
from qualitygate.records.images import ImageEncoding

PLAN: dict[str, Any] = {
    "checkpoint_sha256": "c",
    "profile_id": "p",
    "policy_hash": "q",
    "suite_hash": "s",
    "seed": 1,
    "start": 0,
    "stop": None,
    "accepted": 600,
    "shard_size": 64,
    "form": "webdataset",
}


def test_a_plan_of_png_is_written_as_before_there_was_a_choice() -> None:
    plan = Plan(**PLAN)
    text = plan.model_dump_json(indent=2)
    assert plan.id == "26d35508d98dea6274d74f54c6baa76795efc181473f5014269abb39ba95ab29"
    assert hashlib.sha256(text.encode()).hexdigest() == "49681a12a96b2746f9a9af273374bec47b6a930a304e181efce4d50702d5fd2f"
    assert Plan.model_validate_json(text) == plan
    others = [Plan(**PLAN, image_encoding=one) for one in (JPEG, WEBP, ImageEncoding(level=6), WEBP.model_copy(update={"quality": 61}))]
    assert len({one.id for one in (plan, *others)}) == 1 + len(others)
    assert [Plan.model_validate_json(one.model_dump_json()) for one in others] == others


@pytest.mark.parametrize(("form", "encoding"), [(Form.WEBDATASET, WEBP), (Form.PARQUET, JPEG), (Form.FOLDER, JPEG)])
def test_shards_in_a_format_are_read_again(small: Small, tmp_path: Path, form: Form, encoding: ImageEncoding) -> None:
    """The last of them is cut: read and written once more."""
    asked: dict[str, Any] = {"accepted": 30, "form": form, "image_encoding": encoding}
    summary = small.produce(tmp_path / "a", **asked)
    assert summary.image_encoding == encoding
    made = entries(tmp_path / "a", form)
    assert len(made) == 30 < summary.samples < 64
    images = {
        int(block.latents.ids[row]): image
        for block in small.source().open("cpu").blocks(range(summary.samples))
        for row, image in block.images.items()
    }
    for entry in made:
        with Image.open(io.BytesIO(entry.image)) as file:
            assert file.format == encoding.format.upper()
            assert np.abs(np.asarray(file.convert("L")).astype(int) - images[entry.id][..., 0]).mean() < 8
    files = sorted((tmp_path / "a" / "shards").iterdir())
    assert sum(len(open_images(one)) for one in files) == sum(len(batch) for one in files for batch in open_images(one)) == 30
    if form == Form.FOLDER:
        assert {one.suffix for file in files for one in file.iterdir()} == {f".{encoding.suffix}", ".jsonl"}
    small.produce(tmp_path / "b", shard_size=16, **asked)
    assert entries(tmp_path / "b", form) == made
    with pytest.raises(InputError, match=rf"under another plan\n.*image_encoding {encoding}\n.*image_encoding png, level 1"):
        small.produce(tmp_path / "a", **asked | {"image_encoding": ImageEncoding()})


def test_one_folder_in_a_format_goes_on_and_drops_what_is_no_part_of_it(small: Small, tmp_path: Path) -> None:
    job = small.job(tmp_path / "set", ids=range(128), form=None, image_encoding=WEBP)
    job.manifest().begin()
    ShardWorker(job, "cpu")(job.plan.shard(0))
    images = Path(job.workplace, "images")
    sorted(images.iterdir())[3].write_bytes(b"")  # as after a power cut
    rejected = min(set(range(64)) - {int(one.stem) for one in images.iterdir()})
    (images / f"{rejected:08d}.webp").write_bytes(b"stray")
    summary = produce(InProcess(job, "cpu"))
    assert 0 < summary.metrics[names.time_share(timing.WAIT)] < 1
    there = sorted((tmp_path / "set" / "images").iterdir())
    assert {one.suffix for one in there} == {".webp"}
    assert len(open_images(tmp_path / "set" / "images")) == len(there) == summary.accepted + summary.corrected
    assert GateSummary.model_validate_json((tmp_path / "set" / "summary.json").read_bytes()).image_encoding == WEBP
    assert "webp, quality 60" in (tmp_path / "set" / "report.html").read_text()


def test_slow_encoding_is_in_the_summary_with_what_to_do(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On as many threads as there are cores, whatever torch has."""
    encode, threads = shards.encode, []

    def slow(*given: Any) -> bytes:
        time.sleep(0.05)
        return encode(*given)

    def counted(form: Form | None, path: Path, count: int, encoding: ImageEncoding) -> Any:
        threads.append(count)
        return shards.encoding(form, path, 1, encoding)

    monkeypatch.setattr(shards, "encode", slow)
    monkeypatch.setattr(worker, "encoding", counted)
    monkeypatch.setattr(worker, "cores", lambda: 16)
    summary = small.produce(tmp_path / "set", ids=range(32), form=Form.FOLDER, image_encoding=ImageEncoding(level=6))
    assert threads == [16]
    assert 0.1 < summary.metrics[names.time_share(timing.WAIT)] < 1
    shown = "\n".join(part for part in shown_set(summary, tmp_path) if isinstance(part, str))
    assert "images as png, level 6" in shown
    assert "what to do: --png-level 1, or --image-format webp" in shown
    quick = summary.model_copy(update={"metrics": summary.metrics | {names.time_share(timing.WAIT): 0.05}})
    assert not [part for part in shown_set(quick, tmp_path) if isinstance(part, str) and "what to do" in part]
