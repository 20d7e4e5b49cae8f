"""One at a time at an alias of the registry, and no lock that outlives a crash.

MLflow has no compare-and-set: an alias is written whatever it was before. What its database does hold is that a registered model, once
created, is seen by everybody who looks afterwards. So against a server, whoever wants to move an alias creates a registered model with
a name of its own, its *claim*, and then looks for the claims of others at the same alias:

- **Alone, it holds the alias.** Of two claims one was stored first, and the owner of the other looks after that: two owners never both
  find themselves alone. Whoever finds another living claim deletes its own and tries again after a random while.
- **A claim is deleted by its own name only,** so that nobody ever deletes one but the one that was meant. With one name for all claims,
  to look at a dead one and to delete it would be two steps, between which it may have become a living one's.
- **A claim lives for `LEASE` seconds by the server's clock alone:** its creation is compared with that of the claim that looks at it.
  What a killed check left is passed over afterwards, and deleted by whoever comes next; nobody needs to do it by hand.
- **An owner acts within `HOLD` seconds by its own clock,** from before its claim was created, and looks right before it moves the alias
  whether its claim still stands. `LEASE` leaves room for the longest that the move itself may be on its way: a request with its retries.

What no lease can exclude: a process that is stopped for minutes between that last look and the move. The mover therefore reads the alias
again afterwards, as it also does because of people who move aliases by hand and ask nobody.

A local SQLite store needs none of this: a lock beside the file ends with its holder's process.
"""

from __future__ import annotations

import random
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from typing import TYPE_CHECKING

from qualitygate import names
from qualitygate.errors import TrackingError
from qualitygate.mlflow_client import sqlite_file

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import RegisteredModel

LEASE = 300.0  # seconds: `HOLD`, three requests of a minute each, and a minute for clocks of several servers
HOLD = 60.0  # seconds
PATIENCE = 60.0  # seconds to wait for others; a claim is held for about one
_EVERY = 0.5  # seconds between two tries, on average
_ABOUT = "A check moves an alias, and holds it by this entry meanwhile; it ends by itself, and is deleted in a moment or by the next check."


def file_lock(registry: str) -> AbstractContextManager[object]:
    """A lock beside a local store; nothing for a server."""
    from filelock import FileLock

    database = sqlite_file(registry)
    return nullcontext() if database is None else FileLock(f"{database}.promotion.lock", PATIENCE)


@contextmanager
def sole_mover(client: MlflowClient, registry: str, model: str, alias: str, run_id: str) -> Iterator[Callable[[], None]]:
    """Inside the ``with`` block no other check moves this alias of the registry at this address; ``run_id`` is the check's, for people who
    find a claim. It gives a function to call right before the move, which fails where the claim was lost meanwhile."""
    if sqlite_file(registry) is not None:
        with file_lock(registry):
            yield lambda: None
        return
    with claimed(client, claim_name(model, alias), run_id) as confirm:
        yield confirm


def claim_name(model: str, alias: str) -> str:
    """What the names of all claims to an alias begin with."""
    return f"{model}_{alias}_promotion"


@contextmanager
def claimed(client: MlflowClient, name: str, run_id: str) -> Iterator[Callable[[], None]]:
    """What `sole_mover` does against a server. See the module's text."""
    deadline = time.monotonic() + PATIENCE
    while True:
        began, mine = time.monotonic(), f"{name}_{uuid.uuid4().hex}"
        try:
            create_model(client, mine, {names.TAG_CLAIM: mine, names.TAG_CLAIMED_BY: run_id}, _ABOUT)
            others = _living_others(client, name, mine)
            if not others:
                yield partial(_confirm, client, mine, began)
                return
        finally:
            _delete(client, mine)
        if time.monotonic() > deadline:
            raise TrackingError(
                f"Another check holds the alias: the registered model {others[0].name} stands",
                f"made by run {others[0].tags.get(names.TAG_CLAIMED_BY, 'unknown')}",
                "a claim that is given back in a moment",
                f"check again; if that check was killed, its claim ends by itself {LEASE:.0f} seconds after it was made",
            )
        time.sleep(random.uniform(0.0, 2.0 * _EVERY))


def create_model(client: MlflowClient, name: str, tags: dict[str, str] | None = None, about: str | None = None) -> None:
    """A registered model; one that is there already, also from a request that was sent twice, is left as it is."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name, tags, about)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _living_others(client: MlflowClient, name: str, mine: str) -> list[RegisteredModel]:
    """The claims of others that may still be held, the dead ones being deleted."""
    claims = [
        one
        for one in client.search_registered_models(f"tags.`{names.TAG_CLAIM}` LIKE '%'", max_results=1000)
        if one.name == name or one.name.startswith(f"{name}_")  # the bare name is how claims were called once
    ]
    ours = [one for one in claims if one.name == mine]
    if not ours:
        raise TrackingError(f"The claim {mine} cannot be found again", "no such registered model", "a registry that holds what it took")
    living = []
    for one in claims:
        if (ours[0].creation_timestamp - one.creation_timestamp) / 1000 > LEASE:
            with suppress(Exception):  # another check may delete it at the same time; if it stays, it is passed over
                client.delete_registered_model(one.name)
        elif one.name != mine:
            living.append(one)
    return living


def _confirm(client: MlflowClient, mine: str, began: float) -> None:
    """Raises `TrackingError` unless the claim still stands, and is young enough that nobody passes it over before the move is done."""
    from mlflow.exceptions import MlflowException

    held = time.monotonic() - began
    lost = f"held for {held:.0f} seconds" if held > HOLD else None
    try:
        client.get_registered_model(mine)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        lost = f"no registered model {mine}"
    if lost is not None:
        raise TrackingError("The alias is not moved: the claim to it was lost", lost, f"a move within {HOLD:.0f} seconds", "check again")


def _delete(client: MlflowClient, name: str) -> None:
    """Delete a claim that may be gone. What was done under it is done: a failure is a warning."""
    try:
        client.delete_registered_model(name)
    except Exception as error:  # also of the server's transport
        if getattr(error, "error_code", None) != "RESOURCE_DOES_NOT_EXIST":
            warnings.warn(f"The registered model {name} could not be deleted, and blocks promotions for a while: {error}", stacklevel=2)
