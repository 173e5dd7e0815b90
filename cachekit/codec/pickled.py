"""Pickles, for profiles that sign or encrypt: whoever can write one that is unpickled can run code in this process.

Nothing here looks at a signature. The codec hands over what `envelope` has verified, and refuses the serializer to
profiles that have nothing verified.
"""

import io
import pickle
import sys
from typing import Any

from cachekit.codec.base import PICKLE
from cachekit.config.spec import CodecSpec

PROTOCOL = 5  # all Pythons that we know have it


class PickleSerializer:
    """``serializer = "pickle"``. Safe to share between threads."""

    code = PICKLE

    def __init__(self, spec: CodecSpec) -> None:
        pass

    def dumps(self, value: Any, /) -> bytes:
        """The pickle of a value. Raises whatever its classes raise."""
        return pickle.dumps(value, PROTOCOL)

    def loads(self, payload: bytes, /) -> Any:
        """The value of a pickle that is known to be of one who holds the key."""
        return _Unpickler(io.BytesIO(payload)).load()


class _Unpickler(pickle.Unpickler):
    """Imports nothing: an entry with a class that this process does not know yet is a miss, as everywhere else.

    That keeps loads from running the code of modules. It is no wall: for a forger what is loaded is enough.
    """

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        module = sys.modules.get(module_name)
        if module is None:
            raise LookupError(f"{module_name} is not imported")
        first, *rest = global_name.split(".")
        # A module's own __getattr__ might import something.
        found = object.__getattribute__(module, "__dict__")[first]
        for name in rest:
            found = getattr(found, name)
        return found
