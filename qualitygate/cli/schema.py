"""``qualitygate schema``: JSON schemas of what is written by hand or read by machines."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from qualitygate.cli import output
from qualitygate.cli.requests import command
from qualitygate.policy.model import Policy, policy_yaml
from qualitygate.records.check import CheckRecord
from qualitygate.records.gate import GateSummary, SampleRecord
from qualitygate.requests import Flag, Request


class SchemaRequest(Request):
    """Which document's schema."""

    what: Annotated[Literal["policy", "record", "summary", "profile", "check"], Flag(argument=True)] = Field(
        "policy", description="Which document."
    )
    example: bool = Field(False, description="Print the default policy as YAML instead, ready to edit.")
    family: str = Field("dcgan", description="Family whose default policy is printed.")


@command(SchemaRequest, json=False)
def run(request: SchemaRequest) -> None:
    """Print a JSON schema (for editors and validators), or an example policy."""
    from qualitygate.gating.calibrate import default_policy
    from qualitygate.gating.profile import ProfileInfo

    if request.example:
        output.emit(policy_yaml(default_policy(request.family)).rstrip())
        return
    models: dict[str, type[BaseModel]] = {"policy": Policy, "record": SampleRecord, "summary": GateSummary}
    models |= {"profile": ProfileInfo, "check": CheckRecord}
    output.emit_json(models[request.what].model_json_schema())
