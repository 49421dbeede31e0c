"""Where tests read sources from that lie elsewhere: a web server on this machine, and what a refusal was for."""

from __future__ import annotations

import hashlib
import http.server
from collections.abc import Callable
from typing import Any

import pytest

from contracts.errors import Reject
from contracts.manifest import row_from
from contracts.plan import PlannedRow
from contracts.reasons import Reason

SECRET = "not-a-real-secret-7f3a"  # of accounts; nothing that is told or written may hold it


class Site(http.server.ThreadingHTTPServer):
    """A web server whose answers are (status, headers, body) by path, and which counts those who called."""

    def __init__(self, answers):
        self.answers, self.connections, self.asked = answers, 0, []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.server.asked.append((self.command, self.path))
                status, headers, body = self.server.answers.get(self.path, (404, {}, b""))
                if isinstance(status, list):
                    status = status.pop(0)
                self.send_response(status)
                for name, value in ({"Content-Length": str(len(body))} | headers).items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            do_HEAD = do_GET

            def log_message(self, *_):
                pass

        super().__init__(("127.0.0.1", 0), Handler)

    def get_request(self):
        self.connections += 1
        return super().get_request()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


def refusal(work: Callable[[], Any]) -> Reason:
    """What ``work`` is refused for."""
    with pytest.raises(Reject) as caught:
        work()
    return caught.value.reason


def planned_row(name: str, data: bytes, **values: Any) -> PlannedRow:
    """The row of a file that holds ``data``, as planned."""
    row = row_from({"file": name, **values})
    return PlannedRow(row=0, shard=0, key=row.key, sha256=hashlib.sha256(data).hexdigest(), bytes=len(data), values=row)
