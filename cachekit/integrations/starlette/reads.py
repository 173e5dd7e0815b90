"""What an endpoint of FastAPI and its dependencies declare to read of requests: it tells their pages apart."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple, get_args

ALL: Final = "*"  # in place of names: whatever a request has


class Reads(NamedTuple):
    """Names of request fields in lower case, and names of cookies."""

    fields: tuple[str, ...] = ()
    cookies: tuple[str, ...] = ()


def reads_of(dependant: Any, overrides: Mapping[Any, Any]) -> Reads:
    """What is declared by an endpoint, as FastAPI knows it, and by its dependencies or what is in force for them."""
    if dependant is None:
        return Reads()
    fields: set[str] = set()
    cookies: set[str] = set()
    for each in _all(dependant, overrides):
        fields.update(name.lower() for name in _names(getattr(each, "header_params", ())))
        cookies.update(_names(getattr(each, "cookie_params", ())))
        for place, name in _keys(each):
            if place == "header":
                fields.add(name.lower())
            elif place == "cookie":
                cookies.add(name)
    return Reads(tuple(sorted(fields)), tuple(sorted(cookies)))


def _all(dependant: Any, overrides: Mapping[Any, Any]) -> Iterator[Any]:
    yield dependant
    for each in getattr(dependant, "dependencies", ()):
        yield from _all(_in_force(each, overrides), overrides)


def _in_force(dependant: Any, overrides: Mapping[Any, Any]) -> Any:
    call = overrides.get(dependant.call) if overrides else None
    if call is None:
        return dependant
    from fastapi.dependencies.utils import get_dependant

    return get_dependant(path=dependant.path or "/", call=call)


def _names(fields: Iterable[Any]) -> Iterator[str]:
    """All names that parameters may go by. One too many costs nothing: no request has it."""
    for field in fields:
        info = getattr(field, "field_info", None)
        model = _model(getattr(info, "annotation", None))
        if model is None:
            yield from _texts(field.alias, getattr(info, "validation_alias", None))
            continue
        if model.model_config.get("extra") == "allow":
            yield ALL
        for name, each in model.model_fields.items():
            yield from _texts(each.alias, each.validation_alias, name, name.replace("_", "-"))


def _model(annotation: Any) -> Any:
    """The model whose fields are parameters, if a parameter is one; also ``Model | None``."""
    found = [each for each in (annotation, *get_args(annotation)) if hasattr(each, "model_fields")]
    return found[0] if found else None


def _texts(*aliases: Any) -> Iterator[str]:
    """The names among the aliases of a parameter: each a text, a path that begins with one, or a choice of these."""
    for alias in aliases:
        for choice in getattr(alias, "choices", (alias,)):
            first = getattr(choice, "path", (choice,))[0]
            if isinstance(first, str):
                yield first


def _keys(dependant: Any) -> Iterator[tuple[str, str]]:
    """Where security schemes find a key (APIKeyHeader, APIKeyCookie), and its name."""
    schemes = [getattr(each, "security_scheme", None) for each in getattr(dependant, "security_requirements", ())]
    for scheme in (*schemes, getattr(dependant, "call", None)):
        model = getattr(scheme, "model", None)
        place = getattr(getattr(model, "in_", None), "value", None)
        if place is not None:
            yield str(place), str(getattr(model, "name", ""))
