"""Jobs in, published videos out: batches through one pipeline, an encoder per video, refusals one by one."""

from __future__ import annotations

import errno
import logging
import threading
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from contracts.bundle import Bundle
from contracts.errors import Reject, Transient, VoxfaceError
from contracts.files import sha256_file
from contracts.reasons import FailureCode, Reason
from contracts.sample import SAMPLE_RATE
from serving.certificate import Identity
from serving.dubbing import Dubbing
from serving.encoding import Encoding
from serving.jobs import Inputs, Job, Outcome, Refused, Result, check_jobs
from serving.policy import ServingLimits, admit
from serving.provenance import Sidecar, comment, describe, portrait_path, sidecar_path
from serving.publish import deliver, draft, own_signer, publish, published
from serving.watermark import Marker

if TYPE_CHECKING:
    from preprocessing.step import Tools
    from systems.base import Chunk, Request, TalkingFacePipeline

Progress = Callable[[int, int, str], None]  # frames done, frames in all, note
Watch = Callable[[Path, int, int], None]  # the video's place, its frames done, its frames in all
Finish = Callable[[], dict["Job", "Outcome"]]
BATCH = 4  # videos rendered at once
PORTRAIT_SIDE = 512  # pixels: the largest stored crop; pipelines scale it to their own size

log = logging.getLogger(__name__)


@dataclass
class Work:
    """A job that was let in: its identity, what the pipeline is asked for, and where results go."""

    jobs: list[Job]  # equal but for their places
    inputs: Inputs
    request: Request
    seconds: float
    dubbing: Dubbing | None = None  # for a video
    face: np.ndarray | None = None  # that is animated, uint8 [H, W, 3], where the system shows one

    @property
    def out(self) -> Path:
        return self.jobs[0].out


