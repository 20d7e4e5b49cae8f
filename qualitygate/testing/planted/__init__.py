"""Planted defects: a generator whose defective samples, units and pixels are known exactly, with no labels.

Take any generator, plant a defect in it, and see what a score, a unit ranking or a correction makes of it:

    >>> planted = plant(generator, Defect(layer="4x4", units=10, share=0.01, mark="stripes"), seed=1)
    >>> broken = planted.truth.defective(latents)     # bool (N,)
    >>> images = planted.generator(latents)           # with stripes where `broken`
    >>> repaired = planted.truth.repaired(latents)    # without
"""

from qualitygate.generators.latent_region import Region
from qualitygate.generators.planted import PlantedGenerator, Planting
from qualitygate.testing.planted.plant import Defect, Planted, plant
from qualitygate.testing.planted.store import load_planted, save_planted
from qualitygate.testing.planted.truth import Truth

__all__ = ["Defect", "Planted", "PlantedGenerator", "Planting", "Region", "Truth", "load_planted", "plant", "save_planted"]
