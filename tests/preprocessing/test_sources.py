"""Sources on disk, in a store, and on allowed hosts: the same bytes, the same refusals, nothing left behind."""

import dataclasses
import hashlib
import http.server
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from contracts.errors import Misuse, Reject, Transient
from contracts.files import sha256_file
from contracts.manifest import row_from
from contracts.plan import PlannedRow
from contracts.reasons import Reason
from contracts.shards import write_shard
from preprocessing import copies, sources, web
from preprocessing.build import IngestSettings, build_row
from preprocessing.copies import sweep_copies
from preprocessing.plan import plan_dataset
from preprocessing.sources import Sources, count_sources

SECRET = "not-a-real-secret-7f3a"


@pytest.fixture(autouse=True)
def _own_copies(tmp_path, monkeypatch):
    """Copies of a test lie under its own folder; no waiting between tries."""
    monkeypatch.setattr(copies, "_base", lambda: tmp_path / "copies")
    copies._own.cache_clear()
    monkeypatch.setattr(sources, "WAIT_S", 0.001)
    yield
    assert not [path for path in (tmp_path / "copies").rglob("*") if path.is_file() and path.name != copies.HELD]


@pytest.fixture
def memory():
    """An empty store in this process."""
    fsspec = pytest.importorskip("fsspec")
    store = fsspec.filesystem("memory")
    store.store.clear()
    yield store
    store.store.clear()


