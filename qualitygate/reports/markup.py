"""From a template to one file that needs nothing else. Every value is escaped; what is markup already says so by its type."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Mapping
from functools import cache, partial
from io import BytesIO
from typing import Any

import matplotlib
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from qualitygate.reports.style import FAINT, INK, MUTED, PAPER, Render, number

_THEME = {INK: "--ink", MUTED: "--muted", FAINT: "--line", PAPER: "--paper"}
"""Colours of figures that follow the reader's light or dark theme, and their names in the style sheet."""


def inline(name: str, draw: Callable[[Render], bytes | None]) -> Markup | None:
    """A figure as markup that may stand in the page beside others: ``name`` keeps the ids of its parts apart. It is matplotlib's own, which
    escapes the texts in it. None where there is nothing to draw."""
    svg = draw(partial(_svg, name))
    return None if svg is None else Markup(svg.decode())


def data_uri(picture: bytes) -> str:
    """A WebP picture as the address that holds it."""
    return f"data:image/webp;base64,{base64.b64encode(picture).decode()}"


def render(template: str, values: Mapping[str, Any]) -> str:
    """The page, as one self-contained document that is not allowed to load anything from anywhere."""
    environment = _environment()
    assert environment.loader is not None
    style, script = (environment.loader.get_source(environment, name)[0] for name in ("style.css", "page.js"))
    hashed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    allowed = ("img-src data:", "style-src 'unsafe-inline'", f"script-src 'sha256-{hashed}'", "base-uri 'none'", "form-action 'none'")
    policy = "; ".join(("default-src 'none'", *allowed))
    own = {"style": Markup(style), "script": Markup(script), "content_security": policy}
    return environment.get_template(template).render({**values, **own})


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("qualitygate.reports"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": shown, "share": lambda value: "–" if value is None else f"{value:.1%}"}
    return environment


def shown(value: object) -> str:
    """A number the short way, a dash where there is none, anything else as it is."""
    if value is None or (isinstance(value, float) and value != value):
        return "–"
    return number(value) if isinstance(value, float | int) and not isinstance(value, bool) else str(value)


def _svg(name: str, figure: Figure) -> bytes:
    for patch in (figure.patch, *(axes.patch for axes in figure.axes)):
        patch.set_alpha(0.0)
    buffer = BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue().decode()
    text = re.sub(r'^<svg ([^>]*?) ?(?:width|height)="[^"]*"', r"<svg \1", text[text.index("<svg") :])
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\b(id="|href="#|url\(#)', rf"\1{name}-", text)
    for color, variable in _THEME.items():
        text = text.replace(color.lower(), f"var({variable})")
    return text.encode()
