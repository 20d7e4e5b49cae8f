"""``qualitygate convert``: any checkpoint as our own safetensors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from qualitygate.cli import output
from qualitygate.cli.requests import command
from qualitygate.requests import FileRequest, Flag


class ConvertRequest(FileRequest):
    """What is written as what."""

    out: Annotated[Path, Flag(argument=True)] = Field(description="The file to write: ….safetensors; must not exist yet.")


@command(ConvertRequest)
def run(request: ConvertRequest) -> None:
    """Write a checkpoint as safetensors with family and settings in it: no pickle, and nothing left to recognise.

    It makes the same images bit for bit. A discriminator in the checkpoint is kept in the same file.
    """
    from qualitygate.checkpoints.save import check_new, save_generator
    from qualitygate.generators.base import Generator
    from qualitygate.storage import file_sha256

    check_new(request.out)
    loaded = request.load(output.reporter())
    generator, file = (loaded, None) if isinstance(loaded, Generator) else (loaded.generator, loaded)
    discriminator = None if file is None else file.discriminator
    save_generator(generator, request.out, discriminator=discriminator)
    document: dict[str, Any] = {
        "out": request.out,
        "sha256": file_sha256(request.out),
        "from": generator.identity().name,
        "from_sha256": generator.identity().sha256,
        "family": generator.family,
        "discriminator": discriminator is not None,
        "left_out": [] if file is None else list(file.ignored),
    }
    kept, left_out = "kept" if document["discriminator"] else "none in the file", ", ".join(document["left_out"]) or "nothing"
    rows = [("family", document["family"]), ("discriminator", kept), ("left out", left_out), ("SHA-256", document["sha256"])]
    output.result(document, [(f"{document['from']} written to {request.out}", ("", ""), rows)])
