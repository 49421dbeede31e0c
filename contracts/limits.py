"""The limits that bound time, memory and disk for hostile input, each with its reason."""

from contracts.settings import Settings


class Limits(Settings):
    """Hard limits of ingestion. Beyond them a file is refused before it can cost anything."""

    video_pixels: int = 8_847_360  # 4096 x 2160; a larger frame costs gigabytes to decode
    still_pixels: int = 50_000_000
    streams: int = 32
    duration_s: float = 600.0
    shortest_s: float = 0.5  # 12 frames: below it no stage finds a window
    face_px: float = 64.0  # the papers' 256 px is a later selection
    decode_deadline_s: float = 300.0
    decode_memory_mb: int = 3072
    fetched_bytes: int = 20_000_000_000  # of a source copied to a worker's disk; ten hours at 4 Mbit/s have 18 GB
    lost_frames: float = 0.5  # share of frames without landmarks above which the face is lost
