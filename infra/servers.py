"""PostgreSQL, and MLflow's and Prefect's servers on it, on this machine, without containers.

    python infra/servers.py DIR

All of it lies in DIR and is there again at the next start. Once both servers answer, two lines on standard output say
what voxface's commands need in their environment; Ctrl-C or SIGTERM ends all three. They listen on 127.0.0.1 alone,
PostgreSQL on a unix socket in DIR alone. Debian and Ubuntu: ``apt install postgresql-15``.
"""

from __future__ import annotations

import argparse
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

PLACES = ("/usr/lib/postgresql/*/bin", "/usr/local/bin", "/usr/bin")  # where initdb may be
DATABASES = ("mlflow", "prefect")
OWNER = "voxface"
LONGEST_S = 600.0  # of a server's start, on a machine that is busy


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="made where it is missing")
    parser.add_argument("--mlflow-port", type=int, default=0, help="default: a free one")
    parser.add_argument("--prefect-port", type=int, default=0, help="default: a free one")
    options = parser.parse_args()
    folder = options.folder.absolute()
    tools = next((path.parent for place in PLACES for path in sorted(Path("/").glob(f"{place[1:]}/initdb"))), None)
    if tools is None:
        sys.stderr.write("PostgreSQL is not installed (Debian: apt install postgresql-15)\n")
        return 2
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _interrupt)
    with ExitStack() as stack:
        try:
            database = postgres(stack, tools, folder / "postgres")
            ports = options.mlflow_port or free_port(), options.prefect_port or free_port()
            told = servers(stack, folder, database, *ports)
            for name, value in told.items():
                sys.stdout.write(f"{name}={value}\n")
            sys.stdout.flush()
            signal.pause()
        except KeyboardInterrupt:
            return 0
        except subprocess.CalledProcessError as error:  # it has said why; as root, "postgres" must reach the folder
            sys.stderr.write(f"PostgreSQL in {folder / 'postgres'}: {Path(error.cmd[0]).name} failed\n")
            return 1
    return 0


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def postgres(stack: ExitStack, tools: Path, folder: Path) -> str:
    """Start PostgreSQL with its data in ``folder``: the URL of a database, without the database's name and scheme."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SystemExit(f"{folder}: {error.strerror}: name a folder that can be written") from error
    user: dict[str, Any] = {}
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        names = {entry.pw_name for entry in pwd.getpwall()}
        user = {"user": "postgres" if "postgres" in names else "nobody"}
        shutil.chown(folder, user["user"])
    here: dict[str, Any] = {"cwd": folder, "check": True, "stdout": subprocess.DEVNULL, **user}
    data = folder / "data"
    if not (data / "PG_VERSION").is_file():
        shutil.rmtree(data, ignore_errors=True)  # of a first start that was cut off
        subprocess.run([tools / "initdb", "-D", data, "-U", OWNER, "--auth=trust"], **here)
    control = [tools / "pg_ctl", "-D", data, "-s", "-w", "-t", str(int(LONGEST_S))]
    options = f"-k {folder} -h '' -c max_connections=200"
    subprocess.run([*control, "-o", options, "-l", folder / "log", "start"], **here)
    stack.callback(subprocess.run, [*control, "-m", "fast", "stop"], **here)
    psql = [tools / "psql", "-h", folder, "-U", OWNER, "-d", "postgres", "-tAc"]
    there = subprocess.run([*psql, "SELECT datname FROM pg_database"], check=True, capture_output=True, text=True)
    for name in set(DATABASES) - set(there.stdout.split()):
        subprocess.run([*psql, f"CREATE DATABASE {name}"], **here)
    return f"{OWNER}@/{{}}?host={folder}"


def servers(stack: ExitStack, folder: Path, database: str, mlflow: int, prefect: int) -> dict[str, str]:
    """Start both; what is to stand in the environment of commands, once both answer."""
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    store = {
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_API_DATABASE_CONNECTION_URL": f"postgresql+asyncpg://{database.format('prefect')}",
    }
    at = ["--host", "127.0.0.1", "--port"]
    words = {
        "mlflow": [
            *("-m", "mlflow", "server", *at, str(mlflow), "--workers", "1"),
            *("--backend-store-uri", f"postgresql+psycopg2://{database.format('mlflow')}"),
            *("--artifacts-destination", str(folder / "mlartifacts")),
        ],
        "prefect": ["-m", "prefect", "server", "start", *at, str(prefect)],
    }
    started = []
    for name, command in words.items():
        with (folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, *command],
                env=os.environ | quiet | store,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        stack.callback(end, process)
        started.append((name, process))
    told = {
        "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{mlflow}",
        "PREFECT_API_URL": f"http://127.0.0.1:{prefect}/api",
    }
    for (name, process), address in zip(started, told.values(), strict=True):
        wait_for(f"{address}/health", name, process, folder)
    return told


def wait_for(address: str, name: str, process: subprocess.Popen[bytes], folder: Path) -> None:
    """Return once something answers at ``address``. Raises ``SystemExit`` where the process ended, or time is over."""
    ended = time.monotonic() + LONGEST_S
    while time.monotonic() < ended and process.poll() is None:
        with suppress(OSError):
            if urllib.request.urlopen(address, timeout=5).status == 200:  # noqa: S310, our own
                return
        time.sleep(0.2)
    raise SystemExit(f"{name} does not answer: {folder / f'{name}.log'} says why")


def end(process: subprocess.Popen[bytes]) -> None:
    """End a server and all that it started."""
    for number, seconds in ((signal.SIGTERM, 20), (signal.SIGKILL, 20)):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
