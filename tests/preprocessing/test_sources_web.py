"""Sources at http(s) addresses: on allowed hosts alone, and nowhere else in this network."""

import socket
import time

import pytest
from stores import SECRET, refusal

from contracts.errors import Transient
from contracts.manifest import row_from
from contracts.reasons import Reason
from preprocessing import sources, web
from preprocessing.build import IngestSettings, build_row
from preprocessing.plan import plan_dataset
from preprocessing.sources import Sources

pytestmark = pytest.mark.usefixtures("own_copies")


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
        assert refusal(lambda name=name: allowed.look(name)) is Reason.URL_REFUSED
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
    assert refusal(lambda: where.look("../x.mp4")) is Reason.PATH_ESCAPE
    assert refusal(lambda: where.look(f"{server.url}/set/a%20b.mp4")) is Reason.URL_REFUSED


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
        assert refusal(lambda name=name: where.look(f"{server.url}/{name}.mp4")) is reason
    assert other.connections == 0


def test_a_name_that_leads_to_a_private_address_is_refused(site, tmp_path, monkeypatch):
    server = site({"/a.mp4": (200, {}, b"abc")})
    asked = []

    def resolve(host, port, **_):
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(web.socket, "getaddrinfo", resolve)
    where = Sources(str(tmp_path), ("media.example.org",))
    assert refusal(lambda: where.look(f"http://media.example.org:{server.server_port}/a.mp4")) is Reason.URL_REFUSED
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
    assert refusal(lambda: where.look(f"{server.url}/a.mp4")) is reason
    assert len(server.asked) == 1


def test_a_body_larger_than_it_said_or_cut_short(site, tmp_path):
    url = "/a.mp4"
    endless = site({url: (200, {"Content-Length": ""}, b"x" * 5000)})
    where = Sources(str(tmp_path), ("127.0.0.1",), most_bytes=1000)
    found = sources.Found(endless.url + url, 0, ())
    assert refusal(lambda: where.digest(endless.url + url, found)) is Reason.UNREADABLE
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
    assert refusal(lambda: where.look(f"http://me:{SECRET}@127.0.0.1:{server.server_port}/a.mp4")) is Reason.URL_REFUSED
    assert server.connections == 0
