"""Errors and reason codes. Every error a user can meet says what is wrong, what was found, what was needed and what to do about it. The
class decides the exit code of the command line: 2 where the input is at fault, 3 where something outside or inside broke."""

from __future__ import annotations

import re
from enum import StrEnum

_USER = re.compile(r"(?<=://)[^/?#\s]*@")


def public(text: str) -> str:
    """An address, or a text with addresses in it, without user and password: ``postgresql://***@host/mlflow``."""
    return _USER.sub("***@", text)


class QualityGateError(Exception):
    """Base of all errors raised on purpose. All arguments are positional-compatible, so errors survive pickling between workers."""

    exit_code = 3

    def __init__(self, what: str, found: str | None = None, needed: str | None = None, remedy: str | None = None) -> None:
        super().__init__(what, found, needed, remedy)
        self.what, self.found, self.needed, self.remedy = what, found, needed, remedy

    def __str__(self) -> str:
        parts = [self.what]
        for label, text in (("found", self.found), ("needed", self.needed), ("what to do", self.remedy)):
            if text:
                parts.append(f"  {label}: {text}")
        return "\n".join(parts)


class InputError(QualityGateError):
    """Something the user gave cannot be used."""

    exit_code = 2


class CheckpointError(InputError):
    """A checkpoint file that cannot be read, or whose contents are not a generator we know."""


class UnsafeCheckpointError(CheckpointError):
    """A checkpoint that would have to run code to be read. Nothing of it was run."""


class LayerError(InputError):
    """A layer that the generator does not have."""


class LatentsError(InputError):
    """Latents that do not fit the generator, or are not finite."""


class PolicyError(InputError):
    """A policy that cannot be understood or cannot be met."""


class ProfileError(InputError):
    """A profile that is unreadable, incomplete, or belongs to something else."""


class OutputError(InputError):
    """An output place that must not be written to."""


class MissingExtraError(InputError):
    """A command that needs an optional dependency which is not installed."""


class PluginError(QualityGateError):
    """An installed package brings families, and is broken."""


class StorageError(QualityGateError):
    """Writing failed: no space, no permission, a store that is gone."""


class WorkerError(QualityGateError):
    """Workers died, or a cluster has not what was asked of it."""


class TrackingError(QualityGateError):
    """MLflow could not be reached or refused. Never changes a verdict."""


class SuiteError(QualityGateError):
    """An expectation suite did not evaluate everything it was asked to. Never counts as a pass."""


class Reason(StrEnum):
    """Why a sample got its verdict. Stored in records as ``code`` or ``code:rule``."""

    OVER_LIMIT = "over_limit"
    """A score is beyond the limit of a rule."""
    SCORE_NOT_FINITE = "score_not_finite"
    """A score is NaN or infinite: because activations inside the generator are, or because it was never computed."""
    IMAGE_NOT_FINITE = "image_not_finite"
    """The generator produced NaN or infinity in the image."""
    REPAIRED = "repaired"
    """A correction brought the sample within every limit it is judged on."""
    NOT_REPAIRED = "not_repaired"
    """No strength of the correction was enough."""
    CORRECTION_NOT_TRIED = "correction_not_tried"
    """The sample would need a correction, and the records hold no outcome for it."""
