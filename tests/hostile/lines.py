"""Rows of the matrix about manifest lines: ids, duplicates, paths, addresses, permissions, syntax, odd names."""

from __future__ import annotations

import os
import shutil
import socket
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hostile.bench import Case, Ended, Matrix
from hostile.factory import Factory, Listener, without_network

NOBODY = 65534
HUGE_LINE = 100_000_000  # bytes
BRACKETS = 200_000


def escaping_ids(factory: Factory, full: bool) -> Matrix:
    ids = [
        "../../etc/passwd",
        "/etc/passwd",
        "C:\\Windows\\system.ini",
        "C:/x",
        "a\0b",
        "a\nb",
        "a/../../b",
        "x\x1b[2J",
    ]
    cases = [Case(f"id {name!r}", {"file": factory.voice(), "id": name}, ("BAD_ID",)) for name in ids]
    files = ["../../etc/passwd", "/etc/passwd", "a\0b.wav", "a\nb.wav", "good.wav/../good.wav"]
    cases += [Case(f"file {name!r}", {"file": name}, ("BAD_ID",)) for name in files]
    return Matrix(cases)


def odd_ids(factory: Factory, full: bool) -> Matrix:
    refused = ["\u202egnp.evil", "a\u200fb", "x" * 513, "\ud800", "ä" * 257]
    cases = [Case(f"id {name[:20]!r}", {"file": factory.voice(), "id": name}, ("BAD_ID",)) for name in refused]
    cases[3] = Case("a lone surrogate", None, ("BAD_MANIFEST",), line=b'{"file": "good.wav", "id": "\\ud800"}')
    name = "n" + chr(0xE9)
    good = ["clip.0", "clip.1", "y" * 97, "y" * 512, "Twin", "twin", unicodedata.normalize("NFC", name)]
    good += [unicodedata.normalize("NFD", name), "a b", "a.json", "...", "-", "💬"]
    cases += [Case(f"id {name[:20]!r}", {"file": factory.voice(), "id": name}, check=_plain_members) for name in good]
    return Matrix(cases)


def _plain_members(one: Ended) -> list[str]:
    (key,) = one.members
    return [] if set(one.members[key]) == {"json", "wav"} else [f"members {sorted(one.members[key])}"]


def duplicates(factory: Factory, full: bool) -> Matrix:
    first, second, third = (factory.voice() for _ in range(3))
    copy = factory.fresh(".wav")
    shutil.copy(factory.root / third, factory.root / copy)
    return Matrix(
        [
            Case("an id", {"file": first, "id": "one"}),
            Case("the same id, other content", {"file": second, "id": "one"}, ("DUPLICATE_ID",)),
            Case("a content", {"file": third, "id": "two"}),
            Case("the same content, another id", {"file": copy, "id": "three"}, ("DUPLICATE_CONTENT",)),
            Case("the same file, another id", {"file": third, "id": "four"}, ("DUPLICATE_CONTENT",)),
            Case("the same file, another span", {"file": third, "id": "five", "end_s": 0.55}),
        ]
    )


def escaping_paths(factory: Factory, full: bool) -> Matrix:
    root = factory.root
    outside = root.parent / "outside" / "secret.wav"
    factory.voice("secret.wav")
    (root / "secret.wav").rename(outside)
    (root / "out.wav").symlink_to(outside)
    (root / "dir-out").symlink_to(outside.parent)
    (root / "passwd.mp4").symlink_to("/etc/passwd")
    (root / "zero.mp4").symlink_to("/dev/zero")
    (root / "loop.mp4").symlink_to("loop.mp4")
    (root / "folder.mp4").mkdir()
    os.mkfifo(root / "pipe.mp4")
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(root)  # the name of a socket may have 107 bytes only
        server.bind("socket.mp4")
        os.chdir(here)
    cases = [
        Case("a link out of the root", {"file": "out.wav"}, ("PATH_ESCAPE",)),
        Case("through a linked folder", {"file": "dir-out/secret.wav"}, ("PATH_ESCAPE",)),
        Case("a link to /etc/passwd", {"file": "passwd.mp4"}, ("PATH_ESCAPE",)),
        Case("a link to /dev/zero", {"file": "zero.mp4"}, ("PATH_ESCAPE",)),
        Case("a link to itself", {"file": "loop.mp4"}, ("UNREADABLE", "MISSING_FILE")),
        Case("a FIFO", {"file": "pipe.mp4"}, ("NOT_A_FILE",)),
        Case("a socket", {"file": "socket.mp4"}, ("NOT_A_FILE",)),
        Case("a folder", {"file": "folder.mp4"}, ("NOT_A_FILE",)),
        Case("a FIFO after planning", {"file": factory.voice()}, ("NOT_A_FILE",), after_plan=_become_fifo),
        Case("a link out after planning", {"file": factory.voice()}, ("PATH_ESCAPE",), after_plan=_become_link),
    ]
    try:
        os.mknod(root / "device.mp4", 0o20644, os.makedev(1, 5))
        cases.append(Case("a device", {"file": "device.mp4"}, ("NOT_A_FILE",)))
    except PermissionError:
        pass  # only root may make one
    return Matrix(cases)


