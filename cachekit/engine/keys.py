"""Call -> key: what an entry is called in both tiers, and what its stamps are called.

    NAMESPACE:v:{REGION:FN:DIGEST}     a call; FN is module.qualname:version, DIGEST that of the bound arguments
    NAMESPACE:v:{REGION:=TEXT}         a region key that is a short printable str
    NAMESPACE:v:{REGION:DIGEST}        any other region key
        with a tenant FN:TENANT:DIGEST, TENANT=TEXT, TENANT:DIGEST, where TENANT is the digest of its name
        in an encrypted region every DIGEST and TENANT is made with a key, and so is what stands for a tag
    NAMESPACE:t:{_}:DIGEST             the stamp of a tag;        NAMESPACE:t:{_}:#clock  the clock of all tags
    NAMESPACE:t:{REGION}:#             the stamp of a region;     NAMESPACE:t:{REGION}:#f:FN  of a function in it

The braces are the hash tag of Redis Cluster. Namespace and region contain neither colon nor brace. Digests are
BLAKE2b: whoever chooses arguments must not be able to choose a collision.
"""

import re
import sys
from collections.abc import Sequence
from hashlib import blake2b
from itertools import zip_longest
from typing import Any, Final, NamedTuple

from cachekit.engine.binding import Binder as Binder
from cachekit.engine.binding import compile_binder as compile_binder
from cachekit.engine.encoding import encode as encode
from cachekit.engine.encoding import encode_plain
from cachekit.engine.functions import function_id as function_id
from cachekit.errors import UncacheableArgument

_OF_TENANT: Final = re.compile(r"([^:]*:.*):[0-9a-f]{32}", re.DOTALL)
OPEN: Final = blake2b(digest_size=16)  # hides nothing
MAX_TEXT = 200  # bytes of a tag, and of a region key that stays readable


class Key(NamedTuple):
    """An entry: the full key in L2 and the 64 bits of it by which L1 finds what an invalidation names."""

    text: str
    khash: int


class Whose(NamedTuple):
    """A tenant as keys and entries know it."""

    digest: str = ""  # empty: no tenant
    tags: tuple[str, ...] = ()  # by which its entries in the region, and of the function, are cleared


NOBODY: Final = Whose()


class EntryKey(str):
    """The full key of a function's entry, as ``f.key(...)`` returns it. Region methods take it as it is."""

    slot: int  # where L1 of this process has the entry
    args: tuple[Any, ...]
    stamp_names: tuple[str, ...]  # the stamps that cover it
    whose: Whose
    tiers: Any  # what slot and args belong to; None after pickling: another process numbers its slots itself

    @classmethod
    def of(
        cls, text: str, *, stamp_names: tuple[str, ...], slot: int = 0, args: tuple[Any, ...] = (), tiers: Any = None,
        whose: Whose = NOBODY,
    ) -> "EntryKey":  # fmt: skip
        """The key with what this process needs to find the entry."""
        made = cls(text)
        made.slot, made.args, made.stamp_names, made.tiers, made.whose = slot, args, stamp_names, tiers, whose
        return made

    def __reduce__(self) -> Any:
        return _entry_key, (str.__str__(self), self.stamp_names, self.whose)


def _entry_key(text: str, stamp_names: tuple[str, ...], whose: Whose = NOBODY) -> EntryKey:
    return EntryKey.of(text, stamp_names=stamp_names, whose=whose)


class Digest(bytes):
    """Stands in L1 for the arguments of a call that are not plain."""

    __slots__ = ()


def digest(args: tuple[Any, ...], names: Sequence[str] = ()) -> Digest:
    """The digest of an argument array. ``names`` are its parameters, for the message of ``UncacheableArgument``."""
    try:
        encoded = encode(args)
    except UncacheableArgument as error:
        raise _with_parameter(error, args, names) from None
    return Digest(blake2b(encoded, digest_size=16).digest())


def hasher(key: bytes | None) -> blake2b:
    """What `hex_digest` copies, which is quicker than to make one for each call; ``key`` hides names."""
    return OPEN if key is None else blake2b(digest_size=16, key=key)


def hex_digest(place: tuple[Any, ...], names: Sequence[str] = (), hasher: blake2b = OPEN) -> str:
    """The digest of what L1 compares, as in a key: of an argument array, or of the `Digest` in its place.

    ``hasher`` hides it, where names are secret: that of a plain array in one go, as it is made for every call.
    """
    made = hasher.copy()
    try:
        made.update(encode_plain(place))
    except KeyError:
        only = place[0] if len(place) == 1 else None
        text = (only if type(only) is Digest else digest(place, names)).hex()
        if hasher is OPEN:
            return text
        made.update(text.encode())
    return made.hexdigest()


def call_ident(fn_id: str, args: tuple[Any, ...], names: Sequence[str] = ()) -> str:
    """The part of a key that stands for a call. ``args`` is an argument array, or a ``Digest`` in its place."""
    only = args[0] if len(args) == 1 else None
    return f"{fn_id}:{(only if type(only) is Digest else digest(args, names)).hex()}"


