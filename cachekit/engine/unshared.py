"""Values of which every caller needs one of their own: responses of Django, to which the middleware of whoever is given
one adds the cookies of a visitor."""

from typing import Any, Final

from cachekit.engine.ports import Result
from cachekit.foreign.responses import holds_response, is_response
from cachekit.l1.table import admit
from cachekit.l1.values import Admission, copy_graph

UNSHARED: Final = "whoever is given a response changes it, so it is not kept"


def admission_of(value: Any) -> Admission:
    """As `admit`, which does not look at all of a large value: of a response it must be known."""
    admission = admit(value)
    if admission.mode == "copy" and is_response(value):
        try:
            copy_graph(value)
        except Exception:
            return admission._replace(mode="opaque")
    return admission


def is_unshared(value: Any, mode: str, isolation: str) -> bool:
    """Whether this process must not keep the value, as it would give one object to several callers."""
    if mode == "opaque":
        return holds_response(value)
    return mode == "copy" and isolation == "share" and is_response(value)


def is_for_one(result: Result) -> bool:
    """Whether only the caller for whom it was made may have the result."""
    return result.error is None and result.mode not in ("", "copy") and holds_response(result.value)
