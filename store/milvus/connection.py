"""A connection to Milvus: bounded waiting, retries, this project's errors, and silent loggers."""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from imprompt.core.errors import (
    ConfigError,
    ImpromptError,
    NoIndex,
    StoreError,
    Unreachable,
    first_line,
)
from imprompt.core.pip_lines import install_extra
from imprompt.core.settings import MILVUS_TOKEN_VARIABLE, MilvusPlace
from imprompt.store.milvus.local_server import hold_lite

CONNECT_S = 5.0
CALL_S = 60.0
PAGE_ROWS = 4096
"""Rows that are fetched at once; Milvus gives out at most 16,384."""

_TRIES = 3
_PAUSE_S = 0.3
_LOGGERS = ("pymilvus", "pymilvus.milvus_client", "pymilvus.bulk_writer", "milvus_lite", "grpc")
_SILENT_STATUSES = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED")
_SILENT_SIGNS = ("Fail connecting to server", "closed channel", "Retry timeout", "Retry run out")
_STATUSES = (*_SILENT_STATUSES, "UNAUTHENTICATED", "PERMISSION_DENIED")
_NOT_FOUND = 100  # pymilvus.exceptions.ErrorCode.COLLECTION_NOT_FOUND

Answer = TypeVar("Answer")


class Connection:
    """A wrapper of one `pymilvus.MilvusClient`. A context manager; safe to use from threads.

    Args:
        place: the server, or the file of Milvus Lite.
        create: make the file of Milvus Lite where there is none.

    Raises:
        ConfigError: pymilvus or milvus-lite is not installed.
        NoIndex: there is no such file.
        BuildLocked: another process uses the file.
        Unreachable: the server does not answer.
        StoreError: it refuses the token, or the file is not one of Milvus Lite.
    """

    def __init__(self, place: MilvusPlace, *, create: bool = False) -> None:
        client_class = _quiet_client()
        self.place = place
        self._token = os.environ.get(MILVUS_TOKEN_VARIABLE, "")
        self._let_go: Callable[[], None] = lambda: None
        address, options = place.address, {}
        if (file := place.file) is not None:
            if not create and not file.exists():
                raise NoIndex(
                    f"There is no {file}.", hint=f"Send an index there: imprompt push {place}"
                )
            address, self._let_go = hold_lite(file)
            options = {"grpc_options": {"grpc.enable_http_proxy": 0}}  # it is in this process
        try:
            self._client = self._retried(
                "connect",
                lambda: client_class(
                    address, token=self._token, timeout=CONNECT_S, dedicated=True, **options
                ),
            )
        except BaseException:
            self._let_go()
            raise

    def call(
        self,
        method: str,
        /,
        *arguments: Any,
        timeout_s: float = CALL_S,
        retry: bool = True,
        **options: Any,
    ) -> Any:
        """Return the answer of `MilvusClient.method`.

        Args:
            timeout_s: how long one try may take.
            retry: try again, after a short pause, where the server does not answer; not for what
                may not happen twice.

        Raises:
            Unreachable: the server did not answer.
            NoIndex: there is no such collection (any more).
            StoreError: the server refuses; its own words.
        """
        tries = _TRIES if retry else 1
        return self._retried(
            method,
            lambda: getattr(self._client, method)(*arguments, timeout=timeout_s, **options),
            tries=tries,
        )

    def pages(
        self, collection: str, *, where: str, fields: Sequence[str]
    ) -> Iterator[list[dict[str, Any]]]:
        """Yield all rows that an expression is true of, in pages and in no order.

        Raises:
            Unreachable, NoIndex, StoreError: as for `call`.
        """
        pages = self.call(
            "query_iterator",
            collection,
            batch_size=PAGE_ROWS,
            filter=where,
            output_fields=list(fields),
        )
        try:
            while page := self._retried("query_iterator", pages.next, tries=1):
                yield page
        finally:
            pages.close()

    def close(self) -> None:
        """Let go of the server; calling it again does nothing."""
        self._client.close()
        self._let_go()
        self._let_go = lambda: None

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _retried(self, what: str, work: Callable[[], Answer], *, tries: int = _TRIES) -> Answer:
        from grpc import RpcError
        from pymilvus.exceptions import MilvusException

        for left in reversed(range(tries)):
            try:
                return work()
            # ValueError: another thread is reconnecting.
            except (MilvusException, RpcError, ValueError) as error:
                mapped = self._mapped(what, error)
                if left == 0 or not isinstance(mapped, Unreachable):
                    raise mapped from error
            time.sleep(_PAUSE_S * (tries - left) * random.uniform(0.5, 1.5))  # noqa: S311 that many clients do not come at once
        raise AssertionError("unreachable")

    def _mapped(self, what: str, error: BaseException) -> ImpromptError:
        """Return the error as one of this project; refusals keep the server's words."""
        status = _grpc_status(error)
        words = first_line(Exception(getattr(error, "message", "") or error))
        if self._token:
            words = words.replace(self._token, "***")
        if status in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
            return StoreError(
                f"{self.place} refuses access: {'the' if self._token else 'no'} token was sent.",
                hint=f"Set {MILVUS_TOKEN_VARIABLE} to the token, or to USER:PASSWORD.",
            )
        if status in _SILENT_STATUSES or any(sign in words for sign in _SILENT_SIGNS):
            return Unreachable(
                f"{self.place} does not answer ({status.lower().replace('_', ' ') or 'timeout'}).",
                hint="Is the server running, and is this its address?",
            )
        if getattr(error, "code", None) == _NOT_FOUND:
            return NoIndex(
                f"{self.place}: {words}.", hint=f"Send an index there: imprompt push {self.place}"
            )
        return StoreError(f"{self.place} refuses ({what}): {words}")


def _grpc_status(error: BaseException) -> str:
    """Return the name of the failed call's gRPC status, from the error's causes; "" if none."""
    seen: list[BaseException] = []
    current: BaseException | None = error
    while current is not None:
        code = getattr(current, "code", None)
        name = getattr(code() if callable(code) else code, "name", "")
        if name in _STATUSES:
            return str(name)
        seen.append(current)
        # pymilvus raises an error from itself.
        current = next(
            (
                older
                for older in (current.__cause__, current.__context__)
                if older and older not in seen
            ),
            None,
        )
    return ""


def _quiet_client() -> Any:
    """Return pymilvus' client class, its loggers silenced: they repeat errors with a traceback."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    before = os.environ.get("PYTHON_DOTENV_DISABLED")
    # It would load a file .env from above its package's folder into this environment.
    os.environ["PYTHON_DOTENV_DISABLED"] = "1"
    try:
        from pymilvus import MilvusClient
    except ImportError as error:
        raise ConfigError(
            f"{error.name} is not installed.",
            hint=f"Install what Milvus needs: {install_extra('milvus')}",
        ) from error
    finally:
        if before is None:
            del os.environ["PYTHON_DOTENV_DISABLED"]
        else:
            os.environ["PYTHON_DOTENV_DISABLED"] = before
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    return MilvusClient
