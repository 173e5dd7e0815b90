"""What the backends of cachekit's own accept in ``[backends.NAME.options]``."""

from cachekit.config.spec import BackendSpec
from cachekit.config.units import nearest, parse_duration, parse_size
from cachekit.errors import ConfigError


class Options:
    """The options of one backend. ConfigError for a name that it does not know, and for a value of another kind."""

    def __init__(self, spec: BackendSpec, *known: str) -> None:
        self._spec = spec
        for name in spec.options:
            if name not in known:
                near = nearest(name, known)
                hint = f"did you mean {near!r}?" if near else f"there are: {', '.join(known)}"
                raise ConfigError(f"[backends.{spec.name}.options] {name}: no such option of this backend; {hint}")

    def size(self, name: str, default: int, *, least: int = 1) -> int:
        """Bytes, or a number of things."""
        try:
            value = parse_size(self._spec.options.get(name, default))
            if value < least:
                raise ValueError(f"less than {least}")
        except ValueError as error:
            problem = str(error)
        else:
            return value
        raise ConfigError(f"[backends.{self._spec.name}.options] {name}: {problem}")

    def duration(self, name: str, default: float) -> float:
        """Seconds."""
        try:
            value = parse_duration(self._spec.options.get(name, default), zero=False)
            if value is None:
                raise ValueError("must have an end; write a duration such as '50ms'")
        except ValueError as error:
            problem = str(error)
        else:
            return value
        raise ConfigError(f"[backends.{self._spec.name}.options] {name}: {problem}")