def _with_parameter(error: UncacheableArgument, args: tuple[Any, ...], names: Sequence[str]) -> UncacheableArgument:
    for name, value in zip_longest(names[: len(args)], args):
        try:
            encode(value)
        except UncacheableArgument as reason:
            return UncacheableArgument(f"argument {name!r}: {reason}" if name else str(reason))
    return error


def hidden(text: str, key: bytes) -> str:
    """The digest that stands for a name where names are secret: with a key, so that nobody can try likely ones."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16, key=key).hexdigest()


def whose(tenant: str | None, key: bytes | None, region: str, fn_id: str = "") -> Whose:
    """A tenant in a region, and in a function of it. ``key`` hides names, where names are secret."""
    if tenant is None:
        return NOBODY
    digest = hidden(tenant, key or b"")
    whole = f"#t:{region}:{digest}"
    return Whose(digest, (whole, f"{whole}:{fn_id}") if fn_id else (whole,))


def region_ident(key: object) -> str:
    """The part of a key that stands for a region key: a str, int, UUID, bytes or a tuple of those.

    A subclass of these counts as its base. Anything else is a ``TypeError``, bool too: in Python ``True`` equals 1.
    """
    plain = key if type(key) is str else _region_key(key)
    # a str has at least as many bytes as characters; the first test spares the others for long texts
    if type(plain) is str and len(plain) <= MAX_TEXT and plain.isprintable() and len(plain.encode()) <= MAX_TEXT:
        return "=" + plain
    return blake2b(encode(plain), digest_size=16).hexdigest()


def _region_key(key: Any) -> object:
    """The key made of exact types."""
    if isinstance(key, str) and not isinstance(key, EntryKey):
        return str.__str__(key)
    if isinstance(key, int) and not isinstance(key, bool):
        return int.__int__(key)
    if isinstance(key, tuple):
        return tuple(map(_region_key, key))
    if isinstance(key, bytes):
        return b"".join((key,))
    uuid = sys.modules.get("uuid")  # not imported before there is one
    if uuid is not None and isinstance(key, uuid.UUID):
        return uuid.UUID(int=key.int)
    raise TypeError(f"a region key is a str, int, UUID, bytes or a tuple of those, not {type(key).__qualname__}")


def full_key(namespace: str, region: str, ident: str) -> Key:
    """The key of a value, from ``call_ident`` or ``region_ident``."""
    text = f"{namespace}:v:{{{region}:{ident}}}"
    return Key(text, khash(text.encode()))


def khash(key: bytes) -> int:
    """The 64 bits that stand for a full key in L1, from the bytes that a server's invalidation names."""
    return int.from_bytes(blake2b(key, digest_size=8).digest(), "big")


def call_prefix(namespace: str, region: str, fn_id: str) -> str:
    """The keys of a function's calls up to the digest of the arguments."""
    return f"{namespace}:v:{{{region}:{fn_id}:"


def function_of(ident: str) -> str:
    """The FN in the key of a call, from what stands between region and brace; empty if that is no call."""
    before = ident.rpartition(":")[0]
    of_tenant = _OF_TENANT.fullmatch(before)
    return before if of_tenant is None else of_tenant[1]


def tag_stamp(namespace: str, digest: bytes) -> str:
    """The key of a tag's stamp, by its digest: an entry carries digests, so its reader need not know the names.

    Tags belong to the namespace: one act reaches every region.
    """
    return f"{namespace}:t:{{_}}:{digest.hex()}"


def tag_id(tag: str, key: bytes | None = None) -> str:
    """What a tag is called inside this process."""
    return tag_digest(tag, key).hex()


def clock_stamp(namespace: str) -> str:
    """The key of the clock that every clear of a tag moves."""
    return f"{namespace}:t:{{_}}:#clock"


def region_stamp(namespace: str, region: str) -> str:
    """The key of a region's stamp."""
    return f"{namespace}:t:{{{region}}}:#"


def function_stamp(namespace: str, region: str, fn_id: str) -> str:
    """The key of the stamp of a function in a region."""
    return f"{namespace}:t:{{{region}}}:#f:{fn_id}"


def check_tag(tag: object) -> str:
    """The tag, or ``TypeError`` or ``ValueError`` if it is none."""
    if not isinstance(tag, str):
        raise TypeError(f'a tag is a str, not {type(tag).__qualname__}: write f"user:{{user_id}}" or str(...)')
    if not tag:
        raise ValueError("a tag must not be empty")
    if tag.startswith("#"):
        raise ValueError(f"the tag {tag!r} begins with '#', which marks the stamps of cachekit itself: leave it out")
    if not tag.isprintable():
        raise ValueError(f"the tag {tag!r} contains characters that are not printable: remove or escape them")
    if len(tag.encode()) > MAX_TEXT:
        raise ValueError(f"the tag {tag[:40]!r}... is longer than {MAX_TEXT} bytes of UTF-8: use a digest of it")
    return str.__str__(tag)


def tag_digest(tag: str, key: bytes | None = None) -> bytes:
    """The 8 bytes that stand for a tag in an envelope; ``key`` hides names, where names are secret."""
    return blake2b(tag.encode(), digest_size=8, key=key or b"").digest()
