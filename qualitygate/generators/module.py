"""Any network as a generator, by the names of its layers. The only file that uses hooks.

A network that we did not write cannot be cut between two layers. It is run from the start instead: outputs that are known already are
put in as it goes, and the pass is left as soon as the wanted layer has been reached. Going on from a layer therefore costs everything
before it once more; running through with edits, or up to a layer, costs one pass however many layers are listed.
"""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from qualitygate.errors import InputError, LayerError, QualityGateError
from qualitygate.generators.base import Edits, Generator, Layer, Presets, State
from qualitygate.latents import Latents, draw_latents

LatentForm = Literal["vector", "map"]
"""How the network wants z: ``"vector"`` (N, D) or ``"map"`` (N, D, 1, 1)."""


class ModuleGenerator(Generator):
    """A network called as ``module(z)`` or ``module(z, labels)``, presented as a chain of some of its layers.

    The layers are put in order of execution by one pass over a seeded latent, which also shows their shapes and operations (of matrix
    products and convolutions). A listed layer must run exactly once in a pass and return a tensor (N, units, height, width); name the
    nonlinearity, as scores are defined after it. The network always runs in evaluation mode and is left in the mode it was in. Two
    threads must not share a network, as hooks are the network's own.

    The presets, in want of a paper: all listed layers for low-rate neurons, the first for local activation, the last to stop at.

    Args:
        module: the network.
        layers: names of submodules as in ``module.named_modules()``, e.g. ``["main.2", "main.5"]``.
        latent_size: D.
        label_size: number of classes; 0 for ``module(z)``.
        image_range: values of the network's images that are black and white; brought to (-1, 1).
        latent_form: how the network wants z; tried out if None, maps first (a vector where a map is meant often passes, wrongly broadcast;
            the reverse does not).
        label_form: how it wants labels: ``"classes"`` (N,) int64, or ``"vectors"`` (N, label size) float32.

    Raises:
        LayerError: a name that the network does not have, or a layer that does not run once or returns no activation.
        InputError: the network cannot be called in this way, or does not return images.
    """

    family = "module"

    def __init__(
        self,
        module: nn.Module,
        layers: Sequence[str],
        latent_size: int,
        label_size: int = 0,
        image_range: tuple[float, float] = (-1.0, 1.0),
        latent_form: LatentForm | None = None,
        label_form: Literal["classes", "vectors"] = "classes",
    ) -> None:
        super().__init__()
        if not image_range[0] < image_range[1]:
            raise InputError("The image range is empty", str(tuple(image_range)), "black below white, e.g. (0, 1)")
        self.module = module
        self.latent_size, self.label_size = latent_size, label_size
        self._range, self._label_form = image_range, label_form
        have = dict(module.named_modules())
        if not layers or len({have.get(name, name) for name in layers}) != len(layers):
            raise LayerError("The layers must be different ones", ", ".join(layers) or "an empty list", "at least one, each once")
        if missing := [name for name in layers if name not in have or not name]:
            listed = ", ".join(name for name in have if name)
            raise LayerError("The network has no such layer", ", ".join(map(repr, missing)), f"one of {listed}")
        targets = {name: have[name] for name in layers}
        self._latent_form = self._probe(targets, (latent_form,) if latent_form else ("map", "vector"))
        self._targets = [targets[layer.name] for layer in self.layers]
        last = len(self.layers) - 1
        self.presets = Presets(low_rate=tuple(range(last + 1)), curvature=(0,), stop=last)
        # a description: unlike other families', these cannot build the generator again
        self.settings = {
            "network": f"{type(module).__module__}.{type(module).__qualname__}",
            "layers": [layer.name for layer in self.layers],
            "latent_size": latent_size,
            "label_size": label_size,
            "image_range": list(image_range),
            "latent_form": self._latent_form,
            "label_form": label_form,
        }

    @property
    def device(self) -> torch.device:
        tensor = next(itertools.chain(self.parameters(), self.buffers()), None)
        return torch.device("cpu") if tensor is None else tensor.device

    def begin(self, latents: Latents) -> State:
        inputs = self._inputs(latents, self._latent_form)
        return State(-1, latents.z[:, :, None, None], (inputs, ()))

    def advance(self, state: State) -> State:
        return next(self.states(state, state.layer + 1))

    def states(self, state: State, upto: int | None = None, edits: Edits | None = None) -> Iterator[State]:
        """As for every generator, in one pass of the network for all of them."""
        last = self.layers[-1].index if upto is None else upto
        if state.layer >= last:
            return
        outputs, _ = self._pass(state, edits or {}, last)
        for index in range(state.layer + 1, last + 1):
            yield State(index, outputs[index], (state.carry[0], tuple(outputs[:index])))

    def resume(self, state: State, edits: Edits | None = None) -> Tensor:
        """As for every generator, in one pass of the network."""
        return self._images(state, edits or {}).clamp(-1.0, 1.0)

    def finish(self, state: State) -> Tensor:
        return self._images(state, {})

    def _images(self, state: State, edits: Edits) -> Tensor:
        _, returned = self._pass(state, edits)
        (low, high), images = self._range, returned.float()
        return images if (low, high) == (-1.0, 1.0) else (images - low) * (2.0 / (high - low)) - 1.0

    def _pass(self, state: State, edits: Edits, last: int | None = None) -> tuple[list[Tensor], Any]:
        """Outputs of all layers up to ``last``, edited where they are new, and what the network returned (nothing if left at ``last``).

        Everything kept is a copy of what the network goes on with, since it may well change that in place.
        """
        inputs, before = state.carry
        known = before if state.layer < 0 else (*before, state.activation)
        names = [layer.name for layer in self.layers]
        outputs: list[Tensor] = []

        def follow(index: int, output: Tensor) -> Tensor:
            if index != len(outputs):
                raise _not_once(names[index], f"it ran when {len(outputs)} of the listed layers had run, not {index}")
            output = known[index] if index < len(known) else output.clone()
            if index in edits and index >= len(known):
                output = State(index, output).edited(edits[index](output)).activation
            outputs.append(output)
            if index == last:
                raise _Reached
            return output.clone()

        returned = None
        with _followed(self.module, self._targets, follow), suppress(_Reached):
            returned = self.module(*inputs)
        if len(outputs) < (len(names) if last is None else last + 1):
            raise _not_once(names[len(outputs)], "it did not run in this pass")
        for name, output in zip(names, outputs, strict=False):
            self.tap(f"activation/{name}", output)
        return outputs, returned

    def _inputs(self, latents: Latents, form: LatentForm) -> tuple[Tensor, ...]:
        z = latents.z if form == "vector" else latents.z[:, :, None, None]
        if not self.label_size:
            return (z,)
        assert latents.labels is not None, "latents of a conditional generator were checked to have labels"
        return (z, self.label_vectors(latents) if self._label_form == "vectors" else latents.labels)

    def _probe(self, targets: Mapping[str, nn.Module], forms: Sequence[LatentForm]) -> LatentForm:
        """The first way to give z that the network understands; a pass over one sample shows layers, operations and image shape."""
        latents = draw_latents(range(1), 0, self.latent_size, label_size=self.label_size).to(self.device)
        failures = []
        for form in forms:
            inputs = self._inputs(latents, form)
            try:
                self._describe(targets, inputs)
                return form
            except QualityGateError:
                raise
            except Exception as failure:  # whatever someone else's network may raise
                shapes = ", ".join(str(tuple(tensor.shape)) for tensor in inputs)
                failures.append(f"called with {shapes}: {type(failure).__name__}: {failure}")
        raise InputError(
            f"The network {type(self.module).__name__} could not be run",
            "; ".join(failures),
            f"module(z{', labels' if self.label_size else ''}) with z of {self.latent_size} numbers a sample",
            "check the latent size and the number of classes, or wrap the network in a module that takes such inputs",
        )

    def _describe(self, targets: Mapping[str, nn.Module], inputs: Sequence[Tensor]) -> None:
        """Sets layers, operations and image shape: what one pass over one sample shows."""
        names = list(targets)
        layers: dict[str, Layer] = {}
        counter = FlopCounterMode(display=False)

        def heard(index: int, output: Any) -> None:
            name = names[index]
            if name in layers:
                raise _not_once(name, "it ran twice in one pass")
            if not isinstance(output, Tensor) or output.ndim != 4:
                raise LayerError(f"Layer {name!r} has no activation", _described(output), "a tensor (N, units, height, width)")
            units, height, width = output.shape[1:]
            layers[name] = Layer(len(layers), name, units, height, width, counter.get_total_flops())

        with torch.no_grad(), _followed(self.module, list(targets.values()), heard), counter:
            images = self.module(*inputs)
        if silent := [name for name in names if name not in layers]:
            raise _not_once(silent[0], "it did not run")
        if not isinstance(images, Tensor) or images.ndim != 4 or len(images) != 1:
            raise ValueError(f"it returned {_described(images)}, not images (1, channels, height, width)")
        self.layers, self.operations = tuple(layers.values()), counter.get_total_flops()
        channels, height, width = images.shape[1:]
        self.image_shape = (channels, height, width)


