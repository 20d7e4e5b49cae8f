"""The checkpoint that stands now: the version of a registered model with the alias ``champion``, and what its last gate measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qualitygate.tracking.describe import CHECKPOINT

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

ALIAS = "champion"
_MODELS = "models:/"


@dataclass(frozen=True)
class Champion:
    """A registered model's champion.

    Attributes:
        name: of the registered model.
        version: the one with the alias.
        metrics: the newest of its logged model, by name.
    """

    name: str
    version: str
    metrics: Mapping[str, float]


def find_champion(client: MlflowClient, family: str, sha256: str) -> Champion | None:
    """The champion of this family, if there is exactly one and it is another checkpoint; anything else would be a guess."""
    found = [
        (model.name, str(version), logged)
        for model in client.search_registered_models()
        if (version := model.aliases.get(ALIAS)) is not None
        and (logged := _logged_model(client, model.name, str(version))) is not None
        and logged.params.get("family") == family
    ]
    if len(found) != 1 or found[0][2].tags.get(CHECKPOINT) == sha256:
        return None
    name, version, logged = found[0]
    newest = sorted(logged.metrics or [], key=lambda metric: metric.timestamp)
    return Champion(name, version, {metric.key: metric.value for metric in newest})


def _logged_model(client: MlflowClient, name: str, version: str) -> LoggedModel | None:
    """The logged model that a version was made from; None if it was made from a file."""
    source = client.get_model_version(name, version).source or ""
    return client.get_logged_model(source.removeprefix(_MODELS)) if source.startswith(f"{_MODELS}m-") else None
