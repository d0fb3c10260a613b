"""Import DuckDB, whose package ends the process on a processor that it was not built for."""

from __future__ import annotations

import platform
from importlib import import_module
from typing import Any

from imprompt.core.errors import ConfigError


def import_duckdb() -> Any:
    """Return the module.

    Raises:
        ConfigError: the processor is an x86 without AVX2.
    """
    if platform.machine().lower() in ("x86_64", "amd64") and not has_avx2():
        raise ConfigError(
            "duckdb needs a processor with AVX2, which this one lacks.",
            hint="Intel's have it since 2013 (Haswell), AMD's since 2015; `extract` works without.",
        )
    import duckdb

    return duckdb


def has_avx2() -> bool:
    """Return whether numpy sees AVX2; True where it does not say."""
    features = getattr(import_module("numpy._core._multiarray_umath"), "__cpu_features__", {})
    return bool(features.get("AVX2", True))
