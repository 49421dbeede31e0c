"""Media files: the only room that runs ffmpeg, opens containers, or starts a process.

``safe_path`` says which file a manifest names, ``probe`` what it holds, ``decode`` gives its frames and
sound on one clock, ``decode_sound`` and ``decode_still`` read speech and pictures, ``encode_video`` writes.
Every reader refuses with ``Reject``; nothing read from a file can make one hang, fill the memory, or run.
"""

from preprocessing.media.decode import Decoding, decode
from preprocessing.media.encode import encode_video
from preprocessing.media.path import safe_path
from preprocessing.media.probe import Probe, Track, probe
from preprocessing.media.sound import decode_sound
from preprocessing.media.still import decode_still

__all__ = [
    "Decoding",
    "Probe",
    "Track",
    "decode",
    "decode_sound",
    "decode_still",
    "encode_video",
    "probe",
    "safe_path",
]
