"""The child that opens a container with PyAV, reads every packet's time, and tells what it found.

Run by ``nurse`` in a limited process for ``probe``; it imports nothing of ours.
"""

from __future__ import annotations

from typing import Any

import av
from av.stream import Disposition

MOST_PACKETS = 2_000_000  # ten hours at 50 frames per second


def main(path: str, formats: str, pixels: int) -> dict[str, Any]:
    """Streams of the container, and for the first video and sound track the times of all their packets."""
    av.logging.set_level(av.logging.PANIC)
    try:
        return _scan(path, formats, pixels)
    except Exception as error:  # whatever the library says about a file it cannot open is the finding
        return {"error": f"{type(error).__name__}: {error}".replace(path, "")[:300]}


def _scan(path: str, formats: str, pixels: int) -> dict[str, Any]:
    options = {"protocol_whitelist": "file", "format_whitelist": formats, "max_pixels": str(pixels)}
    with av.open("file:" + path, options=options) as container:
        streams = list(container.streams)
        tracks: dict[int, dict[str, Any]] = {}
        for kind in ("video", "audio"):
            shown = [s for s in streams if s.type == kind and Disposition.attached_pic not in s.disposition]
            if shown:
                tracks[shown[0].index] = _declared(shown[0])
        found: dict[str, Any] = {
            "container": container.format.name,
            "start_s": None if container.start_time is None else container.start_time / 1e6,
            "duration_s": None if container.duration is None else container.duration / 1e6,
            "streams": len(streams),
            "tracks": list(tracks.values()),
        }
        if all(track["kind"] != "video" or track["width"] * track["height"] <= pixels for track in tracks.values()):
            found["whole"] = _read(container, [streams[index] for index in tracks], tracks)
        return found


def _declared(stream: Any) -> dict[str, Any]:
    context = stream.codec_context
    track = {
        "kind": stream.type,
        "index": stream.index,
        "codec": context.name if context else "unknown",
        "declared": stream.frames,
        "start": stream.start_time,
        "duration": stream.duration,
        "time_base": float(stream.time_base) if stream.time_base else 0.0,
        "rate": 0.0,
        "packets": 0,
        "discarded": 0,
        "broken": 0,
        "pts": [],
        "end": None,
        # the demuxer's own list of packets, once edit lists are applied; where it lists sizes, the last byte needed
        "indexed": 0,
        "last_byte": 0,
    }
    entries = stream.index_entries
    if len(entries) and entries[0].size > 0:
        track["indexed"] = len(entries)
        track["last_byte"] = max(entry.pos + entry.size for entry in entries)
    if stream.type == "video":
        aspect = stream.sample_aspect_ratio
        rate = stream.average_rate
        track["width"], track["height"] = (context.width, context.height) if context else (0, 0)
        track["aspect"] = float(aspect) if aspect else 1.0
        track["rate"] = float(rate) if rate else 0.0
        track["rotation"] = 0
        track["pixels"], track["space"], track["range"] = "", 0, 0  # as the first picture has them
    return track


def _read(container: Any, streams: list[Any], tracks: dict[int, dict[str, Any]]) -> bool:
    """Note every packet of ``streams``; false where reading ended in an error."""
    tries = 3
    read = 0
    try:
        for packet in container.demux(streams):
            if packet.size == 0:
                continue  # the demuxer's end mark
            read += 1
            if read > MOST_PACKETS:
                return False
            track = tracks[packet.stream_index]
            track["packets"] += 1
            track["broken"] += packet.is_corrupt
            if packet.is_discard:
                track["discarded"] += 1
            elif packet.pts is not None:
                end = packet.pts + (packet.duration or 0)
                track["end"] = end if track["end"] is None else max(track["end"], end)
                if track["kind"] == "video":
                    track["pts"].append(packet.pts)
                elif not track["pts"] or packet.pts < track["pts"][0]:
                    track["pts"] = [packet.pts]
            if track["kind"] == "video" and tries and packet.is_keyframe:
                tries = 0 if _turn(packet, track) else tries - 1
    except av.error.FFmpegError:
        return False
    return True


def _turn(packet: Any, track: dict[str, Any]) -> bool:
    """Decode one picture: only a decoded one tells how far it is to be turned."""
    context = packet.stream.codec_context
    context.thread_type = "NONE"
    try:
        # a copy, because pictures before an edit list's start are never given out
        frames = [*context.decode(av.Packet(bytes(packet))), *context.decode(None)]
    except (av.error.FFmpegError, MemoryError):
        return False
    finally:
        context.flush_buffers()
    if frames:
        track["rotation"] = -frames[0].rotation % 360  # clockwise
        track["pixels"] = frames[0].format.name
        track["space"], track["range"] = int(frames[0].colorspace), int(frames[0].color_range)
    return bool(frames)
