"""The service itself: ledger, files and models together; what the HTTP door and the command line both call."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from contracts.errors import Reject
from contracts.reasons import FailureCode
from serving.audit import Audit
from serving.http import Submission
from serving.intake import STORE, Intake
from serving.journal import Journal
from serving.keys import Caller, Keys
from serving.ledger import Ledger, sqlite_url
from serving.offer import Offer
from serving.orders import QUEUE_LIMIT, Item, ItemStatus, Orders, Receipt, item_place
from serving.policy import ServingLimits, read_consent
from serving.problems import problem_of, without_places
from serving.provenance import inspect, portrait_path, sidecar_path
from serving.queue import LEASE_S, Queue
from serving.rows import Models, Row, admitted
from serving.worker import remove_result

LEDGER = "VOXFACE_LEDGER"  # the ledger's URL, where none is given: a password need not stand in a file
OUR_FAULT = "a fault of the program: the ledger has its error, for whoever runs the service"


@dataclass(frozen=True)
class Artifacts:
    """The files of a finished video."""

    video: Path
    sidecar: Path
    portrait: Path | None


class Service:
    """Everything under one folder: ``ledger.db`` (unless a URL is given), ``inputs/``, ``results/``."""

    def __init__(
        self,
        root: Path,
        models: Models | None = None,
        *,
        url: str | None = None,
        allowed: Path | None = None,
        limits: ServingLimits | None = None,
        queue_limit: int = QUEUE_LIMIT,
        lease_s: float = LEASE_S,
        follows: bool = False,
    ) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.root, self._models, self._offer = root, models, Offer(root) if follows else None
        self.results = root / "results"
        self.limits = limits or ServingLimits()
        self.ledger = Ledger(url or os.environ.get(LEDGER) or sqlite_url(root / "ledger.db"))
        self.keys, self.audit = Keys(self.ledger), Audit(self.ledger)
        self.orders, self.queue = Orders(self.ledger, queue_limit), Queue(self.ledger, lease_s)
        self.intake = Intake(root / "inputs", allowed)
        self.intake.sweep(self.orders.unused_inputs)
        self.journal: Journal | None = None

    @property
    def models(self) -> Models:
        """The bundles on offer: those of the offer's file, where this service ``follows`` it and there is one."""
        offered = None if self._offer is None else self._offer.read()
        return offered or self._models or Models([])

    def submit(self, caller: Caller, submission: Submission) -> Receipt:
        """Take a submission on, whole or not at all. Raises :class:`ProblemError`, ``Busy``."""
        for number, row in enumerate(submission.rows):
            self._check_consent(row, number)
        digests = {name: self.intake.keep(file) for name, file in submission.files.items()}

        def place(reference: str) -> Path:
            if reference.startswith(STORE):
                return self.intake.find(reference)
            return self.intake.place(digests[reference])

        def again() -> None:  # a deletion in another process may have taken them between
            for file in submission.files.values():
                self.intake.keep(file)

        asked: list[Item] = []
        for number, row in enumerate(submission.rows):
            try:
                asked.append(admitted(row, row.id or str(number), self.models, place))
            except Reject as error:
                told = Reject(error.reason, self.told(error.detail) or "")
                raise problem_of(told, f"items.{number}") from None
        receipt = self.orders.submit(caller, asked, submission.label, again)
        if self.journal is not None:
            counts = {"items": receipt.items, "accepted": receipt.accepted, "rejected": receipt.rejected}
            self.journal.write("asked", job=receipt.job, key=caller.id, **counts)
        return receipt

    def artifacts(self, item: ItemStatus) -> Artifacts | None:
        """The files of a finished item; ``None``, and it is made again, where they do not fit any more."""
        assert item.execution is not None
        video = item_place(self.results, item.execution)
        if not video.is_file() or inspect(video).state != "fits":
            self.queue.reopen(item.execution)
            return None
        picture = portrait_path(video)
        return Artifacts(video, sidecar_path(video), picture if picture.is_file() else None)

    def forget(self, caller: Caller, job: str) -> bool:
        """Delete the job, and the files that nobody else's job has. False where the caller has no such job."""

        def remove(results: Sequence[str], inputs: Sequence[str]) -> None:
            for digest in results:
                remove_result(self.results, digest)
            self.intake.remove(inputs)

        forgotten = self.orders.forget(caller, job, remove)
        if forgotten and self.journal is not None:
            self.journal.write("deleted", job=job, key=caller.id)
        return forgotten

    def told(self, detail: str | None, code: str | None = None) -> str | None:
        """``detail`` as a stranger may read it: without this machine's paths, and nothing of a fault of ours."""
        if code == FailureCode.INTERNAL.value:
            return OUR_FAULT
        places = [self.root.absolute(), self.root]
        if self.intake.allowed is not None:
            places += [self.intake.allowed.absolute(), self.intake.allowed]
        return without_places(detail, places)

    def shown(self, item: ItemStatus) -> dict[str, object]:
        """An item's fields as a stranger may read them."""
        return asdict(item) | {"detail": self.told(item.detail, item.code)}

    def close(self) -> None:
        self.ledger.close()

    @staticmethod
    def _check_consent(row: Row, number: int) -> None:
        """Before any file is stored: a picture of somebody who has not agreed is not even kept."""
        if row.portrait is None and row.video is None:
            return
        try:
            read_consent(row.consent)
        except Reject as error:
            raise problem_of(error, f"items.{number}.consent") from None
