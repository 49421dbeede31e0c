"""Published videos that were altered, as ``voxface inspect`` sees them."""

from __future__ import annotations

import random
from pathlib import Path

from faults.row import Figure
from outages.standing import toys
from toys import talker

from serving.jobs import Job
from serving.provenance import inspect


def flip_bytes(folder: Path, count: int) -> Figure:
    """A published video with one byte altered, anywhere in it, as ``voxface inspect`` sees it."""
    from serving.loader import load_pipeline
    from serving.render import Renderer

    rng = random.Random(7)
    with toys(folder) as bundle:
        out = folder / "talk.mp4"
        Renderer(*load_pipeline(bundle)).render([Job(audio=talker.write_sound(folder / "a.wav", 16_000), out=out)])
        whole = out.read_bytes()
        fits = inspected(folder, out) == 0
        places = sorted(rng.sample(range(len(whole)), count))
        told = 0
        for place in places:
            data = bytearray(whole)
            data[place] ^= 1 << rng.randrange(8)
            out.write_bytes(data)
            told += inspect(out).state == "broken"
        code = inspected(folder, out)  # the command itself, once
        out.with_name("talk.mp4.json").unlink()
        alone = 0
        for place in places:
            data = bytearray(whole)
            data[place] ^= 1 << rng.randrange(8)
            out.write_bytes(data)
            alone += inspect(out).credentials.state != "valid"
    said = f"untouched valid {fits}; one byte flipped: reported {told}/{count} (exit code {code}), "
    said += f"without the sidecar, by the credentials alone, {alone}/{count}"
    return Figure(said, fits and told == alone == count and code == 4)


def inspected(folder: Path, video: Path) -> int:
    """The exit code of ``voxface inspect``."""
    from typer.testing import CliRunner

    from flows.__main__ import application
    from flows.running import Ended

    words = ["inspect", str(video), "--json", "--work", str(folder / "work")]
    ended = CliRunner().invoke(application(), words)
    return int(ended.exception.code if isinstance(ended.exception, Ended) else ended.exit_code)
