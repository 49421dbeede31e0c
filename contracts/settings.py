"""Settings: frozen pydantic models in which a typo is an error that names its path."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from contracts.errors import Misuse


class Settings(BaseModel):
    """Base of every settings class: unknown keys are refused, values cannot change."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def read(cls, values: dict[str, Any] | None, where: str) -> Self:
        """Validate ``values`` found at ``where`` (say ``params.yaml: train``).

        Raises ``Misuse`` with the path of every wrong key.
        """
        try:
            return cls.model_validate(values or {})
        except ValidationError as error:
            faults = "; ".join(
                f"{'.'.join(str(part) for part in fault['loc']) or '(all)'}: {fault['msg']}" for fault in error.errors()
            )
            raise Misuse(f"{where}: {faults}") from None

    def digest(self) -> str:
        """SHA-256 of the values in canonical JSON."""
        return canonical_digest(self.model_dump(mode="json"))


def canonical_json(value: Any) -> str:
    """JSON with sorted keys, no spaces and no NaN: equal values give equal bytes.

    >>> canonical_json({"b": 1, "a": [1.5, None]})
    '{"a":[1.5,null],"b":1}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)


def canonical_digest(value: Any) -> str:
    """SHA-256 (hex) of ``canonical_json(value)``."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()