def module_generator(import_path: str, layers: Sequence[str], latent_size: int, **options: Any) -> ModuleGenerator:
    """A `ModuleGenerator` of the network, weights loaded, that the callable ``"package.module:name"`` returns.

    The code named is imported and called: the path must come from the user, never from a checkpoint. Raises `InputError` if there is no
    such module or name, or it does not make a network.
    """
    needed = "package.module:name of a callable that returns a torch.nn.Module"
    factory = import_object(import_path, needed)
    if isinstance(factory, nn.Module) or not callable(factory):
        raise InputError(f"{import_path} is not a function that makes a network", f"a {type(factory).__name__}", needed)
    module = factory()
    if not isinstance(module, nn.Module):
        raise InputError(f"{import_path} did not make a network", f"a {type(module).__name__}", needed)
    return ModuleGenerator(module, layers, latent_size, **options)


def import_object(path: str, needed: str) -> Any:
    """What stands at ``package.module:name``; the module is imported, which runs its code. Raises `InputError` if nothing is there, which
    says what was ``needed``."""
    place, _, name = path.partition(":")
    if not place or not name:
        raise InputError("This is not an import path", repr(path), needed)
    try:
        found: Any = importlib.import_module(place)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        remedy = "check the name; the package must be installed, or its folder in PYTHONPATH"
        raise InputError(f"Cannot import {path}", str(error), needed, remedy) from error
    return found


