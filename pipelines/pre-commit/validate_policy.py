#!/usr/bin/env python3
"""What pre-commit runs on policy files: the validation of this checkout, by any Python that has pydantic and PyYAML.

Nothing is installed for it. An environment of its own would hold torch and MLflow, gigabytes, to read some lines of YAML.
"""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> int:
    if sys.version_info < (3, 11):  # noqa: UP036  (a hook runs on whatever python3 is there)
        return _refuse(f"python3 is {sys.version.split()[0]}", "3.11 or newer")
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    try:
        from qualitygate.errors import PolicyError
        from qualitygate.policy.model import load_policy
    except ModuleNotFoundError as error:
        return _refuse(f"python3 has no {error.name}", "`pip install 'pydantic>=2.10' 'pyyaml>=6'`, which is all it takes")
    code = 0
    for path in sys.argv[1:]:
        try:
            load_policy(path)
        except PolicyError as error:
            print(f"error: {error}", file=sys.stderr)
            code = error.exit_code
    return code


def _refuse(found: str, needed: str) -> int:
    print(f"error: policies cannot be validated: {found}. Needed: {needed}.", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
