"""``qualitygate demo``: the whole gate on a real face generator."""

from __future__ import annotations

import time
from pathlib import Path

from pydantic import Field

from qualitygate.cli import output
from qualitygate.cli.requests import command
from qualitygate.requests import OnDevice


class DemoRequest(OnDevice):
    """Where the demonstration goes, and where its generator comes from."""

    out: Path = Field(Path("demo"), description="Folder for everything the demonstration makes.")
    wheel: Path | None = Field(None, description="The wheel of gan_face_generate 1.1.1, where pip cannot fetch it.")
    fetch: Path | None = Field(None, description="Only write the generator's checkpoint to this file, and stop.")


@command(DemoRequest)
def run(request: DemoRequest) -> None:
    """Calibrate a real face generator, gate 2,000 samples of it, repair the broken ones, log all of it to MLflow.

    The generator is a third party's, from the package gan_face_generate on PyPI; its weights are read as data.
    A profile that an earlier run left in the folder is used again. For the checkpoint alone:

        qualitygate demo --fetch weights.tar
    """
    from qualitygate import storage
    from qualitygate.checkpoints.demonstration import PACKAGE, WEIGHTS_SHA256, face_generator
    from qualitygate.checkpoints.load import load_generator
    from qualitygate.cli.gate import send, shown_set
    from qualitygate.studies.demonstration import demonstrate

    if request.fetch is not None:
        storage.refuse_existing(request.fetch)
        storage.write_bytes(request.fetch, face_generator(request.wheel).read_bytes())
        fetched = {"out": request.fetch, "package": PACKAGE, "sha256": WEIGHTS_SHA256}
        output.result(fetched, [f"{request.fetch}: the generator of {PACKAGE}, SHA-256 {WEIGHTS_SHA256}"])
        return
    started, gated = time.perf_counter(), request.out / "gated"
    generator = load_generator(face_generator(request.wheel), request.chosen_device)
    done = demonstrate(generator, request.out, output.reporter())
    uri = f"sqlite:///{(request.out / 'mlflow.db').absolute()}"
    run_id = send(gated, uri, "qualitygate demo")
    seconds = time.perf_counter() - started
    document = {"summary": done.summary.model_dump(mode="json"), "facts": dict(done.facts), "places": dict(done.places)}
    places = [*done.places.items(), ("MLflow", f"mlflow ui --backend-store-uri {uri}")]
    tables = (("What was seen", ("", ""), list(done.facts.items())), ("Where everything is", ("", ""), places))
    shown = (*shown_set(done.summary, gated), *tables, f"Done in {seconds:.0f} seconds.")
    output.result({**document, "seconds": seconds, "mlflow_run": run_id}, shown)
