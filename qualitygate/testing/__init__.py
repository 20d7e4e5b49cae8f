"""For the tests of plug-in authors and our own: toy generators worked out by hand, and the contract of a family as a check."""

from __future__ import annotations

from qualitygate.testing.checks import ContractError, check_generator
from qualitygate.testing.toys import ToyGenerator, random_toy

__all__ = ["ContractError", "ToyGenerator", "check_generator", "random_toy"]
