"""``voxface keys``: who may use the service."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.commands.options import command
from flows.running import Run

if TYPE_CHECKING:
    from serving.keys import KeyInfo

DatabaseUrl = Annotated[str | None, typer.Option("--ledger", help="Database URL [default: SQLite in the work folder].")]


@command("keys create", dry=True)
def create(
    run: Run,
    name: Annotated[str, typer.Option(help="Whose key it is, in words.")],
    scope: Annotated[list[str] | None, typer.Option(help="submit, read or admin; may be repeated.")] = None,
    daily: Annotated[int, typer.Option(min=1, help="Items that it may ask for in 24 hours.")] = 10_000,
    unfinished: Annotated[int, typer.Option(min=1, help="Items that may wait or run at once.")] = 1_000,
    ledger: DatabaseUrl = None,
) -> None:
    """Make a key. It is printed once and kept nowhere but as a hash.

    Example: voxface keys create --name "the museum" --scope submit --scope read
    """
    scopes = scope or ["submit", "read"]
    if run.dry:
        run.finish({"name": name, "scopes": scopes, "daily": daily, "unfinished": unfinished})
        return
    from serving.service import Service

    service = Service(run.places.service, url=ledger)
    try:
        info, secret = service.keys.create(name, scopes, daily=daily, unfinished=unfinished)
    finally:
        service.close()
    run.finish({"key": secret, **_told(info)})
    run.result = _told(info)  # the record of the run must not have the secret


@command("keys list")
def show(
    run: Run,
    ledger: DatabaseUrl = None,
) -> None:
    """List all keys, revoked ones as well; never a secret.

    Example: voxface keys list
    """
    from serving.service import Service

    service = Service(run.places.service, url=ledger)
    try:
        run.finish({"keys": [_told(info) for info in service.keys.all()]})
    finally:
        service.close()


@command("keys revoke", dry=True)
def revoke(
    run: Run,
    key: Annotated[str, typer.Argument(help="Its id, as voxface keys list says.")],
    ledger: DatabaseUrl = None,
) -> None:
    """Take a key back, at once. What it has asked for goes on.

    Example: voxface keys revoke 0123456789abcdef
    """
    from serving.service import Service

    service = Service(run.places.service, url=ledger)
    try:
        if not run.dry:
            service.keys.revoke(key)
        run.finish({"keys": [_told(info) for info in service.keys.all() if info.id == key]})
    finally:
        service.close()


def _told(info: KeyInfo) -> dict[str, Any]:
    times = {name: _time(value) for name, value in (("created", info.created), ("revoked", info.revoked))}
    return asdict(info) | {"scopes": " ".join(info.scopes)} | times


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