@pytest.fixture(scope="module")
def s3(clip_folder):
    """An S3 server on this machine, its bucket ``media`` holding the clips below ``set``; its address."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    address = f"http://127.0.0.1:{server._server.server_port}"
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("AWS_", "FSSPEC_"))]:
            patch.delenv(name)
        patch.setenv("AWS_ENDPOINT_URL", address)
        patch.setenv("AWS_ACCESS_KEY_ID", "AKIATEST")
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        import boto3

        client = boto3.client("s3")
        client.create_bucket(Bucket="media")
        for path in sorted(clip_folder.iterdir()):
            client.put_object(Bucket="media", Key=f"set/{path.name}", Body=path.read_bytes())
        client.put_object(Bucket="media", Key="set/empty.mp4", Body=b"")
        client.put_object(Bucket="media", Key="set/broken.mp4", Body=b"\0\0\0\x18ftypmp42" + b"x" * 5000)
        sources._store.cache_clear()
        yield client
    server.stop()


class _Site(http.server.ThreadingHTTPServer):
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


@pytest.fixture
def site():
    made = []

    def start(answers=None):
        server = _Site(answers or {})
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        made.append(server)
        return server

    yield start
    for server in made:
        server.shutdown()
        server.server_close()


def _reason(work) -> Reason:
    with pytest.raises(Reject) as caught:
        work()
    return caught.value.reason


def _planned(name: str, data: bytes, **values) -> PlannedRow:
    row = row_from({"file": name, **values})
    return PlannedRow(row=0, shard=0, key=row.key, sha256=hashlib.sha256(data).hexdigest(), bytes=len(data), values=row)


def test_a_store_refuses_as_a_folder_does(tmp_path, memory):
    memory.pipe("/m/a.mp4", b"abc")
    memory.pipe("/m/empty.mp4", b"")
    memory.pipe("/m/sub/b.mp4", b"b")
    memory.pipe("/outside.mp4", b"o")
    for name in ("a.mp4", "empty.mp4", "sub/b.mp4"):
        (tmp_path / "m" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "m" / name).write_bytes(memory.cat(f"/m/{name}"))
    here, there = Sources.of(tmp_path / "m"), Sources.of("memory://m")
    there.check()
    for name, reason in {
        "gone.mp4": Reason.MISSING_FILE,
        "empty.mp4": Reason.EMPTY_FILE,
        "sub": Reason.NOT_A_FILE,
        "../outside.mp4": Reason.PATH_ESCAPE,
        "s3://media/a.mp4": Reason.URL_REFUSED,
        "file:///etc/passwd": Reason.URL_REFUSED,
        "concat:a.mp4|b.mp4": Reason.URL_REFUSED,
        "http://169.254.169.254/latest/meta-data": Reason.URL_REFUSED,
    }.items():
        details = []
        for where in (here, there):
            with pytest.raises(Reject) as caught:
                where.look(name)
            assert caught.value.reason is reason, name
            details.append(caught.value.detail)
        if reason is not Reason.PATH_ESCAPE:
            assert details[0] == details[1]
    assert there.look("a.mp4").bytes == 3
    assert there.digest("a.mp4", there.look("a.mp4")) == here.digest("a.mp4", here.look("a.mp4"))
    names = ["a.mp4", "a.mp4", "gone.mp4", "empty.mp4", "http://x/y.mp4"]
    assert count_sources(here, names) == count_sources(there, names)
    assert count_sources(there, names)[1] == {
        Reason.MISSING_FILE: 1,
        Reason.EMPTY_FILE: 1,
        Reason.URL_REFUSED: 1,
    }


def test_addresses_of_data_roots(tmp_path):
    (tmp_path / "a b").mkdir()
    assert Sources.of(f"file://{tmp_path}/a%20b").folder == tmp_path / "a b"
    assert Sources.of(str(tmp_path)).folder == tmp_path
    for text in ("s3://KEY:SECRET@bucket/x", "simplecache::s3://bucket/x"):
        with pytest.raises(Misuse, match="environment") as caught:
            Sources.of(text)
        assert "SECRET" not in str(caught.value)
    with pytest.raises(Misuse, match="--data-root"):
        Sources.of("nothing-known://x").check()
    with pytest.raises(Misuse, match="not a folder"):
        Sources.of(tmp_path / "gone").check()
    with pytest.raises(Misuse, match="holds nothing"):
        Sources.of("memory://gone").check()


def test_a_copy_is_private_and_gone_after_the_row(tmp_path, memory):
    memory.pipe("/m/a.mp4", b"abc" * 1000)
    planned = _planned("a.mp4", b"abc" * 1000)
    there = Sources.of("memory://m")
    with there.held(planned) as path:
        assert path.read_bytes() == b"abc" * 1000
        assert path.suffix == ".mp4"
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700
    assert not path.exists()
    with pytest.raises(RuntimeError), there.held(planned) as path:
        raise RuntimeError
    assert not path.exists()
    assert memory.cat("/m/a.mp4") == b"abc" * 1000


@pytest.mark.parametrize("now", [b"abd", b"ab", b"abcd", b"x" * 100_000])
def test_other_bytes_than_planned_are_a_mismatch(memory, now):
    memory.pipe("/m/a.mp4", now)
    with (
        pytest.raises(Reject, match="has changed") as caught,
        Sources.of("memory://m").held(_planned("a.mp4", b"abc")),
    ):
        pass
    assert caught.value.reason is Reason.HASH_MISMATCH


def test_a_source_beyond_the_limit_is_refused(memory):
    memory.pipe("/m/a.mp4", b"abcd")
    there = dataclasses.replace(Sources.of("memory://m"), most_bytes=3)
    assert _reason(lambda: there.look("a.mp4")) is Reason.UNREADABLE
    with pytest.raises(Reject, match="fetched_bytes"), there.held(_planned("a.mp4", b"abcd")):
        pass


class _Flaky:
    """A store that raises ``faults`` first."""

    def __init__(self, store, faults):
        self._store, self._faults = store, faults

    def info(self, path):
        if self._faults:
            raise self._faults.pop(0)
        return self._store.info(path)

    def open(self, *args, **kwargs):
        return self._store.open(*args, **kwargs)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (FileNotFoundError(), Reason.MISSING_FILE),
        (PermissionError(), Reason.UNREADABLE),
        (OSError(22, "Bad Request"), Reason.UNREADABLE),
        (ValueError("no such key"), Reason.UNREADABLE),
    ],
)
def test_what_will_not_change_is_the_rows_and_asked_once(memory, monkeypatch, fault, reason):
    memory.pipe("/m/a.mp4", b"abc")
    flaky = _Flaky(memory, [fault])
    monkeypatch.setattr(sources, "_store", lambda root: (flaky, "/m"))
    assert _reason(lambda: Sources("memory://m").look("a.mp4")) is reason
    assert Sources("memory://m").look("a.mp4").bytes == 3


@pytest.mark.parametrize(
    "fault", [TimeoutError(), ConnectionResetError(), OSError(16, "Slow down"), OSError("no code")]
)
def test_what_may_change_is_tried_three_times(memory, monkeypatch, fault):
    memory.pipe("/m/a.mp4", b"abc")
    with monkeypatch.context() as patch:
        flaky = _Flaky(memory, [fault] * 2)
        patch.setattr(sources, "_store", lambda root: (flaky, "/m"))
        assert Sources("memory://m").look("a.mp4").bytes == 3
    flaky = _Flaky(memory, [fault] * 9)
    monkeypatch.setattr(sources, "_store", lambda root: (flaky, "/m"))
    with pytest.raises(Transient):
        Sources("memory://m").look("a.mp4")
    assert len(flaky._faults) == 6


# -- S3


def test_s3_gives_what_the_disk_gives(s3, clip_folder, tmp_path, caplog):
    """Plan and shard from S3, byte for byte those from disk, refused rows among them."""
    from preprocessing.step import Tools

    local = tmp_path / "local"
    local.mkdir()
    for path in clip_folder.iterdir():
        (local / path.name).write_bytes(path.read_bytes())
    (local / "empty.mp4").write_bytes(b"")
    (local / "broken.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + b"x" * 5000)
    before = {key["Key"]: key["ETag"] for key in s3.list_objects_v2(Bucket="media")["Contents"]}
    names = ("speech.wav", "face.png", "talk.mp4", "gone.mp4", "empty.mp4", "broken.mp4", "speech.wav")
    rows = [row_from({"file": name}) for name in names]
    tools, made = Tools(), {}
    for label, root in (("disk", local), ("s3", "s3://media/set")):
        dataset = tmp_path / label
        samples, lines = [], []
        for planned in plan_dataset(dataset, rows, root):
            some, told = build_row(planned, root, tools, IngestSettings())
            samples += some
            lines += told
        write_shard(dataset, 0, samples, lines, steps="s", rows="r")
        made[label] = {path.name: sha256_file(path) for path in dataset.glob("[ps]*")}
        states = [(line["state"], line["reason"]) for line in lines if line["level"] == "row"]
    assert states == [
        ("kept", None),
        ("kept", None),
        ("kept", None),
        ("rejected", "MISSING_FILE"),
        ("rejected", "EMPTY_FILE"),
        ("rejected", "BAD_CONTAINER"),
        ("rejected", "DUPLICATE_ID"),
    ]
    assert made["disk"] == made["s3"]
    assert set(made["s3"]) == {"plan.parquet", "shard-000000.tar", "shard-000000.parquet", "shard-000000.json"}
    assert {key["Key"]: key["ETag"] for key in s3.list_objects_v2(Bucket="media")["Contents"]} == before
    told = b"".join(path.read_bytes() for path in (tmp_path / "s3").iterdir()) + caplog.text.encode()
    assert SECRET.encode() not in told
    assert b"AKIATEST" not in told


def test_planning_again_reads_no_object(s3, tmp_path, monkeypatch):
    rows = [row_from({"file": "speech.wav"}), row_from({"file": "gone.mp4"})]
    first = plan_dataset(tmp_path / "D", rows, "s3://media/set")
    monkeypatch.setattr(Sources, "_chunks", lambda self, name: pytest.fail(f"{name} was read again"))
    assert plan_dataset(tmp_path / "D", rows, "s3://media/set") == first


def test_an_object_that_changed_since_it_was_planned(s3, tmp_path):
    s3.put_object(Bucket="media", Key="set/changing.wav", Body=b"before")
    (planned,) = plan_dataset(tmp_path / "D", [row_from({"file": "changing.wav"})], "s3://media/set")
    s3.put_object(Bucket="media", Key="set/changing.wav", Body=b"afterw")
    _, (line,) = build_row(planned, "s3://media/set", None, IngestSettings())
    assert (line["state"], line["reason"]) == ("rejected", "HASH_MISMATCH")


def test_s3_without_bucket_key_or_endpoint(s3, monkeypatch):
    with pytest.raises(Misuse, match="holds nothing"):
        Sources.of("s3://no-such-bucket/x").check()
    assert _reason(lambda: Sources.of("s3://media/set").look("gone.mp4")) is Reason.MISSING_FILE
    assert _reason(lambda: Sources.of("s3://no-such-bucket").look("a.mp4")) is Reason.MISSING_FILE
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    import s3fs

    dead = s3fs.S3FileSystem(
        endpoint_url=f"http://127.0.0.1:{port}",
        config_kwargs={"retries": {"max_attempts": 0}},
        skip_instance_cache=True,
    )
    monkeypatch.setattr(s3fs.core, "S3_RETRYABLE_ERRORS", (), raising=False)
    dead.retries = 1
    monkeypatch.setattr(sources, "_store", lambda root: (dead, "media/set"))
    with pytest.raises(Transient, match="broke off"):
        Sources("s3://media/set").look("talk.mp4")


# -- copies of processes that were killed


HOLDER = """
import sys, tempfile
from pathlib import Path
from preprocessing import copies
copies._base = lambda: Path(sys.argv[1])
with copies.private_copy([b"abc"], "a.mp4", 3, sys.argv[2]) as path:
    print(path, flush=True)
    sys.stdin.read()
