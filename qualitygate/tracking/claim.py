"""One at a time at an alias of the registry.

MLflow has no compare-and-set: an alias is written whatever it was before. What its database does hold is that no two registered models
have one name. So against a server, whoever moves an alias first creates a registered model that is named after it, the claim, and
deletes it afterwards; of two at once only one can. A lock of files would do nothing there: the other check runs on another machine.

A claim whose holder was killed within that second stays. Nobody takes it away by its age: to look and to delete are two steps, and
between them it may have become a living one's. The alias keeps standing where it is, and the error names what to delete.

A local SQLite store needs none of this: a lock beside the file ends with its holder's process.
"""

from __future__ import annotations

import time
import uuid
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

from qualitygate.errors import TrackingError
from qualitygate.tracking.store import sqlite_file

if TYPE_CHECKING:
    from mlflow import MlflowClient

CLAIM = "qualitygate.claim"
CLAIMED_BY = "qualitygate.claimed_by"
PATIENCE = 60.0  # seconds; a claim is held for about one
_EVERY = 0.5  # seconds
_ABOUT = "A check moves an alias, and holds this name meanwhile. It is deleted in a moment; if not, its process was killed: delete it."


def file_lock(registry: str) -> AbstractContextManager[object]:
    """A lock beside a local store; nothing for a server."""
    from filelock import FileLock

    database = sqlite_file(registry)
    return nullcontext() if database is None else FileLock(f"{database}.promotion.lock", PATIENCE)


def sole_mover(client: MlflowClient, registry: str, model: str, alias: str, run_id: str) -> AbstractContextManager[object]:
    """Inside the ``with`` block no other check moves this alias.

    Args:
        client: of the registry.
        registry: its address.
        model: registered model.
        alias: of the model.
        run_id: of the check, for people who find a claim.

    Raises:
        TrackingError: another check holds it for longer than a move takes.
    """
    if sqlite_file(registry) is not None:
        return file_lock(registry)
    return _claim(client, claim_name(model, alias), run_id)


def claim_name(model: str, alias: str) -> str:
    """The registered model that is the claim."""
    return f"{model}_{alias}_promotion"


@contextmanager
def _claim(client: MlflowClient, name: str, run_id: str) -> Iterator[None]:
    mine = {CLAIM: uuid.uuid4().hex, CLAIMED_BY: run_id}
    deadline = time.monotonic() + PATIENCE
    try:
        while (found := _standing(client, name, mine)).get(CLAIM) != mine[CLAIM]:
            if time.monotonic() > deadline:
                raise TrackingError(
                    f"Another check holds the alias: the registered model {name} stands",
                    f"made by run {found.get(CLAIMED_BY, 'unknown')}",
                    "a claim that is given back in a moment",
                    f"if that check was killed, delete the registered model {name}; then check again",
                )
            time.sleep(_EVERY)
        yield
    finally:
        _give_back(client, name, mine[CLAIM])


def _standing(client: MlflowClient, name: str, mine: dict[str, str]) -> Mapping[str, str]:
    """The tags of the claim that stands after ours was asked for. A request that was sent twice finds that it stands already."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name, mine, _ABOUT)
        return mine
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    return _tags(client, name)


def _tags(client: MlflowClient, name: str) -> Mapping[str, str]:
    """The tags of a registered model; none if there is no such model."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_registered_model(name).tags
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return {}


def _give_back(client: MlflowClient, name: str, claim: str) -> None:
    """Delete our claim, and no other's. What was done under it is done: a failure is a warning."""
    try:
        if _tags(client, name).get(CLAIM) == claim:
            client.delete_registered_model(name)
    except Exception as error:  # also of the server's transport
        warnings.warn(f"The registered model {name} could not be deleted, and blocks promotions until it is: {error}", stacklevel=2)
