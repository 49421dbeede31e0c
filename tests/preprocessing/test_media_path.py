"""Names that lead nowhere, out of the root, or to something that is no file."""

import os

import pytest

from contracts.errors import Reject
from contracts.reasons import Reason
from preprocessing.media import safe_path


def reason(root, name) -> Reason:
    with pytest.raises(Reject) as refused:
        safe_path(root, name)
    return refused.value.reason


@pytest.fixture
def root(tmp_path):
    (tmp_path / "outside.mp4").write_bytes(b"secret")
    root = tmp_path / "data"
    (root / "sub").mkdir(parents=True)
    (root / "sub" / "a.mp4").write_bytes(b"x")
    (root / "empty.mp4").touch()
    return root


@pytest.mark.parametrize("name", ["sub/a.mp4", "sub/../sub/a.mp4", "./sub/a.mp4"])
def test_a_file_inside_is_given_back_resolved(root, name):
    assert safe_path(root, name) == (root / "sub" / "a.mp4").resolve()


@pytest.mark.parametrize("name", ["-i.mp4", "two words.mp4", "'; rm -rf ~.mp4", "%n%s.mp4", "ü😀.mp4", "12:30.mp4"])
def test_odd_names_are_names(root, name):
    (root / name).write_bytes(b"x")
    assert safe_path(root, name).name == name


@pytest.mark.parametrize(
    "name",
    ["http://169.254.169.254/a", "https://x/y.mp4", "file:///etc/passwd", "s3://b/k", "concat:a|b", "pipe:0", "C:\\a"],
)
def test_addresses_are_refused(root, name):
    assert reason(root, name) == Reason.URL_REFUSED


def test_nothing_leads_out_of_the_root(root):
    (root / "link.mp4").symlink_to(root.parent / "outside.mp4")
    (root / "up").symlink_to(root.parent)
    for name in ("link.mp4", "up/outside.mp4", "../outside.mp4", "/etc/passwd", "a\0b"):
        assert reason(root, name) == Reason.PATH_ESCAPE


def test_a_link_inside_the_root_is_followed(root):
    (root / "link.mp4").symlink_to(root / "sub" / "a.mp4")
    assert safe_path(root, "link.mp4").name == "a.mp4"


def test_missing_and_empty_files(root):
    assert reason(root, "none.mp4") == Reason.MISSING_FILE
    assert reason(root, "sub/a.mp4/b.mp4") == Reason.MISSING_FILE
    (root / "dangling.mp4").symlink_to(root / "none.mp4")
    assert reason(root, "dangling.mp4") == Reason.MISSING_FILE
    assert reason(root, "empty.mp4") == Reason.EMPTY_FILE


@pytest.mark.timeout(60)
def test_a_pipe_does_not_hang_and_a_folder_is_no_file(root):
    os.mkfifo(root / "pipe.mp4")
    assert reason(root, "pipe.mp4") == Reason.NOT_A_FILE
    assert reason(root, "sub") == Reason.NOT_A_FILE


def test_a_device_is_no_file():
    from pathlib import Path

    assert reason(Path("/dev"), "null") == Reason.NOT_A_FILE


def test_a_loop_of_links_and_a_name_too_long_are_unreadable(root):
    (root / "loop").symlink_to(root / "loop")
    assert reason(root, "loop") in (Reason.UNREADABLE, Reason.MISSING_FILE)
    assert reason(root, "x" * 300 + ".mp4") == Reason.UNREADABLE


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_unreadable(root):
    (root / "sub" / "a.mp4").chmod(0)
    assert reason(root, "sub/a.mp4") == Reason.UNREADABLE
