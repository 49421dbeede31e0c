"""The only ``ray.init``: a local cluster of our own, or one that stands already."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from contracts.errors import Misuse, Transient
from contracts.files import LOCK_FILE, lock

T = TypeVar("T")
log = logging.getLogger(__name__)
LEAST_CPUS = 4  # logical: Ray Train's controller and helpers take slots beside the workers
NOT_SHIPPED = ["work", ".venv", ".git", ".dvc", "**/__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache"]
PROJECT = Path(__file__).resolve().parents[1]  # the code that nodes of a standing cluster run, whatever they have
# set where the nodes were not started by us; their niceness (RAY_worker_niceness) is fixed when they start
OF_WORKERS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "GLOG_minloglevel", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
TOKEN = Path("~/.ray/auth_token")
FOLDER = "voxray-"  # of a local cluster's sockets and logs
LONGEST_BYTES = 107 - len("/session_2026-11-21_21-07-40_044105_4194304/sockets/plasma_store")  # of its path


@contextmanager
def cluster(address: str = "local", cpus: int | None = None) -> Iterator[None]:
    """Be connected to Ray: ``local`` starts a cluster and stops it, ``auto`` or ``HOST:PORT`` joins one.

    Raises ``Misuse`` for an address at which no cluster answers, ``Transient`` where a local one does not start.
    """
    import ray

    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    held = ExitStack()
    if address == "local":
        # the path of a unix socket may have 107 bytes: a short folder of our own
        temporary = tempfile.mkdtemp(prefix=FOLDER, dir=os.environ.get("RAY_TMPDIR"))
        held.callback(shutil.rmtree, temporary, ignore_errors=True)
        over = len(os.fsencode(temporary)) - LONGEST_BYTES
        if over > 0:
            held.close()
            raise Misuse(f"the path of Ray's folder {temporary} is {over} bytes too long: set RAY_TMPDIR=/tmp")
        held.enter_context(lock(Path(temporary)))
        _sweep(Path(temporary).parent)
        options |= {
            "num_cpus": cpus or max(LEAST_CPUS, os.cpu_count() or 1),
            "include_dashboard": False,
            "_temp_dir": temporary,
        }
    else:
        options["runtime_env"] = {"env_vars": {name: os.environ[name] for name in OF_WORKERS if name in os.environ}}
        if (PROJECT / "pyproject.toml").is_file():  # a checkout, not a folder of installed packages
            options["runtime_env"] |= {"working_dir": str(PROJECT), "excludes": NOT_SHIPPED}
    # ray.init puts a handler of its own in the place of ours, which ends the process with code 1
    terminate, in_main = signal.getsignal(signal.SIGTERM), threading.current_thread() is threading.main_thread()
    try:
        try:
            ray.init(address=address, **options)
        except (ConnectionError, ValueError) as error:
            raise Misuse(f"--address {address}: no Ray cluster answers there: {_line(error)}") from error
        except Exception as error:  # Ray raises no narrower one where a node is not up within 30 s of a busy machine
            raise Transient(f"Ray did not start: {_line(error)}") from error
        except SystemExit as ending:
            if in_main and ending.code == signal.SIGTERM and callable(terminate):
                terminate(signal.SIGTERM, None)  # it came while Ray's handler stood in the place of ours
            raise
        if in_main:
            signal.signal(signal.SIGTERM, terminate)
        _keep_private(TOKEN.expanduser())
        log.info("connected to Ray at %s", address)
        yield
    finally:
        try:
            _shut_down()
        finally:
            held.close()


def _shut_down() -> None:
    """Stop Ray. Leaving it resets SIGTERM beneath Python: one that came from then on would end us unheard."""
    import ray
    from ray._private import worker

    node, handler = worker._global_node, signal.getsignal(signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        ray.shutdown()
        return
    if node is not None:
        stop = node.kill_all_processes  # what takes time, after the reset

        def kill_all_processes(*given: Any, **more: Any) -> None:
            signal.signal(signal.SIGTERM, handler)
            stop(*given, **more)

        node.kill_all_processes = kill_all_processes
    try:
        ray.shutdown()
    finally:
        signal.signal(signal.SIGTERM, handler)


def aside(work: Callable[[], T]) -> T:
    """The result of ``work``, or what it raised, from another thread while this one waits for signals.

    In the main thread Ray Train would take over Ctrl-C and never give it back. An interruption is raised here at
    once; leaving :func:`cluster` then ends what ``work`` waits for.
    """
    ended: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            ended.append(work())
        except BaseException as error:  # handed over, whatever it is
            failed.append(error)

    thread = threading.Thread(target=run, name="aside", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.2)
    if failed:
        raise failed[0]
    return ended[0]


def _sweep(folder: Path) -> None:
    """Remove the folders of local clusters whose run was killed: nobody holds their lock any more."""
    for left in folder.glob(f"{FOLDER}*"):
        try:
            if (left / LOCK_FILE).is_file():  # else it is being made
                with lock(left):
                    shutil.rmtree(left, ignore_errors=True)
        except (Misuse, OSError):  # in use, or somebody else's
            continue


def _keep_private(token: Path) -> None:
    """Ray writes its token readable by all; whoever reads it may run code here."""
    if token.is_file():
        token.chmod(0o600)


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
