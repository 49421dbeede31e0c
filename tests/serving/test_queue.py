"""Claims under leases: nothing is lost with its holder, nothing is done twice, only Transient is tried again."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from contracts.reasons import Reason
from serving.jobs import Inputs, Job, Refused, Result
from serving.keys import Keys
from serving.ledger import Ledger, executions
from serving.orders import Item, Orders
from serving.queue import CRASHES, LEASE_S, TRIES, Queue

BUNDLE = "b" * 64


def item(number: int, bundle: str = BUNDLE) -> Item:
    inputs = Inputs(bundle=bundle, audio=f"{number:064x}", seed=number)
    return Item(f"n{number}", inputs, Job(audio=Path(f"{number}.wav"), out=Path("x.mp4"), seed=number))


def fill(ledger: Ledger, count: int) -> list[str]:
    """Submit ``count`` items; their executions' digests in order."""
    asked = [item(number) for number in range(count)]
    Orders(ledger).submit(Keys(ledger).local(), asked)
    return [each.inputs.job for each in asked if each.inputs]


def result(digest: str, reused: bool = False) -> Result:
    paths: dict[str, Any] = {"out": Path("x.mp4"), "sidecar": Path("x.json"), "portrait": None}
    return Result(**paths, frames=50, seconds=2.0, job=digest, video="v" * 64, reused=reused)


def row(ledger: Ledger, digest: str) -> Any:
    with ledger.reading() as connection:
        return connection.execute(select(executions).where(executions.c.digest == digest)).mappings().one()


def test_oldest_first_and_each_to_one_holder(ledger: Ledger) -> None:
    digests = fill(ledger, 5)
    queue = Queue(ledger)
    first = queue.claim(BUNDLE, "one", 2)
    second = queue.claim(BUNDLE, "two", 9)
    assert [claim.digest for claim in first + second] == digests
    assert queue.claim(BUNDLE, "three", 9) == []
    assert queue.claim("c" * 64, "three", 9) == []  # nor another bundle's
    assert first[0].job.seed == 0


def test_f34_nothing_waits_for_a_clock_that_was_set_back(ledger: Ledger, clock: Any) -> None:
    digests = fill(ledger, 2)
    queue = Queue(ledger)
    held, put_off = queue.claim(BUNDLE, "one", 2)
    queue.again(put_off, "Transient")
    clock.now -= 3600
    assert {claim.digest for claim in queue.claim(BUNDLE, "two", 4)} == {held.digest}  # it died, for all one can know
    assert [claim.digest for claim in queue.claim(BUNDLE, "two", 4)] == digests[1:]
    assert queue.claim(BUNDLE, "two", 4) == []
    assert not queue.finish(held, result(held.digest))


def test_a_holder_that_falls_silent_loses_its_claim(ledger: Ledger, clock: Any) -> None:
    (digest,) = fill(ledger, 1)
    queue = Queue(ledger)
    (lost,) = queue.claim(BUNDLE, "one", 4)
    clock.now += LEASE_S + 1
    (taken,) = queue.claim(BUNDLE, "two", 4)
    assert queue.beat([lost], {}) == set()
    assert not queue.finish(lost, result(digest))  # whatever it says is not heard
    assert row(ledger, digest)["state"] == "running"
    assert queue.finish(taken, result(digest))
    assert not queue.finish(taken, result(digest))
    found = row(ledger, digest)
    assert (found["state"], found["rendered"], found["crashes"]) == ("done", 1, 1)


def test_beating_keeps_a_claim_and_tells_progress(ledger: Ledger, clock: Any) -> None:
    (digest,) = fill(ledger, 1)
    queue = Queue(ledger)
    (claim,) = queue.claim(BUNDLE, "one", 4)
    for _ in range(5):
        clock.now += LEASE_S * 0.9
        assert queue.beat([claim], {digest: (10, 50)}) == {digest}
        assert queue.claim(BUNDLE, "two", 4) == []
    assert row(ledger, digest)["done"] == 10


