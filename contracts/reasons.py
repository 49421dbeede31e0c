"""The closed list of reasons for which an input is refused, in order of precedence."""

from enum import StrEnum


class Reason(StrEnum):
    """Why a row or span is not a sample. When several apply, the one listed first wins.

    The members up to ``FACE_SMALL`` are given by ingestion. The last group is given by a
    *selection* alone: ingestion keeps such samples and stores the scores.
    """

    # the manifest row itself
    BAD_MANIFEST = "BAD_MANIFEST"
    BAD_ID = "BAD_ID"
    DUPLICATE_ID = "DUPLICATE_ID"
    DUPLICATE_CONTENT = "DUPLICATE_CONTENT"  # a selection gives it, too: to a copy that was coded again
    # people: asked before the path is looked at, so that a file without consent is never opened
    NO_CONSENT = "NO_CONSENT"
    LICENCE = "LICENCE"
    # the path or URL
    URL_REFUSED = "URL_REFUSED"
    PATH_ESCAPE = "PATH_ESCAPE"
    # the file
    MISSING_FILE = "MISSING_FILE"
    NOT_A_FILE = "NOT_A_FILE"
    UNREADABLE = "UNREADABLE"
    EMPTY_FILE = "EMPTY_FILE"
    HASH_MISMATCH = "HASH_MISMATCH"
    # the container and its streams
    BAD_CONTAINER = "BAD_CONTAINER"
    TOO_MANY_STREAMS = "TOO_MANY_STREAMS"
    TOO_MANY_PIXELS = "TOO_MANY_PIXELS"
    TOO_LONG = "TOO_LONG"
    NO_VIDEO = "NO_VIDEO"
    NO_AUDIO = "NO_AUDIO"
    # decoding
    TRUNCATED = "TRUNCATED"
    DECODE_ERROR = "DECODE_ERROR"
    NON_FINITE = "NON_FINITE"
    TIMEOUT = "TIMEOUT"
    TOO_SHORT = "TOO_SHORT"
    # the face
    NO_FACE = "NO_FACE"
    MANY_FACES = "MANY_FACES"
    FACE_LOST = "FACE_LOST"
    FACE_SMALL = "FACE_SMALL"
    # given by a selection, never by ingestion
    AV_LENGTH = "AV_LENGTH"
    AV_OFFSET = "AV_OFFSET"
    LOW_SYNC = "LOW_SYNC"
    SILENT = "SILENT"
    NOT_SPEECH = "NOT_SPEECH"
    CLIPPED = "CLIPPED"
    STATIC_FRAMES = "STATIC_FRAMES"
    SMALL_FACE = "SMALL_FACE"
    NOT_SELECTED = "NOT_SELECTED"


class FailureCode(StrEnum):
    """Why a row failed through no fault of its own. Any of these makes the exit code 1."""

    INTERNAL = "INTERNAL"
    CRASHED = "CRASHED"
    EXHAUSTED = "EXHAUSTED"  # Transient, as often as it was tried


def first(reasons: "set[Reason] | list[Reason]") -> Reason:
    """Return the reason that wins when several apply.

    >>> first([Reason.NO_FACE, Reason.NO_AUDIO])
    <Reason.NO_AUDIO: 'NO_AUDIO'>
    """
    order = list(Reason)
    return min(reasons, key=order.index)
