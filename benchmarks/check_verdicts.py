"""The verdicts of `qualitygate check` on candidates whose fate is known, each by the real command.

    python benchmarks/check_verdicts.py CHECKPOINT                    # writes check_verdicts.json, .md and .jpg beside this file
    python benchmarks/check_verdicts.py                               # writes check_verdicts.md again from check_verdicts.json
    python benchmarks/check_verdicts.py CHECKPOINT --digits CHAMPION EARLY LATE --real REALS

CHECKPOINT is a DCGAN with batch norms: the champion, and what the candidates are made from (see `candidates.py`). With --digits, two more
candidates are snapshots of a training, held against a third with real images. The rules are those of the policy, by default the default
ones. Seconds are of the processor, the calibration of what is not in the cache included.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch
from candidates import candidates
from PIL import Image

from qualitygate import load_generator, sample_latents
from qualitygate.gating.calibrate import default_policy
from qualitygate.policy.model import load_policy
from qualitygate.reports.sheets import comparison_sheet
from qualitygate.storage import to_uint8, write_bytes

ROOT = Path(__file__).parent.parent
_SHOWN = 10
VERDICTS = {0: "passed", 1: "**failed**", 2: "**refused**", 3: "broke", 4: "*inconclusive*"}


@dataclass(frozen=True)
class Case:
    """A candidate to check.

    Attributes:
        name, what: as in `Candidate`.
        harmed: whether a pass is a miss.
        candidate: its file.
        baseline: the file that it is held against.
        real: real images, or None.
    """

    name: str
    what: str
    harmed: bool
    candidate: Path
    baseline: Path
    real: Path | None = None


@dataclass(frozen=True)
class Row:
    """What a check came to.

    Attributes:
        code: exit code of the command.
        rules: of each rule ``id``, ``severity``, ``state``, ``value`` and ``baseline``, as in the record.
        samples, looks: of the candidate; 0 where nothing was checked.
        seconds: of the processor.
        said: the first line on stderr where the file was refused.
    """

    name: str
    what: str
    harmed: bool
    code: int
    rules: list[dict[str, Any]]
    samples: int
    looks: int
    seconds: float
    said: str = ""

    def ids(self, state: str, *severities: str) -> list[str]:
        """Rules in a state, of these severities or of any."""
        return [one["id"] for one in self.rules if one["state"] == state and (not severities or one["severity"] in severities)]

    @property
    def warned(self) -> list[str]:
        return self.ids("failed", "warning", "info")


def main() -> None:
    options = _options()
    stored = options.out.with_suffix(".json")
    known = json.loads(stored.read_text(encoding="utf8")) if stored.exists() else {"rows": []}
    rows = {row["name"]: Row(**row) for row in known["rows"]}
    about = known.get("about", "")
    if options.checkpoint:
        about = _about(options)
        pictures(options.checkpoint).save(options.out.with_suffix(".jpg"), quality=85)
        with tempfile.TemporaryDirectory() as folder:
            for row in measure(list(_cases(options, Path(folder))), options.policy, options.workers):
                rows[row.name] = row
                document = {"about": about, "rows": [asdict(one) for one in rows.values()]}
                write_bytes(stored, json.dumps(document, indent=1).encode())
                print(f"{row.name}: {row.code}, {row.seconds:.0f} s {row.said}", file=sys.stderr)
    made = page(about, list(rows.values()))
    write_bytes(options.out.with_suffix(".md"), made.encode())
    print(made)


def measure(cases: Sequence[Case], policy: Path | None, workers: int = 1) -> Iterator[Row]:
    """The rows, in the order of the cases; the first by itself, as it calibrates the champion for the others."""
    with ThreadPoolExecutor(workers) as pool:
        yield checked(cases[0], policy)
        yield from pool.map(lambda case: checked(case, policy), cases[1:])


def checked(case: Case, policy: Path | None) -> Row:
    """One candidate through the command, in a process of its own."""
    arguments = ["check", case.candidate, "--baseline", case.baseline, "--no-track", "--json"]
    arguments += [] if policy is None else ["--policy", policy]
    arguments += [] if case.real is None else ["--real", case.real]
    code, stdout, stderr, seconds = _called([str(one) for one in arguments])
    if code in (2, 3):
        first = next(iter(stderr.splitlines()), "")
        return Row(case.name, case.what, case.harmed, code, [], 0, 0, seconds, first)
    record = json.loads(stdout)
    rules = [{key: one[key] for key in ("id", "severity", "state", "value", "baseline")} for one in record["rules"]]
    return Row(case.name, case.what, case.harmed, code, rules, record["samples"], record["looks"], seconds)


def pictures(champion: Path) -> Image.Image:
    """What the candidates with the champion's layers make of ten latents."""
    rows = {}
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        for one in candidates():
            if one.name not in ("family", "truncated"):
                generator = load_generator(one.write(champion, Path(folder) / one.name))
                images = generator(sample_latents(generator, range(_SHOWN), seed=1))
                rows[one.name] = [to_uint8(image.numpy()) for image in images]
    return comparison_sheet([str(sample) for sample in range(_SHOWN)], rows, "Candidates", columns=_SHOWN, scale_to=96)


