"""Scores while a generator trains: a few lines in a plain loop, or a callback for Lightning (docs/dynamics.md)."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from qualitygate.errors import InputError, MissingExtraError, QualityGateError
from qualitygate.generators.base import Discriminator, Generator
from qualitygate.studies.dynamics import Alarm, Point, RaisedAlarm, ScoringSettings, parse_alarm, raised_alarms
from qualitygate.studies.dynamics.measure import SetMetrics, SnapshotScores, score, summary

if TYPE_CHECKING:
    from lightning.pytorch import Callback, LightningModule, Trainer

SHARE = 0.02
"""Of the training time that scoring may take."""
WHILE_TRAINING = ScoringSettings(samples=8, axes=32, rate_samples=512)
"""What is scored unless told otherwise: an estimate of CLA that takes a hundredth of the exact one's time."""

_TRIAL_AXES = 8  # of one sample: how long scoring takes is first seen on these
_CAUTION = 2.0  # the trial leaves out what the discriminator and set metrics take
_logger = logging.getLogger(__name__)


@dataclass
class TimeBudget:
    """A share, in (0, 1], of the time since ``began``; the seconds of it that are spent, and that the next scoring is expected to take
    (None before anything was measured)."""

    share: float
    clock: Callable[[], float]
    began: float | None = None
    spent: float = 0.0
    expected: float | None = None

    @property
    def passed(self) -> float:
        """Seconds since it began."""
        return 0.0 if self.began is None else self.clock() - self.began

    @property
    def used(self) -> float:
        """Share of the time that was spent so far."""
        passed = self.passed
        return self.spent / passed if passed > 0 else 0.0


