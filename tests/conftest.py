"""Makes the helpers of the tests importable from all of them: ``reference.vectors`` and its neighbours."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
