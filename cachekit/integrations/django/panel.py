"""A panel of django-debug-toolbar: every call of the caches in a request, in tasks and threads with its context too.

``DEBUG_TOOLBAR_PANELS = [..., "cachekit.integrations.django.panel.CachesPanel"]``.
"""

from typing import Any

from debug_toolbar.panels import Panel

from cachekit.integrations.django.recording import Recording, install


class CachesPanel(Panel):
    """Regions, cached functions and Django's cache API: verb, key or function, outcome, tier and time of each call."""

    title = nav_title = "cachekit"
    template = "cachekit/panel.html"
    is_async = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._recording: Recording | None = None

    @classmethod
    def ready(cls) -> None:
        """Called where the toolbar is installed with this panel."""
        install()

    @property
    def nav_subtitle(self) -> str:
        """The number of calls, and the time that they took."""
        stats = self.get_stats()  # type: ignore[no-untyped-call]  # it is typed in part
        return f"{stats['number']} calls in {stats['milliseconds']:.2f} ms" if stats else ""

    def enable_instrumentation(self) -> None:
        """Called before the request is answered."""
        self._recording = self._recording or Recording()

    def disable_instrumentation(self) -> None:
        """Called after it, whatever became of it."""
        if self._recording is not None:
            self._recording.stop()

    def generate_stats(self, request: Any, response: Any) -> None:
        """What the template is shown, now or later."""
        recording = self._recording
        if recording is None:
            return
        rows = [{**row, "milliseconds": row["seconds"] * 1000} for row in recording.rows()]
        took = sum(row["milliseconds"] for row in rows if not row["depth"])
        stats = {"calls": rows, "totals": recording.totals(), "number": len(rows), "milliseconds": took}
        self.record_stats(stats)  # type: ignore[no-untyped-call]  # it is typed in part
