"""DCGAN state dicts: a chain of 4×4 transposed convolutions with batch norms between them, whatever the modules are called."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from qualitygate.checkpoints.contents import TensorGroup
from qualitygate.checkpoints.layout import Built, DoesNotFit, Layout, Network, declared
from qualitygate.generators.families.dcgan import DCGAN, DCGANDiscriminator

LAYOUTS: list[Layout] = []
_BATCH_NORM_EPS = 1e-5  # torch's default; not stored in a state dict
_CHANNELS_MOST = 4  # of an image
_BATCH_NORM = {"weight", "bias", "running_mean", "running_var"}
_Module = dict[str, Tensor]


@declared(LAYOUTS, "dcgan", "generator", "DCGAN", r"(.*\.)?weight (.*\.)?running_mean")
def _generator(group: TensorGroup) -> Built[DCGAN]:
    weights, folded, ends_in_norm = _chain(group, 1)
    if weights[-1].shape[1] > _CHANNELS_MOST or ends_in_norm:
        raise DoesNotFit(f"the last convolution makes {weights[-1].shape[1]} units, which is not an image")
    with torch.device("meta"):
        generator = DCGAN(weights[0].shape[0], [weight.shape[1] for weight in weights[:-1]], weights[-1].shape[1])
    return _built(generator, [(weight.permute(2, 3, 0, 1).contiguous(), bias) for weight, bias in folded], group)


@declared(LAYOUTS, "dcgan", "discriminator", "DCGAN discriminator", r"(.*\.)?weight")
def _discriminator(group: TensorGroup) -> Built[DCGANDiscriminator]:
    weights, folded, ends_in_norm = _chain(group, 0)
    if weights[0].shape[1] > _CHANNELS_MOST or weights[-1].shape[0] != 1 or ends_in_norm:
        raise DoesNotFit(f"from {weights[0].shape[1]} channels to {weights[-1].shape[0]} values is no discriminator")
    with torch.device("meta"):
        discriminator = DCGANDiscriminator([weight.shape[0] for weight in weights[:-1]], weights[0].shape[1])
    return _built(discriminator, folded, group)


def _built(network: Network, folded: list[tuple[Tensor, Tensor]], group: TensorGroup) -> Built[Network]:
    tensors = {f"weight.{index}": weight for index, (weight, _) in enumerate(folded)}
    tensors |= {f"bias.{index}": bias for index, (_, bias) in enumerate(folded)}
    return Built(network, tensors, tuple(name for name in group.tensors if name.endswith("num_batches_tracked")))


def _chain(group: TensorGroup, units: int) -> tuple[list[Tensor], list[tuple[Tensor, Tensor]], bool]:
    """The weights of the convolutions, checked to be a DCGAN's, weight and bias of each with its batch norm folded in, and whether the last
    has a norm.

    They stand in the order of the module numbers (a file's own order means nothing); dimension ``units`` of a weight counts its outputs.
    """
    modules: dict[str, _Module] = {}
    for name, tensor in group.tensors.items():
        module_name, _, attribute = name.rpartition(".")
        modules.setdefault(module_name, {})[attribute] = tensor
    by_number = {name: [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in name.split(".")] for name in modules}
    chain: list[tuple[_Module, _Module]] = []
    for name in sorted(modules, key=by_number.__getitem__):
        module = modules[name]
        if "weight" in module and module["weight"].ndim == 4:
            chain.append((module, {}))
        elif set(module) >= _BATCH_NORM and chain and not chain[-1][1]:
            chain[-1] = chain[-1][0], module
        else:
            raise DoesNotFit(
                f"{name or 'the top level'}, with {', '.join(sorted(module))}, is neither a convolution nor a batch norm after one"
            )
    weights = [convolution["weight"] for convolution, _ in chain]
    shapes = [tuple(weight.shape) for weight in weights]
    if len(shapes) < 2 or any(shape[2:] != (4, 4) for shape in shapes):
        raise DoesNotFit(f"kernels {shapes} are not a chain of 4×4 convolutions")
    if any(before.shape[units] != after.shape[1 - units] for before, after in pairwise(weights)):
        raise DoesNotFit(f"outputs and inputs of the {'transposed ' if units else ''}convolutions do not meet")
    return weights, [_folded(convolution, norm, units) for convolution, norm in chain], bool(chain[-1][1])


def _folded(convolution: _Module, norm: _Module, units: int) -> tuple[Tensor, Tensor]:
    """Weight and bias of convolution and batch norm together; computed in float64, rounded once."""
    weight = convolution["weight"].double()
    count = weight.shape[units]
    bias = convolution["bias"].double() if "bias" in convolution else weight.new_zeros(count)
    if norm:
        if (shapes := {tuple(norm[name].shape) for name in _BATCH_NORM}) != {(count,)}:
            raise DoesNotFit(f"a batch norm of {sorted(shapes)} after a convolution of {count} units")
        scale = norm["weight"].double() / torch.sqrt(norm["running_var"].double() + _BATCH_NORM_EPS)
        weight = weight * (scale[None, :, None, None] if units == 1 else scale[:, None, None, None])
        bias = (bias - norm["running_mean"].double()) * scale + norm["bias"].double()
    return weight.float(), bias.float()