class TrainingWatch:
    """Scores fixed latents through a generator in training: one of ours, or any network by the names of its layers, as in
    ``ModuleGenerator(network, layers=["main.2", "main.5"], latent_size=100)``. The names of the metrics are those of
    ``qualitygate dynamics``, so runs and analyses overlay.

        watch = qualitygate.TrainingWatch(every=1000, log=lambda metrics, step: mlflow.log_metrics(metrics, step=step))
        watch(generator, step)  # after every training step

    Scoring is due every so many steps. It is done if it fits into the share of the training time, else at the first later step at
    which it does: short steps and dear scores make it rarer, never more than the share. How long it takes is estimated on a small
    part first and measured every time.

    Neither the weights nor the state of any random generator is touched. What goes wrong while scoring or logging (a generator
    that has diverged, a server that is down) is said by `logging` and does not end the training. Raises `InputError` at once for an
    interval, share or alarm that makes no sense.

    Args:
        every: steps, or whatever the training counts, from one scoring to the next.
        settings: what is scored.
        share: of the training time, in (0, 1].
        alarms: rules, e.g. ``"dynamics/cla_unit_q0.99/layer_3 x2 in 200"``; lengths count like ``every``.
        log: called with the metrics and the step.
        on_alarm: called for every alarm that goes off, besides a warning by `logging`.
        metrics: set metrics of images; their time counts too.
        clock: where the time is read.

    Attributes:
        course: what was measured: progress and metrics.
        budget: the time that was spent; ``budget.used`` is the share.
        postponed: steps at which scoring was due and did not fit.
    """

    def __init__(
        self,
        every: float,
        *,
        settings: ScoringSettings = WHILE_TRAINING,
        share: float = SHARE,
        alarms: Sequence[Alarm | str] = (),
        log: Callable[[dict[str, float], int], None] | None = None,
        on_alarm: Callable[[RaisedAlarm], None] | None = None,
        metrics: SetMetrics | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not every > 0 or not 0 < share <= 1:
            raise InputError("This is no way to watch a training", f"every {every}, share {share}", "every > 0, and a share in (0, 1]")
        self._every, self._settings, self._log, self._on_alarm = every, settings, log, on_alarm
        self._metrics, self._alarms = metrics, [parse_alarm(one) if isinstance(one, str) else one for one in alarms]
        self._due: float | None = None
        self._before: SnapshotScores | None = None
        self.budget = TimeBudget(share, clock)
        self.course: list[Point] = []
        self.postponed = 0

    def __call__(self, generator: Generator, at: float, discriminator: Discriminator | None = None) -> dict[str, float] | None:
        """To be called after every training step, ``at`` being how far the training is: steps, kimg. Returns the metrics, if it was time
        for them; a discriminator, one of ours, gives the sign of the contributions."""
        if self._due is None:  # the first steps are slow: nothing is timed against them
            self._due, self.budget.began = at + self._every, self.budget.clock()
        if at < self._due:
            return None
        try:
            return self._scored(generator, at, discriminator)
        except QualityGateError as error:
            self._due = at + self._every
            _logger.warning("not scored at %g: %s", at, error)
            return None

    def _scored(self, generator: Generator, at: float, discriminator: Discriminator | None) -> dict[str, float] | None:
        budget = self.budget
        if budget.expected is None:
            budget.expected = self._trial(generator)
        if budget.spent + budget.expected > budget.share * (budget.passed + budget.expected):  # not within the share when it is done
            self.postponed += 1
            return None
        self._due = at + self._every
        scores, budget.expected = self._timed(generator, self._settings, discriminator=discriminator, metrics=self._metrics)
        metrics = summary(scores, self._before)
        self._before = scores
        self.course.append((at, metrics))
        for one in raised_alarms(self.course, self._alarms):
            if one.at == at:
                _logger.warning("alarm: %s", one)
                if self._on_alarm is not None:
                    self._on_alarm(one)
        if self._log is not None:
            try:
                self._log(metrics, round(at))
            except Exception as error:  # whatever the user's logger raises: hours of training are worth more
                _logger.warning("metrics of step %g were not logged: %s", at, error)
        return metrics

    def _timed(self, generator: Generator, settings: ScoringSettings, **more: Any) -> tuple[SnapshotScores, float]:
        """Scores and the seconds that they took, which are booked. What a GPU still has to do from before is not counted."""
        if generator.device.type == "cuda":
            torch.cuda.synchronize(generator.device)
        start = self.budget.clock()
        try:
            scores = score(generator, settings, **more)  # ends with numbers on the CPU, so nothing of it is queued any more
        finally:
            seconds = self.budget.clock() - start
            self.budget.spent += seconds
        return scores, seconds

    def _trial(self, generator: Generator) -> float:
        """How long a scoring will take, from one sample and a few axes of it. Too long rather than too short: small work is slow work."""
        whole = self._settings
        axes = min(whole.axes or generator.latent_size, generator.latent_size)
        part = whole.model_copy(update={"samples": 1, "axes": min(axes, _TRIAL_AXES), "rate_samples": min(whole.rate_samples, 64)})
        for _ in range(2):  # the first one warms up
            _, seconds = self._timed(generator, part)
        return _CAUTION * seconds * max(whole.samples * axes / (part.axes or 1), whole.rate_samples / part.rate_samples)


def lightning_callback(
    watch: TrainingWatch,
    generator: Callable[[LightningModule], Generator],
    discriminator: Callable[[LightningModule], Discriminator | None] | None = None,
    at: Callable[[Trainer], float] | None = None,
) -> Callback:
    """A callback for Lightning's ``Trainer(callbacks=[…])``: calls the watch after every training batch, on the first process. The metrics
    go to the trainer's loggers, at the trainer's step. Raises `MissingExtraError` if Lightning is not installed.

    Args:
        generator: finds the generator in the module, e.g. ``lambda module: module.generator``.
        discriminator: finds the discriminator; default: none.
        at: how far the training is; default: the trainer's ``global_step``, which counts every optimizer's steps.
    """
    try:
        from lightning.pytorch import Callback
    except ImportError as error:
        raise MissingExtraError("A callback for Lightning needs Lightning", str(error), "lightning", "pip install lightning") from error

    class Watching(Callback):
        def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
            if not trainer.is_global_zero:
                return
            judge = None if discriminator is None else discriminator(pl_module)
            metrics = watch(generator(pl_module), trainer.global_step if at is None else at(trainer), judge)
            for logger in trainer.loggers if metrics else ():
                logger.log_metrics(metrics or {}, step=trainer.global_step)

    return Watching()
