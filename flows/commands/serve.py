"""``voxface serve``: bundles over HTTP, following their aliases."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from contracts.bundle import read_bundle
from contracts.errors import Corrupt, Exit, Misuse
from flows.bundles import offered
from flows.commands.generate import Alias, BundleFolder, Device, Ledger, Replicas, System
from flows.commands.options import Address, command
from flows.running import Ended, Run

if TYPE_CHECKING:
    from serving.fleet import Fleet

LOOK_S = 3.0  # between two looks at the aliases


@command("serve", dry=True)
def serve(
    run: Run,
    bundle: BundleFolder = None,
    alias: Alias = "champion",
    system: System = "see_the_speaker",
    also: Annotated[
        list[str] | None, typer.Option(help="SYSTEM:ALIAS to serve beside it, as a canary; may be given again.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; put a proxy with TLS before another.")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port [default: a free one].")] = None,
    store: Annotated[Path | None, typer.Option(help="Files under it may be named by key (store:…).")] = None,
    ledger: Ledger = None,
    replicas: Replicas = 1,
    device: Device = "cpu",
    address: Address = "local",
) -> None:
    """Serve bundles over HTTP, on 127.0.0.1 unless told otherwise, until Ctrl-C. Callers need a key.

    Where an alias is moved (voxface publish, retrain, rollback) the service follows: the new bundle is loaded first,
    and what was asked of the old one is still made by it.

    Example: voxface serve --port 8080 (and, for a key: voxface keys create --name me)

    A canary beside the champion: voxface serve --also see_the_speaker:canary
    """
    names = [(system, alias), *(_pair(each) for each in also or ())]
    if twice := [name for name in names if names.count(name) > 1]:
        raise Misuse(f"--also {':'.join(twice[0])} is served already")
    models = offered(run.places, names, bundle)
    for _, digest, folder in models:
        if (found := read_bundle(folder).digest) != digest:
            raise Corrupt(folder, "is not the bundle that was registered", digest, found)
    if store is not None and not store.is_dir():
        raise Misuse(f"--store {store} is not a folder")
    from serving.service import Service

    service = Service(run.places.service, url=ledger)
    keys = sum(key.revoked is None for key in service.keys.all())
    lines = [f"{of} {name} {digest[:12]}" for (of, name), (_, digest, _) in zip(names, models, strict=True)]
    told = {"bundle": models[0][1], "models": lines, "service": str(run.places.service), "keys": keys}
    if run.dry:
        service.close()
        run.finish({"host": host, "port": port, **told})
        return
    if not keys:
        run.note("nobody has a key yet: voxface keys create --name me")
    from flows.cluster import LEAST_CPUS, cluster
    from serving.app import DoorArguments, ModelArguments, load, run_local, unload
    from serving.fleet import Fleet
    from serving.offer import Offer

    def model(folder: Path) -> ModelArguments:
        return ModelArguments(bundle=folder, root=service.root, url=ledger, replicas=replicas, device=device)

    offer, folders = Offer(service.root), {digest: folder for _, digest, folder in models}
    offer.write([(name, folder) for name, _, folder in models])  # before a door could read an older one
    first = {alias: models[0][2]}
    door = DoorArguments(root=service.root, models=first, url=ledger, allowed=store, follows=True)
    # twice: while an alias moves, the old bundle and the new one are loaded
    cpus = max(LEAST_CPUS, os.cpu_count() or 1, 2 * len(folders) * replicas + 1)
    with cluster(address, cpus), run_local([model(each) for each in folders.values()], door, host, port) as client:
        run.finish({"url": client.url, **told})
        loaded = dict(zip(folders, client.names, strict=False))  # the door's name is the last
        fleet = Fleet(offer, service.queue, loaded, lambda at: load(client, model(at)), lambda at: unload(client, at))
        fleet.follow(models)
        trouble = ""
        while client.healthy():
            time.sleep(LOOK_S)
            trouble = _follow(run, fleet, names, bundle, trouble)
    raise Ended(Exit.FAILED, "the application is no longer healthy: the log of this run says why")


def _follow(run: Run, fleet: Fleet, names: list[tuple[str, str]], bundle: Path | None, told: str) -> str:
    """What the aliases lead to now is offered; where that cannot be told, or does not load, nothing changes.

    Why it cannot be told, for the next look, which says it no second time.
    """
    try:
        models = offered(run.places, names, bundle)
    except Misuse as error:
        if str(error) != told:
            run.note(f"{error}; what is loaded goes on")
        return str(error)
    if fleet.follow(models):
        lines = [f"{of} {name} {digest[:12]}" for (of, name), (_, digest, _) in zip(names, models, strict=True)]
        run.note(f"now served: {', '.join(lines)}")
    for digest in fleet.settle():
        run.note(f"unloaded: {digest[:12]}, of which nothing is left to make")
    return ""


def _pair(text: str) -> tuple[str, str]:
    system, _, alias = text.partition(":")
    if not system or not alias:
        raise Misuse(f"--also {text}: say SYSTEM:ALIAS, as see_the_speaker:canary")
    return system, alias
