"""What is counted and timed, for Prometheus.

Each server has a registry of its own; nothing is registered at import.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
)
_SIZES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The server's figures. `queue` is image or text. `stage` is read (decode, look for a carried prompt), wait (in the
    queue), see (the image tower), vote (the members and the rest of their answer), answer (texts encoded, search, prompts fetched)
    or embed."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "imprompt_requests",
            "Requests that were answered.",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self.request_seconds = Histogram(
            "imprompt_request_seconds",
            "From the first byte to the answer.",
            ["route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.stage_seconds = Histogram(
            "imprompt_stage_seconds",
            "Time of each stage.",
            ["stage"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.waiting = Gauge(
            "imprompt_queue_waiting",
            "Questions that wait for a model.",
            ["queue"],
            registry=self.registry,
        )
        self.batch_size = Histogram(
            "imprompt_batch_size",
            "Questions that a model got at once.",
            ["queue"],
            buckets=_SIZES,
            registry=self.registry,
        )
        self.errors = Counter(
            "imprompt_errors",
            "Answers that were problems, by kind.",
            ["kind"],
            registry=self.registry,
        )
        self.held_bytes = Gauge(
            "imprompt_held_bytes", "Bytes of the bodies in hand.", registry=self.registry
        )
        self.ready = Gauge(
            "imprompt_ready", "1 when models and index are warm.", registry=self.registry
        )
        self.swaps = Counter(
            "imprompt_version_swaps", "Versions taken up after the first.", registry=self.registry
        )
        self.swap_failures = Counter(
            "imprompt_version_failures",
            "Versions that were published and could not be used.",
            registry=self.registry,
        )
        self.withdrawals = Counter(
            "imprompt_version_withdrawals",
            "Versions that were taken out of service because their files were changed.",
            registry=self.registry,
        )
        self.version = Gauge(
            "imprompt_version", "1 for the version in service.", ["version"], registry=self.registry
        )

    def serve_version(self, name: str) -> None:
        """From now on `name` is the version in service."""
        self.version.clear()
        self.version.labels(name).set(1)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a block as the stage `name`."""
        begun = perf_counter()
        try:
            yield
        finally:
            self.stage_seconds.labels(name).observe(perf_counter() - begun)

    def text(self) -> bytes:
        """All figures in Prometheus' text format."""
        return generate_latest(self.registry)
