"""Which failures of a task are worth another try."""

from __future__ import annotations

from typing import Any

from contracts.errors import Transient


def worth_a_retry(task: Any, run: Any, state: Any) -> bool:
    """Only ``Transient`` is, and not a full disk: it does not empty itself within seconds."""
    try:
        state.result()
    except Transient as error:
        return not str(error).startswith("NO_SPACE")
    except BaseException:  # a condition must answer whatever the task raised
        return False
    return False


# no caching of results: what is done is known from the records on disk
RETRIES: dict[str, Any] = {
    "retries": 2,
    "retry_delay_seconds": [2, 10],
    "retry_jitter_factor": 0.5,  # many that failed together do not come back together
    "retry_condition_fn": worth_a_retry,
    "persist_result": False,
}
