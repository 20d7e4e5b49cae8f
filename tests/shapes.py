"""The shapes that docstrings say, held wherever a test calls what is public: of what comes in, once it was taken, and of what goes out."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

IMAGES, NEURONS, Z = "N channels height width", "units height width", {"z": "N D"}
TAKEN: dict[str, Any] = {"latents": Z, "rates": {"counts": NEURONS}, "scores": "units", "masks": "N * *"}
MADE: dict[str, Any] = {
    "generators.base:Generator.forward": IMAGES,
    "generators.base:Generator.images": IMAGES,
    "generators.base:Generator.image_batches": (None, IMAGES),
    "generators.base:Generator.activations": (None, None, f"N {NEURONS}"),
    "generators.styles:StyleGenerator.styles": "N size",
    "generators.base:sample_latents": Z,
    "latents:load_latents": {"z": "N *"},
    "scores.low_rate:activation_rates": {"counts": NEURONS},
    "scores.low_rate:low_rate_counts": "N layers",
    "scores.low_rate:low_rate_heatmap": "N height width",
    "scores.local_activation:local_activation": {"curvature": f"N {NEURONS}", "activation": f"N {NEURONS}", "score": "N"},
    "corrections.ablation:sequential_ablation": IMAGES,
    "corrections.attenuation:sequential_correction": IMAGES,
    "corrections.local_region:local_region_correction": IMAGES,
    "gating.stage:gate": (None, "channels height width"),
}
"""Arguments by the name that they have everywhere, and results: a tensor or one for each layer, by attribute, or last in the tuples that an
iterator gives. A size of no known value may be any."""


def compare(what: str, shape: Any, value: Any, sizes: Mapping[str, Any]) -> None:
    if isinstance(shape, dict):
        for name, inner in shape.items():
            compare(f"{what}.{name}", inner, getattr(value, name, value), sizes)
    elif isinstance(shape, tuple):
        rows, layer, *_ = value
        sizes = {**sizes, "N": rows.stop - rows.start} if isinstance(rows, slice) else sizes
        compare(what, shape[-1], {layer: value[-1]} if isinstance(layer, int) else value[-1], sizes)
    elif isinstance(value, Mapping):
        for layer, one in value.items():
            compare(f"{what} of layer {layer}", shape, one, {**sizes, **vars(sizes["chain"][layer])})
    elif value is not None:
        found, names = tuple(value.shape), shape.split()
        wanted = tuple(sizes.get(name, at) for name, at in zip(names, (*found, *names), strict=False))
        assert found == wanted, f"{what} is {found}, not ({', '.join(names)}) = {wanted}"


def checked(function: Callable[..., Any], shape: Any) -> Callable[..., Any]:
    """The function, with a look at what it took and at what it made, all or one after the other."""
    signature, name = inspect.signature(function), function.__qualname__

    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        made = function(*args, **options)
        given = signature.bind(*args, **options).arguments
        latents, generator = given.get("latents", given.get("ids", made)), given.get("self", given.get("generator"))
        sizes: dict[str, Any] = {"N": len(latents)} if hasattr(latents, "__len__") else {}
        if generator is not None:
            sizes |= dict(zip(("channels", "height", "width"), generator.image_shape, strict=True))
            sizes |= {"chain": generator.layers, "size": generator.mapping.size if hasattr(generator, "mapping") else None}
            sizes["D"] = sizes["size"] if getattr(latents, "space", "z") == "w" else generator.latent_size
        for argument in TAKEN.keys() & given.keys():
            compare(f"{name}: {argument}", TAKEN[argument], given[argument], sizes)
        if isinstance(made, Iterator):
            return (compare(name, shape, item, sizes) or item for item in made)
        compare(name, shape, made, sizes)
        return made

    return call
