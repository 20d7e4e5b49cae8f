"""Colours, the same in every picture: a light theme, and hues of Okabe and Ito that colour-blind readers tell apart."""

from __future__ import annotations

from collections.abc import Mapping

from qualitygate.records.gate import Verdict

VERDICT_COLORS: Mapping[Verdict, str] = {Verdict.ACCEPT: "#0072B2", Verdict.CORRECT: "#E69F00", Verdict.REJECT: "#D55E00"}
"""Colour of each verdict, from the best to the worst."""
LINE_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Colours of lines that stand for no verdict, in the order of use."""

PAPER = "#FFFFFF"
INK = "#1F2328"
MUTED = "#59636E"
"""Second-rank text; still 6:1 against the paper."""
FAINT = "#E4E7EB"
"""Rules, grids and empty places."""

HEAT_MAP = "magma"
"""Name of matplotlib's colour map for heat: perceptually uniform, rising in lightness."""
