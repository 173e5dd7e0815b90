"""The keys of a service: which one seals and signs now, which ones only open, and what is derived of them.

Every key that touches an entry is derived by HKDF-SHA256 (RFC 5869) from a root, with the use, the namespace, the
region and the tenant as its context. So a key of one region opens nothing of another. A root is known by four bytes
that are derived of it too, and stand in each entry: reading tells at once which key is needed.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import RLock
from typing import Final, Literal, NamedTuple, NoReturn, TypeAlias

from cachekit.config.fields import KEYS
from cachekit.config.secret import Secret
from cachekit.config.spec import NEEDS_MASTER_KEY, NEEDS_SIGNING_KEY, KeySpec
from cachekit.config.tree import read_secret_file
from cachekit.errors import ConfigError

logger = logging.getLogger("cachekit")

Use: TypeAlias = Literal["seal", "sign"]

ID_BYTES: Final = 4
REREAD: Final = 1.0  # seconds between two looks into files that seem unchanged, while entries come under unknown keys


class Root(NamedTuple):
    """A secret that others are derived of."""

    id: bytes
    secret: Secret

    def __repr__(self) -> str:
        return f"Root({self.id.hex()})"


class Keyring:
    """The roots of one configuration. Those from files are read again when an entry comes under an unknown key."""

    def __init__(self, spec: KeySpec, namespace: str, now: Callable[[], float] = time.monotonic) -> None:
        self._spec = spec
        self._namespace = namespace
        self._now = now
        self._looked: float | None = None
        self._seen: list[object] = []  # what the files were like then
        self.mutex = RLock()  # of what is made anew: roots here, locks in `seal`
        self.version = 0  # of the roots; whoever holds derived keys derives anew when it has changed
        self._roots: dict[Use, list[Root]] = {"seal": [], "sign": []}
        # The present one first, then those of other processes that have not followed a rotation yet, or of before. They
        # stay when keys are read again: regions have taken theirs, and a clear must reach what they name.
        self.name_keys = tuple([derive(root, "names", namespace) for root in _name_roots(spec)])
        self._take(spec)

    def __repr__(self) -> str:
        return f"<keyring of {len(self._roots['seal'])} keys>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("keys are not pickled; each process reads them from its own environment")

    def present(self, use: Use) -> Root:
        """The root that seals or signs now. Raises `ConfigError` without one."""
        if not self._has(use):
            raise ConfigError(NEEDS_MASTER_KEY if use == "seal" else NEEDS_SIGNING_KEY)
        return self._roots[use][0]

    def find(self, use: Use, ident: bytes) -> Root | None:
        """The root of this id; one that is not known here may have come into the files meanwhile."""
        found = self._among(use, ident)
        if found is None and self._spec.files:
            with self.mutex:  # who comes while another thread reads must not go without what that one finds
                if self._among(use, ident) is None:
                    self._reread()
            found = self._among(use, ident)
        return found

    def after_fork(self) -> None:
        """In a forked child: another thread of the parent may have been reading."""
        self.mutex = RLock()

    def derive(self, root: Root, use: Use, region: str, tenant: str) -> Secret:
        """The 32 bytes that entries of a region, and of a tenant in it, are sealed or signed with."""
        return derive(root.secret, use, self._namespace, region, tenant)

    def known(self, use: Use) -> dict[bytes, str]:
        """The ids of all roots, which are no secret, and what they are in the configuration; the present one first."""
        masters = ["master_key"] if self._spec.master_key is not None else []
        previous = [f"previous_keys[{number}]" for number in range(len(self._spec.previous_keys))]
        names = masters + previous
        if use == "sign":
            signing = ["signing_key"] if self._spec.signing_key is not None else []
            names = [*signing, *[f"{name}, derived" for name in names], *previous]
        found: dict[bytes, str] = {}
        for root, name in zip(self._roots[use], names, strict=True):
            found.setdefault(root.id, name)
        return found

    @property
    def name_key(self) -> Secret | None:
        """What names of keys and tags are hidden with; None without a key."""
        return self.name_keys[0] if self.name_keys else None

    def _has(self, use: Use) -> bool:
        return self._spec.master_key is not None or (use == "sign" and self._spec.signing_key is not None)

    def _among(self, use: Use, ident: bytes) -> Root | None:
        return next((root for root in self._roots[use] if root.id == ident), None)

    def _take(self, spec: KeySpec) -> None:
        masters = [key for key in (spec.master_key, *spec.previous_keys) if key is not None]
        signing = [] if spec.signing_key is None else [spec.signing_key]
        previous = spec.previous_keys  # may have been signing keys
        self._spec = spec
        self._roots = {
            "seal": [_root(secret) for secret in masters],
            "sign": [_root(secret) for secret in (*signing, *[derive(key, "signing") for key in masters], *previous)],
        }
        self.version += 1

    def _reread(self) -> None:
        """Take what the files say by now; files that look as before are read again after a while only."""
        now, seen = self._now(), [_looks(path) for path in self._spec.files.values()]
        if seen == self._seen and self._looked is not None and now - self._looked < REREAD:
            return
        self._looked, self._seen = now, seen
        try:
            read = {name: KEYS[name].parse(read_secret_file(path)) for name, path in self._spec.files.items()}
        except ValueError as error:
            logger.warning("a file of keys %s; the keys known so far are used", error)
            return
        changed = {name: value for name, value in read.items() if value != getattr(self._spec, name)}
        if changed:
            self._take(replace(self._spec, **changed))
            logger.info("keys were read again: %s", ", ".join(sorted(changed)))


def _looks(path: str) -> object:
    """What changes with a file, as far as that can be seen from outside."""
    try:
        stat = Path(path).stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def name_root(master_key: Secret | str) -> Secret:
    """The secret for names where there is no ``name_key``: derived, so that it can be pinned before a rotation."""
    return derive(Secret.of(master_key), "name root")


def _name_roots(spec: KeySpec) -> list[Secret]:
    if spec.name_key is not None:
        return [spec.name_key]
    if spec.master_key is None:
        return []
    return [name_root(key) for key in (spec.master_key, *spec.previous_keys)]


def _root(secret: Secret) -> Root:
    return Root(bytes(derive(secret, "id"))[:ID_BYTES], secret)  # an id is no secret


def derive(secret: Secret, use: str, *context: str) -> Secret:
    """32 bytes by HKDF-SHA256; each part of the context with its length before it, so that none can run into another.

    The version in front belongs to format 1 of the envelope.
    """
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    info = b"".join(len(part).to_bytes(4, "big") + part for part in [text.encode() for text in (use, *context)])
    return Secret(HKDF(SHA256(), 32, salt=None, info=b"cachekit 1" + info).derive(secret))
