"""Lets the generators and scores be imported where only torch, numpy and safetensors are: for machines lent for a measurement.

Import it before the package. Where pydantic is missing, a stand-in holds the few settings that latents carry, unchecked.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parent.parent)]  # a checkout need not be installed


class _Settings:
    """Keyword arguments as attributes, over the defaults of the class."""

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)


if importlib.util.find_spec("pydantic") is None:
    standin: Any = types.ModuleType("pydantic")
    standin.BaseModel, standin.ConfigDict, standin.Field = _Settings, dict, lambda default, **_: default
    sys.modules["pydantic"] = standin
