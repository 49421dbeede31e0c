"""``voxface ingest``."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from contracts.errors import Exit, Misuse
from contracts.files import require_space
from contracts.manifest import Row
from flows import ingest as flow
from flows.commands.options import Address, ParamsFile, command
from flows.params import read_params
from flows.running import Ended, Run

if TYPE_CHECKING:
    from preprocessing.build import IngestSettings
    from preprocessing.corpora import BadLine
    from preprocessing.sources import Sources

SHOWN = 20  # odd lines on the terminal
log = logging.getLogger(__name__)


@command("ingest", dry=True)
def ingest(
    run: Run,
    manifest: Annotated[Path | None, typer.Option(help="Table of clips: csv, jsonl or parquet.")] = None,
    folder: Annotated[Path | None, typer.Option(help="Instead of a manifest: every media file below a folder.")] = None,
    corpus: Annotated[
        str,
        typer.Option(
            help="Instead of a manifest: hdtf, voxceleb1, voxceleb2, avspeech, lrs2, lrs3 or vfhq, "
            "from its own --annotations."
        ),
    ] = "",
    annotations: Annotated[
        Path | None, typer.Option(help="The corpus's annotation files: their folder, or one.")
    ] = None,
    layout: Annotated[str, typer.Option(help="Media of a corpus: whole videos, or clips cut from them.")] = "",
    media: Annotated[str, typer.Option(help="Names of its files, as '{group}_{name}_{clip:03d}.mp4'.")] = "",
    frame_size: Annotated[str, typer.Option(help="Frame that VoxCeleb1's boxes in pixels refer to, as 640x360.")] = "",
    data_root: Annotated[
        str,
        typer.Option(
            help="What the manifest's files are relative to: a folder, or a store such as s3://bucket/prefix "
            "[default: the manifest's folder]."
        ),
    ] = "",
    allow_host: Annotated[
        list[str] | None, typer.Option(help="Host whose http(s) addresses rows may name; may be repeated.")
    ] = None,
    where: Annotated[str, typer.Option(help="Only these rows, as \"gender == 'f' and age > 30\".")] = "",
    out: Annotated[Path | None, typer.Option(help="Dataset folder [default: WORK/dataset].")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Worker processes [default: cores of this machine, or of the cluster].")
    ] = None,
    address: Address = "local",
    retry: Annotated[
        str,
        typer.Option(help="Only rows that ended so, again: failed, rejected:REASON or all-rejected."),
    ] = "",
    metrics_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Prometheus metrics of the run on 127.0.0.1.")
    ] = None,
    metrics_file: Annotated[
        Path | None, typer.Option(help="The same in a text file for node-exporter, as DIR/voxface.prom.")
    ] = None,
    max_rejected: Annotated[str, typer.Option(help="End with 3 where more rows are refused, as 5%.")] = "100%",
    params: ParamsFile = None,
) -> None:
    """Turn recordings into a dataset: every row kept, rejected with a reason, or failed with a code.

    Example: voxface ingest --manifest clips.csv --data-root /data --out work/dataset --workers 2

    Example: voxface ingest --corpus hdtf --annotations HDTF_dataset --data-root /data/hdtf --dry-run

    Example: voxface ingest --out work/dataset --data-root /data --retry rejected:TIMEOUT

    A known corpus is read from the files it is handed out with; docs/corpora.md says which, and how its media lie.

    Rows per shard: ingest.rows_per_shard of params.yaml in the folder you are in (16 in the repository's own), or of
    --params; without such a file 64. --dry-run prints the number; a dataset keeps the one it was begun with.
    """
    budget = share(max_rejected)
    job = flow.IngestJob(
        dataset=out or run.places.dataset,
        data_root=Path(),
        rows=[],
        settings=_settings(params),
        workers=workers or (os.cpu_count() or 1 if address == "local" else None),
        address=address,
        metrics_port=metrics_port,
        metrics_file=metrics_file,
    )
    if retry:
        beside = data_root or folder or manifest
        if beside is None:
            raise Misuse("--retry needs the sources: give --data-root, or --manifest FILE beside them")
        job = replace(job, data_root=_sources(beside, allow_host or [], job.settings))
        _try_again(run, job, retry)
        return
    known = Known(corpus, annotations, layout, media, size(frame_size))
    source, rows = _rows(manifest, folder, known, data_root)
    chosen = flow.where(rows, where)
    if not chosen:
        raise Misuse(f"{source} has {len(rows)} rows, none of them chosen: check --where")
    job = replace(job, rows=chosen, data_root=_sources(data_root or source, allow_host or [], job.settings))
    odd = flow.odd_lines(rows)
    if run.dry:
        _tell(run, flow.estimate(job), odd)
        return
    if odd:
        run.note(f"{len(odd)} odd lines, one row each; --dry-run lists them")
    log.info("%d rows per shard", job.settings.rows_per_shard)
    result = _unless_done(run, job)
    run.finish(result)
    _judge(result, budget)


@dataclass(frozen=True)
class Known:
    """The options of ``--corpus``."""

    corpus: str
    annotations: Path | None
    layout: str
    media: str
    frame: tuple[int, int] | None


def _rows(manifest: Path | None, folder: Path | None, known: Known, data_root: str) -> tuple[Path, list[Row | BadLine]]:
    """What the rows are read from, and the rows."""
    from preprocessing.corpora import read_corpus, read_manifest
    from preprocessing.sources import Sources

    named = [name for name in (manifest, folder, known.corpus) if name]
    if len(named) != 1:
        raise Misuse("name the clips by one of --manifest FILE, --folder DIR, --corpus NAME --annotations DIR")
    source = manifest or folder or known.annotations
    if known.corpus and source is None:
        raise Misuse(f"--corpus {known.corpus} needs --annotations: the files it is handed out with (docs/corpora.md)")
    if not known.corpus and (known.annotations or known.layout or known.media or known.frame):
        raise Misuse("--annotations, --layout, --media and --frame-size go with --corpus")
    if source is None or not source.exists():
        raise Misuse(f"{source} does not exist: check --manifest, --folder or --annotations")
    if known.corpus:
        found = read_corpus(known.corpus, source, layout=known.layout, template=known.media, frame=known.frame)
        return source, found
    if folder is not None and data_root and Sources.of(data_root).folder is None:
        raise Misuse("--folder lists a folder of this machine: for a store give --manifest")
    return source, read_manifest(source, Path(data_root) if data_root else _folder(source))


def _folder(source: Path) -> Path:
    return source if source.is_dir() else source.parent


def _sources(root: str | Path, hosts: list[str], settings: IngestSettings) -> Sources:
    """The data root, by default the folder of the manifest, and what is allowed beside it. Raises ``Misuse``."""
    from preprocessing.sources import Sources

    found = Sources.of(_folder(root) if isinstance(root, Path) else root)
    found = replace(found, hosts=tuple(hosts), most_bytes=settings.limits.fetched_bytes)
    found.check()
    return found


def _settings(params: Path | None) -> IngestSettings:
    from preprocessing.build import IngestSettings

    return IngestSettings.read(read_params(params).ingest, "params.yaml: ingest")


def _tell(run: Run, counts: dict[str, Any], odd: list[dict[str, Any]]) -> None:
    """The result of a dry run: all odd lines in the log, in the record and with --json, the first few for people."""
    for line in odd:
        log.info("odd line: %s", line["detail"])
    whole = counts | {"odd_lines": odd}
    if run.json:
        run.finish(whole)
        return
    shown = [line["detail"] for line in odd[:SHOWN]]
    run.finish(counts | {"odd_lines": [{"line": text} for text in shown]} if shown else counts)
    run.result = whole
    if len(odd) > SHOWN:
        run.note(f"and {len(odd) - SHOWN} more odd lines: {run.record.with_suffix('.log')} has them all, as has --json")


def size(text: str) -> tuple[int, int] | None:
    """Width and height from ``640x360``. Raises ``Misuse`` for anything else but nothing.

    >>> size("640x360")
    (640, 360)
    """
    if not text:
        return None
    match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if match is None:
        raise Misuse(f"--frame-size {text}: expected width x height, such as 640x360")
    return int(match[1]), int(match[2])


def _unless_done(run: Run, job: flow.IngestJob) -> dict[str, Any]:
    """The result from the records where nothing is pending (no Prefect, no Ray), else from the flow."""
    from preprocessing.run import pending

    if flow.covers(job.dataset, job.rows):
        with run.progress("plan") as progress:
            flow.make_plan(job, progress)
        if not pending(job.dataset, job.settings):
            run.note("nothing to do: every planned row is accounted for")
            return flow.summary(job.dataset)
    require_space(job.dataset, flow.estimate(job)["estimated_bytes"])
    with run.progress("plan") as plan, run.progress("ingest") as shards:
        return flow.ingest(job, plan, shards)


def _try_again(run: Run, job: flow.IngestJob, which: str) -> None:
    """Redo the rows that ``which`` names; all other samples stay as they are, byte for byte."""
    from flows.retry import choose, stale_shards

    retry = choose(job.dataset, which)
    job = replace(job, rows=list(retry.planned_anew), again=retry)
    told = {"rows": len(retry.before), "by_reason": dict(sorted(Counter(retry.before.values()).items()))}
    if run.dry:
        run.finish({"would_try_again": told})
        return
    if not retry.before:
        run.note(f"nothing to do: no row of {job.dataset} is {which}")
        run.finish(flow.summary(job.dataset))
        return
    stale = stale_shards(job.dataset, job.settings, retry.keys)
    if stale:
        run.note(f"{stale} of their shards were made by other steps: all rows of these are made anew")
    with run.progress("plan") as plan, run.progress("ingest") as shards:
        result = flow.ingest(job, plan, shards)
    tried = result["tried_again"]
    run.note(f"{tried['rows']} rows tried again, {tried['changed']} of them ended otherwise than before")
    run.finish(result)
    _judge(result, 1.0)


def _judge(result: dict[str, Any], budget: float) -> None:
    """End with 1 where rows failed, with 3 where more were refused than the budget allows."""
    rows = result["rows"]
    failed, rejected = sum(rows["failed"].values()), sum(rows["rejected"].values())
    if failed:
        raise Ended(Exit.FAILED, f"{failed} of {rows['read']} rows failed: the ledger's column detail says how")
    if rejected > budget * rows["read"]:
        raise Ended(Exit.MISSED, f"{rejected} of {rows['read']} rows were rejected; --max-rejected allows {budget:.3g}")


def share(text: str) -> float:
    """A share from ``5%`` or ``0.05``. Raises ``Misuse`` outside 0 to 1.

    >>> share("5%")
    0.05
    """
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise Misuse(f"--max-rejected {text}: expected a share such as 5% or 0.05")
    return value
