"""Brings the family ``rings`` to qualitygate, with the one way in which it is stored."""

from qualitygate_rings.family import Rings
from qualitygate_rings.layout import LAYOUT

generators = (Rings,)
layouts = (LAYOUT,)