def _become_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _become_link(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.parent.parent / "outside" / "secret.wav")


def addresses(factory: Factory, full: bool) -> Matrix:
    listener = Listener()
    names = urls(listener.port)

    def after() -> list[str]:
        listener.close()
        faults = [f"{listener.heard} connections"] if listener.heard else []
        alone = without_network("hostile.offline", str(factory.root))
        if alone is not None and alone != {"connections": 0, "reasons": ["URL_REFUSED"] * len(names)}:
            faults.append(f"without a network: {alone}")
        return faults

    return Matrix([Case(name, {"file": name}, ("URL_REFUSED",)) for name in names], after)


def urls(port: int) -> list[str]:
    here = f"127.0.0.1:{port}"
    return [
        f"http://{here}/x.mp4", f"https://{here}/x.mp4", "http://169.254.169.254/latest/meta-data/", f"tcp://{here}",
        "file:///etc/passwd", "file:good.wav", "s3://bucket/key.mp4", "concat:good.wav|good.wav", "pipe:0", "fd:0",
        f"HTTP://{here}/x.mp4", f"rtmp://{here}/live", "data:video/mp4;base64,AAAA", "crypto:good.wav",
        "async:good.wav", f"cache:http://{here}/", f"ftp://{here}/x", "gs://bucket/key",
    ]  # fmt: skip


def missing(factory: Factory, full: bool) -> Matrix:
    root = factory.root
    locked = factory.voice()
    (root / locked).chmod(0)
    (root / "gone.mp4").symlink_to("nowhere.mp4")
    cases = [
        Case("no such file", {"file": "nowhere.mp4"}, ("MISSING_FILE",)),
        Case("a file taken for a folder", {"file": "good.wav/x.mp4"}, ("MISSING_FILE",)),
        Case("a link to nothing", {"file": "gone.mp4"}, ("MISSING_FILE",)),
        Case("a name too long for the disk", {"file": "x" * 300 + ".mp4"}, ("UNREADABLE",)),
        Case("no permission", {"file": locked}, ("UNREADABLE",)),
    ]
    return Matrix(cases, planning=_as_nobody(root) if os.geteuid() == 0 else None)


def _as_nobody(root: Path) -> Callable[[Callable[[], Any]], Any]:
    """Root may read everything, so planning runs as somebody who may not."""

    def run(plan: Callable[[], Any]) -> Any:
        place = root.parent
        for path in (place, *place.rglob("*")):
            if not path.is_symlink() and path.stat().st_mode & 0o400:
                path.chmod(0o755)
        (place / "dataset").mkdir()
        (place / "dataset").chmod(0o777)
        opened = []
        for parent in place.parents:
            if parent.stat().st_mode & 0o055 != 0o055:
                opened.append((parent, parent.stat().st_mode))
                parent.chmod(parent.stat().st_mode | 0o055)
        os.seteuid(NOBODY)
        try:
            return plan()
        finally:
            os.seteuid(0)
            for parent, mode in opened:
                parent.chmod(mode & 0o7777)

    return run


def syntax(factory: Factory, full: bool) -> Matrix:
    deep = b'{"file": "x.wav", "box": ' + b"[" * BRACKETS + b"]" * BRACKETS + b"}"
    lines: list[tuple[str, bytes]] = [
        ("no JSON", b'{"file": '),
        ("a list", b'["good.wav"]'),
        ("a number", b"17"),
        ("NaN", b'{"file": "good.wav", "start_s": NaN}'),
        ("a number beyond all floats", b'{"file": "good.wav", "start_s": 1e999}'),
        ("a text for a number", b'{"file": "good.wav", "start_s": "soon"}'),
        ("a box inside out", b'{"file": "good.wav", "box": [0.9, 0, 0.1, 1]}'),
        ("nested brackets", deep),
        ("only brackets", b"[" * BRACKETS),
        ("100 MB", b'{"file": "' + b"x" * HUGE_LINE + b'"}'),
        ("no UTF-8", b'{"file": "caf\xe9.wav"}'),
        ("an empty name", b'{"file": ""}'),
        ("an object for a name", b'{"file": {"a": 1}}'),
        ("an integer of 100 000 digits", b'{"file": "good.wav", "age": ' + b"9" * 100_000 + b"}"),
    ]
    cases = [
        Case(says, None, ("BAD_MANIFEST",), line=line, check=_names_line(number))
        for number, (says, line) in enumerate(lines, start=1)
    ]
    given = {"file": factory.voice(), "mood": "calm"}
    cases.append(Case("an unknown field", given, check=lambda one: [] if _extra(one) == "calm" else ["lost its mood"]))
    return Matrix(cases, lambda: _csv_faults(factory), extra_bytes=("\ufeff".encode(), b"\r\n"))


