"""Commands from requests: an option for each field, with the field's own words, bounds and default."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable
from enum import Enum, StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic import ValidationError

from qualitygate.cli import output
from qualitygate.errors import InputError
from qualitygate.requests import Flag, Request

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

_Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON document.", show_envvar=False)]
_JSON = inspect.Parameter("json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=_Json)


def command(model: type[Request], *, json: bool = True) -> Callable[[Callable[..., int | None]], Callable[..., None]]:
    """Gives a function ``run(request, …)`` the options of a request in place of its first parameter, and ``--json``; further parameters
    stay options.

    While it runs, stdout is for its result alone, see `output.result`. It returns the exit code, or None where it passed.
    """

    def decorate(run: Callable[..., int | None]) -> Callable[..., None]:
        _, *others = inspect.signature(run, eval_str=True).parameters.values()

        @functools.wraps(run)
        def called(**given: Any) -> None:
            own = {one.name: given.pop(one.name) for one in others}
            with output.only_result_on_stdout(as_json=given.pop("json", False)):
                code = run(_request(model, given), **own)
            if code:
                raise typer.Exit(code)

        fields = [_parameter(name, model.model_fields[name]) for name in _in_order(model)]
        parameters = [*fields, *(one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in others), *([_JSON] if json else [])]
        called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        called.__annotations__ = {one.name: one.annotation for one in parameters}
        return called

    return decorate


def _request(model: type[Request], given: dict[str, Any]) -> Request:
    """The request of what was given; an `InputError` names every problem."""
    try:
        return model(**{name: value.value if isinstance(value, Enum) else value for name, value in given.items()})
    except ValidationError as error:
        problems = "; ".join(
            f"--{'.'.join(map(str, one['loc'])).replace('_', '-')}: {one['msg'].removeprefix('Value error, ')}"
            if one["loc"]
            else one["msg"]
            for one in error.errors()
        )
        raise InputError("The options do not fit", problems, "values as `--help` says") from error


def _in_order(model: type[Request]) -> list[str]:
    """Fields as `--help` shows them: arguments, those shared with others first; then options, the request's own first."""
    arguments = [name for name, field in model.model_fields.items() if _flag(field).argument]
    classes = [one for one in model.__mro__ if issubclass(one, Request)]
    return list(dict.fromkeys([*arguments, *(name for one in classes for name in one.__annotations__ if name in model.model_fields)]))


def _flag(field: FieldInfo) -> Flag:
    return next((one for one in field.metadata if isinstance(one, Flag)), Flag())


def _parameter(name: str, field: FieldInfo) -> inspect.Parameter:
    """One field as typer wants it."""
    flag, default = _flag(field), inspect.Parameter.empty if field.is_required() else field.default
    # the variables are named by one rule: printing each would hide the options
    settings: dict[str, Any] = {"help": field.description, "metavar": flag.metavar, "show_envvar": False}
    settings["show_default"] = default not in (inspect.Parameter.empty, None)
    for one in field.metadata:
        settings |= {ours: bound for ours, theirs in (("min", "ge"), ("max", "le")) if (bound := getattr(one, theirs, None)) is not None}
    option = name.replace("_", "-")
    written = flag.name or (f"--{option}/--no-{option}" if default is True else f"--{option}")
    info = typer.Argument(**settings) if flag.argument else typer.Option(written, **settings)
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[_kind(name, field.annotation), info]
    )


def _kind(name: str, annotation: Any) -> Any:
    """A field's type as typer knows it: a literal is an enumeration, since the lowest typer that we allow has no literals."""
    if get_origin(annotation) in (Union, types.UnionType):
        inner = tuple(_kind(name, one) for one in get_args(annotation) if one is not type(None))
        assert len(inner) == 1, f"{name} is of more than one type: {annotation}"
        return inner[0] | None
    if get_origin(annotation) is Literal:
        return StrEnum(name, {one: one for one in get_args(annotation)})
    if get_origin(annotation) in (tuple, list):
        return list[get_args(annotation)[0]]  # type: ignore[misc]
    return annotation
