"""What shows that a page is one visitor's, though nothing in its fields says so."""

from typing import Any

from django.core.exceptions import SynchronousOnlyOperation
from django.utils.functional import LazyObject, empty


def why_personal(request: Any) -> str:
    """Why this request may be one visitor's, beside what its fields show; empty if nothing says so.

    That a session was looked at says nothing: one that nobody has brought or filled is the same for all.
    """
    if request.META.get("REMOTE_USER") or _is_logged_in(request):
        return "authorization"
    session = getattr(request, "session", None)
    return "session" if getattr(session, "session_key", None) or getattr(session, "modified", False) else ""


def _is_logged_in(request: Any) -> bool:
    """Whether somebody has put a user into the request, as middleware does that reads a header of its own."""
    user = vars(request).get("user")
    if _is_found_by_session(user):
        user = vars(request).get("_cached_user")  # whom that would give
    try:
        return bool(getattr(user, "is_authenticated", False))
    except SynchronousOnlyOperation:  # an async view, and a user whom only the database knows
        return True


def _is_found_by_session(user: Any) -> bool:
    """Whether it is that of Django's own middleware, for whom nobody has asked yet: nobody, without a session."""
    if not isinstance(user, LazyObject) or user._wrapped is not empty:
        return False
    return getattr(vars(user).get("_setupfunc"), "__module__", "") == "django.contrib.auth.middleware"


def why_not_for_all(request: Any, user: str | None) -> str:
    """Why the response that a view has just made is for this request alone; empty if nothing says so.

    Middleware around the view sets cookies and headers that belong to what is in the page: these are not in the
    response yet. ``user``: whom the page is for, where the view knows.
    """
    if getattr(getattr(request, "session", None), "modified", False):
        return "session"
    if "CSRF_COOKIE_NEEDS_UPDATE" in request.META:  # a form has the secret; False once a decorator has sent its cookie
        return "csrf"
    if _has_messages(request):
        return "messages"
    if getattr(request, "_csp_nonce", None):  # true once something in the page bears it
        return "nonce"
    return why_personal(request) if user is None else ""


def _has_messages(request: Any) -> bool:
    """Whether messages were shown, which happens once, or are to be shown next."""
    storage = getattr(request, "_messages", None)
    return storage is not None and bool(storage.added_new or (storage.used and len(storage)))
