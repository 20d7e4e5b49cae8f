"""DCGAN state dicts: a chain of 4×4 transposed convolutions with batch norms between them, whatever the modules are called."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor

from qualitygate.checkpoints.contents import TensorGroup
from qualitygate.checkpoints.layout import Built, DoesNotFit, Layout, Network
from qualitygate.generators.families.dcgan import DCGAN, DCGANDiscriminator

_BATCH_NORM_EPS = 1e-5  # torch's default; not stored in a state dict
_CHANNELS_MOST = 4  # of an image
_BATCH_NORM = {"weight", "bias", "running_mean", "running_var"}


def _generator(group: TensorGroup) -> Built[DCGAN]:
    convolutions, norms = _chain(_modules(group.tensors))
    weights = [module["weight"] for module in convolutions]
    if any(before.shape[1] != after.shape[0] for before, after in pairwise(weights)):
        raise DoesNotFit("outputs and inputs of the transposed convolutions do not meet")
    if weights[-1].shape[1] > _CHANNELS_MOST or norms[-1] is not None:
        raise DoesNotFit(f"the last convolution makes {weights[-1].shape[1]} units, which is not an image")
    with torch.device("meta"):
        generator = DCGAN(weights[0].shape[0], [weight.shape[1] for weight in weights[:-1]], weights[-1].shape[1])
    folded = [_folded(convolution, norm, 1) for convolution, norm in zip(convolutions, norms, strict=True)]
    return _built(generator, [(weight.permute(2, 3, 0, 1).contiguous(), bias) for weight, bias in folded], group)


def _discriminator(group: TensorGroup) -> Built[DCGANDiscriminator]:
    convolutions, norms = _chain(_modules(group.tensors))
    weights = [module["weight"] for module in convolutions]
    if any(before.shape[0] != after.shape[1] for before, after in pairwise(weights)):
        raise DoesNotFit("outputs and inputs of the convolutions do not meet")
    if weights[0].shape[1] > _CHANNELS_MOST or weights[-1].shape[0] != 1 or norms[-1] is not None:
        raise DoesNotFit(f"from {weights[0].shape[1]} channels to {weights[-1].shape[0]} values is no discriminator")
    with torch.device("meta"):
        discriminator = DCGANDiscriminator([weight.shape[0] for weight in weights[:-1]], weights[0].shape[1])
    folded = [_folded(convolution, norm, 0) for convolution, norm in zip(convolutions, norms, strict=True)]
    return _built(discriminator, folded, group)


def _built(network: Network, folded: list[tuple[Tensor, Tensor]], group: TensorGroup) -> Built[Network]:
    tensors = {f"weight.{index}": weight for index, (weight, _) in enumerate(folded)}
    tensors |= {f"bias.{index}": bias for index, (_, bias) in enumerate(folded)}
    return Built(network, tensors, tuple(name for name in group.tensors if name.endswith("num_batches_tracked")))


def _modules(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Tensors by name of their module, in the order of the module numbers (a file's own order means nothing)."""
    modules: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        module, _, attribute = name.rpartition(".")
        modules.setdefault(module, {})[attribute] = tensor
    return {name: modules[name] for name in sorted(modules, key=_by_number)}


def _by_number(name: str) -> list[tuple[int, int, str]]:
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in name.split(".")]


def _chain(modules: Mapping[str, dict[str, Tensor]]) -> tuple[list[dict[str, Tensor]], list[dict[str, Tensor] | None]]:
    """The convolutions and the batch norm after each (None where there is none), checked to be a DCGAN's."""
    convolutions: list[dict[str, Tensor]] = []
    norms: list[dict[str, Tensor] | None] = []
    for name, module in modules.items():
        weight = module.get("weight")
        if weight is not None and weight.ndim == 4:
            convolutions.append(module)
            norms.append(None)
        elif set(module) >= _BATCH_NORM and convolutions and norms[-1] is None:
            norms[-1] = module
        else:
            raise DoesNotFit(
                f"{name or 'the top level'}, with {', '.join(sorted(module))}, is neither a convolution nor a batch norm after one"
            )
    shapes = [tuple(module["weight"].shape) for module in convolutions]
    if len(shapes) < 2 or any(shape[2:] != (4, 4) for shape in shapes):
        raise DoesNotFit(f"kernels {shapes} are not a chain of 4×4 convolutions")
    return convolutions, norms


def _folded(convolution: Mapping[str, Tensor], norm: Mapping[str, Tensor] | None, units: int) -> tuple[Tensor, Tensor]:
    """Weight and bias of convolution and batch norm together; computed in float64, rounded once. ``units`` is the weight's dimension
    that counts the outputs."""
    weight = convolution["weight"].double()
    count = weight.shape[units]
    bias = convolution["bias"].double() if "bias" in convolution else weight.new_zeros(count)
    if norm is not None:
        if (shapes := {tuple(norm[name].shape) for name in _BATCH_NORM}) != {(count,)}:
            raise DoesNotFit(f"a batch norm of {sorted(shapes)} after a convolution of {count} units")
        scale = norm["weight"].double() / torch.sqrt(norm["running_var"].double() + _BATCH_NORM_EPS)
        weight = weight * (scale[None, :, None, None] if units == 1 else scale[:, None, None, None])
        bias = (bias - norm["running_mean"].double()) * scale + norm["bias"].double()
    return weight.float(), bias.float()


_WEIGHT, _MEAN = r"(.*\.)?weight", r"(.*\.)?running_mean"
LAYOUTS = (
    Layout("DCGAN", "dcgan", "generator", (_WEIGHT, _MEAN), _generator),
    Layout("DCGAN discriminator", "dcgan", "discriminator", (_WEIGHT,), _discriminator),
)
