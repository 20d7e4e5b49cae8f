"""What another package brings: a real one, installed and used by a process of its own, and broken ones."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml

from qualitygate import plugins
from qualitygate.checkpoints.layouts import all_layouts
from qualitygate.checkpoints.load import load_generator
from qualitygate.errors import PluginError
from qualitygate.generators.families import GENERATORS, family_plugins
from qualitygate.generators.families.dcgan import DCGAN
from qualitygate.latents import draw_latents

PACKAGE = Path(__file__).parent / "plugin_package"
STORED = {"ring.0": torch.rand(5, 4), "ring.1": torch.rand(3, 5), "paint": torch.rand(1, 3)}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package installed in it."""
    folder = tmp_path_factory.mktemp("plugin")
    source = shutil.copytree(PACKAGE, folder / "source")  # building leaves things behind
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check")
    call = [sys.executable, "-m", "pip", "install", *options, "--target", str(folder / "site"), str(source)]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "site"


@pytest.fixture
def python(installed: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs Python with the package beside qualitygate."""
    search = os.pathsep.join([str(installed), str(Path(__file__).parents[1])])
    environment = {**os.environ, "PYTHONPATH": search}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        call = [sys.executable, *arguments]
        return subprocess.run(call, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path)

    return run


USE = """
import torch, qualitygate
generator = qualitygate.load_generator("rings.pt")
z = torch.arange(8.0).reshape(2, 4)
torch.save(generator(z), "images.pt")
qualitygate.save_generator(generator, "rings.safetensors")
again = qualitygate.load_generator("rings.safetensors", family="rings")
assert type(again) is type(generator) and torch.equal(again(z), generator(z))
"""


def test_a_checkpoint_of_another_packages_family(python: Any, tmp_path: Path) -> None:
    torch.save(STORED, tmp_path / "rings.pt")
    used = python("-c", USE)
    assert used.returncode == 0, used.stderr
    activation = torch.arange(8.0).reshape(2, 4).T
    for name in ("ring.0", "ring.1"):
        activation = (STORED[name] @ activation).relu()
    by_hand = torch.tanh(STORED["paint"] @ activation)
    images = torch.load(tmp_path / "images.pt", weights_only=True)
    assert images.shape == (2, 1, 4, 4)
    torch.testing.assert_close(images[:, 0, 0, 0], by_hand[0])


def test_the_command_line_knows_it(python: Any, tmp_path: Path) -> None:
    torch.save(STORED, tmp_path / "rings.pt")
    shown = python("-c", "from qualitygate.cli import main; main()", "inspect", "rings.pt", "--json")
    assert shown.returncode == 0, shown.stderr
    document = json.loads(shown.stdout)
    assert (document["family"], document["layout"]) == ("rings", "rings state dict")
    assert [layer["size"] for layer in document["layers"]] == ["2x2", "4x4"]


POLICY = {
    "calibration": {"rate_samples": 200, "score_samples": 100},
    "detection": {"layers": [0], "rates": [0.5]},
    "correction": None,
    "rules": [{"id": "low_rate", "score": "low_rate_0.5", "limit": {"quantile": 0.8}, "action": "reject"}],
}


def test_a_unit_score_of_another_package(python: Any, tmp_path: Path) -> None:
    torch.save(STORED, tmp_path / "rings.pt")
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump(POLICY))
    main = ("-c", "from qualitygate.cli import main; main()")
    made = python(*main, "calibrate", "rings.pt", "--policy", "policy.yaml", "--out", "profile")
    assert made.returncode == 0, made.stderr
    labels = "".join(f"{one},{'artifact' if one < 5 else 'normal'}\n" for one in range(20))
    (tmp_path / "labels.csv").write_text(f"id,label\n{labels}")
    options = ("--profile", "profile", "--labels", "labels.csv", "--samples", "50", "--out", "units", "--no-track", "--json")
    found = python(*main, "units", "rings.pt", "--sources", "loudness,low_rate", *options)
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["sources"]["loudness"] == {"samples": 5}
    z = draw_latents(range(5), 0, latent_size=4).z
    table = pq.read_table(tmp_path / "units" / "units.parquet").to_pandas()
    by_hand = (z @ STORED["ring.0"].T).relu().mean(dim=0)
    assert table.query("layer == 0")["loudness"].tolist() == pytest.approx(by_hand.tolist(), rel=1e-5)


def test_a_metric_of_another_package(python: Any, tmp_path: Path) -> None:
    torch.save(STORED, tmp_path / "rings.pt")
    real = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 1), dtype=np.uint8)
    np.savez(tmp_path / "real.npz", images=real)
    main = ("-c", "from qualitygate.cli import main; main()")
    options = ("--real", "real.npz", "--extractor", "module:qualitygate_rings.variety:Pixels", "--distance", "none")
    done = python(*main, "metrics", "rings.pt", "--samples", "40", "--group-share", "0.25", *options, "--out", "m", "--json")
    assert done.returncode == 0, done.stderr
    whole = json.loads(done.stdout)["groups"][0]["measurements"]["variety"]
    images = python("-c", DRAWN)
    assert images.returncode == 0, images.stderr
    by_hand = float(images.stdout) / (real / 127.5).var(axis=0).sum()
    assert whole["value"] == pytest.approx(by_hand, rel=1e-4)
    assert whole["low"] < whole["value"] < whole["high"]
    assert len(whole["blocks"]) == 10
    assert "variety" in pq.read_table(tmp_path / "m" / "groups.parquet")["metric"].to_pylist()
    rule = "from qualitygate.policy.model import CheckRule; print(CheckRule(id='v', metric='variety', min=0.5).higher_is_better)"
    assert python("-c", rule).stdout == "True\n"


DRAWN = """
import qualitygate, torch
generator = qualitygate.load_generator("rings.pt")
images = generator(qualitygate.sample_latents(generator, range(40), seed=1))
images = torch.round((images + 1.0) * 127.5) / 127.5  # features are of images as they are written, in 8 bits
print(float(images.double().flatten(1).var(dim=0, correction=0).sum()))
"""


def test_without_the_package_the_checkpoint_is_not_known(tmp_path: Path) -> None:
    torch.save(STORED, tmp_path / "rings.pt")
    with pytest.raises(Exception, match="add its layout as a plug-in"):
        load_generator(tmp_path / "rings.pt")


GATE_POLICY = {
    "detection": {"rates": [0.3]},
    "calibration": {"rate_samples": 400, "score_samples": 200},
    "risk": {"weights": {"glow": 1.0}},
    "rules": [
        {"id": "dim", "score": "glow", "limit": {"quantile": 0.3}},
        {"id": "dark", "score": "glow/layer_1", "limit": {"quantile": 0.05}, "action": "reject"},
        {"id": "risk", "score": "risk", "limit": {"quantile": 0.999}, "action": "reject"},
    ],
    "correction": {"method": "brighten", "judged_at": 0.3, "limit": {"quantile": 0.5}, "amounts": [0.25, 0.75]},
}
GATE = """
import json, sys, yaml, qualitygate, numpy as np, torch
policy = qualitygate.load_policy("policy.yaml")
generator = qualitygate.load_generator("rings.pt")
qualitygate.calibrate(generator, policy).save("profile")
profile = qualitygate.load_profile("profile")
assert profile.policy == policy
schema = json.dumps(qualitygate.Policy.model_json_schema())
assert "Brighten" in schema and "amounts" in schema
rows = []
for record, image in qualitygate.gate(generator, profile, ids=range(128)):
    trials = [(trial.strength, trial.passed) for trial in record.trials]
    corner = None if image is None else float(image[0, 0, 0])
    scores = [record.scores[name] for name in ("glow", "glow/layer_1", "risk")]
    rows.append((str(record.verdict), *scores, trials, record.strength, corner))
limits = {rule.rule: rule.limit for rule in profile.limits(policy).rules}
print(json.dumps({"rows": rows, "limits": limits, "calibrated": profile.scores["glow"].tolist()}))
"""


def test_a_score_and_a_correction_of_another_package_gate(python: Any, tmp_path: Path) -> None:
    """Calibrated, written, read and gated with, without a line of ours that knows them."""
    torch.manual_seed(0)
    stored = {name: torch.randn_like(tensor) for name, tensor in STORED.items()}
    torch.save(stored, tmp_path / "rings.pt")
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump(GATE_POLICY))
    done = python("-c", GATE)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    z = draw_latents(range(128), 1, 4).z
    layers = [(stored["ring.0"] @ z.T).relu()]
    layers.append((stored["ring.1"] @ layers[0]).relu())
    verdicts: dict[str, list[int]] = {}
    calibrated = torch.tensor(found["calibrated"], dtype=torch.float64)
    for row, (verdict, total, second, risk, trials, strength, corner) in enumerate(found["rows"]):
        glow = [float(layer[:, row].mean()) for layer in layers]
        assert (total, second) == pytest.approx((sum(glow), glow[1]), rel=1e-4, abs=1e-6)
        as_bad = int((calibrated <= total).sum())
        assert risk == pytest.approx(float(torch.tensor(201.0 / (1 + as_bad)).log()), rel=1e-5)
        dim, dark = total < found["limits"]["dim"], second < found["limits"]["dark"] or risk > found["limits"]["risk"]
        verdicts.setdefault(verdict, []).append(row)
        repaired = any(passed for _, passed in trials)
        assert verdict == ("reject" if dark else "accept" if not dim else "correct" if repaired else "reject")
        if verdict == "correct":
            brighter = (stored["ring.1"] @ (layers[0][:, row] * (1.0 + strength))).relu()
            assert corner == pytest.approx(float(torch.tanh(stored["paint"] @ brighter)), rel=1e-4)
        assert [amount for amount, _ in trials] == [0.25, 0.75][: len(trials)]
    assert {"accept", "correct"} <= verdicts.keys()


# broken ones


@pytest.fixture
def offer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Makes qualitygate find one entry point with the given value."""

    def found(value: str) -> None:
        entry = EntryPoint("odd", value, "qualitygate.families")
        monkeypatch.setattr(plugins, "entry_points", lambda group: [entry] if group == entry.group else [])
        plugins.plugins.cache_clear()

    yield found
    plugins.plugins.cache_clear()


class Namesake(DCGAN):
    """Has the name of another family."""


no_module = SimpleNamespace(generators=(torch.nn.ReLU,), layouts=(object(),))
namesake = SimpleNamespace(generators=[Namesake])
no_list = SimpleNamespace(generators=Namesake, layouts=Namesake)
nothing = SimpleNamespace()


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("qualitygate_that_is_not_there", "ModuleNotFoundError"),
        ("{here}:nobody", "AttributeError"),
        ("{here}:nothing", "without any of them"),
        ("{here}:no_module", "in generators"),
        ("{here}:no_list", "generators that are a"),
        ("{here}:namesake", "family 'dcgan', which there is already"),
    ],
)
def test_a_broken_plugin_is_named(value: str, found: str, offer: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "odd_plugin", sys.modules[__name__])
    value = value.format(here="odd_plugin")
    offer(value)
    with pytest.raises(PluginError, match=rf"(?s)plug-in odd \({value}\) is broken.*{found}.*uninstall"):
        _ = family_plugins(), list(GENERATORS)


