"""A run: what is missing is made, every shard is looked at as it comes in, and in the end there is one true summary.

Nothing of the run is kept in memory but sums: rows are read from the manifest, whoever wrote them. So a run that was interrupted,
wherever and however, goes on when it is started again, and makes only what is missing. A set in one folder is made the same way, beside
its place, and appears there when it is whole.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path

import torch

from qualitygate import storage
from qualitygate.errors import InputError, OutputError, StorageError
from qualitygate.gating.profile import load_profile
from qualitygate.generators.base import Generator as ImageGenerator
from qualitygate.generators.passes import Progress, Reporter
from qualitygate.produce.executor import Executor, InProcess, ProcessPool, RayExecutor, common_micro_batch, connect
from qualitygate.produce.finalise import finalise
from qualitygate.produce.manifest import IMAGES, PLAN, RECORDS, ROWS, Manifest, Plan, Shard, ShardRow
from qualitygate.produce.report import ensure_report, finished
from qualitygate.produce.request import SHARD_SIZE, Form, GateRequest
from qualitygate.produce.store import Store, local_path, open_store
from qualitygate.produce.watch import RunState
from qualitygate.produce.worker import GateSource, Job, OpenedSource, cut_shard
from qualitygate.records.gate import GateSummary
from qualitygate.records.images import ImageEncoding


def plan(
    opened: OpenedSource,
    *,
    ids: range | None = None,
    accepted: int | None = None,
    shard_size: int = SHARD_SIZE,
    form: Form | None = Form.WEBDATASET,
    images: bool = True,
    curvature: int = 0,
    image_encoding: ImageEncoding = storage.PNG,
    micro_batch: int | None = None,
) -> Plan:
    """What is to be made of a source: a range of ids, all of the user's own latents, or as many images as are asked for, from id 0; by
    default in micro-batches as they are where the source is open. Raises `InputError` for images that cannot be encoded so."""
    if images:
        storage.check_encoding(image_encoding, opened.stage.generator.image_shape)
    provenance = opened.stage.provenance
    if ids is None and accepted is None and opened.own is not None:
        ids = range(len(opened.own))
    return Plan(
        **provenance.model_dump(include={"checkpoint_sha256", "profile_id", "policy_hash", "suite_hash", "latents"}),
        seed=provenance.seed or 0,
        start=0 if ids is None else ids.start,
        stop=None if ids is None else ids.stop,
        accepted=accepted,
        shard_size=shard_size,
        form=form,
        images=images,
        curvature=curvature,
        image_encoding=image_encoding,
        micro_batch=micro_batch or provenance.micro_batch,
    )


def gate_set(request: GateRequest, reporter: Reporter | None = None) -> GateSummary:
    """Gate what is asked for into a set: shards, or one folder. Raises what `produce` does, and `InputError` if it cannot be asked for."""
    ids, encoding, folder = request.chosen_ids(), request.chosen_encoding(), local_path(request.out)
    if folder is None:
        open_store(request.out)
    elif request.shards is None:
        storage.refuse_existing(folder)
    if request.shards is not None and request.curvature:
        raise InputError(
            "--curvature cannot be used here", "an exact CLA for the extremes of a set of shards", "one table of samples: without --shards"
        )
    file = Path(request.checkpoint)
    source = GateSource(
        generator=partial(_load, request),
        file=file.absolute() if file.is_file() else None,
        profile=request.profile.absolute(),
        policy=request.load_policy(),
        seed=request.seed,
        latents=None if request.latents is None else request.latents.absolute(),
    )
    cluster = None if request.cluster is None else connect(request.device, request.workers)
    device = request.chosen_device if cluster is None else request.model_copy(update={"device": "auto"}).chosen_device
    workers = request.workers or (torch.cuda.device_count() if device == "cuda" and request.shards is not None else 1)
    alone = cluster is None and workers == 1
    opened = source.open(device if alone else "cpu")
    settings = request.model_dump(include={"accepted", "shard_size", "images", "curvature"})
    where = cluster or (device, workers)
    micro_batch = None if alone else common_micro_batch(opened.stage.generator.widest, *where, ray=cluster is not None)
    asked = plan(opened, ids=ids, form=request.shards, image_encoding=encoding, micro_batch=micro_batch, **settings)
    job = Job(source, asked, request.out if folder is None else str(folder))
    if cluster is not None:
        executor: Executor = RayExecutor(job, *cluster, here=device)
    else:
        executor = InProcess(job, device, opened) if alone else ProcessPool(job, device, workers)
    return produce(executor, reporter)


def _load(request: GateRequest, device: str) -> ImageGenerator:
    return request.model_copy(update={"device": device}).load_both()[0]


def produce(executor: Executor, reporter: Reporter | None = None) -> GateSummary:
    """Make a set, or what is missing of it, with its report. The suite of the summary failed where the run was stopped by a live check.

    Raises:
        OutputError: there is something in the place of a set in one folder.
        InputError: the place holds something else, or a set under another plan.
        StorageError, CheckpointError, WorkerError: the run stopped; started again, it goes on.
    """
    job, reporter = executor.job, reporter or Reporter()
    one_folder, store = job.plan.form is None, open_store(job.workplace)
    folder = local_path(job.place) if one_folder else None
    if folder is not None:
        storage.refuse_existing(folder)
    with _resumable(job):
        # of one folder the plan is the last thing to go: without it only the folder's name is missing
        summary = finished(store) if one_folder and store.read(PLAN) is None else None
        if summary is not None and folder is None:
            raise OutputError(f"{store} holds a set already", "one that is finished", "an empty place", "choose another place")
        summary = summary or make(executor, reporter)
        ensure_report(executor, reporter)
        if one_folder:
            for name in (ROWS, RECORDS, PLAN):
                store.remove(name)
        if folder is not None:
            work = Path(job.workplace)
            with storage.explained(folder):
                shutil.rmtree(work / ".partial", ignore_errors=True)
                storage.sync(work)
                work.replace(folder)
    return summary


def make(executor: Executor, reporter: Reporter) -> GateSummary:
    """All shards of a job that are not there yet, and what is told of them."""
    job = executor.job
    store, manifest = open_store(job.workplace), job.manifest()
    manifest.begin()
    if (known := finished(store)) is not None:
        return known
    if job.plan.form is None:
        _withdraw_incomplete(store, manifest)
    profile = load_profile(job.source.profile)
    state = RunState(job.plan, profile, job.source.policy or profile.policy)
    asked = job.plan.accepted or (job.plan.stop or 0) - job.plan.start
    try:
        with reporter.phase("ids" if job.plan.accepted is None else "images", asked) as progress, executor:
            while not state.failed and (shards := state.next_shards()):
                with closing(_rows(manifest, executor, shards, progress)) as rows:
                    for row in rows:
                        state.update(row)
                        if state.failed or state.complete:
                            break
    except (SystemExit, KeyboardInterrupt):
        with suppress(StorageError):
            store.sweep()  # a signal may have come in the midst of cleaning up
        raise
    if not state.failed and state.last is not None:
        state.shards[-1] = cut_shard(job, state.scales, state.last, state.last.kept - state.surplus).shard
    return finalise(executor, store, manifest, state, reporter)


def _rows(manifest: Manifest, executor: Executor, shards: list[Shard], progress: Progress) -> Generator[ShardRow, None, None]:
    """The rows of these shards, in the order of their ids: those that are there, and those that are made now."""
    done = set(manifest.done())
    missing = [shard for shard in shards if shard not in done]
    made = executor.work(missing, progress) if missing else iter(())
    early: dict[Shard, ShardRow] = {}
    for shard in shards:
        if shard in done:
            row = next(manifest.rows([shard]))
            progress(row.samples if manifest.plan.accepted is None else row.kept)
            yield row
            continue
        while shard not in early:
            row = next(made)
            early[row.shard] = row
        yield early.pop(shard)


def _withdraw_incomplete(store: Store, manifest: Manifest) -> None:
    """Images that have files of their own are not synced one by one, so that a power cut may take some: such a shard is made again."""
    plan, found = manifest.plan, Counter[Shard]()
    for name, size in store.entries(IMAGES):
        found[plan.shard((int(Path(name).stem) - plan.start) // plan.shard_size)] += size
    for row in manifest.rows(manifest.done()):
        if found[row.shard] < row.bytes:
            manifest.withdraw(row.shard)


@contextmanager
def _resumable(job: Job) -> Iterator[None]:
    """What was begun stays to be gone on with; what was begun beside its place only if something of it is done and no other run of the same
    job was quicker. An interruption gets a note that says which it is."""
    try:
        yield
    except BaseException as error:
        interrupted = isinstance(error, KeyboardInterrupt | SystemExit)
        if interrupted or local_path(job.workplace) is not None:  # a store over the network that failed is not asked again
            with suppress(StorageError):
                kept = bool(job.manifest().done()) or finished(open_store(job.workplace)) is not None
                where = ""
                if job.workplace != job.place:
                    kept, where = kept and finished(open_store(job.place)) is None, ", beside its place until all is"
                    if not kept:
                        shutil.rmtree(job.workplace, ignore_errors=True)
                done = f"what is done is kept{where}: the same command goes on from there"
                if interrupted:
                    error.add_note(done if kept else "no part was done yet: the same command begins anew")
        raise
