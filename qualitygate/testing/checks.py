"""What every generator family promises, as a check that the author of a family can run in a test of theirs."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from qualitygate.generators.base import Generator, State, sample_latents
from qualitygate.latents import Latents

_SAMPLES = 5


class ContractError(AssertionError):
    """A generator does not keep a promise that scores, corrections and the gate rely on."""


def check_generator(generator: Generator, *, seed: int = 0, tolerance: float = 1e-4) -> None:
    """Check a generator family's contract on a few samples: shapes, operations, states, edits, batches.

    A fresh random generator is good enough, as long as no layer is dead: an edit of a layer that never fires cannot reach the image.

    Args:
        generator: in evaluation mode, of any weights.
        seed: of the samples.
        tolerance: largest absolute difference between images that should be the same.

    Raises:
        ContractError: says which promise is not kept, and where.
    """
    with torch.no_grad():
        latents = sample_latents(generator, range(_SAMPLES), seed)
        _check_declarations(generator)
        states = _check_chain(generator, latents)
        image = generator(latents)
        _require(
            image.shape == (_SAMPLES, *generator.image_shape), f"the image is {tuple(image.shape[1:])}, declared is {generator.image_shape}"
        )
        _require(bool(image.isfinite().all()), "the image is not finite")
        _require(float(image.abs().max()) <= 1.0, "the image leaves [-1, 1]")
        for state in states:
            _check_resume(generator, state, image, tolerance)
        for state in states[1:]:
            where = f"layer {state.layer}"
            edited = generator.resume(state.edited(torch.zeros_like(state.activation)))
            _require(not _close(edited, image, tolerance), f"an edit of {where} does not reach the image")
            through = generator(latents, {state.layer: torch.zeros_like})
            _require(_close(through, edited, tolerance), f"an edit of {where} on the way is not one made in between")
        for size in (1, 2, 3):
            parts = [generator(latents[start : start + size]) for start in range(0, _SAMPLES, size)]
            _require(_close(torch.cat(parts), image, tolerance), f"batches of {size} give other images")
        _require(_close(generator(latents.padded(_SAMPLES + 3))[:_SAMPLES], image, tolerance), "padding changes images")


def _check_declarations(generator: Generator) -> None:
    layers = generator.layers
    _require(bool(layers), "there are no layers")
    _require([layer.index for layer in layers] == list(range(len(layers))), "layers are not numbered from 0 in order")
    _require(len({layer.name for layer in layers}) == len(layers), "two layers have the same name")
    done = [0, *(layer.operations for layer in layers)]
    _require(all(before < after for before, after in pairwise(done)), f"operations do not rise: {done[1:]}")
    _require(generator.operations >= done[-1], "the whole generator has fewer operations than its layers")
    presets = generator.presets
    for index in (*presets.low_rate, *presets.curvature, presets.stop):
        _require(0 <= index < len(layers), f"the presets name layer {index}, which is not there")


def _check_chain(generator: Generator, latents: Latents) -> list[State]:
    """The state before and after every layer."""
    states = [generator.start(latents)]
    _require(states[0].layer == -1, f"begin returns a state of layer {states[0].layer}, not -1")
    for layer in generator.layers:
        before = _copied(states[-1])
        after = generator.advance(states[-1])
        _require(_same(before, states[-1]), f"advance changed the state it was given, before layer {layer.index}")
        expected = (len(latents), layer.units, layer.height, layer.width)
        _require(after.layer == layer.index, f"advance to layer {layer.index} returns a state of layer {after.layer}")
        _require(after.activation.shape == expected, f"layer {layer.index} is {tuple(after.activation.shape)}, declared is {expected}")
        _require(bool(after.activation.isfinite().all()), f"layer {layer.index} is not finite")
        states.append(after)
    return states


def _check_resume(generator: Generator, state: State, image: Tensor, tolerance: float) -> None:
    where = f"layer {state.layer}"
    kept = _copied(state)
    _require(_close(generator.resume(state), image, tolerance), f"going on from {where} gives another image")
    _require(_same(kept, state), f"going on from {where} changed the state")
    order = torch.tensor([3, 0, 4, 1, 2])
    picked = generator.resume(state.rows(order))
    _require(_close(picked, image[order], tolerance), f"rows of the state at {where} are not those samples")
    joined = State.concatenated([state.rows(order[:2]), state.rows(order[2:])])
    _require(_close(generator.resume(joined), image[order], tolerance), f"states joined at {where} give other images")


def _require(kept: bool, broken: str) -> None:
    if not kept:
        raise ContractError(broken)


def _close(ours: Tensor, theirs: Tensor, tolerance: float) -> bool:
    return bool((ours - theirs).abs().max() <= tolerance)


def _copied(state: State) -> State:
    carry: Any = tree_map_only(Tensor, torch.clone, state.carry)
    return State(state.layer, state.activation.clone(), carry)


def _same(before: State, after: State) -> bool:
    pairs = zip(tree_leaves((before.activation, before.carry)), tree_leaves((after.activation, after.carry)), strict=True)
    return all(torch.equal(a, b) if isinstance(a, Tensor) else a == b for a, b in pairs)
