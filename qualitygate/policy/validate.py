"""Validate policy files: ``python -m qualitygate.policy.validate FILE …``. Loads nothing heavy: made for a pre-commit hook."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from qualitygate.errors import PolicyError
from qualitygate.policy.model import load_policy


def main(paths: Sequence[str]) -> int:
    """0 if all of them can be used, else 2; what is wrong goes to stderr."""
    code = 0
    for path in paths:
        try:
            load_policy(path)
        except PolicyError as error:
            print(f"error: {error}", file=sys.stderr)
            code = error.exit_code
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
