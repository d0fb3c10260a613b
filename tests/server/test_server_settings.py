"""Who may be let in, decided before anything is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from imprompt.core.errors import ConfigError
from imprompt.server.server_settings import check_access
from tests.conftest import Imprompt

LONG = "a-token-of-enough-characters"


@pytest.mark.parametrize(
    ("host", "token", "no_auth"),
    [
        ("127.0.0.1", None, False),
        ("localhost", LONG, False),
        ("0.0.0.0", LONG, False),  # noqa: S104
        ("0.0.0.0", None, True),  # noqa: S104
    ],
)
def test_what_may_be_served(host: str, token: str | None, no_auth: bool) -> None:
    """Loopback as it is; the network with a token, or without one when that was said."""
    check_access(host=host, token=token, no_auth=no_auth)


@pytest.mark.parametrize(
    ("host", "token", "no_auth"),
    [
        ("0.0.0.0", None, False),  # noqa: S104
        ("::", None, False),
        ("box.lan", None, False),
        ("127.0.0.1", "short", False),
        ("::1", LONG, True),
    ],
)
def test_what_may_not(host: str, token: str | None, no_auth: bool) -> None:
    """The network without a decision about access; a guessable token; a contradiction."""
    with pytest.raises(ConfigError):
        check_access(host=host, token=token, no_auth=no_auth)


def test_the_command_line_refuses_before_it_loads(imprompt: Imprompt, tmp_path: Path) -> None:
    """One line and an exit code: for an open host, for an index that is not there."""
    done = imprompt("serve", "--host", "0.0.0.0", "--index", tmp_path)  # noqa: S104
    assert done.code == 10
    assert "--no-auth" in done.err
    done = imprompt("serve", "--index", tmp_path)
    assert done.code == 51