def test_what_kills_its_holders_is_tried_alone_and_given_up(ledger: Ledger, clock: Any) -> None:
    digests = fill(ledger, 3)
    queue = Queue(ledger)
    assert len(queue.claim(BUNDLE, "w", 4)) == 3
    seen = []
    for _ in range(40):
        clock.now += LEASE_S + 1
        claims = queue.claim(BUNDLE, "w", 4)
        seen.append(len(claims))
        for claim in claims:
            if claim.digest != digests[0]:  # the first one kills whoever renders it
                queue.finish(claim, result(claim.digest))
    assert max(seen) == 1  # after the first death no batch was shared
    assert [row(ledger, digest)["state"] for digest in digests] == ["failed", "done", "done"]
    assert row(ledger, digests[0])["code"] == "CRASHED"
    assert row(ledger, digests[0])["crashes"] == CRASHES + 1


def test_transient_is_tried_again_after_a_while_and_then_failed(ledger: Ledger, clock: Any) -> None:
    (digest,) = fill(ledger, 1)
    queue = Queue(ledger)
    for attempt in range(TRIES):
        (claim,) = queue.claim(BUNDLE, "w", 4)
        assert queue.again(claim, "the store is away")
        if attempt < TRIES - 1:
            assert queue.claim(BUNDLE, "w", 4) == []  # not at once
            clock.now += 60
    found = row(ledger, digest)
    assert (found["state"], found["code"], found["tries"]) == ("failed", "EXHAUSTED", TRIES)
    assert "the store is away" in found["detail"]


def test_a_rejection_is_final(ledger: Ledger, clock: Any) -> None:
    (digest,) = fill(ledger, 1)
    queue = Queue(ledger)
    (claim,) = queue.claim(BUNDLE, "w", 4)
    queue.finish(claim, Refused(state="rejected", out=Path("x.mp4"), code=Reason.NO_AUDIO, detail="mute"))
    clock.now += 1e6
    assert queue.claim(BUNDLE, "w", 4) == []
    fill(ledger, 1)  # asked for again: the same input is the same answer
    assert queue.claim(BUNDLE, "w", 4) == []
    assert row(ledger, digest)["code"] == "NO_AUDIO"


def test_a_worker_that_stops_gives_its_claims_back(ledger: Ledger) -> None:
    fill(ledger, 3)
    queue = Queue(ledger)
    queue.release(queue.claim(BUNDLE, "one", 4))
    assert len(queue.claim(BUNDLE, "two", 4)) == 3  # together: nobody died
    assert queue.depth() == {"running": 3}


def test_many_workers_share_without_a_gap_or_a_double(ledger_url: str) -> None:
    ledgers = [Ledger(ledger_url) for _ in range(4)]
    digests = fill(ledgers[0], 60)
    held: list[str] = []

    def drain(ledger: Ledger) -> None:
        queue = Queue(ledger)
        while claims := queue.claim(BUNDLE, "w", 4):
            held.extend(claim.digest for claim in claims)
            for claim in claims:
                assert queue.finish(claim, result(claim.digest))

    threads = [threading.Thread(target=drain, args=(each,)) for each in ledgers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    while Queue(ledgers[0]).depth() != {"done": 60}:  # PostgreSQL skips rows that others hold: who saw none is done
        drain(ledgers[0])
    assert sorted(held) == sorted(digests)
    for each in ledgers:
        each.close()


@pytest.mark.parametrize("reused", [True, False])
def test_a_video_that_stood_already_was_not_made_again(ledger: Ledger, reused: bool) -> None:
    (digest,) = fill(ledger, 1)
    queue = Queue(ledger)
    (claim,) = queue.claim(BUNDLE, "w", 4)
    queue.finish(claim, result(digest, reused))
    assert row(ledger, digest)["rendered"] == (0 if reused else 1)
    queue.reopen(digest)
    assert len(queue.claim(BUNDLE, "w", 4)) == 1