def _names_line(number: int) -> Callable[[Ended], list[str]]:
    return lambda one: [] if one.lines[0]["detail"].startswith(f"line {number}: ") else [one.lines[0]["detail"]]


def _extra(one: Ended) -> str | None:
    return one.lines[0].get("extra.mood")


def _csv_faults(factory: Factory) -> list[str]:
    """The same in CSV: one giant line, NaN, NUL, a quote that never ends. Each costs one row, or is Misuse."""
    from hostile.bench import MEGABYTES, _Peak

    from contracts.errors import Misuse
    from preprocessing.corpora import BadLine, read_manifest

    path = factory.root.parent / "m.csv"
    rows = [
        b"good.wav,",
        b"a.wav,nan",
        b"b.wav,inf",
        b"c\0.wav,0",
        b"d.wav," + b"1" * HUGE_LINE,
        b"e.wav,0,0",
        b"z.wav,",
    ]
    path.write_bytes(b"\xef\xbb\xbffile,start_s\r\n" + b"\r\n".join(rows) + b"\r\n")
    with _Peak() as peak:
        found = read_manifest(path, factory.root)
    path.write_bytes(b'file,start_s\n"good.wav,\n' + b"x.wav,0\n" * 1000)
    unclosed = read_manifest(path, factory.root)
    path.write_bytes(b"\0" * 4096)
    try:
        read_manifest(path, factory.root)
        faults = ["4 KB of NUL are a manifest"]
    except Misuse:
        faults = []
    path.unlink()
    told = [row.line if isinstance(row, BadLine) else row.file for row in found]
    if told not in (["good.wav", "a.wav", 4, "c\0.wav", 6, 7, "z.wav"], ["good.wav", 3, 4, "c\0.wav", 6, 7, "z.wav"]):
        faults.append(f"csv lines: {told}")
    if [row for row in unclosed if isinstance(row, BadLine)] != unclosed[:1]:
        faults.append(f"an open quote: {len(unclosed)} rows")
    if peak.memory_mb > MEGABYTES:
        faults.append(f"a CSV line of 100 MB took {peak.memory_mb:.0f} MB")
    return faults


NAMES = (
    "-i.wav", "-.mp4", "--help.wav", "two  words .wav", "'; touch canary; '.wav", "$(touch canary).wav",
    "`touch canary`.wav", "%n%s%05d.wav", "a,b[c]=d;e|f&g.wav", "😀 ünï.wav", 'quo"te.wav', "back\\slash.wav",
    "#hash?query=1.wav", "*.wav", "~root.wav", "good.wav\u00a0.wav", "CON.wav", ".hidden.wav",
    "subfile,,start,0,end,99,,.wav",
)  # fmt: skip
INJECTED = "x'; touch canary #$(touch canary)`touch canary`[0:v]movie=/etc/passwd,drawtext=textfile=/etc/passwd%n%s"


def odd_names(factory: Factory, full: bool) -> Matrix:
    cases = []
    for name in NAMES:
        if name.endswith(".mp4"):
            factory.face("-t", "0.8", "-c", "copy", name=name)
        else:
            factory.voice(name)
        cases.append(Case(name, {"file": name, "speaker": name, "language": INJECTED}))
    tags = [word for tag in ("title", "comment", "artist", "encoder") for word in ("-metadata", f"{tag}={INJECTED}")]
    streams = [word for kind in "va" for word in (f"-metadata:s:{kind}:0", f"handler_name={INJECTED}")]
    marked = factory.face("-t", "0.9", "-c", "copy", *tags, *streams)
    cases.append(Case("metadata", {"file": marked, "id": "meta"}))
    playlist = factory.bytes_(b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", name="x';touch canary;'.mp4")
    cases.append(Case("a playlist with such a name", {"file": playlist}, ("BAD_CONTAINER",)))
    canaries = [factory.root / "canary", factory.root.parent / "canary", Path.cwd() / "canary"]
    before = [path.exists() for path in canaries]

    def after() -> list[str]:
        alive = (factory.root.parent / "outside" / "canary").read_text() == "alive"
        ran = [str(path) for path, there in zip(canaries, before) if path.exists() and not there]
        return [f"made {path}" for path in ran] + ([] if alive else ["the canary is dead"])

    return Matrix(cases, after)