def _called(arguments: list[str]) -> tuple[int, str, str, float]:
    """Exit code, stdout, stderr and processor seconds of `qualitygate …` of this checkout."""
    program = "from qualitygate.cli import main; main()"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    with tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:
        process = subprocess.Popen([sys.executable, "-c", program, *arguments], stdout=stdout, stderr=stderr, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        stdout.seek(0)
        stderr.seek(0)
        return process.returncode, stdout.read(), stderr.read(), usage.ru_utime + usage.ru_stime


BLIND = """\
**What these rules cannot see.** Scores of samples, rejects and CLA are of the layers that are scored, the first three of this
DCGAN. What happens above them (*kernel*: the image layer; *biases*: the fourth layer) changes none of these numbers, whatever the
sample. The share of low-rate neurons is of the fourth layer too, but the rule has one side: *biases* halves the share, which
counts as better. Only the rules on images (`…_to_baseline`) look there. They are warnings and see no fine damage
([evidence](../docs/check-evidence.md)): coverage finds *biases*, but the grid over the faces of *noise-30* and the dots of *kernel* stay
within the margin. Rules with one side pass whatever makes scores smaller, as noise and zeroed units do. A defect in 1 % of latents hardly
moves the .9 quantile and the shares of verdicts: *planted-10* can be found among the samples ([`planted.md`](planted.md)), where a
verdict on the whole sample does not tell it; *planted-1* cannot be found by the default low-rate count at all. The page of every check
shows both checkpoints' images of the same latents: there *noise-30*, *kernel* and *biases* are plain to the eye.

**With real images** they decide and counts warn. Low-rate and dead units grow with training: by the counts alone *digits-late*, which
is nearer to the real images than its champion, would fail, and *digits-early*, which is far from them, would pass as better in
every count. *digits-late* is left open all the same: its recall is higher too (.67 against .64), but the interval of a recall is wide,
and the time budget ended the looks at 2,048 samples."""


def page(about: str, rows: Sequence[Row]) -> str:
    """The table in Markdown, and what passed that should not have."""
    lines = [
        "# Verdicts of a check on candidates whose fate is known",
        "",
        about,
        "",
        "| candidate | what was done | exit | verdict | critical rules that failed | warnings that failed | undecided | samples | s |",
        "|" + " --- |" * 9,
    ]
    for row in rows:
        decided = (_joined(row.ids("failed", "critical")), _joined(row.warned), _joined(row.ids("inconclusive")))
        samples = f"{row.samples:,}" if row.samples else row.said
        cells = (row.name, row.what, row.code, VERDICTS[row.code], *decided, samples, f"{row.seconds:.0f}")
        lines.append(f"| {' | '.join(map(str, cells))} |")
    quiet = [row for row in rows if row.harmed and row.code == 0 and not row.warned]
    warned = [row for row in rows if row.harmed and row.code == 0 and row.warned]
    wronged = [row for row in rows if not row.harmed and (row.code != 0 or row.warned)]
    for title, found in (
        ("Harmed, and passed without a warning", quiet),
        ("Harmed, and passed with a warning", warned),
        ("Not harmed, and failed, left open or warned of", wronged),
    ):
        lines += ["", f"**{title}**: {_listed(found) or 'none.'}"]
    picture = "![Ten latents, made by the champion and by candidates](check_verdicts.jpg)"
    return "\n".join([*lines, "", picture, "", BLIND, ""])


def _joined(rules: Sequence[str]) -> str:
    return ", ".join(rules) or "–"


def _listed(rows: Sequence[Row]) -> str:
    return "; ".join(f"{row.name} ({row.what})" for row in rows)


def _about(options: argparse.Namespace) -> str:
    policy = load_policy(options.policy) if options.policy else default_policy("dcgan")
    learned, check = policy.calibration, policy.check
    whose = "the default policy" if options.policy is None else "a smaller policy with the default rules"
    return (
        f"{options.checkpoint.name} by {whose}: calibration on {learned.rate_samples:,} + {learned.score_samples:,} latents, "
        f"{check.samples:,} samples at the first look, up to {check.budget.samples:,}. Exit 0 passed, 1 failed, 2 refused, 4 inconclusive; "
        "*s* are seconds of one processor core, calibration of the candidate included."
        + ("" if check.looks > 1 else " The sample was not let grow: rules that need more samples stay undecided.")
    )


def _cases(options: argparse.Namespace, folder: Path) -> Iterator[Case]:
    for one in candidates():
        if options.only is None or one.name in options.only:
            made = one.write(options.checkpoint, folder / one.name)
            yield Case(one.name, one.what, one.harmed, made, options.checkpoint)
    if options.digits and options.only is None:
        champion, early, late = options.digits
        against = f"against {champion.stem} and real images"
        yield Case("digits-early", f"digits: {early.stem} {against}", True, early, champion, options.real)
        yield Case("digits-late", f"digits: {late.stem} {against}", False, late, champion, options.real)


def _options() -> Any:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", nargs="?", type=Path, help="the champion; if left out, only the page is made")
    parser.add_argument("--digits", nargs=3, type=Path, metavar=("CHAMPION", "EARLY", "LATE"), help="snapshots of a training")
    parser.add_argument("--real", type=Path, help="real images for --digits")
    parser.add_argument("--policy", type=Path, help="in place of the default")
    parser.add_argument("--workers", type=int, default=1, help="checks side by side")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(""), help="where to write, without suffix")
    parser.add_argument("--only", nargs="+", choices=[one.name for one in candidates()], help="check these, keep the other results")
    return parser.parse_args()


if __name__ == "__main__":
    main()
