"""``qualitygate check``: pass or fail a new checkpoint."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qualitygate.cli import GATE_FAILED, INCONCLUSIVE, output
from qualitygate.cli.check_registry import Registry
from qualitygate.cli.options import Device, Experiment, Json, PolicyFile, Track, Tracking, chosen_device, load_both, load_policy_or_none
from qualitygate.cli.source import Source, reads_generator

if TYPE_CHECKING:
    from qualitygate.policy.model import CheckRule, Policy
    from qualitygate.records.check import CheckRecord
    from qualitygate.studies.check.model import Subject, Tools

NAME = "check"


@reads_generator
def run(
    source: Source,
    baseline: Annotated[
        str | None, typer.Option(help="What to hold it against: a file, models:/name@champion, or a profile's folder.", show_default=False)
    ] = None,
    real: Annotated[str | None, typer.Option(help="Real images: folder, archive, .npz, .parquet or `digits`.", show_default=False)] = None,
    policy: PolicyFile = None,
    suite: Annotated[Path | None, typer.Option(help="Hand-written expectations, in a suite.json.", show_default=False)] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for record and reports; must not exist yet.", show_default=False)] = None,
    extractor: Annotated[
        str | None,
        typer.Option(help="In place of the policy's check.extractor; only here may it be module:…, as that runs code.", show_default=False),
    ] = None,
    distance: Annotated[str | None, typer.Option(help="In place of the policy's check.distance.", show_default=False)] = None,
    weights: Annotated[str | None, typer.Option(help="Weights of the extractor.", show_default=False)] = None,
    distance_weights: Annotated[str | None, typer.Option(help="Weights of the distance.", show_default=False)] = None,
    track: Track = True,
    model: Annotated[str | None, typer.Option(help="Registered model to upload a candidate file to.", show_default=False)] = None,
    tag_only: Annotated[bool, typer.Option("--tag-only", help="Write the verdict onto the registered version, move no alias.")] = False,
    promote: Annotated[str | None, typer.Option(help="Alias that a pass moves here, e.g. champion.", show_default=False)] = None,
    tracking_uri: Tracking = None,
    experiment: Experiment = "qualitygate",
    exit_zero: Annotated[bool, typer.Option("--exit-zero", help="Exit with 0 whatever the verdict.")] = False,
    error_on_warning: Annotated[bool, typer.Option("--error-on-warning", help="Warnings count like critical rules.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the rules as they would be applied, and stop.")] = False,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Pass or fail a checkpoint: its scores, units and images against rules and, if there is one, against a baseline.

    Both are looked at on the same latents. A rule is decided by the interval of the difference; while one that is critical is open the
    sample grows, within check.budget of the policy. Exit codes: 0 passed, 1 failed, 4 inconclusive, 3 passed but not promoted.

        qualitygate check new.pt --baseline models:/faces@champion --real photos/ --policy policy.yaml --out check --promote champion
    """
    with output.only_result_on_stdout():
        from qualitygate import storage
        from qualitygate.studies.check.model import images_decide, needs_reference
        from qualitygate.studies.check.run import check, write_check

        if out is not None:
            storage.refuse_existing(out)
        registry = Registry.of(source, baseline, model, promote, tag_only=tag_only, given=tracking_uri)
        ours, theirs, rules = _subjects(source, baseline, registry, load_policy_or_none(policy), device, dry=dry_run)
        rules = _looked_at_with(rules, extractor, distance)
        if dry_run:
            _show_plan(rules, json, real=real is not None and baseline is not None and not _is_profile(baseline))
            return
        assert ours is not None
        asked = rules.check_rules(real=images_decide(theirs, real=real is not None))
        _refuse_unused(real, asked)
        reference = needs_reference(asked, ours, theirs, real=real is not None)
        tools = _tools(rules, ours, real, suite, weights, distance_weights, device, reference=reference)
        checked = check(ours, theirs, rules, tools)
        with tempfile.TemporaryDirectory(prefix="qualitygate-") as temporary:
            folder = out or Path(temporary) / "check"
            write_check(folder, checked, rules, ours.profile)
            _tell(checked.record, out, json)
            code = exit_code(checked.record, error_on_warning=error_on_warning)
            if track or registry.acts:
                registry.send(folder, checked.record, source, experiment, good=code == 0, kept=out is not None)
        raise typer.Exit(0 if exit_zero else code)


def exit_code(record: CheckRecord, *, error_on_warning: bool) -> int:
    """0 passed, 1 failed, 4 inconclusive."""
    from qualitygate.records.check import RuleState

    open_warning = any(one.state is RuleState.INCONCLUSIVE and one.severity == "warning" for one in record.rules)
    if record.verdict is RuleState.FAILED or (error_on_warning and record.warned):
        return GATE_FAILED
    return INCONCLUSIVE if record.verdict is RuleState.INCONCLUSIVE or (error_on_warning and open_warning) else 0