class Renderer:
    """Renders jobs with one loaded pipeline: one call begins at a time, always in the same thread."""

    def __init__(
        self,
        pipeline: TalkingFacePipeline,
        bundle: Bundle,
        *,
        batch: int = BATCH,
        limits: ServingLimits | None = None,
        identity: Identity | None = None,
    ) -> None:
        self.pipeline, self.bundle, self.batch = pipeline, bundle, batch
        self.bundle_digest = bundle.digest
        self.limits = limits or ServingLimits()
        self.signer = own_signer(identity)  # without one nothing can be published, so nothing is rendered either
        self._spent: defaultdict[str, float] = defaultdict(float)  # seconds by step
        self._counting = threading.Lock()

    @cached_property
    def _tools(self) -> Tools:
        from preprocessing.step import Tools

        return Tools()

    def render(
        self,
        jobs: Sequence[Job],
        progress: Progress | None = None,
        watch: Watch | None = None,
        streamed: Callable[[], None] = lambda: None,
    ) -> list[Outcome]:
        """One outcome per job, in order. A job that is refused or fails leaves the others alone.

        ``progress`` counts the frames of a batch, ``watch`` those of each video; ``streamed`` is called once the
        networks have done their part. A job whose video stands already, with a sidecar that fits, is not rendered
        again. Raises ``Misuse`` where two jobs want one place, ``Transient`` where the disk is full.
        """
        finish = self.begin(jobs, progress, watch)
        streamed()
        return finish()

    def begin(
        self, jobs: Sequence[Job], progress: Progress | None = None, watch: Watch | None = None
    ) -> Callable[[], list[Outcome]]:
        """The first part of :meth:`render`, all that the networks do; what it returns is the other, to be called once.

        The other part waits for the encoders, reads back, signs and publishes: from any thread, while the next jobs
        are begun in this one.
        """
        check_jobs(jobs)
        unique = list(dict.fromkeys(jobs))
        outcomes: dict[Job, Outcome] = {}
        finish: Finish = dict
        for start in range(0, len(unique), self.batch):
            outcomes |= finish()
            works: dict[str, Work] = {}
            for job in unique[start : start + self.batch]:
                try:
                    with self._on("prepare"):
                        inputs = admit(job, self.bundle_digest)
                        sidecar = published(job.out, inputs.job)
                        if sidecar is not None:
                            outcomes[job] = _result(job, sidecar, reused=True)
                        elif inputs.job in works:
                            works[inputs.job].jobs.append(job)
                        else:
                            works[inputs.job] = self._prepare(job, inputs)
                except Exception as error:
                    outcomes[job] = _refusal(job, error)
            finish = self._begin(list(works.values()), progress, watch)
        last = finish

        def rest() -> list[Outcome]:
            found = outcomes | last()
            return [found[job] for job in jobs]

        return rest

    def take(self) -> dict[str, float]:
        """Seconds spent on each step since this was last asked; steps in threads of their own are what was waited."""
        with self._counting:
            spent, self._spent = self._spent, defaultdict(float)
        return dict(spent)

    @contextmanager
    def _on(self, step: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            with self._counting:
                self._spent[step] += time.perf_counter() - began

    def _prepare(self, job: Job, inputs: Inputs) -> Work:
        from preprocessing.media import decode_sound
        from systems.base import Request

        self._check_kind(job)
        with _naming("speech", job.audio):
            audio = decode_sound(job.audio, self.limits)
        portrait = None
        if job.portrait is not None:
            from preprocessing.crop import aligned_portrait

            with _naming("portrait", job.portrait):
                portrait = aligned_portrait(job.portrait, PORTRAIT_SIDE, self.limits, self._tools)
        request = Request(audio=audio, seed=job.seed, portrait=portrait, steps=job.steps)
        dubbing = None if job.video is None else self._dubbing(job.video, request.frames, len(audio) / SAMPLE_RATE)
        if dubbing is not None:
            request.video = dubbing.faces()
        return Work(jobs=[job], inputs=inputs, request=request, seconds=len(audio) / SAMPLE_RATE, dubbing=dubbing)

    def _check_kind(self, job: Job) -> None:
        """Raise ``Reject`` where the job brings what this system does not take, or lacks what it needs."""
        system, dubs = self.bundle.system, self.pipeline.crop_side is not None
        if job.video is not None and not dubs:
            raise Reject(Reason.BAD_MANIFEST, f"{system} makes its own frames and takes no video")
        if job.video is None and dubs:
            raise Reject(Reason.BAD_MANIFEST, f"{system} dubs a video: give one")
        if job.portrait is not None and dubs:
            raise Reject(Reason.BAD_MANIFEST, f"{system} dubs a video and takes no portrait")
        if job.size is not None and dubs:
            raise Reject(Reason.BAD_MANIFEST, "a dubbed video keeps the size of its source: leave the size out")

    def _dubbing(self, video: Path, frames: int, seconds: float) -> Dubbing:
        from preprocessing.footage import watch

        side = self.pipeline.crop_side
        assert side is not None
        with _naming("video", video):
            footage = watch(video, side, self.pipeline.references, seconds, self.limits, self._tools)
        return Dubbing(footage, frames)

    def _begin(self, works: list[Work], progress: Progress | None, watch: Watch | None) -> Finish:
        """Stream a batch; where the pipeline fails on it, its members are tried alone."""
        if not works:
            return dict
        try:
            return self._stream(works, progress, watch)
        except Exception as error:
            if len(works) == 1:
                refused: dict[Job, Outcome] = {job: _refusal(job, error) for job in works[0].jobs}
                return lambda: refused
            if isinstance(error, VoxfaceError) and not isinstance(error, Reject):
                raise
            log.warning("a batch of %d failed (%s); rendering its jobs one by one", len(works), error)
        found: dict[Job, Outcome] = {}
        for work in works:
            found |= self._begin([work], progress, watch)()
        return lambda: found

    def _stream(self, works: list[Work], progress: Progress | None, watch: Watch | None) -> Finish:
        """Frames of all works into their encoders."""
        import torch

        total = sum(work.request.frames for work in works)
        note = ", ".join(work.out.name for work in works)
        with ExitStack() as stack, torch.inference_mode():
            drafts = [stack.enter_context(draft(work.out)) for work in works]
            encodings = [
                stack.enter_context(Encoding(path, work.jobs[0].audio, comment(work.inputs)))
                for path, work in zip(drafts, works, strict=True)
            ]
            markers = [Marker() for _ in works]  # each draws its pattern once, for its own size

            def put(number: int, frames: np.ndarray) -> None:
                with self._on("mark"):
                    marked = markers[number](frames)
                with self._on("encode"):  # waits only where the encoder is behind
                    encodings[number].put(marked)
                if watch is not None:
                    watch(works[number].out, encodings[number].count, works[number].request.frames)
                if progress is not None:
                    progress(sum(encoding.count for encoding in encodings), total, note)

            for number, work in enumerate(works):
                if work.dubbing is not None:
                    work.dubbing.emit = partial(put, number)
            for chunk in self._chunks([work.request for work in works]):
                work = works[chunk.request]
                if work.dubbing is not None:
                    work.dubbing.put(chunk)
                    continue
                count = encodings[chunk.request].count
                if chunk.first != count or chunk.first + len(chunk.frames) > work.request.frames:
                    raise RuntimeError(f"frame {chunk.first} of {work.out.name} came out of turn")
                put(chunk.request, resize(chunk.frames, work.inputs.size))
            for work, encoding in zip(works, encodings, strict=True):
                if work.dubbing is not None:
                    work.dubbing.finish()
                encoding.end()
                with self._on("model"):
                    work.face = self.pipeline.portrait(work.request)
            held = stack.pop_all()  # encoders and drafts outlive this part
        return partial(self._finish, works, drafts, encodings, held)

    def _finish(
        self, works: list[Work], drafts: list[Path], encodings: list[Encoding], held: ExitStack
    ) -> dict[Job, Outcome]:
        """Wait for the encoders, then publish."""
        outcomes: dict[Job, Outcome] = {}
        with held:
            for work, path, encoding in zip(works, drafts, encodings, strict=True):
                try:
                    with self._on("encode"):
                        encoding.finish()
                    outcomes |= self._publish(work, path)
                except Exception as error:
                    outcomes |= {job: _refusal(job, error) for job in work.jobs}
        return outcomes

    def _chunks(self, requests: list[Request]) -> Iterator[Chunk]:
        chunks = self.pipeline.stream(requests)
        while True:
            with self._on("model"):
                chunk = next(chunks, None)
            if chunk is None:
                return
            yield chunk

    def _publish(self, work: Work, rendered: Path) -> dict[Job, Outcome]:
        """Read the encoded file back, then put it in its place, or places."""
        with self._on("check"):
            self._read_back(work, rendered)

        def sidecar(video: str, picture: str | None) -> Sidecar:
            return describe(
                self.bundle,
                work.inputs,
                frames=work.request.frames,
                seconds=work.seconds,
                video=video,
                portrait=picture,
                untouched=None if work.dubbing is None else work.dubbing.footage.untouched(work.request.frames),
            )

        with self._on("publish"):
            made = publish(rendered, work.out, work.face, sidecar, self.signer)
        for job in work.jobs[1:]:
            deliver(work.out, job.out)
        return {job: _result(job, made, reused=False) for job in work.jobs}

    def _read_back(self, work: Work, rendered: Path) -> None:
        from preprocessing.media import probe

        found = probe(rendered, self.limits)
        if found.video is None or found.audio is None:
            raise RuntimeError(f"{work.out.name} was encoded without pictures or without sound")
        frames = found.video.packets - found.video.discarded
        if frames != work.request.frames:
            raise RuntimeError(f"{work.out.name} has {frames} frames, {work.request.frames} were asked for")
        job = work.jobs[0]
        for file, digest in ((job.audio, work.inputs.audio), (job.video, work.inputs.video)):
            if file is not None and sha256_file(file) != digest:
                raise Reject(Reason.HASH_MISMATCH, f"{file} changed while it was read")


def resize(frames: np.ndarray, side: int | None) -> np.ndarray:
    """Frames uint8 [n, H, W, 3] at a height and width of ``side`` pixels; as they are where ``side`` is None."""
    if side is None or frames.shape[1:3] == (side, side):
        return frames
    import torch
    from torch.nn.functional import interpolate

    pixels = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float()
    scaled = interpolate(pixels, size=(side, side), mode="bicubic", antialias=True, align_corners=False)
    result: np.ndarray = scaled.round().clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous().numpy()
    return result


@contextmanager
def _naming(what: str, path: Path) -> Iterator[None]:
    """A refusal raised inside says which of the files it is about: ``the speech /x/talk.wav: ...``."""
    try:
        yield
    except Reject as error:
        raise Reject(error.reason, f"the {what} {path}: {error.detail}") from None


def _result(job: Job, sidecar: Sidecar, *, reused: bool) -> Result:
    return Result(
        out=job.out,
        sidecar=sidecar_path(job.out),
        portrait=portrait_path(job.out) if sidecar.portrait else None,
        frames=sidecar.frames,
        seconds=sidecar.seconds,
        job=sidecar.job,
        video=sidecar.video,
        reused=reused,
    )


def _refusal(job: Job, error: Exception) -> Refused:
    """What ``error`` means for ``job``. A full disk, stored data that lies and misuse end the whole run: raised."""
    if isinstance(error, Reject):
        return Refused(state="rejected", out=job.out, code=error.reason, detail=error.detail)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        raise Transient(f"NO_SPACE: {job.out.parent}: free some space, then run the same command again") from error
    if isinstance(error, VoxfaceError):
        raise error
    log.error("%s failed", job.out, exc_info=error)
    told, at = str(error).strip()[:500], traceback.extract_tb(error.__traceback__)
    place = f" ({Path(at[-1].filename).name}:{at[-1].lineno})" if at else ""
    detail = f"{type(error).__name__}: {told}{place}"
    return Refused(state="failed", out=job.out, code=FailureCode.INTERNAL, detail=detail)
