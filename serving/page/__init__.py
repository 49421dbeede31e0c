"""The page at ``/``: files for anybody. What it shows it asks the API for, with the key that it is given."""

# no "from __future__ import annotations" here, for the reason that serving/api.py gives

from pathlib import Path

from fastapi import FastAPI, Response

FOLDER = Path(__file__).parent
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
FILES = {"/": FOLDER / "index.html"} | {
    f"/page/{path.name}": path for path in sorted(FOLDER.iterdir()) if path.suffix in KINDS and path.suffix != ".html"
}
PATHS = frozenset(FILES)
# only its own files and the API of its own origin; blob: is what it fetched with the key, or recorded
POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' blob:",
        "media-src blob:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Cross-Origin-Opener-Policy": "same-origin",
}


def add_page(app: FastAPI) -> None:
    """Answer GET and HEAD of :data:`PATHS` with the files as they are now; they stay in memory."""
    for path, file in FILES.items():
        _add(app, path, file.read_bytes(), KINDS[file.suffix])


def _add(app: FastAPI, path: str, body: bytes, kind: str) -> None:
    @app.api_route(path, methods=["GET", "HEAD"], include_in_schema=False)
    async def page() -> Response:
        return Response(body, media_type=kind, headers=HEADERS)