def is_somebody_elses(generator: Generator) -> bool:
    """Whether images depend on code that neither identity nor fingerprint knows: nothing made with it is good after an edit."""
    return generator.family == ModuleGenerator.family


# hooks


class _Reached(BaseException):
    """Ends a pass at the wanted layer. Not an error, and not for a network's own ``except Exception`` to catch."""


@contextmanager
def _followed(module: nn.Module, targets: Sequence[nn.Module], heard: Callable[[int, Any], Tensor | None]) -> Iterator[None]:
    """While open, the network is in evaluation mode, and ``heard(index, output)`` is called after each target and may return another output
    in its place. Afterwards no hook is left, and every submodule is in the mode it was in."""
    training, handles = [part for part in module.modules() if part.training], []
    module.eval()
    try:
        for index, target in enumerate(targets):
            handles.append(target.register_forward_hook(lambda _, __, output, index=index: heard(index, output)))
        yield
    finally:
        for handle in handles:
            handle.remove()
        for part in training:
            part.training = True


def _not_once(name: str, found: str) -> LayerError:
    needed, remedy = "a layer that runs exactly once in every pass", "list another layer, or wrap the network"
    return LayerError(f"Layer {name!r} cannot be followed", found, needed, remedy)


def _described(value: Any) -> str:
    return f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
