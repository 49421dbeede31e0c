"""F29, F30: ten times as many requests as can be served, clients that vanish, and clients that send a byte a second."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from faults.material import until
from faults.row import Figure
from outages.standing import Standing, executions_of, standing, unfit
from toys import talker

from serving.api import UPLOADS
from serving.policy import ServingLimits

TENFOLD = 10
WAITING = 16  # videos that may wait: beyond it, 429
ASKED = 12  # videos by which the capacity is measured
CLIENTS = 128  # requests that may be on their way at once: more than the door answers
ANSWER_S = 60.0
BODY_S = 5.0  # in which an upload has to be there
WAVE = 20  # slow senders, and as many that vanish, at once: fewer than there are slots
BODY = 100_000  # bytes that they promise


def overload(folder: Path, count: int) -> Figure:
    """F29: an open-loop client asks ten times as often as the service renders, for ``count`` seconds."""
    with standing(folder, queue_limit=WAITING) as service:
        sound = talker.write_sound(folder / "talk.wav", 48_000)
        capacity, before = _capacity(service, sound)
        asked = round(TENFOLD * capacity * count)
        answers: Counter[str] = Counter()
        late: list[float] = []
        with _watching(service) as peak, ThreadPoolExecutor(CLIENTS) as pool:
            began = time.monotonic()
            for number in range(asked):
                due = began + number / (TENFOLD * capacity)
                time.sleep(max(0.0, due - time.monotonic()))
                late.append(time.monotonic() - due)
                future = pool.submit(_ask, service, sound.read_bytes(), 10_000 + number)
                future.add_done_callback(lambda each: answers.update([each.result()]))
        rendering = until(lambda: not _open(service), 300)
        rows = [row for row in executions_of(service.ledger) if row["created"]]
        accepted = answers["202"]
        lost = unfit(service, rows) + abs(len(rows) - ASKED - accepted)
    answered = accepted + answers["429"]
    growth = max(peak) / before - 1
    said = f"{capacity:.2g} videos/s; {asked} requests in {count} s (the client late by {max(late):.1f} s at most): "
    others = ", ".join(f"{count} {kind}" for kind, count in sorted(answers.items()) if kind not in ("202", "429"))
    said += f"{accepted} taken, {answers['429']} answered 429 with Retry-After, otherwise or not: {others or 'none'}; "
    said += f"of those taken {accepted - lost}/{accepted} finished; memory {before / 2**20:.0f} MB, {growth:+.1%}"
    return Figure(said, rendering and answered == asked and not lost and accepted > 0 < answers["429"] and growth < 0.1)


def hold_uploads(folder: Path, count: int) -> Figure:
    """F30: half of the clients cut the line amid an upload, half send a byte a second; then all slots are free."""
    answers: Counter[str] = Counter()
    slowest = [0.0]
    with standing(folder, limits=ServingLimits(request_seconds=BODY_S)) as service:
        left = count
        while left > 0:
            wave = min(WAVE, left)
            left -= wave
            threads = [
                threading.Thread(target=_drip if number % 2 else _vanish, args=(service, answers, slowest))
                for number in range(wave)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        held = [_begin(service) for _ in range(UPLOADS)]  # as many as there are slots: each must be read, not refused
        time.sleep(BODY_S / 2)
        leaked = sum(b" 429 " in _said(line) for line in held)
        for line in held:
            line.close()
        orphans = len(executions_of(service.ledger)) + sum(path.is_file() for path in service.root.glob("inputs/**/*"))
        time.sleep(1.0)
        with service.http() as http:
            receipt = http.submit(talker.write_sound(folder / "talk.wav", 16_000))
            serves = http.wait(receipt.job, timeout_s=120).counts["done"] == 1
    said = (
        f"{count} uploads broken off or dripping ({answers['408']} answered 408, the last after {slowest[0]:.1f} s of "
    )
    said += f"{BODY_S:.0f}); slots leaked {leaked}/{UPLOADS}, orphans {orphans}, then served {serves}"
    held_up = answers["408"] == count // 2 and slowest[0] < BODY_S + 3
    return Figure(said, held_up and not leaked and not orphans and serves)


def _capacity(service: Standing, sound: Path) -> tuple[float, int]:
    """Videos per second with the queue never empty; bytes of memory at the end of it, at most."""
    with _watching(service) as peak, service.http() as http:
        job = http.submit_items([{"audio": "talk", "seed": seed} for seed in range(ASKED)], {"talk": sound}).job
        http.wait(job, timeout_s=300)
    ended = sorted(row["ended"] for row in service.rows())
    first = ended[3]  # the first batch: networks warm up
    return (ASKED - 4) / max(ended[-1] - first, 0.1), max(peak)


def _ask(service: Standing, sound: bytes, seed: int) -> str:
    """The status that a submission is answered with; what went wrong where nobody answers, or 429 has no Retry-After.

    Each asks over a connection of its own, as so many callers would: a pool that threads share closes lines in use.
    """
    asked = httpx.Request(
        "POST",
        f"{service.url}/v1/jobs",
        headers={"Authorization": f"Bearer {service.key}"},
        files={"audio": ("talk.wav", sound), "seed": (None, str(seed))},
    )
    body = asked.read()
    line = HTTPConnection(asked.url.host, asked.url.port, timeout=ANSWER_S)
    try:
        line.request("POST", asked.url.raw_path.decode(), body, dict(asked.headers))
        answer = line.getresponse()
        answer.read()
    except (OSError, HTTPException) as error:
        return type(error).__name__
    finally:
        line.close()
    if answer.status == 429 and not (answer.getheader("Retry-After") or "").isdigit():
        return "429 without Retry-After"
    return str(answer.status)


def _open(service: Standing) -> int:
    return sum(row["state"] in ("queued", "running") for row in executions_of(service.ledger))


@contextmanager
def _watching(service: Standing) -> Iterator[list[int]]:
    """Bytes of memory, looked at twice a second."""
    seen, stop = [service.memory()], threading.Event()

    def look() -> None:
        while not stop.wait(0.5):
            seen.append(service.memory())

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()
        seen.append(service.memory())


def _begin(service: Standing) -> socket.socket:
    """A connection on which an upload has begun."""
    address = urlsplit(service.url)
    line = socket.create_connection((address.hostname, address.port), timeout=30)
    head = f"POST {address.path}/v1/jobs HTTP/1.1\r\nHost: {address.netloc}\r\nAuthorization: Bearer {service.key}\r\n"
    head += f"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {BODY}\r\n\r\n"
    part = '--b\r\nContent-Disposition: form-data; name="audio"; filename="a.wav"\r\n\r\n'
    line.sendall((head + part).encode() + bytes(1000))
    return line


def _vanish(service: Standing, answers: Counter[str], slowest: list[float]) -> None:
    line = _begin(service)
    time.sleep(0.5)
    line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # cut off, not taken leave of
    line.close()
    answers["cut"] += 1


def _drip(service: Standing, answers: Counter[str], slowest: list[float]) -> None:
    began, line = time.monotonic(), _begin(service)
    said = b""
    while not said and time.monotonic() - began < 4 * BODY_S:
        with suppress(OSError):
            line.sendall(b"\0")
        said = _said(line, 1.0)
    slowest[0] = max(slowest[0], time.monotonic() - began)
    answers[said.split(b" ")[1].decode() if said.count(b" ") else "none"] += 1
    line.close()


def _said(line: socket.socket, wait_s: float = 0.2) -> bytes:
    """What the other side has said by now."""
    line.settimeout(wait_s)
    try:
        return line.recv(4096)
    except TimeoutError:
        return b""
    except OSError:
        return b"broken off"