def _subjects(
    source: Source, baseline: str | None, registry: Registry, given: Policy | None, device: str, *, dry: bool
) -> tuple[Subject | None, Subject | None, Policy]:
    """Candidate, baseline, and the policy; profiles from the cache where they are known."""
    from dataclasses import replace

    from qualitygate.checkpoints.sources import shown
    from qualitygate.gating.profile import load_profile
    from qualitygate.policy.model import default_policy
    from qualitygate.studies.check.model import Subject, check_covers, kept_profile

    learned = load_profile(baseline) if baseline is not None and _is_profile(baseline) else None
    address = registry.candidate.pinned(source.checkpoint) if registry.candidate else source.checkpoint
    generator, discriminator = load_both(replace(source, checkpoint=address), device, registry.uri)
    policy = given or (learned.policy if learned else default_policy(generator.family))
    if learned is not None:  # the same latents as in the profile
        policy = policy.model_copy(update={"calibration": learned.info.calibration})
        check_covers(learned, policy)
    if dry:
        return None, None, policy
    other = None
    if learned is not None:
        other = Subject(str(baseline), learned)
    elif baseline is not None:
        address = registry.baseline.pinned(baseline) if registry.baseline else baseline
        held, judge = load_both(Source(address), device, registry.uri)
        other = Subject(
            shown(baseline),
            kept_profile(held, policy, reporter=output.reporter()),
            held,
            judge,
            str(registry.baseline) if registry.baseline else None,
        )
    sampling = learned.info.sampling if learned else None
    profile = kept_profile(generator, policy, sampling, output.reporter())
    ours = Subject(shown(source.checkpoint), profile, generator, discriminator, str(registry.candidate) if registry.candidate else None)
    return ours, other, policy


def _is_profile(baseline: str) -> bool:
    """Whether a baseline is a profile's folder."""
    return (Path(baseline) / "profile.json").is_file()


def _refuse_unused(real: str | None, rules: Sequence[CheckRule]) -> None:
    """Real images that no rule would look at: whoever gives them thinks that they count."""
    from qualitygate.errors import InputError
    from qualitygate.policy.model import AGAINST_REAL

    if real is not None and not any(rule.metric in AGAINST_REAL for rule in rules):
        raise InputError(
            "No rule of the policy looks at real images",
            f"--real {real}",
            f"a rule on one of {', '.join(AGAINST_REAL)}",
            "add one to check.rules, leave check.rules out for the default rules, or leave --real out",
        )


def _looked_at_with(policy: Policy, extractor: str | None, distance: str | None) -> Policy:
    """The policy with what was given in place of its own: not validated again, as code may be named here and not in a policy's file."""
    given = {name: value for name, value in (("extractor", extractor), ("distance", distance)) if value is not None}
    return policy.model_copy(update={"check": policy.check.model_copy(update=given)})


def _tools(
    policy: Policy,
    candidate: Subject,
    real: str | None,
    suite: Path | None,
    weights: str | None,
    distance_weights: str | None,
    device: str,
    *,
    reference: bool,
) -> Tools:
    """What the check may use; ``reference`` is whether images of the baseline stand in for real ones. Real images are brought to the size
    of the candidate's, as `qualitygate metrics` does."""
    from qualitygate.cli.looking import DISCRIMINATOR, extractor_of, real_images
    from qualitygate.features.cache import real_features
    from qualitygate.features.registry import make_distance, reads_weights
    from qualitygate.metrics.measured_set import RealSet
    from qualitygate.studies.check.model import Tools

    at, settings, reporter = chosen_device(device), policy.check, output.reporter()
    parts: dict[str, Any] = {"reporter": reporter, "suite": None if suite is None else _suite(suite)}
    there = weights is not None or not reads_weights(settings.extractor)
    judged = settings.extractor != DISCRIMINATOR or candidate.discriminator is not None
    if real is not None or (reference and there and judged):  # a reference alone is no reason to ask for what is missing
        parts["extractor"] = extractor_of(settings.extractor, weights, candidate.discriminator, at)
    if real is not None and candidate.generator is not None:
        import torch

        images = real_images(real, candidate.generator.image_shape[1])
        features = torch.from_numpy(real_features(parts["extractor"], images)).to(at)
        parts["real"] = RealSet(images.name, images.sha256, features)
    if any(rule.metric == "ppl" for rule in policy.check_rules()):
        parts["distance"] = make_distance(settings.distance, weights=distance_weights, device=at)
    return Tools(**parts)


def _suite(path: Path) -> dict[str, Any]:
    import json as json_

    from qualitygate.errors import PolicyError
    from qualitygate.policy.suite import check_suite

    try:
        document = json_.loads(path.read_text(encoding="utf8"))
    except (OSError, ValueError) as error:
        raise PolicyError(f"Cannot read the suite {path}", str(error), "a JSON file as `suite.json` of a check") from error
    return check_suite(document, str(path))


def _show_plan(policy: Policy, json: bool, *, real: bool) -> None:
    rules, settings = policy.check_rules(real=real), policy.check
    if json:
        output.emit_json({**settings.model_dump(mode="json"), "rules": [rule.model_dump(mode="json") for rule in rules]})
        return
    output.table(
        f"{settings.samples:,} samples, up to {settings.budget.samples:,}; error {settings.error:g} over {settings.looks} looks",
        ("rule", "severity", "metric", "limit", "optional"),
        [(rule.id, rule.severity, rule.metric, rule.limit, rule.optional) for rule in rules],
    )


def _tell(record: CheckRecord, out: Path | None, json: bool) -> None:
    """The result; and where GitHub runs this, its annotations and step summary."""
    from qualitygate.reports.check_text import HEADER, cells, footing, hand_written_failures, headline
    from qualitygate.reports.github import SUMMARY_BYTES, step_summary, workflow_commands

    if json:
        output.emit_json({"out": None if out is None else str(out), **record.model_dump(mode="json")})
    else:
        output.table(headline(record), HEADER, [row for _, row in cells(record)])
        for line in (*hand_written_failures(record), *footing(record)):
            output.emit(line)
    if os.environ.get("GITHUB_ACTIONS") == "true":
        for line in workflow_commands(record):
            output.say(line)
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        try:
            with Path(summary).open("ab") as file:
                file.write(step_summary(record, SUMMARY_BYTES - file.tell()).encode())
        except OSError as error:  # the verdict has still to be tracked
            output.say(f"Warning: nothing was added to GITHUB_STEP_SUMMARY: {error}")
