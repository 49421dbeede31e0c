"""Sources in S3, asked over HTTP: what the disk gives, and no word of the credentials."""

import os
import socket

import pytest
from stores import SECRET, refusal

from contracts.errors import Misuse, Transient
from contracts.files import sha256_file
from contracts.manifest import row_from
from contracts.reasons import Reason
from contracts.shards import write_shard
from preprocessing import sources
from preprocessing.build import IngestSettings, build_row
from preprocessing.plan import plan_dataset
from preprocessing.sources import Sources

pytestmark = pytest.mark.usefixtures("own_copies")


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


def test_an_object_that_changed_since_it_wasplanned(s3, tmp_path):
    s3.put_object(Bucket="media", Key="set/changing.wav", Body=b"before")
    (planned,) = plan_dataset(tmp_path / "D", [row_from({"file": "changing.wav"})], "s3://media/set")
    s3.put_object(Bucket="media", Key="set/changing.wav", Body=b"afterw")
    _, (line,) = build_row(planned, "s3://media/set", None, IngestSettings())
    assert (line["state"], line["reason"]) == ("rejected", "HASH_MISMATCH")


def test_s3_without_bucket_key_or_endpoint(s3, monkeypatch):
    with pytest.raises(Misuse, match="holds nothing"):
        Sources.of("s3://no-such-bucket/x").check()
    assert refusal(lambda: Sources.of("s3://media/set").look("gone.mp4")) is Reason.MISSING_FILE
    assert refusal(lambda: Sources.of("s3://no-such-bucket").look("a.mp4")) is Reason.MISSING_FILE
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
