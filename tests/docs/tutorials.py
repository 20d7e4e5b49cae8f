"""Tutorials as steps: files that the reader writes, and commands that the reader runs, in the order of the page.

A block after a line that is nothing but a file's name in backticks and a colon is that file. A block in ``sh`` is run; ``# exit code N``
after a command says that it ends so, and 0 is what every other one ends with. Blocks in ``text`` are only shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PART = re.compile(r"(?:^`(?P<file>[\w.-]+)`:\n\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"# exit code (\d+)$")
_NAMED = re.compile(r"`([\w-]+(?:[./][\w-]+)+)`")
_ENDINGS = {".html", ".json", ".xml", ".md", ".png", ".parquet", ".yaml", ".py", ".pt", ".tar"}


@dataclass(frozen=True)
class Step:
    """A file to write, or commands to run where ``file`` is None."""

    text: str
    file: str | None = None

    @property
    def script(self) -> str:
        """The commands, for bash: stops at the first that ends otherwise than the page says."""
        return "".join(f"{line}\n{_check(line)}\n" for line in self.text.splitlines() if line.strip())


def steps(page: str) -> Iterator[Step]:
    """The steps of a page. Raises `ValueError` at a block that is none of the kinds."""
    for found in _PART.finditer(page):
        file, language = found["file"], found["language"]
        if file is not None:
            yield Step(found["text"], file)
        elif language == "sh":
            yield Step(found["text"])
        elif language != "text":
            raise ValueError(f"neither a named file, nor sh or text: {found[0]}")


def missing(page: str, folder: Path) -> list[str]:
    """Files that the prose names and the folder does not hold, anywhere in it."""
    prose = _PART.sub("", page)
    there = [path.relative_to(folder) for path in folder.rglob("*")]
    named = [
        name for name in dict.fromkeys(_NAMED.findall(prose)) if Path(name).suffix in _ENDINGS or (folder / name.partition("/")[0]).is_dir()
    ]
    return [name for name in named if not any(path.match(name) for path in there)]


def _check(line: str) -> str:
    """What stands behind a command in the script."""
    code = _CODE.search(line)
    wanted = int(code[1]) if code else 0
    return f'__code=$?; [ $__code -eq {wanted} ] || {{ echo "exit code $__code, not {wanted}"; exit 99; }}'
