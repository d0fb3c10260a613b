"""What the environment says: where the index and caches lie, and whether the network may be used."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

INDEX_VARIABLE = "IMPROMPT_INDEX"
OFFLINE_VARIABLE = "IMPROMPT_OFFLINE"


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of one run; `offline` shuts `core.fetch`."""

    index: Path
    cache: Path
    offline: bool


def settings(*, index: Path | None = None, offline: bool = False) -> Settings:
    """Options first, then environment variables, then the user's own folders (platformdirs)."""
    import platformdirs

    named = index or (Path(os.environ[INDEX_VARIABLE]) if os.environ.get(INDEX_VARIABLE) else None)
    return Settings(
        index=(named or platformdirs.user_data_path("imprompt") / "index").expanduser().absolute(),
        cache=platformdirs.user_cache_path("imprompt").absolute(),
        offline=offline or os.environ.get(OFFLINE_VARIABLE, "") not in ("", "0"),
    )
