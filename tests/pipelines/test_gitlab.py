"""The GitLab template: its structure, and its script as a job's shell runs it, with a stand-in for the command."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from pipelines.stub import words_and_options, write_stub

TEMPLATE = Path(__file__).parents[2] / "pipelines" / "gitlab" / "qualitygate.yml"
JOB: dict[str, Any] = yaml.safe_load(TEMPLATE.read_text(encoding="utf8"))[".qualitygate-check"]
KEYWORDS = {"image", "variables", "cache", "script", "after_script", "artifacts", "allow_failure"}


def run(tmp_path: Path, shell: str = "bash", part: str = "script", **variables: str) -> subprocess.CompletedProcess[str]:
    """The job's script with these variables, entry after entry in one shell that stops at the first failure."""
    project = tmp_path / "project"
    project.mkdir(exist_ok=True)
    own = {name: str(value).replace("$CI_PROJECT_DIR", str(project)) for name, value in JOB["variables"].items()}
    environment = {**os.environ, "MLFLOW_TRACKING_URI": "", **own, "PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", **variables}
    return subprocess.run(
        [shell, "-c", "\n".join(["set -e", *JOB[part]])], cwd=project, env=environment, text=True, capture_output=True, check=False
    )


def test_its_structure() -> None:
    assert set(JOB) == KEYWORDS
    assert all(isinstance(line, str) for part in ("script", "after_script") for line in JOB[part])
    assert all(isinstance(value, str) for value in JOB["variables"].values())
    artifacts = JOB["artifacts"]
    assert (artifacts["when"], JOB["cache"]["when"]) == ("always", "always")
    assert artifacts["reports"]["junit"].startswith(artifacts["paths"][0])
    assert JOB["allow_failure"] == {"exit_codes": [4]}
    kept = [f"$CI_PROJECT_DIR/{path}" for path in JOB["cache"]["paths"]]  # GitLab keeps nothing outside of the project
    assert kept == [JOB["variables"]["PIP_CACHE_DIR"], f"{JOB['variables']['QUALITYGATE_CACHE']}/profiles"]


@pytest.mark.parametrize("shell", ["bash", "sh"])
@pytest.mark.parametrize(("code", "verdict"), [(0, "passed"), (1, "failed"), (4, "inconclusive")])
def test_the_code_comes_out_and_reports_lie_where_artifacts_are(code: int, verdict: str, shell: str, tmp_path: Path) -> None:
    write_stub(tmp_path / "bin", code, verdict)
    assert run(tmp_path, shell).returncode == code
    assert (tmp_path / "project" / JOB["artifacts"]["paths"][0] / "check.json").is_file()


@pytest.mark.parametrize("shell", ["bash", "sh"])
def test_texts_arrive_as_they_are(shell: str, tmp_path: Path) -> None:
    given, hostile = write_stub(tmp_path / "bin", 0, "passed"), "x\"; echo $(id) `id` '; #.pt"
    run(
        tmp_path,
        shell,
        CANDIDATE=hostile,
        BASELINE="models:/faces@champion",
        REAL="my photos",
        POLICY="p;q.yaml",
        ARGUMENTS="--promote\nchampion $(id)\n\n--exit-zero",
        MLFLOW_TRACKING_URI="https://mlflow.test",
    )
    assert words_and_options(given)[0] == [
        "check",
        "--out",
        "qualitygate-check",
        "--baseline",
        "models:/faces@champion",
        "--real",
        "my photos",
        "--policy",
        "p;q.yaml",
        "--promote",
        "champion $(id)",
        "--exit-zero",
        "--",
        hostile,
    ]


def test_nothing_is_tracked_where_there_is_no_mlflow(tmp_path: Path) -> None:
    given = write_stub(tmp_path / "bin", 0, "passed")
    run(tmp_path, CANDIDATE="m.pt")
    assert words_and_options(given)[0] == ["check", "--out", "qualitygate-check", "--no-track", "--", "m.pt"]


def test_torch_comes_from_its_own_index_first(tmp_path: Path) -> None:
    write_stub(tmp_path / "bin", 0, "passed")
    run(tmp_path, INSTALL="git+https://git.test/qualitygate@v1")
    run(tmp_path, INSTALL="./qualitygate", TORCH_INDEX="")
    assert (tmp_path / "bin" / "installed").read_text().splitlines() == [
        "pip install --quiet --index-url https://download.pytorch.org/whl/cpu torch",
        "pip install --quiet git+https://git.test/qualitygate@v1",
        "pip install --quiet ./qualitygate",
    ]


def test_an_image_without_it_is_told_what_to_set(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    done = run(tmp_path)
    assert done.returncode == 2
    assert "set INSTALL" in done.stderr


def test_old_profiles_are_not_kept(tmp_path: Path) -> None:
    profiles = tmp_path / "project" / ".qualitygate" / "kept" / "profiles"
    for name, days in (("new", 0), ("old", 40)):
        (profiles / name).mkdir(parents=True)
        then = (profiles / name).stat().st_mtime - days * 86400
        os.utime(profiles / name, (then, then))
    assert run(tmp_path, part="after_script").returncode == 0
    assert [path.name for path in profiles.iterdir()] == ["new"]
