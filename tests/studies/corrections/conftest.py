"""The small DCGAN with its profile that the gate is tested on."""

from gating.conftest import generator, profile

__all__ = ["generator", "profile"]
