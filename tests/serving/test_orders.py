"""Jobs are their caller's own; equal items are one execution; quotas bound what may wait; deletion leaves nothing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from serving.jobs import Inputs, Job
from serving.keys import Caller, Keys
from serving.ledger import Ledger, executions
from serving.orders import Busy, Item, Orders
from serving.queue import Queue

BUNDLE = "b" * 64


def item(number: int, name: str | None = None) -> Item:
    inputs = Inputs(bundle=BUNDLE, audio=f"{number:064x}", seed=0)
    return Item(name or f"n{number}", inputs, Job(audio=Path(f"{number}.wav"), out=Path("x.mp4")))


def caller(ledger: Ledger, name: str = "ada", **quota: int) -> Caller:
    keys = Keys(ledger)
    found = keys.verify(keys.create(name, ["submit", "read"], **quota)[1])
    assert found is not None
    return found


def work(ledger: Ledger, limit: int = 100) -> int:
    """End what is queued; how many executions that were."""
    queue = Queue(ledger)
    claims = queue.claim(BUNDLE, "w", limit)
    from serving.jobs import Result

    for claim in claims:
        paths: dict[str, Any] = {"out": Path("x.mp4"), "sidecar": Path("x.json"), "portrait": None}
        done = Result(**paths, frames=5, seconds=0.2, job=claim.digest, video="v" * 64, reused=False)
        assert queue.finish(claim, done)
    return len(claims)


def test_b38_the_same_job_twenty_times_at_once(ledger_url: str) -> None:
    ledger = Ledger(ledger_url)
    ada = caller(ledger)
    orders = Orders(ledger)
    with ThreadPoolExecutor(20) as pool:
        receipts = list(pool.map(lambda _: orders.submit(ada, [item(1)], "one"), range(20)))
    assert len(set(receipts)) == 1
    assert work(ledger) == 1
    assert orders.submit(ada, [item(1)]) == receipts[0]
    assert work(ledger) == 0
    with ledger.reading() as connection:
        assert connection.scalar(select(func.sum(executions.c.rendered))) == 1
    ledger.close()


def test_equal_items_of_different_callers_are_one_execution(ledger: Ledger) -> None:
    orders, ada, bob = Orders(ledger), caller(ledger), caller(ledger, "bob")
    one, two = orders.submit(ada, [item(1), item(2)]), orders.submit(bob, [item(2)])
    assert one.job != two.job
    assert work(ledger) == 2
    for who, receipt in ((ada, one), (bob, two)):
        status = orders.status(who, receipt.job)
        assert status is not None
        assert (status.state, status.counts["done"]) == ("done", receipt.items)


def test_b40_jobs_are_their_callers_own(ledger: Ledger) -> None:
    orders, ada, bob = Orders(ledger), caller(ledger), caller(ledger, "bob")
    job = orders.submit(ada, [item(1)]).job
    assert orders.submit(bob, [item(1)]).job != job  # the same items: nobody can foretell another's id
    assert len(bytes.fromhex(job)) == 32
    for guess in (job, "0" * 64, "../" + job):
        assert orders.status(bob, guess) is None
        assert orders.items(bob, guess) is None
        assert orders.cancel(bob, guess) is False
        assert orders.forget(bob, guess, lambda *_: pytest.fail("not his")) is False
    assert orders.status(ada, job) is not None
    assert orders.status(Keys(ledger).local(), job) is not None  # an admin's


def test_rejected_items_are_told_and_cost_nothing(ledger: Ledger) -> None:
    orders, ada = Orders(ledger), caller(ledger)
    receipt = orders.submit(ada, [item(1), Item("bad", code="NO_CONSENT", detail="none")])
    assert (receipt.items, receipt.accepted, receipt.rejected) == (2, 1, 1)
    assert work(ledger) == 1
    good, bad = orders.items(ada, receipt.job) or []
    assert (good.state, good.done, good.frames, good.result) == ("done", 5, 5, "v" * 64)
    assert (bad.state, bad.code, bad.execution) == ("rejected", "NO_CONSENT", None)
    assert orders.items(ada, receipt.job, start=1, limit=1) == [bad]


def test_cancel_stops_what_nobody_else_waits_for(ledger: Ledger) -> None:
    orders, ada, bob = Orders(ledger), caller(ledger), caller(ledger, "bob")
    mine, shared = orders.submit(ada, [item(1), item(2), item(3)]).job, orders.submit(bob, [item(2)]).job
    queue = Queue(ledger)
    (running,) = queue.claim(BUNDLE, "w", 1)
    assert orders.cancel(ada, mine)
    assert queue.beat([running], {}) == set()  # its holder hears of it
    status = orders.status(ada, mine)
    assert status is not None
    assert (status.state, status.counts["cancelled"]) == ("cancelled", 3)
    assert work(ledger) == 1  # Bob's
    assert (orders.status(bob, shared) or status).state == "done"
    again = orders.submit(ada, [item(1), item(2), item(3)])
    assert again.job == mine
    assert work(ledger) == 2
    assert (orders.status(ada, mine) or status).counts["done"] == 3


def test_delete_leaves_nothing_but_what_others_have(ledger: Ledger) -> None:
    orders, ada, bob = Orders(ledger), caller(ledger), caller(ledger, "bob")
    mine = orders.submit(ada, [item(1), item(2)]).job
    orders.submit(bob, [item(2)])
    work(ledger)
    gone: list[list[str]] = []
    assert orders.forget(ada, mine, lambda *left: gone.extend(left))
    (digest,), inputs = gone
    assert inputs == [f"{1:064x}"]
    assert item(1).inputs is not None
    assert digest == item(1).inputs.job  # type: ignore[union-attr]
    assert orders.status(ada, mine) is None
    assert orders.unused_inputs([f"{1:064x}", f"{2:064x}"]) == [f"{1:064x}"]


@pytest.mark.parametrize(
    ("quota", "code"),
    [({"daily": 3}, "QUOTA"), ({"unfinished": 3}, "CONCURRENCY")],
)
def test_b37_quotas(ledger: Ledger, clock: Any, quota: dict[str, int], code: str) -> None:
    orders, ada = Orders(ledger), caller(ledger, **quota)
    first = orders.submit(ada, [item(1), item(2)])
    with pytest.raises(Busy) as caught:
        orders.submit(ada, [item(3), item(4)])
    assert (caught.value.code, caught.value.retry_after_s > 0) == (code, True)
    assert work(ledger) == 2  # nothing of what was refused was queued
    assert orders.submit(ada, [item(1), item(2)]) == first  # asked again, not anew
    orders.submit(ada, [item(3)])
    clock.now += 86_401
    work(ledger)
    orders.submit(ada, [item(4), item(5), item(6)])


def test_the_queue_of_all_is_bounded(ledger: Ledger) -> None:
    orders = Orders(ledger, queue_limit=3)
    for name in ("ada", "bob"):
        orders.submit(caller(ledger, name), [item(1), item(2)])  # two executions in all
    with pytest.raises(Busy) as caught:
        orders.submit(caller(ledger), [item(3), item(4)])
    assert caught.value.code == "OVERLOAD"


def test_pages(ledger: Ledger) -> None:
    orders, ada = Orders(ledger), caller(ledger)
    made = [orders.submit(ada, [item(number)], f"job {number}").job for number in range(5)]
    seen, before = [], None
    while True:
        page, before = orders.page(ada, 2, before)
        seen += [status.job for status in page]
        if before is None:
            break
    assert seen == made[::-1]
    assert orders.page(caller(ledger, "bob"), 10) == ([], None)
