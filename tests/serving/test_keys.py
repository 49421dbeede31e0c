"""API keys: shown once, kept hashed, scoped, revocable at once."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from contracts.errors import Misuse
from serving.keys import FORM, LOCAL, Keys
from serving.ledger import Ledger, keys


def test_a_key_opens_and_what_is_kept_does_not(ledger: Ledger) -> None:
    store = Keys(ledger)
    info, secret = store.create("ada", ["read", "submit"], daily=7)
    assert FORM.fullmatch(secret)
    caller = store.verify(secret)
    assert caller is not None
    assert (caller.id, caller.name, caller.daily) == (info.id, "ada", 7)
    assert caller.may("read")
    assert not caller.may("admin")
    with ledger.reading() as connection:
        row = connection.execute(select(keys)).mappings().one()
    kept = "".join(str(value) for value in row.values())
    assert secret.split("_", 2)[2] not in kept
    assert store.verify(f"vf_{info.id}_{row['hash'][:43]}") is None


def test_b35_wrong_unknown_malformed_and_revoked_keys_open_nothing(ledger: Ledger) -> None:
    store = Keys(ledger)
    info, secret = store.create("ada", ["admin"])
    _, other = store.create("bob", ["admin"])
    swapped = f"vf_{info.id}_{other.split('_', 2)[2]}"
    last = "A" if secret[-1] != "A" else "E"
    for wrong in ("", "vf_", secret[:-1], secret + "A", secret[:-1] + last, swapped, f"vf_{'0' * 16}_{'A' * 43}"):
        assert store.verify(wrong) is None, wrong
    assert store.verify(secret) is not None
    assert Keys(ledger).verify(secret) is not None  # by another process too
    store.revoke(info.id)
    assert store.verify(secret) is None  # at once, although its hash is remembered
    assert Keys(ledger).verify(secret) is None
    assert next(key for key in store.all() if key.id == info.id).revoked is not None
    store.revoke(info.id)  # twice is once


def test_the_local_key_cannot_be_presented(ledger: Ledger) -> None:
    store = Keys(ledger)
    assert store.local() == store.local()
    assert store.local().id == LOCAL
    assert store.all() == []
    with pytest.raises(Misuse, match="no key"):
        store.revoke(LOCAL)


@pytest.mark.parametrize(
    ("name", "scopes", "quota"),
    [("ada", ["rule"], {}), ("ada", [], {}), ("", ["read"], {}), ("a\nb", ["read"], {}), ("a", ["read"], {"daily": 0})],
)
def test_a_key_that_makes_no_sense(ledger: Ledger, name: str, scopes: list[str], quota: dict[str, int]) -> None:
    with pytest.raises(Misuse):
        Keys(ledger).create(name, scopes, **quota)
