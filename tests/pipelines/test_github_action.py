"""The composite action, its steps run as GitHub runs them: with a stand-in for the command, and once in full."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import torch
import yaml
from cli.conftest import POLICY, dcgan_state_dict
from pipelines.composite import Ran, run_action
from pipelines.stub import words_and_options, write_stub

from qualitygate.cli.app import command, unknown_variables

ROOT = Path(__file__).parents[2]
PLACE = ROOT / "pipelines" / "github-action"
ACTION = yaml.safe_load((PLACE / "action.yml").read_text(encoding="utf8"))
STEPS = ACTION["runs"]["steps"]


# what stands in the file


def test_every_step_is_one_that_a_runner_takes() -> None:
    assert ACTION["runs"]["using"] == "composite"
    for step in STEPS:
        assert step["name"]
        if "run" in step:
            assert step["shell"] == "bash"
            assert "${{" not in step["run"], "texts of inputs reach a command as variables only: they may hold quotes and semicolons"
        else:
            assert re.fullmatch(r"actions/[a-z/-]+@v[0-9]+", step["uses"])


def test_every_input_is_used_and_described() -> None:
    text = (PLACE / "action.yml").read_text(encoding="utf8")
    for name, one in ACTION["inputs"].items():
        assert f"inputs.{name}" in text.replace("inputs.python-version", ""), name
        assert one["description"]
        assert one.get("required") or "default" in one
    used = set(re.findall(r"inputs\.([a-z-]+)", text))
    assert used == set(ACTION["inputs"])


def test_its_variables_are_options(monkeypatch: pytest.MonkeyPatch) -> None:
    step = next(one for one in STEPS if one.get("id") == "check")
    for name in filter(lambda name: name.startswith("QUALITYGATE_"), step["env"]):
        monkeypatch.setenv(name, "x")
    assert unknown_variables(command()) == []


# with a stand-in


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that sets nothing."""
    for name in ("MLFLOW_TRACKING_URI", "QUALITYGATE_CACHE"):
        monkeypatch.delenv(name, raising=False)


class Others:
    """Answers for the actions that are used; uploads and caches find what they are to take."""

    def __init__(self, workspace: Path) -> None:
        self.workspace, self.names = workspace, []

    def __call__(self, name: str, given: dict[str, str]) -> dict[str, str]:
        self.names.append(name)
        assert all(given.values()) or name.startswith("actions/setup-python")
        if name.startswith("actions/upload-artifact"):
            assert (self.workspace / given["path"] / "report.html").is_file()
            return {"artifact-url": "https://github.test/artifacts/7"}
        return {}


def ran(tmp_path: Path, code: int, verdict: str | None, **inputs: str) -> tuple[Ran, Others]:
    write_stub(tmp_path / "bin", code, verdict)
    (tmp_path / "runner").mkdir(exist_ok=True)
    others = Others(tmp_path)
    environment = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    given = {"candidate": "a b.pt", "install": "none", **{name.replace("_", "-"): value for name, value in inputs.items()}}
    return run_action(PLACE, given, tmp_path, tmp_path / "runner", environment, others), others


@pytest.mark.parametrize(("code", "verdict"), [(0, "passed"), (1, "failed"), (4, "inconclusive")])
def test_code_and_verdict_come_out_and_reports_go_up(code: int, verdict: str, tmp_path: Path) -> None:
    action, others = ran(tmp_path, code, verdict)
    assert action.code == code
    assert action.outputs == {
        "verdict": verdict,
        "code": str(code),
        "record": "qualitygate-check/check.json",
        "report": "qualitygate-check/report.html",
        "url": "https://github.test/artifacts/7",
    }
    assert [name.split("@")[0] for name in others.names] == [
        "actions/setup-python",
        "actions/cache/restore",
        "actions/cache/save",
        "actions/upload-artifact",
    ]
    assert "https://github.test/artifacts/7" in action.summary
    assert "##" not in action.summary, "the verdict's own summary is the command's"


def test_an_inconclusive_check_may_only_warn(tmp_path: Path) -> None:
    action, _ = ran(tmp_path, 4, "inconclusive", inconclusive="warn")
    assert action.code == 0
    assert action.outputs["code"] == "4"
    assert "::warning title=qualitygate::Inconclusive" in action.log


@pytest.mark.parametrize(("code", "word"), [(2, "bad input"), (3, "something broke"), (1, "something broke")])
def test_without_a_record_the_summary_says_why(code: int, word: str, tmp_path: Path) -> None:
    action, others = ran(tmp_path, code, None)
    assert action.code == code
    assert action.outputs["verdict"] == ""
    assert action.summary.startswith(f"## no verdict: {word}")
    assert not any("upload" in name for name in others.names)


def test_a_verdict_whose_promotion_broke_is_told_and_uploaded(tmp_path: Path) -> None:
    action, _ = ran(tmp_path, 3, "passed")
    assert action.code == 3
    assert "## passed: something broke (exit code 3)" in action.summary
    assert action.outputs["url"]


def test_a_record_of_another_check_is_not_taken_for_this_one(tmp_path: Path) -> None:
    (tmp_path / "qualitygate-check").mkdir()
    (tmp_path / "qualitygate-check" / "check.json").write_text('{"verdict": "passed"}')
    action, _ = ran(tmp_path, 2, None)
    assert action.outputs["verdict"] == ""


