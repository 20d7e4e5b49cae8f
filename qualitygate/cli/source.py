"""Which generator a command reads: one argument and the options that go with it, the same for all commands."""

from __future__ import annotations

import functools
import inspect
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qualitygate.errors import InputError

if TYPE_CHECKING:
    from qualitygate.checkpoints.load import Checkpoint
    from qualitygate.generators.module import ModuleGenerator

_MODULE = "module:"
_MODULE_SETTINGS = ("label_size", "image_range", "latent_form", "label_form")
_SOURCE_HELP = (
    "The generator: a file, https://…#sha256=…, models:/name/version, models:/name@alias, runs:/run/path, "
    "hf://owner/name/file, or module:package.mod:function with --layers and --latent-size."
)


@dataclass(frozen=True)
class Source:
    """The generator that a command was given, not loaded yet."""

    checkpoint: Annotated[str, typer.Argument(help=_SOURCE_HELP, show_default=False)]
    sha256: Annotated[str | None, typer.Option(help="SHA-256 that the file must have.", metavar="HEX", show_default=False)] = None
    family: Annotated[str | None, typer.Option(help="Family; default: recognised.", show_default=False)] = None
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting that the file does not show; repeatable.", metavar="NAME=VALUE", show_default=False),
    ] = None
    layers: Annotated[
        str | None, typer.Option(help="Of module:…: names of its layers, with commas.", metavar="A,B,…", show_default=False)
    ] = None
    latent_size: Annotated[int | None, typer.Option(help="Of module:…: length of its latent.", show_default=False)] = None

    def load(self, device: str = "cpu", tracking_uri: str | None = None) -> Checkpoint | ModuleGenerator:
        """What the source stands for: a checkpoint, or the network that a function of the user's makes."""
        if self.checkpoint.startswith(_MODULE):
            return self._module(device)
        from qualitygate.checkpoints.load import load_checkpoint
        from qualitygate.cli import output

        if self.layers is not None or self.latent_size is not None:
            raise InputError("--layers and --latent-size are for module:… only", self.checkpoint, "a file without them: it shows both")
        with output.reporter().download() as progress:
            return load_checkpoint(
                self.checkpoint,
                device,
                sha256=self.sha256,
                family=self.family,
                settings=self._given(),
                tracking_uri=tracking_uri,
                progress=progress,
            )

    def _module(self, device: str) -> ModuleGenerator:
        from qualitygate.generators.module import module_generator

        if self.layers is None or self.latent_size is None or self.sha256 is not None or self.family is not None:
            raise InputError(
                f"{self.checkpoint} is not a file that shows what it is",
                "a function of yours",
                "--layers and --latent-size; no --sha256, no --family",
                "see `qualitygate inspect --help`",
            )
        if os.getcwd() not in sys.path:
            sys.path.insert(0, os.getcwd())  # as `python -m` does: a console script leaves it out
        given = self._given()
        if unknown := sorted(given.keys() - set(_MODULE_SETTINGS)):
            raise InputError("There is no such setting", ", ".join(unknown), f"one of {', '.join(_MODULE_SETTINGS)}")
        path, layers = self.checkpoint.removeprefix(_MODULE), self.layers.split(",")
        return module_generator(path, layers, self.latent_size, **given).to(device)

    def _given(self) -> dict[str, Any]:
        """The settings; values are JSON where they can be, else text."""
        given = {}
        for one in self.settings or ():
            name, equals, value = one.partition("=")
            if not equals:
                raise InputError("This is no setting", repr(one), "NAME=VALUE, for example --set conv_clamp=256")
            try:
                given[name] = json.loads(value)
            except ValueError:
                given[name] = value
        return given


def reads_generator(run: Callable[..., None]) -> Callable[..., None]:
    """Gives a command that has a parameter ``source: Source`` the argument and the options of it in its place.

    Where the parameter may be None the argument may be left out.
    """
    own = inspect.signature(run, eval_str=True)
    ours = inspect.signature(Source, eval_str=True).parameters
    names = [field.name for field in fields(Source)]

    @functools.wraps(run)
    def command(**given: Any) -> None:
        chosen = {name: given.pop(name) for name in names}
        run(source=None if chosen["checkpoint"] is None else Source(**chosen), **given)

    argument, *options = ours.values()
    if own.parameters["source"].default is None:
        argument = argument.replace(default=None)
    parameters = [argument, *(one for one in own.parameters.values() if one.name != "source"), *options]
    keyword = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in parameters]
    command.__signature__ = own.replace(parameters=keyword)  # type: ignore[attr-defined]
    command.__annotations__ = {one.name: one.annotation for one in keyword}
    return command
