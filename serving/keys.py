"""API keys: shown once, kept as a salted scrypt hash, scoped, with quotas, revocable."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from typing import Any

from sqlalchemy import RowMapping, insert, select, update

from contracts.errors import Misuse
from serving.ledger import Ledger, keys

SCOPES = ("submit", "read", "metrics", "admin")  # admin may do what the others may, with every key's jobs
LOCAL = "local"  # the key of the command line: it has no secret, nobody can present it
DAILY = 10_000  # items in 24 hours
UNFINISHED = 1_000  # items waiting or running
UNLIMITED = 2**31 - 1
# the secret has 256 random bits, so the cost need not deter guessing: 2**12 is 4 MB and about 10 ms
SCRYPT: dict[str, int] = {"n": 2**12, "r": 8, "p": 1, "dklen": 32}
FORM = re.compile(r"vf_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")
NAME_LIMIT = 100


@dataclass(frozen=True)
class Caller:
    """Who asks: a key that was presented and is not revoked."""

    id: str
    name: str
    scopes: frozenset[str]
    pepper: str
    daily: int
    unfinished: int

    def may(self, scope: str) -> bool:
        return scope in self.scopes or "admin" in self.scopes


@dataclass(frozen=True)
class KeyInfo:
    """What may be told of a key: never its secret or its hash."""

    id: str
    name: str
    scopes: list[str]
    daily: int
    unfinished: int
    created: float
    revoked: float | None


class Keys:
    """The keys of a ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self._seen: dict[bytes, str] = {}  # scrypt results of secrets that fitted; revocation is read every time
        self._blind = secrets.token_bytes(32)

    def create(
        self, name: str, scopes: list[str], *, daily: int = DAILY, unfinished: int = UNFINISHED
    ) -> tuple[KeyInfo, str]:
        """A new key and its secret text, which is nowhere else. Raises ``Misuse`` for an unknown scope or odd name."""
        if wrong := sorted(set(scopes) - set(SCOPES)):
            raise Misuse(f"unknown scopes {wrong}; there are {', '.join(SCOPES)}")
        if not scopes:
            raise Misuse(f"a key needs a scope: {', '.join(SCOPES)}")
        if not name.strip() or len(name) > NAME_LIMIT or not name.isprintable():
            raise Misuse(f"a key's name is one printable line of at most {NAME_LIMIT} characters")
        if daily < 1 or unfinished < 1:
            raise Misuse("quotas are at least 1")
        identity, secret, salt = secrets.token_hex(8), secrets.token_urlsafe(32), secrets.token_hex(16)
        self._insert(identity, name.strip(), _hash(secret, salt), salt, sorted(set(scopes)), daily, unfinished)
        (info,) = [each for each in self.all() if each.id == identity]
        return info, f"vf_{identity}_{secret}"

    def all(self) -> list[KeyInfo]:
        """All keys that can be presented, in order of making; revoked ones as well."""
        with self.ledger.reading() as connection:
            rows = connection.execute(select(keys).where(keys.c.hash != "").order_by(keys.c.created)).mappings().all()
        return [
            KeyInfo(
                id=row["id"],
                name=row["name"],
                scopes=row["scopes"].split(),
                daily=row["daily"],
                unfinished=row["unfinished"],
                created=row["created"],
                revoked=row["revoked"],
            )
            for row in rows
        ]

    def revoke(self, identity: str) -> None:
        """From now on the key opens nothing; its jobs go on. Raises ``Misuse`` where there is no such key."""
        with self.ledger.writing() as connection:
            found = connection.scalar(select(keys.c.id).where(keys.c.id == identity, keys.c.hash != ""))
            if found is None:
                raise Misuse(f"there is no key {identity!r}: voxface keys list")
            changed = update(keys).where(keys.c.id == identity, keys.c.revoked.is_(None))
            connection.execute(changed.values(revoked=self.ledger.clock()))

    def verify(self, presented: str) -> Caller | None:
        """The caller behind a presented key; ``None`` for one that is malformed, unknown, wrong or revoked."""
        match = FORM.fullmatch(presented)
        if match is None:
            return None
        identity, secret = match.groups()
        with self.ledger.reading() as connection:
            row = connection.execute(select(keys).where(keys.c.id == identity)).mappings().first()
        if row is None or not row["hash"]:
            return None
        # the hash first, then the revocation: a revoked key is told apart only by who has its secret
        if not self._fits(secret, row) or row["revoked"] is not None:
            return None
        return _caller(row)

    def local(self) -> Caller:
        """The command line's own caller: no secret, no quota."""
        with self.ledger.writing() as connection:
            row = connection.execute(select(keys).where(keys.c.id == LOCAL)).mappings().first()
        if row is None:
            self._insert(LOCAL, LOCAL, "", "", ["admin"], UNLIMITED, UNLIMITED)
            with self.ledger.reading() as connection:
                row = connection.execute(select(keys).where(keys.c.id == LOCAL)).mappings().one()
        return _caller(row)

    def _fits(self, secret: str, row: RowMapping) -> bool:
        seen = hmac.digest(self._blind, f"{row['salt']}{secret}".encode(), "sha256")
        found = self._seen.get(seen) or _hash(secret, row["salt"])
        if not hmac.compare_digest(found, row["hash"]):
            return False
        if len(self._seen) > 1000:
            self._seen.clear()
        self._seen[seen] = found
        return True

    def _insert(
        self, identity: str, name: str, hashed: str, salt: str, scopes: list[str], daily: int, unfinished: int
    ) -> None:
        values: dict[str, Any] = {
            "id": identity,
            "name": name,
            "salt": salt,
            "hash": hashed,
            "pepper": secrets.token_hex(32),
            "scopes": " ".join(scopes),
            "daily": daily,
            "unfinished": unfinished,
            "created": self.ledger.clock(),
        }
        with self.ledger.writing(counting=True) as connection:
            if connection.scalar(select(keys.c.id).where(keys.c.id == identity)) is None:
                connection.execute(insert(keys).values(**values))


def _hash(secret: str, salt: str) -> str:
    return hashlib.scrypt(secret.encode(), salt=bytes.fromhex(salt), **SCRYPT).hex()


def _caller(row: RowMapping) -> Caller:
    return Caller(
        id=row["id"],
        name=row["name"],
        scopes=frozenset(row["scopes"].split()),
        pepper=row["pepper"],
        daily=row["daily"],
        unfinished=row["unfinished"],
    )
