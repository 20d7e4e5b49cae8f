"""``qualitygate schema``: JSON schemas of what is written by hand or read by machines."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from qualitygate.cli import output

NAME = "schema"


def run(
    what: Annotated[Literal["policy", "record", "summary", "profile", "check"], typer.Argument(help="Which document.")] = "policy",
    example: Annotated[bool, typer.Option("--example", help="Print the default policy as YAML instead, ready to edit.")] = False,
    family: Annotated[str, typer.Option(help="Family whose default policy is printed.")] = "dcgan",
) -> None:
    """Print a JSON schema (for editors and validators), or an example policy."""
    from pydantic import BaseModel

    from qualitygate.policy.model import Policy, default_policy, policy_yaml
    from qualitygate.records.check import CheckRecord
    from qualitygate.records.gate import GateSummary, SampleRecord

    if example:
        output.emit(policy_yaml(default_policy(family)).rstrip())
        return
    if what == "profile":
        from qualitygate.gating.profile import ProfileInfo

        output.emit_json(ProfileInfo.model_json_schema())
        return
    models: dict[str, type[BaseModel]] = {"policy": Policy, "record": SampleRecord, "summary": GateSummary, "check": CheckRecord}
    output.emit_json(models[what].model_json_schema())
