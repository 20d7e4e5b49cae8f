"""The one room that runs Great Expectations: a suite on the tables of a gated set, to one result for every expectation.

Great Expectations drops an expectation whose type it does not know, reports one that raised among the others, and keeps no order. Here
every expectation asked for has exactly one result under its id. One that could not be evaluated (unknown type, impossible arguments, a
column that is not there, an exception, no result) did not succeed, says why in its ``note``, and fails the suite whatever its severity.
"""

from __future__ import annotations

import math
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from qualitygate import names
from qualitygate.errors import PolicyError, SuiteError
from qualitygate.policy.suite import POLICY_ID, TABLES, check_suite, identified
from qualitygate.records.gate import ExpectationResult, SuiteResult

if TYPE_CHECKING:
    import pandas as pd

_Expectations = dict[str, dict[str, Any]]
"""Expectations by id."""
_COUNTS = ("element_count", "missing_count", "unexpected_count", "partial_unexpected_list")


def run_suite(suite: Mapping[str, Any], samples: pd.DataFrame, summary: pd.DataFrame) -> SuiteResult:
    """Run a suite, whose custom expectation classes must have been imported, on a table of samples, a row per id, and on a row of metrics.

    Expectations see the reasons of samples as text, joined by spaces. Results come in the order of the suite; what is ``observed`` is the
    value where there is one, counts and up to 20 unexpected values otherwise, with NaN and infinity as text. Raises `PolicyError` if the
    suite cannot be used or holds no expectation, and `SuiteError` if Great Expectations cannot be started.
    """
    wanted: dict[str, _Expectations] = {table: {} for table in TABLES}
    for table, name, expectation in identified(check_suite(dict(suite), "to be run")):
        wanted[table][name] = expectation
    if not any(wanted.values()):
        raise PolicyError("The suite says nothing of the set", "no expectation", "at least one expectation")
    with _engine() as context:
        results = [
            *_run("samples", wanted["samples"], _with_reasons_as_text(samples), context),
            *_run("summary", wanted["summary"], summary, context),
        ]
    return SuiteResult.of(results)


def _with_reasons_as_text(samples: pd.DataFrame) -> pd.DataFrame:
    """Great Expectations hashes a table, and pickles all of it when it holds lists: 20 s instead of 4 for a million rows."""
    if names.REASONS not in samples:
        return samples
    lists = list | tuple | np.ndarray
    text = [" ".join(map(str, one)) if isinstance(one, lists) else one for one in samples[names.REASONS]]
    return samples.assign(**{names.REASONS: text})


@contextmanager
def _engine() -> Iterator[Any]:
    """A context of Great Expectations that leaves no trace: the caller's own, if there is one, is the current one again afterwards."""
    try:
        with warnings.catch_warnings():
            # imported by Great Expectations, and deprecated since Python 3.11
            warnings.filterwarnings("ignore", "module 'sre_(constants|parse)' is deprecated", DeprecationWarning)
            import great_expectations as gx
        from great_expectations.data_context.data_context.context_factory import project_manager
        from great_expectations.data_context.types.base import DataContextConfig, InMemoryStoreBackendDefaults, ProgressBarsConfig
        from great_expectations.exceptions.exceptions import DataContextRequiredError

        try:
            previous = project_manager._project  # the only way to ask in all supported versions
        except DataContextRequiredError:
            previous = None
        quiet = DataContextConfig(
            store_backend_defaults=InMemoryStoreBackendDefaults(), analytics_enabled=False, progress_bars=ProgressBarsConfig(globally=False)
        )
        context = gx.get_context(mode="ephemeral", project_config=quiet)
    except Exception as error:
        raise SuiteError(
            "Great Expectations cannot be started",
            _error_line(error),
            "a working installation of great-expectations",
            "python -c 'import great_expectations' shows the cause",
        ) from error
    try:
        yield context
    finally:
        project_manager.set_project(previous)


def _run(table: str, wanted: _Expectations, frame: pd.DataFrame, context: Any) -> list[ExpectationResult]:
    from great_expectations import ExpectationSuite
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

    built: list[Any] = []
    notes: dict[str, str] = {}
    for name, one in wanted.items():
        configuration = {**one, "meta": {**one["meta"], POLICY_ID: name}}
        try:
            built.append(ExpectationConfiguration(**configuration).to_domain_obj())
        except Exception as error:  # a suite would drop it with a log line
            notes[name] = _error_line(error)
    answers: defaultdict[str, list[Any]] = defaultdict(list)
    try:
        asset = context.data_sources.add_pandas(table).add_dataframe_asset(table)
        batch = asset.add_batch_definition_whole_dataframe(table).get_batch({"dataframe": frame})
        # BASIC: lists of all unexpected rows, as in COMPLETE, take twenty times as long on a million rows
        for answer in batch.validate(ExpectationSuite(table, expectations=built), result_format="BASIC").results:
            answers[answer.expectation_config.meta.get(POLICY_ID)].append(answer)
    except Exception as error:  # whatever it was, nothing of this table was evaluated, and that is a result
        notes = {name: _error_line(error) for name in wanted} | notes
    return [_result(name, one, answers[name], notes.get(name)) for name, one in wanted.items()]


def _result(name: str, wanted: dict[str, Any], answers: Sequence[Any], note: str | None) -> ExpectationResult:
    if note is None:
        note = _raised(answers[0]) if len(answers) == 1 else f"{len(answers)} results where one is needed"
    return ExpectationResult(
        id=name,
        **{key: wanted[key] for key in ("type", "severity", "kwargs")},
        success=note is None and isinstance(answers[0].success, bool | np.bool_) and bool(answers[0].success),
        observed=_observed(answers[0].result) if note is None else None,
        note=note,
    )


def _raised(answer: Any) -> str | None:
    """What went wrong while an expectation was evaluated: one entry for the whole of it, or one for each metric."""
    information = answer.exception_info
    if information.get("raised_exception") is False:
        return None
    entries = [information] if "exception_message" in information else list(information.values())
    lines = dict.fromkeys(_line(one["exception_message"]) for one in entries if "exception_message" in one)
    return "; ".join(lines) or "an exception without a message"


def _observed(result: Mapping[str, Any]) -> Any:
    if "observed_value" in result:
        return _plain(result["observed_value"])
    return {key: _plain(result[key]) for key in _COUNTS if key in result} or None


def _plain(value: Any) -> Any:
    """A value as JSON can hold it."""
    if isinstance(value, np.generic | np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _error_line(error: Exception) -> str:
    return f"{type(error).__name__}: {_line(error)}"


def _line(text: Any) -> str:
    """On one line, and not the whole page that some exceptions carry."""
    line = " ".join(str(text).split())
    return line if len(line) <= 300 else f"{line[:299]}…"
