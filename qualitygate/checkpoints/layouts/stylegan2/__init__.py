"""StyleGAN2 as its four sources store it: they differ in names, and in what is scaled at run time (folded here)."""

from __future__ import annotations

from qualitygate.checkpoints.layouts.stylegan2 import genforce, nvidia, rosinality, tensorflow

LAYOUTS = (*genforce.LAYOUTS, *nvidia.LAYOUTS, *rosinality.LAYOUTS, *tensorflow.LAYOUTS)
