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


@declared(LAYOUTS, "dcgan", "generator", "DCGAN", r"(.*\.)?weight", r"(.*\.)?running_mean")
def _generator(group: TensorGroup) -> Built[DCGAN]:
    chain = _chain(group)
    weights = [convolution["weight"] for convolution, _ in chain]
    if any(before.shape[1] != after.shape[0] for before, after in pairwise(weights)):
        raise DoesNotFit("outputs and inputs of the transposed convolutions do not meet")
    if weights[-1].shape[1] > _CHANNELS_MOST or chain[-1][1]:
        raise DoesNotFit(f"the last convolution makes {weights[-1].shape[1]} units, which is not an image")
    with torch.device("meta"):
        generator = DCGAN(weights[0].shape[0], [weight.shape[1] for weight in weights[:-1]], weights[-1].shape[1])
    folded = (_folded(convolution, norm, 1) for convolution, norm in chain)
    return _built(generator, [(weight.permute(2, 3, 0, 1).contiguous(), bias) for weight, bias in folded], group)


@declared(LAYOUTS, "dcgan", "discriminator", "DCGAN discriminator", r"(.*\.)?weight")
def _discriminator(group: TensorGroup) -> Built[DCGANDiscriminator]:
    chain = _chain(group)
    weights = [convolution["weight"] for convolution, _ in chain]
    if any(before.shape[0] != after.shape[1] for before, after in pairwise(weights)):
        raise DoesNotFit("outputs and inputs of the convolutions do not meet")
    if weights[0].shape[1] > _CHANNELS_MOST or weights[-1].shape[0] != 1 or chain[-1][1]:
        raise DoesNotFit(f"from {weights[0].shape[1]} channels to {weights[-1].shape[0]} values is no discriminator")
    with torch.device("meta"):
        discriminator = DCGANDiscriminator([weight.shape[0] for weight in weights[:-1]], weights[0].shape[1])
    return _built(discriminator, [_folded(convolution, norm, 0) for convolution, norm in chain], group)


def _built(network: Network, folded: list[tuple[Tensor, Tensor]], group: TensorGroup) -> Built[Network]:
    tensors = {f"weight.{index}": weight for index, (weight, _) in enumerate(folded)}
    tensors |= {f"bias.{index}": bias for index, (_, bias) in enumerate(folded)}
    return Built(network, tensors, tuple(name for name in group.tensors if name.endswith("num_batches_tracked")))


def _chain(group: TensorGroup) -> list[tuple[_Module, _Module]]:
    """The convolutions and the batch norm after each (empty where there is none), checked to be a DCGAN's, in the order of the module
    numbers (a file's own order means nothing)."""
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
    shapes = [tuple(convolution["weight"].shape) for convolution, _ in chain]
    if len(shapes) < 2 or any(shape[2:] != (4, 4) for shape in shapes):
        raise DoesNotFit(f"kernels {shapes} are not a chain of 4×4 convolutions")
    return chain


def _folded(convolution: _Module, norm: _Module, units: int) -> tuple[Tensor, Tensor]:
    """Weight and bias of convolution and batch norm together; computed in float64, rounded once. ``units`` is the weight's dimension
    that counts the outputs."""
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
