"""Scoring while a generator trains: within its share of the time, without a trace in the training, and never its end."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable

import pytest
import torch
from studies.dynamics.snapshots import judge, made
from torch import nn

import qualitygate
from qualitygate import callbacks
from qualitygate.callbacks import TrainingWatch, lightning_callback
from qualitygate.errors import InputError, MissingExtraError
from qualitygate.generators.module import ModuleGenerator
from qualitygate.studies.dynamics import ScoringSettings

SMALL = ScoringSettings(layers=(3,), early=(1,), samples=2, axes=2, rate_samples=16)


class Clock:
    """Time that passes when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cost(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> Callable[[float], None]:
    """Every scoring takes so many seconds of the clock, a trial, of one sample of two, half of it."""
    real = callbacks.score
    seconds = 1.0

    def set_cost(value: float) -> None:
        nonlocal seconds
        seconds = value

    def score(generator, settings, **more):
        clock.now += seconds if settings == SMALL else seconds / 2
        return real(generator, settings, **more)

    monkeypatch.setattr(callbacks, "score", score)
    return set_cost


def train(watch: TrainingWatch, clock: Clock, steps: range, seconds: float = 1.0, generator=None) -> list[int]:
    """Steps at which it was scored."""
    generator = made() if generator is None else generator
    scored = []
    for step in steps:
        clock.now += seconds
        if watch(generator, step) is not None:
            scored.append(step)
    return scored


def test_every_so_many_steps_where_there_is_time(clock: Clock, cost) -> None:
    cost(0.01)
    watch = TrainingWatch(every=10, settings=SMALL, clock=clock)
    assert train(watch, clock, range(1, 45)) == [11, 21, 31, 41]
    assert watch.postponed == 0
    assert [at for at, _ in watch.course] == [11, 21, 31, 41]


def test_the_share_is_kept_at_every_moment(clock: Clock, cost) -> None:
    cost(3.0)
    watch = TrainingWatch(every=10, settings=SMALL, share=0.05, clock=clock)
    generator, scored = made(), 0
    for step in range(1, 601):
        clock.now += 1.0
        if watch(generator, step) is not None:
            scored += 1
            assert watch.budget.used <= 0.05
    assert 7 <= scored <= 10  # 600 · 0.05 / 3 = 10, were the trial free
    assert watch.postponed > 0


def test_dearer_work_becomes_rarer(clock: Clock, cost) -> None:
    cost(0.1)
    watch = TrainingWatch(every=10, settings=SMALL, share=0.02, clock=clock)
    assert len(train(watch, clock, range(1, 101))) >= 5
    cost(8.0)  # the first of these cannot be foreseen, the ones after it wait
    train(watch, clock, range(101, 1001))
    assert watch.budget.used <= 0.02


def test_nothing_is_left_behind(clock: Clock) -> None:
    generator = made().requires_grad_(True).train()
    before = {name: tensor.clone() for name, tensor in generator.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    watch = TrainingWatch(every=1, settings=SMALL, share=1.0, clock=clock)
    watch(generator, 0)
    assert watch(generator, 1, judge()) is not None
    assert torch.equal(torch.rand(4), expected)
    assert generator.training
    assert all(parameter.grad is None and parameter.requires_grad for parameter in generator.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in generator.state_dict().items())
    assert torch.is_grad_enabled()


def test_a_plain_network_by_its_layers(clock: Clock) -> None:
    network = nn.Sequential(nn.ConvTranspose2d(6, 5, 4), nn.ReLU(), nn.ConvTranspose2d(5, 1, 4, 2, 1), nn.Tanh())
    generator = ModuleGenerator(network, layers=["1"], latent_size=6)
    watch = TrainingWatch(every=1, settings=ScoringSettings(samples=2, rate_samples=16), share=1.0, clock=clock)
    watch(generator, 0)
    found = watch(generator, 1)
    assert found is not None
    assert "dynamics/cla_mean/layer_0" in found


def test_alarms_and_logging(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    logged, alarms = [], []
    watch = TrainingWatch(
        every=1,
        settings=SMALL,
        share=1.0,
        clock=clock,
        alarms=["dynamics/activation_scale/layer_3 x1.5 in 10"],
        log=lambda metrics, step: logged.append((step, metrics)),
        on_alarm=alarms.append,
    )
    for step, growth in enumerate((1.0, 1.0, 1.1, 4.0, 4.0)):
        clock.now += 1.0
        watch(made(growth), step)
    assert [step for step, _ in logged] == [1, 2, 3, 4]
    assert "dynamics/low_rate_born/layer_1" in logged[1][1]
    assert [one.at for one in alarms] == [3]
    assert "alarm" in caplog.text


def test_what_goes_wrong_does_not_end_the_training(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    def down(*_) -> None:
        raise ConnectionError("no server")

    watch = TrainingWatch(every=1, settings=SMALL, share=1.0, clock=clock, log=down)
    watch(made(), 0)
    with caplog.at_level(logging.WARNING):
        assert watch(made(), 1) is not None
        broken = made()
        broken.weight[0].fill_(torch.nan)
        assert watch(broken, 2) is None
        assert watch(made(), 3) is not None
    assert "not logged" in caplog.text
    assert "not scored at 2" in caplog.text


@pytest.mark.parametrize("bad", [{"every": 0}, {"every": 1, "share": 0.0}, {"every": 1, "share": 1.1}, {"every": 1, "alarms": ["a"]}])
def test_what_makes_no_sense_is_refused(bad: dict) -> None:
    with pytest.raises(InputError):
        TrainingWatch(**bad)


def test_it_is_exported() -> None:
    assert qualitygate.TrainingWatch is TrainingWatch
    assert qualitygate.lightning_callback is lightning_callback


def test_without_lightning_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    monkeypatch.setitem(sys.modules, "lightning.pytorch", None)
    with pytest.raises(MissingExtraError, match="pip install lightning"):
        lightning_callback(TrainingWatch(every=1, clock=clock), lambda module: module.generator)


@pytest.mark.filterwarnings("ignore")  # Lightning's own, about workers, loggers and what not
def test_in_lightning_s_loop(tmp_path, clock: Clock) -> None:
    pl = pytest.importorskip("lightning.pytorch")
    from lightning.pytorch.loggers import CSVLogger

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.generator = made().requires_grad_(True)

        def training_step(self, batch, _):
            return self.generator(batch[0]).square().mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.01)

    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.randn(12, 4)), batch_size=2)
    watch = TrainingWatch(every=2, settings=SMALL, share=1.0, clock=clock)
    logger = CSVLogger(tmp_path)
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=logger,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        callbacks=[lightning_callback(watch, lambda module: module.generator)],
    )
    trainer.fit(Module(), data)
    assert [at for at, _ in watch.course] == [3, 5]
    logger.save()
    assert "dynamics/cla_mean/layer_3" in (tmp_path / "lightning_logs" / "version_0" / "metrics.csv").read_text()
