"""``qualitygate demo``: the whole gate on a real face generator."""

from __future__ import annotations

import time
from pathlib import Path

from pydantic import Field

from qualitygate.cli import output
from qualitygate.cli.requests import Json, command
from qualitygate.requests import OnDevice

NAME = "demo"


class DemoRequest(OnDevice):
    """Where the demonstration goes, and where its generator comes from."""

    out: Path = Field(Path("demo"), description="Folder for everything the demonstration makes.")
    wheel: Path | None = Field(None, description="The wheel of gan_face_generate 1.1.1, where pip cannot fetch it.")
    fetch: Path | None = Field(None, description="Only write the generator's checkpoint to this file, and stop.")


@command(DemoRequest)
def run(request: DemoRequest, json: Json = False) -> None:
    """Calibrate a real face generator, gate 2,000 samples of it, repair the broken ones, log all of it to MLflow.

    The generator is a third party's, from the package gan_face_generate on PyPI; its weights are read as data.
    A profile that an earlier run left in the folder is used again. For the checkpoint alone:

        qualitygate demo --fetch weights.tar
    """
    with output.only_result_on_stdout():
        from qualitygate import storage
        from qualitygate.checkpoints.demonstration import face_generator
        from qualitygate.checkpoints.load import load_generator
        from qualitygate.cli.gate import send, show
        from qualitygate.studies.demonstration import demonstrate

        out = request.out
        if (fetch := request.fetch) is not None:
            storage.refuse_existing(fetch)
            storage.write_bytes(fetch, face_generator(request.wheel).read_bytes())
            _tell_fetched(fetch, json)
            return
        started = time.perf_counter()
        generator = load_generator(face_generator(request.wheel), request.chosen_device)
        done = demonstrate(generator, out, output.reporter())
        uri = f"sqlite:///{(out / 'mlflow.db').absolute()}"
        run_id = send(out / "gated", uri, "qualitygate demo")
        seconds = time.perf_counter() - started
        if json:
            output.emit_json(
                {
                    "summary": done.summary.model_dump(mode="json"),
                    "facts": dict(done.facts),
                    "seconds": seconds,
                    "mlflow_run": run_id,
                    "places": {what: str(place) for what, place in done.places.items()},
                }
            )
            return
        show(done.summary, out / "gated")
        output.table("What was seen", ("", ""), list(done.facts.items()))
        places = [*done.places.items(), ("MLflow", f"mlflow ui --backend-store-uri {uri}")]
        output.table("Where everything is", ("", ""), places)
        output.emit(f"Done in {seconds:.0f} seconds.")


def _tell_fetched(file: Path, json: bool) -> None:
    """Where the checkpoint lies, and that it is the one that is meant."""
    from qualitygate.checkpoints.demonstration import PACKAGE, WEIGHTS_SHA256

    if json:
        output.emit_json({"out": str(file), "package": PACKAGE, "sha256": WEIGHTS_SHA256})
    else:
        output.emit(f"{file}: the generator of {PACKAGE}, SHA-256 {WEIGHTS_SHA256}")
