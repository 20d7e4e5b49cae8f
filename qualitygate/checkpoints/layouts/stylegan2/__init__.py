"""StyleGAN2 as its four sources store it. They differ in names, in what is scaled at run time, and in details that are folded here."""

from __future__ import annotations

from qualitygate.checkpoints.layouts.stylegan2 import genforce, nvidia, rosinality, tensorflow

LAYOUTS = (*genforce.LAYOUTS, *nvidia.LAYOUTS, *rosinality.LAYOUTS, *tensorflow.LAYOUTS)
