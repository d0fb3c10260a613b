"""What packages need of the processor; without it, importing them ends the process."""

from __future__ import annotations

import platform
from importlib import import_module

from imprompt.core.errors import ConfigError


def require_avx2(package: str) -> None:
    """Raise `ConfigError` where an x86 processor lacks AVX2, which a package was built with."""
    if platform.machine().lower() in ("x86_64", "amd64") and not has_avx2():
        raise ConfigError(
            f"{package} needs a processor with AVX2, which this one lacks.",
            hint="Intel's have it since 2013 (Haswell), AMD's since 2015; `extract` works without.",
        )


def has_avx2() -> bool:
    """Return whether numpy sees AVX2; True where it does not say."""
    features = getattr(import_module("numpy._core._multiarray_umath"), "__cpu_features__", {})
    return bool(features.get("AVX2", True))