def test_texts_arrive_as_they_are(tmp_path: Path) -> None:
    hostile = "x\"; echo $(id) `id` '; #.pt"
    ran(
        tmp_path,
        0,
        "passed",
        candidate=hostile,
        policy="p;q.yaml",
        out="o u t",
        arguments="--weights\nw 1.pt\n\n--exit-zero",
        tracking_uri="https://mlflow.test",
    )
    words, options = words_and_options(tmp_path / "bin" / "given")
    assert words == ["check", "--weights", "w 1.pt", "--exit-zero", "--", hostile]
    assert options == {"POLICY": "p;q.yaml", "OUT": "o u t", "TRACKING_URI": "https://mlflow.test", "EXPERIMENT": "qualitygate"}


def test_nothing_is_tracked_where_there_is_no_mlflow(tmp_path: Path) -> None:
    ran(tmp_path, 0, "passed")
    assert words_and_options(tmp_path / "bin" / "given")[0] == ["check", "--no-track", "--", "a b.pt"]


@pytest.mark.parametrize(
    ("inputs", "why"), [({"promote": "champion"}, "tracking-uri"), ({"inconclusive": "ignore"}, "neither fail nor warn")]
)
def test_what_cannot_be_is_said_before_anything_is_installed(inputs: dict[str, str], why: str, tmp_path: Path) -> None:
    action, _ = ran(tmp_path, 0, "passed", install="", **inputs)
    assert action.code == 2
    assert why in action.log
    assert "Install" not in action.codes
    assert "a step before the check failed" in action.summary
    assert not (tmp_path / "bin" / "given").exists()


def test_old_profiles_are_not_kept(tmp_path: Path) -> None:
    profiles = tmp_path / "runner" / "qualitygate" / "profiles"
    for name, days in (("new", 0), ("old", 40)):
        (profiles / name).mkdir(parents=True)
        then = (profiles / name).stat().st_mtime - days * 86400
        os.utime(profiles / name, (then, then))
    ran(tmp_path, 0, "passed")
    assert [path.name for path in profiles.iterdir()] == ["new"]


# in full

CHECK = {
    "samples": 64,
    "budget": {"samples": 64},
    "rules": [
        {"id": "yield", "metric": "yield", "min": 0.05},
        {"id": "rejected", "metric": "rejected_share", "worse_by": {"absolute": 0.1}, "optional": True},
    ],
}
OPEN = {**CHECK, "rules": [{"id": "kept", "metric": "accepted_share", "min": 0.8}]}
"""The limit of the score is its .80 quantile: of 64 samples nobody can say."""
STRICT = {**CHECK, "rules": [{"id": "kept", "metric": "accepted_share", "min": 0.99}]}


@pytest.fixture(scope="module")
def fetched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The action as a runner fetches it: the whole repository at a commit."""
    place = tmp_path_factory.mktemp("actions") / "repository"
    for name in ("pyproject.toml", "constraints.txt", "README.md", "LICENSE"):
        place.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, place)
    for name in ("qualitygate", "pipelines"):
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    return place / "pipelines" / "github-action"


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A workspace with a checkpoint and policies, and the job's variables. Its fresh environment of Python sees the packages of this one,
    so that pip finds everything there but qualitygate itself."""
    workspace = tmp_path_factory.mktemp("workspace")
    torch.save({"netG": dcgan_state_dict()}, workspace / "model.pt")
    for name, check in (("passes", CHECK), ("fails", STRICT), ("open", OPEN)):
        (workspace / f"{name}.yaml").write_text(yaml.safe_dump({**POLICY, "check": check}), encoding="utf8")
    home = tmp_path_factory.mktemp("python")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True)
    site = sysconfig.get_path("purelib", vars={"base": str(home)})
    Path(site, "there.pth").write_text(sysconfig.get_path("purelib"), encoding="utf8")
    offline = {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    return workspace, {"PATH": f"{home / 'bin'}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1", "PYTHONPATH": "", **offline}


@pytest.mark.slow
@pytest.mark.parametrize(("policy", "code", "verdict"), [("passes", 0, "passed"), ("fails", 1, "failed"), ("open", 4, "inconclusive")])
def test_the_whole_action(policy: str, code: int, verdict: str, fetched: Path, job: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    """Installed by its own line, and a real checkpoint checked; the second and third find what the first has installed."""
    workspace, environment = job
    (runner := tmp_path / "runner").mkdir()
    inputs = {"candidate": "model.pt", "baseline": "model.pt", "policy": f"{policy}.yaml", "out": f"reports-{policy}"}
    action = run_action(fetched, inputs, workspace, runner, environment, Others(workspace))
    assert action.code == code, action.log
    assert (action.outputs["verdict"], action.outputs["code"]) == (verdict, str(code))
    assert action.summary.startswith(f"## {verdict.upper()}: model.pt")
    assert "https://github.test/artifacts/7" in action.summary
    assert ("::error title=kept" in action.log) is (verdict != "passed")
    record = json.loads((workspace / action.outputs["record"]).read_text(encoding="utf8"))
    assert record["verdict"] == verdict
    assert (workspace / action.outputs["report"]).is_file()
    assert list((runner / "qualitygate" / "profiles").iterdir()), "what is kept for later checks"
    assert not (workspace / "mlflow.db").exists()
