"""Writes the reference pages: ``policy.md`` from the policy's JSON schema, ``names.md`` from `qualitygate/names.py`.

python docs/reference.py
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qualitygate import names
from qualitygate.gating.calibrate import default_policy
from qualitygate.policy.model import Policy, policy_yaml

HERE = Path(__file__).parent
_CONSTANT = re.compile(r'^(?P<name>[A-Z][A-Z_0-9]*) = "(?P<value>[^"]+)"(?:  # (?P<words>.*))?$')


def policy_page() -> str:
    """Every key of a policy, with its type, default and meaning."""
    schema = Policy.model_json_schema()
    parts = [
        "# The policy",
        "Made by `python docs/reference.py` from the schema that `qualitygate schema policy` prints; unknown keys are errors.\n"
        "The default, ready to edit (`qualitygate schema --example`):",
        f"```yaml\n{policy_yaml(default_policy('dcgan')).rstrip()}\n```",
        *_section("policy", schema),
    ]
    for name, part in sorted(schema["$defs"].items()):
        if "properties" in part:
            parts += _section(name, part)
    return "\n\n".join(parts) + "\n"


def names_page() -> str:
    """Every promised name, in the sections and order of the module, then the names that are made of parts."""
    source = Path(names.__file__).read_text(encoding="utf8")
    return (
        "\n\n".join(
            [
                "# Promised names",
                "Made by `python docs/reference.py` from `qualitygate/names.py`. "
                "These columns, metrics, tables and image keys do not change.",
                *_constants(source),
                "## Names that are made of parts",
                *_functions(source),
            ]
        )
        + "\n"
    )


def _section(name: str, part: dict[str, Any]) -> Iterator[str]:
    yield f"## {name}"
    if part.get("description"):
        yield " ".join(part["description"].split())
    rows = ["| key | value | default | |", "| --- | --- | --- | --- |"]
    for key, value in part["properties"].items():
        default = f"`{json.dumps(value['default'])}`" if _plain(value.get("default")) and "default" in value else ""
        words = " ".join(value.get("description", "").split())
        rows.append(f"| `{key}` | {_kind(value)} | {default} | {words} |".replace("  ", " "))
    yield "\n".join(rows)


def _plain(value: Any) -> bool:
    """Whether a default is short enough for a table; longer ones stand in the example above it."""
    return not isinstance(value, dict) and len(json.dumps(value)) < 60


def _kind(value: dict[str, Any]) -> str:
    if "$ref" in value:
        return value["$ref"].rpartition("/")[2]
    for choice in ("anyOf", "oneOf"):
        if choice in value:
            return " or ".join(dict.fromkeys(_kind(one) for one in value[choice]))
    if "enum" in value or "const" in value:
        return " or ".join(f"`{one}`" for one in value.get("enum", [value.get("const")]))
    if value.get("type") == "array":
        return f"list of {_kind(value.get('items') or {'type': 'values'})}"
    return f"{value.get('type', 'any')}{_bounds(value)}"


def _bounds(value: dict[str, Any]) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    found = [f"{sign} {value[key]:g}" for key, sign in signs.items() if key in value]
    return f" ({', '.join(found)})" if found else ""


def _constants(source: str) -> Iterator[str]:
    rows: list[str] = []
    for line in [*source.splitlines(), "# end"]:
        found = _CONSTANT.match(line)
        if found:
            rows.append(f"| `{found['value']}` | {found['words'] or ''} |".replace("  ", " "))
        elif line.startswith("# "):
            if len(rows) > 2:
                yield "\n".join(rows)
                rows = []
            if line != "# end":
                title, rows = line.removeprefix("# "), ["| name | |", "| --- | --- |"]
                yield f"## {title[0].upper()}{title[1:]}"


def _functions(source: str) -> Iterator[str]:
    rows = ["| made by | |", "| --- | --- |"]
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and ast.get_docstring(node):
            words = " ".join((ast.get_docstring(node) or "").split()).replace("``", "`")
            rows.append(f"| `names.{node.name}({', '.join(one.arg for one in node.args.args)})` | {words} |")
    yield "\n".join(rows)


PAGES = {"policy.md": policy_page, "names.md": names_page}

if __name__ == "__main__":
    for file, make in PAGES.items():
        (HERE / file).write_text(make(), encoding="utf8")
