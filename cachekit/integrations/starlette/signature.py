"""What the wrapper of an endpoint must be given by FastAPI beside what the endpoint asks for, and where it finds it.

FastAPI makes parameters of requests out of a signature, but for those whose type is one of its own: these it hands in,
and shows nowhere. Of each type there is one only, so what the endpoint asks for itself is taken from there.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, NamedTuple, get_args, get_origin

from starlette.background import BackgroundTasks
from starlette.requests import Request
from starlette.responses import Response

RESERVED: Final[Mapping[type, str]] = {
    Request: "cachekit_request",
    Response: "cachekit_response",
    BackgroundTasks: "cachekit_background",
}


class Given(NamedTuple):
    """What one call was given: None where nobody hands it in, as in Starlette."""

    request: Request | None
    response: Response | None
    background: BackgroundTasks | None
    kwargs: dict[str, Any]  # with what is ours


class Inputs:
    """The signature for FastAPI, and the names in it."""

    def __init__(self, function: Callable[..., Any]) -> None:
        before = inspect.signature(function)
        parameters = [
            each.replace(annotation=_evaluated(each.annotation, function)) for each in before.parameters.values()
        ]
        result = _evaluated(before.return_annotation, function)
        self.names = {kind: _named(parameters, kind) or RESERVED[kind] for kind in RESERVED}
        self._request, self._response, self._background = self.names.values()  # in the order of RESERVED
        self.ours = frozenset(RESERVED.values()).intersection(self.names.values())
        added = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind)
            for kind, name in RESERVED.items()
            if name in self.ours
        ]
        last = [each for each in parameters if each.kind is inspect.Parameter.VAR_KEYWORD]
        others = [each for each in parameters if each.kind is not inspect.Parameter.VAR_KEYWORD]
        self.signature = inspect.Signature([*others, *added, *last], return_annotation=result)

    def of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Given:
        """What is in the arguments of one call."""
        request = kwargs.get(self._request)
        if not isinstance(request, Request):  # Starlette hands it in by position, to methods after self
            request = next((each for each in (*args, *kwargs.values()) if isinstance(each, Request)), None)
        return Given(request, kwargs.get(self._response), kwargs.get(self._background), kwargs)

    def own(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """What the endpoint itself gets."""
        return {name: value for name, value in kwargs.items() if name not in self.ours}


def _evaluated(annotation: Any, function: Callable[..., Any]) -> Any:
    """An annotation that is a text, as the module of the function understands it. Older FastAPI would ask ours."""
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, getattr(inspect.unwrap(function), "__globals__", {}))
    except Exception:  # FastAPI says what is wrong with it
        return annotation


def _named(parameters: list[inspect.Parameter], kind: type) -> str | None:
    """The parameter for which FastAPI would hand in an object of this kind."""
    for each in parameters:
        annotation = each.annotation
        if get_origin(annotation) is Annotated:
            annotation = get_args(annotation)[0]
        if inspect.isclass(annotation) and get_origin(annotation) is None and issubclass(annotation, kind):
            return each.name
    return None
