"""What a command is asked for, as data: a model with a field for each option. The command line reads its options off the fields.

A request is plain: names, numbers, paths. So it can be written down, made from Python, and looked at without torch being loaded.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from qualitygate.errors import InputError
from qualitygate.records import GenerationPrecision

if TYPE_CHECKING:
    import torch

    from qualitygate.checkpoints.load import Checkpoint
    from qualitygate.features.extractor import Extractor
    from qualitygate.features.images import ImageSet
    from qualitygate.generators.base import Discriminator, Generator
    from qualitygate.generators.module import ModuleGenerator
    from qualitygate.generators.passes import Reporter
    from qualitygate.policy.model import Policy

DISCRIMINATOR = "discriminator"
"""In place of an extractor's name: what the checkpoint's own discriminator sees."""
_MODULE = "module:"
_MODULE_SETTINGS = ("label_size", "image_range", "latent_form", "label_form")


@dataclass(frozen=True)
class Flag:
    """How the command line writes a field, where that does not follow from the field's name and type."""

    name: str | None = None  # of the option; by default --field-name, with --no-field-name for a bool that is True by default
    metavar: str | None = None  # what stands for the value in --help
    argument: bool = False  # an argument, not an option


class Request(BaseModel):
    """Base of all requests. Fields say in ``description`` what ``--help`` shows, and in ``ge`` and ``le`` what is allowed."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class OnDevice(Request):
    device: str = Field("auto", description="Where to run: auto, cpu, cuda, cuda:1.")

    @property
    def chosen_device(self) -> str:
        """The device, ``auto`` resolved; an `InputError` where it is not there."""
        import torch

        if self.device == "auto":
            return "cuda" if torch.cuda.is_available() else "cpu"
        try:
            if torch.empty(0, device=self.device).device.type not in ("cpu", "cuda"):
                raise RuntimeError("scores are summed in float64, which not every device has")
        except (RuntimeError, AssertionError) as error:
            found, needed = str(error).splitlines()[0], "auto, cpu, or a CUDA GPU that torch sees"
            raise InputError(f"Cannot run on {self.device}", found, needed) from error
        return self.device


def is_module(address: str | None) -> bool:
    """Whether this names a function of the user's, not a file."""
    return address is not None and address.startswith(_MODULE)


class FileRequest(Request):
    """A request about a checkpoint as it is, on the CPU. It is not loaded yet."""

    checkpoint: Annotated[str, Flag(argument=True)] = Field(
        description="The generator: a file, https://…#sha256=…, models:/name/version, models:/name@alias, runs:/run/path, "
        "hf://owner/name/file, or module:package.mod:function with --layers and --latent-size."
    )
    sha256: Annotated[str | None, Flag(metavar="HEX")] = Field(None, description="SHA-256 that the file must have.")
    family: str | None = Field(None, description="Family; default: recognised.")
    settings: Annotated[tuple[str, ...] | None, Flag("--set", "NAME=VALUE")] = Field(
        None, description="A setting that the file does not show; repeatable."
    )
    layers: Annotated[str | None, Flag(metavar="A,B,…")] = Field(None, description="Of module:…: names of its layers, with commas.")
    latent_size: int | None = Field(None, description="Of module:…: length of its latent.")

    def load(self, reporter: Reporter | None = None) -> Checkpoint | ModuleGenerator:
        """What was given, loaded: a checkpoint, or the network that a function of the user's makes."""
        if is_module(self.checkpoint):
            return self._module()
        from qualitygate.checkpoints.load import load_checkpoint
        from qualitygate.generators.passes import Reporter

        if self.layers is not None or self.latent_size is not None:
            raise InputError("--layers and --latent-size are for module:… only", self.checkpoint, "a file without them: it shows both")
        with (reporter or Reporter()).download() as progress:
            return load_checkpoint(
                self.checkpoint,
                self._where,
                sha256=self.sha256,
                family=self.family,
                settings=self._given(),
                tracking_uri=getattr(self, "tracking_uri", None),
                progress=progress,
            )

    def load_both(self, reporter: Reporter | None = None) -> tuple[Generator, Discriminator | None]:
        """The generator, and the discriminator that is stored beside it, if there is one."""
        from qualitygate.generators.base import Generator

        loaded = self.load(reporter)
        return (loaded, None) if isinstance(loaded, Generator) else (loaded.generator, loaded.discriminator)

    @property
    def _where(self) -> str:
        return "cpu"

    def _module(self) -> ModuleGenerator:
        from qualitygate.generators.module import module_generator

        if self.layers is None or self.latent_size is None or self.sha256 is not None or self.family is not None:
            needed, remedy = "--layers and --latent-size; no --sha256, no --family", "see `qualitygate inspect --help`"
            raise InputError(f"{self.checkpoint} is not a file that shows what it is", "a function of yours", needed, remedy)
        if os.getcwd() not in sys.path:
            sys.path.insert(0, os.getcwd())  # as `python -m` does: a console script leaves it out
        given = self._given()
        if unknown := sorted(given.keys() - set(_MODULE_SETTINGS)):
            raise InputError("There is no such setting", ", ".join(unknown), f"one of {', '.join(_MODULE_SETTINGS)}")
        return module_generator(self.checkpoint.removeprefix(_MODULE), self.layers.split(","), self.latent_size, **given).to(self._where)

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


class GeneratorRequest(OnDevice, FileRequest):
    """A request that runs a generator."""

    precision: GenerationPrecision = Field("float32", description="Numbers in which images are made; a profile holds for one of them.")

    def load_both(self, reporter: Reporter | None = None) -> tuple[Generator, Discriminator | None]:
        generator, discriminator = super().load_both(reporter)
        return generator.at(self.precision), discriminator

    @property
    def _where(self) -> str:
        return self.chosen_device


class WithPolicy(Request):
    policy: Path | None = Field(None, description="Policy in YAML; default: the profile's, or the family's.")

    def load_policy(self) -> Policy | None:
        """The policy of the file, or None where none was given."""
        from qualitygate.policy.model import load_policy

        return None if self.policy is None else load_policy(self.policy)


class WithTracking(Request):
    track: bool = Field(True, description="Log to MLflow. Never changes a verdict.")
    tracking_uri: str | None = Field(None, description="MLflow tracking URI; default: MLFLOW_TRACKING_URI, else sqlite:///mlflow.db.")
    experiment: str = Field("qualitygate", description="MLflow experiment.")


class WithReal(Request):
    real: str | None = Field(None, description="Real images: a folder, .zip, .tar, .parquet, .npz, or `digits` (scikit-learn's).")

    def load_real(self, size: int) -> ImageSet | None:
        """The real images at the generator's size, or None where none were given."""
        from qualitygate.features.images import real_images

        return None if self.real is None else real_images(self.real, size)


class WithExtractor(Request):
    extractor: str = Field(
        "random-vgg16-32",
        description="Feature extractor: random-vgg16-SIZE, inception, vgg16, dinov2 (these need --weights), discriminator, module:….",
    )
    weights: str | None = Field(None, description="Weights of the extractor: a file, or https://…#sha256=….")

    def load_extractor(self, discriminator: Discriminator | None, device: str | torch.device) -> Extractor:
        """The extractor of the name, or what the checkpoint's own discriminator sees."""
        from qualitygate.features.registry import make_extractor

        return make_extractor(self.extractor, weights=self.weights, device=device, discriminator=discriminator)
