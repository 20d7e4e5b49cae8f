"""A runner of composite actions: what GitHub does with an ``action.yml``, as far as the one here needs it.

Steps of commands run in bash as GitHub runs them, one after another; a failed one skips the others but those that say ``always()``. Steps
that use other actions are answered by a stand-in, which sees their inputs. What the runner does not know is an error, never empty.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

Uses = Callable[[str, dict[str, str]], dict[str, str]]
"""The stand-in: an action's name and inputs to its outputs."""
_EXPRESSION = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")
_COMPARISON = re.compile(r"(\S+) (==|!=) '([^']*)'")


@dataclass
class Ran:
    """What became of the action.

    Attributes:
        codes: exit code of every step of commands that ran, by its name.
        used: inputs of every step that uses another action and ran, by its name.
        outputs: of the action.
        summary: markdown of all steps.
        log: stdout and stderr of all steps.
    """

    codes: dict[str, int] = field(default_factory=dict)
    used: dict[str, dict[str, str]] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    summary: str = ""
    log: str = ""

    @property
    def code(self) -> int:
        """Of the first step that failed, else 0."""
        return next((code for code in self.codes.values() if code), 0)


def run_action(path: Path, inputs: Mapping[str, str], workspace: Path, temporary: Path, environment: Mapping[str, str], uses: Uses) -> Ran:
    """Run a composite action.

    Args:
        path: the folder of ``action.yml``.
        inputs: of the action.
        workspace: where commands run.
        temporary: an empty folder of the runner's own.
        environment: variables of the job, beyond those of this process.
        uses: answers for other actions.
    """
    return _Runner(path, inputs, workspace, temporary, environment, uses).done()


class _Runner:
    def __init__(
        self, path: Path, inputs: Mapping[str, str], workspace: Path, temporary: Path, environment: Mapping[str, str], uses: Uses
    ) -> None:
        self.action = yaml.safe_load((path / "action.yml").read_text(encoding="utf8"))
        declared = self.action["inputs"]
        assert inputs.keys() <= declared.keys()
        assert all(name in inputs for name, one in declared.items() if one.get("required"))
        self.context = {f"inputs.{name}": inputs.get(name, one.get("default", "")) for name, one in declared.items()}
        self.context |= {"runner.os": "Linux", "runner.arch": "X64", "github.run_id": "1", "github.run_attempt": "1"}
        self.workspace, self.temporary, self.uses, self.ran = workspace, temporary, uses, Ran()
        self.environment = {
            **os.environ,
            **environment,
            "GITHUB_ACTIONS": "true",
            "GITHUB_ACTION_PATH": str(path),
            "RUNNER_TEMP": str(temporary),
            "GITHUB_WORKSPACE": str(workspace),
            "GITHUB_ENV": str(temporary / "env"),
        }

    def done(self) -> Ran:
        for step in self.action["runs"]["steps"]:
            if self._wanted(str(step.get("if", "success()"))):
                self._run(step) if "run" in step else self._use(step)
        assert not (self.temporary / "env").exists(), "the action leaks variables into the job"
        self.ran.outputs = {name: self._filled(one["value"]) for name, one in self.action["outputs"].items()}
        return self.ran

    def _wanted(self, condition: str) -> bool:
        parts = condition.split(" && ")
        if self.ran.code and "always()" not in parts:
            return False
        return all(self._true(part) for part in parts if part not in ("always()", "success()"))

    def _true(self, part: str) -> bool:
        found = _COMPARISON.fullmatch(part)
        assert found, f"not understood: {part}"
        return (self._value(found[1]) == found[3]) is (found[2] == "==")

    def _value(self, name: str) -> str:
        if name.startswith("steps."):
            step, _, output = name.removeprefix("steps.").partition(".outputs.")
            assert step in {one.get("id") for one in self.action["runs"]["steps"]}, name
            return self.context.get(f"steps.{step}.outputs.{output}", "")  # a step that did not run has none
        return self.context[name]

    def _filled(self, text: object) -> str:
        return _EXPRESSION.sub(lambda found: self._value(found[1]), str(text))

    def _use(self, step: Mapping[str, Any]) -> None:
        given = {name: self._filled(value) for name, value in step["with"].items()}
        self.ran.used[step["name"]] = given
        for name, value in self.uses(step["uses"], given).items():
            self.context[f"steps.{step.get('id')}.outputs.{name}"] = value

    def _run(self, step: Mapping[str, Any]) -> None:
        assert step["shell"] == "bash"
        outputs, summary = (self.temporary / f"{kind}-{len(self.ran.codes)}" for kind in ("output", "summary"))
        files = {"GITHUB_OUTPUT": str(outputs), "GITHUB_STEP_SUMMARY": str(summary)}
        own = {name: self._filled(value) for name, value in step.get("env", {}).items()}
        command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
        done = subprocess.run(
            command,
            cwd=self.workspace,
            env={**self.environment, **files, **own},
            text=True,
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.ran.codes[step["name"]] = done.returncode
        self.ran.log += done.stdout
        self.ran.summary += summary.read_text(encoding="utf8") if summary.exists() else ""
        for line in outputs.read_text(encoding="utf8").splitlines() if outputs.exists() else ():
            name, _, value = line.partition("=")
            self.context[f"steps.{step.get('id')}.outputs.{name}"] = value