@pytest.mark.parametrize("value", ["no_module", "no_list"])
def test_layouts_that_are_none(value: str, offer: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "odd_plugin", sys.modules[__name__])
    offer(f"odd_plugin:{value}")
    with pytest.raises(PluginError, match=r"(?s)plug-in odd .* layouts"):
        all_layouts()


# things of any other kind


class Thing:
    """What a table of a kind holds."""

    def __init__(self, name: str) -> None:
        self.name = name


ours, theirs = Thing("ours"), Thing("theirs")
TABLE: plugins.Table[Thing] = plugins.Table("scores", {"ours": "odd_plugin:ours"}, Thing)


@pytest.fixture
def bring(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Makes qualitygate find entry points by name in the group of scores."""
    monkeypatch.setitem(sys.modules, "odd_plugin", sys.modules[__name__])

    def found(**values: str) -> None:
        entries = [EntryPoint(name, value, "qualitygate.scores") for name, value in values.items()]
        monkeypatch.setattr(plugins, "entry_points", lambda group: entries if group == "qualitygate.scores" else [])
        plugins.plugins.cache_clear()

    yield found
    plugins.plugins.cache_clear()


def test_a_table_holds_ours_and_then_those_of_plugins(bring: Callable[..., None]) -> None:
    bring(theirs="odd_plugin:theirs")
    assert dict(TABLE) == {"ours": ours, "theirs": theirs}
    assert list(TABLE) == ["ours", "theirs"]
    assert "theirs" in TABLE
    assert "nobody" not in TABLE
    with pytest.raises(KeyError):
        TABLE["nobody"]


def test_nothing_is_imported_for_its_name(bring: Callable[..., None]) -> None:
    bring(theirs="qualitygate_that_is_not_there:theirs")
    assert list(TABLE) == ["ours", "theirs"]
    assert TABLE["ours"] is ours
    with pytest.raises(PluginError, match="ModuleNotFoundError"):
        TABLE["theirs"]


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("ours", "odd_plugin:theirs", "name 'ours', which there is already"),
        ("other", "odd_plugin:theirs", "name 'theirs' under the name 'other'"),
        ("theirs", "odd_plugin:PACKAGE", "in scores"),
    ],
)
def test_a_broken_thing_is_named(name: str, value: str, found: str, bring: Callable[..., None]) -> None:
    bring(**{name: value})
    with pytest.raises(PluginError, match=rf"(?s)plug-in {name} .* is broken.*{found}"):
        dict(TABLE)
