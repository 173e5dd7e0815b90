"""What a serializer is, and which codec bytes there are. The table is part of format 1.

=======  ====================================================================
code     payload
=======  ====================================================================
1, 2     msgpack; 2 where it holds containers that msgpack itself has not
3        JSON
4        pickle
5-63     kept for cachekit
64-255   of other packages
=======  ====================================================================
"""

from typing import Any, Final, Protocol, runtime_checkable

JSON: Final = 3
PICKLE: Final = 4
OF_OTHERS: Final = range(64, 256)


@runtime_checkable
class Serializer(Protocol):
    """Values to bytes and back. `cachekit.testing.SerializerContract` is the test suite for it.

    A package offers one as an entry point of the group ``cachekit.serializers``: a class or function that takes the
    `CodecSpec` of the profile and returns an object like this. Several threads use it at the same time.
    """

    @property
    def code(self) -> int:
        """The codec byte, from 64 to 255: choose one, and never change what it stands for.

        A region reads entries of its own serializer only; any other is a miss.
        """
        ...

    def dumps(self, value: Any, /) -> bytes:
        """The bytes of a value, from which `loads` makes an equal one of the same type.

        Raise `cachekit.Unstorable`, or anything else, for what cannot be stored: it is treated as ``on_unstorable``
        says. Never alter a value.
        """
        ...

    def loads(self, payload: bytes, /) -> Any:
        """The value of what `dumps` returned.

        Anything that it raises is a counted miss. The bytes are those that somebody could write to the server: without
        ``sign`` or ``encrypt`` they may be forged. Import and run nothing because of them.
        """
        ...
