"""The child that decodes a file with PyAV, once: pictures into shared memory, one by one, and sound beside them.

Run by ``nurse`` in a limited process. It is made for sound files with plain pictures: whatever is odd about a file,
from an unexpected size to a message of the decoder, ends it or is told, and ``decode`` then asks ffmpeg.
"""

from __future__ import annotations

import contextlib
import mmap
import socket
from fractions import Fraction
from typing import Any

import av
import numpy as np

PICTURE = b"p"  # said for each picture; the other side says the same for each that it has done with
REPORT = b"r"  # said before the report
CONCEALS = "conceal"  # decoders tell what they mend as a remark only


def main(plan: dict[str, Any], owner: socket.socket, memory: int) -> dict[str, Any]:
    """Decode as ``plan`` says (``quick.plan``); return what was decoded and what was odd."""
    av.logging.set_level(av.logging.INFO)
    with av.logging.Capture(False) as remarks:
        try:
            report = Reading(plan, owner, memory).run()
        except Exception as error:
            report = {"odd": f"{type(error).__name__}: {error}"[:200]}
    for level, name, remark in remarks:
        if level <= av.logging.ERROR or CONCEALS in remark:
            report.setdefault("odd", f"{name}: {remark.strip()}"[:200])
    owner.sendall(REPORT)
    return report


class Reading:
    """One decode of one file."""

    def __init__(self, plan: dict[str, Any], owner: socket.socket, memory: int) -> None:
        self._plan, self._owner = plan, owner
        self._count, self._samples = plan["count"], plan["samples"]
        self._space = mmap.mmap(memory, plan["bytes"])
        self._sound = np.frombuffer(self._space, np.float32, self._samples)
        self._height, self._width = plan["height"], plan["width"]
        self._slots = [self._planes(plan["first"] + number * plan["picture"]) for number in range(plan["slots"])]
        self._free = plan["slots"]
        self._given = self._heard = 0  # pictures, samples
        self._untold = 0  # pictures given of which nothing was said yet
        self._decoded = 0
        self._shown: av.VideoFrame | None = None  # the last that has begun
        self._graph: Any = None

    def _planes(self, offset: int) -> list[np.ndarray]:
        share = 2 if self._plan["halved"] else 1
        sizes = [(self._height, self._width)] + [(self._height // share, self._width // share)] * 2
        planes = []
        for height, width in sizes:
            planes.append(np.frombuffer(self._space, np.uint8, height * width, offset).reshape(height, width))
            offset += height * width
        return planes

    def run(self) -> dict[str, Any]:
        plan = self._plan
        options = {"protocol_whitelist": "file", "format_whitelist": plan["formats"], "max_pixels": str(plan["pixels"])}
        with av.open("file:" + plan["path"], options=options) as container:
            pictures, sound = (container.streams[plan[kind]] for kind in ("video", "audio"))
            pictures.codec_context.options = {"max_pixels": str(plan["pixels"])}
            for stream in (pictures, sound):
                stream.thread_type = "NONE"
            self._origin = round(Fraction(plan["start"]) / pictures.time_base)
            self._rate = pictures.time_base * plan["rate"]
            if plan["seek"] is not None:
                container.seek(round(plan["seek"] * av.time_base))
            for packet in container.demux(pictures, sound):
                for frame in packet.decode():
                    if isinstance(frame, av.VideoFrame):
                        self._see(frame)
                    else:
                        self._hear(frame)
                if plan["end"] is not None and self._given == self._count and self._heard == self._samples:
                    break
            self._end()
        return {"decoded": self._decoded, "given": self._given, "heard": self._heard}

    def _see(self, frame: av.VideoFrame) -> None:
        """Picture n is the last that begins, rounded, at n / 25 or before: ffmpeg's ``fps`` filter, ``round=near``."""
        if frame.pts is None or frame.is_corrupt or self._unlike(frame):
            raise ValueError("a picture is corrupt, of another kind, or has no time")
        self._decoded += 1
        if self._given == self._count:
            return
        begins = self._number(frame.pts)
        if self._shown is not None:
            self._give(self._shown, begins)
        elif begins > 0:
            self._give(frame, begins)
        self._shown = frame

    def _number(self, pts: int) -> int:
        """Of the picture that is due at time stamp ``pts``: halves are rounded away from zero."""
        scale, share = self._rate.as_integer_ratio()  # whole numbers: fractions take forty times as long
        exact = (pts - self._origin) * scale
        return (2 * exact + share) // (2 * share) if exact >= 0 else -((share - 2 * exact) // (2 * share))

    def _unlike(self, frame: av.VideoFrame) -> bool:
        seen = (frame.width, frame.height, frame.format.name, int(frame.colorspace))
        wanted = (self._width, self._height, *self._plan["kind"])
        return seen != wanted or int(frame.color_range) not in self._plan["ranges"]

    def _give(self, frame: av.VideoFrame, until: int) -> None:
        """``frame`` as each picture before number ``until``."""
        while self._given < min(until, self._count):
            if not self._free:
                self._tell()
                said = self._owner.recv(len(self._slots))
                if not said:
                    raise SystemExit  # nobody is there to see
                self._free += len(said)
            for to, plane in zip(self._slots[self._given % len(self._slots)], frame.planes):
                lines = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
                np.copyto(to, lines[:, : to.shape[1]])
            self._free -= 1
            self._given += 1
            self._untold += 1
            if self._untold == self._plan["batch"]:
                self._tell()

    def _tell(self) -> None:
        self._owner.sendall(PICTURE * self._untold)
        self._untold = 0

    def _hear(self, frame: av.AudioFrame) -> None:
        if self._graph is None:
            self._graph = self._listening(frame)
        with contextlib.suppress(av.error.EOFError):  # beyond the end of a span
            self._graph.push(frame)
        self._take()

    def _listening(self, frame: av.AudioFrame) -> Any:
        """The same filters as ``graph`` gives to ffmpeg."""
        graph = av.filter.Graph()
        nodes = [
            graph.add_abuffer(
                sample_rate=frame.sample_rate,
                format=frame.format.name,
                layout=frame.layout.name,
                time_base=frame.time_base,
            )
        ]
        nodes += [graph.add(name, arguments) for name, arguments in self._plan["filters"]]
        graph.link_nodes(*nodes, graph.add("abuffersink")).configure()
        return graph

    def _take(self) -> None:
        while True:
            try:
                frame = self._graph.pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            samples = np.frombuffer(frame.planes[0], np.float32)[: min(frame.samples, self._samples - self._heard)]
            self._sound[self._heard : self._heard + len(samples)] = samples
            self._heard += len(samples)

    def _end(self) -> None:
        """What is left once the file has ended: the last picture lasts as long as it says."""
        if self._shown is not None:
            self._give(self._shown, self._number(self._shown.pts + (self._shown.duration or 0)))
        self._tell()
        if self._graph is not None:
            with contextlib.suppress(av.error.EOFError):
                self._graph.push(None)
            self._take()