"""


def test_copies_of_a_killed_process_are_swept_and_those_of_a_living_one_are_not(tmp_path):
    base = tmp_path / "copies"
    argv = [sys.executable, "-c", HOLDER, str(base), hashlib.sha256(b"abc").hexdigest()]
    root = str(Path(__file__).parents[2])
    holders = [
        subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": root}
        )
        for _ in range(2)
    ]
    killed, living = (Path(holder.stdout.readline().strip()) for holder in holders)
    assert killed.exists()
    assert living.exists()
    assert sweep_copies() == 0
    holders[0].send_signal(signal.SIGKILL)
    holders[0].wait()
    assert killed.exists()
    assert sweep_copies() == 1
    assert not killed.parent.exists()
    assert living.exists()
    holders[1].communicate("")
    assert not living.parent.exists()


def test_a_folder_of_copies_that_is_not_ours_alone_is_not_used(tmp_path, memory):
    memory.pipe("/m/a.mp4", b"abc")
    (tmp_path / "copies").mkdir(mode=0o755)
    (tmp_path / "copies").chmod(0o755)
    with pytest.raises(Misuse, match="not a folder of ours"), Sources.of("memory://m").held(_planned("a.mp4", b"abc")):
        pass


# -- addresses


def test_refused_addresses_see_no_connection(site, tmp_path):
    server = site()
    port = server.server_port
    names = [
        f"http://127.0.0.1:{port}/a.mp4",
        f"https://127.0.0.1:{port}/a.mp4",
        f"http://localhost:{port}/a.mp4",
        f"ftp://127.0.0.1:{port}/a.mp4",
        f"s3://127.0.0.1:{port}/a.mp4",
        f"concat:http://127.0.0.1:{port}/a.mp4",
        f"//127.0.0.1:{port}/a.mp4",
    ]
    planned = plan_dataset(tmp_path / "D", [row_from({"file": name}) for name in names], tmp_path)
    assert [row.reason for row in planned] == [Reason.URL_REFUSED] * 6 + [Reason.BAD_ID]
    allowed = Sources(str(tmp_path), ("example.org", f"127.0.0.1:{port + 1}"))
    for name in names[:6]:
        assert _reason(lambda name=name: allowed.look(name)) is Reason.URL_REFUSED
    time.sleep(0.1)
    assert server.connections == 0


def test_an_allowed_host_is_read(site, tmp_path, clip_folder):
    data = (clip_folder / "speech.wav").read_bytes()
    server = site(
        {"/a/speech.wav": (200, {"ETag": '"1"'}, data), "/moved.wav": (302, {"Location": "/a/speech.wav"}, b"")}
    )
    rows = [row_from({"file": f"{server.url}/{name}"}) for name in ("a/speech.wav", "moved.wav", "gone.wav")]
    where = Sources(str(tmp_path), ("127.0.0.1",))
    planned = plan_dataset(tmp_path / "D", rows, where)
    assert [row.reason for row in planned] == [None, Reason.DUPLICATE_CONTENT, Reason.MISSING_FILE]
    samples, lines = build_row(planned[0], where, None, IngestSettings())
    assert (len(samples), lines[0]["state"]) == (1, "kept")
    asked = len(server.asked)
    plan_dataset(tmp_path / "D", rows[:1], where)
    assert server.asked[asked:] == [("HEAD", "/a/speech.wav")]  # known by its tag


def test_an_http_data_root(site, tmp_path):
    server = site({"/set/a%20b.mp4": (200, {}, b"abc")})
    where = Sources.of(f"{server.url}/set")
    where.check()
    assert where.look("a b.mp4").bytes == 3
    assert where.digest("a b.mp4", where.look("a b.mp4"))[1] == 3
    assert _reason(lambda: where.look("../x.mp4")) is Reason.PATH_ESCAPE
    assert _reason(lambda: where.look(f"{server.url}/set/a%20b.mp4")) is Reason.URL_REFUSED


def test_redirects_stay_on_their_host(site, tmp_path):
    other = site({"/x.mp4": (200, {}, b"abc")})
    server = site(
        {
            "/away.mp4": (302, {"Location": f"http://localhost:{other.server_port}/x.mp4"}, b""),
            "/port.mp4": (302, {"Location": f"{other.url}/x.mp4"}, b""),
            "/file.mp4": (302, {"Location": "file:///etc/passwd"}, b""),
            "/round.mp4": (302, {"Location": "/round.mp4"}, b""),
        }
    )
    where = Sources(str(tmp_path), (f"127.0.0.1:{server.server_port}", f"localhost:{other.server_port}"))
    for name, reason in {
        "away": Reason.URL_REFUSED,
        "port": Reason.URL_REFUSED,
        "file": Reason.URL_REFUSED,
        "round": Reason.UNREADABLE,
    }.items():
        assert _reason(lambda name=name: where.look(f"{server.url}/{name}.mp4")) is reason
    assert other.connections == 0


def test_a_name_that_leads_to_a_private_address_is_refused(site, tmp_path, monkeypatch):
    server = site({"/a.mp4": (200, {}, b"abc")})
    asked = []

    def resolve(host, port, **_):
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(web.socket, "getaddrinfo", resolve)
    where = Sources(str(tmp_path), ("media.example.org",))
    assert _reason(lambda: where.look(f"http://media.example.org:{server.server_port}/a.mp4")) is Reason.URL_REFUSED
    assert asked == ["media.example.org"]
    assert server.connections == 0
    for address in (
        "10.1.2.3",
        "169.254.169.254",
        "::1",
        "fe80::1%eth0",
        "::ffff:192.168.0.1",
        "64:ff9b::7f00:1",
        "0.0.0.0",
    ):
        assert not web.public(address), address
    assert web.public("2606:4700::1111")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((403, {}, b""), Reason.UNREADABLE),
        ((410, {}, b""), Reason.MISSING_FILE),
        ((200, {}, b"x" * 2000), Reason.UNREADABLE),
    ],
)
def test_answers_that_will_not_change(site, tmp_path, answer, reason):
    server = site({"/a.mp4": answer})
    where = Sources(str(tmp_path), ("127.0.0.1",), most_bytes=1000)
    assert _reason(lambda: where.look(f"{server.url}/a.mp4")) is reason
    assert len(server.asked) == 1


def test_a_body_larger_than_it_said_or_cut_short(site, tmp_path):
    url = "/a.mp4"
    endless = site({url: (200, {"Content-Length": ""}, b"x" * 5000)})
    where = Sources(str(tmp_path), ("127.0.0.1",), most_bytes=1000)
    found = sources.Found(endless.url + url, 0, ())
    assert _reason(lambda: where.digest(endless.url + url, found)) is Reason.UNREADABLE
    short = site({url: (200, {"Content-Length": "900"}, b"x" * 500)})
    with pytest.raises(Transient, match=r"ended after 500 of 900|broke off"):
        where.digest(short.url + url, found)


def test_a_host_that_recovers_is_asked_again(site, tmp_path):
    server = site({"/a.mp4": ([503, 429, 200], {}, b"abc")})
    assert Sources(str(tmp_path), ("127.0.0.1",)).look(f"{server.url}/a.mp4").bytes == 3
    assert len(server.asked) == 3
    server.answers["/a.mp4"] = (500, {}, b"")
    with pytest.raises(Transient, match="answers 500"):
        Sources(str(tmp_path), ("127.0.0.1",)).look(f"{server.url}/a.mp4")


def test_an_address_with_a_user_name_is_refused(site, tmp_path):
    server = site({"/a.mp4": (200, {}, b"abc")})
    where = Sources(str(tmp_path), ("127.0.0.1",))
    assert _reason(lambda: where.look(f"http://me:{SECRET}@127.0.0.1:{server.server_port}/a.mp4")) is Reason.URL_REFUSED
    assert server.connections == 0
