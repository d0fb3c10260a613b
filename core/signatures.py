"""Signatures of files by OpenSSH: anyone with a key for `ssh` can sign, and anyone can check.

The form is that of `ssh-keygen -Y sign`
(https://github.com/openssh/openssh-portable/blob/master/PROTOCOL.sshsig), which does the work.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from imprompt.core.errors import ConfigError, SignatureRejected, last_line

NAMESPACE = "imprompt-pack"
"""What a signature is for; one of another namespace does not count."""

_PROGRAM = "ssh-keygen"
_KEY_KINDS = ("ssh-", "ecdsa-", "sk-")
_MOST_BYTES = 1 << 20


def find_program() -> str | None:
    """Return the path of `ssh-keygen`; None where there is none."""
    return shutil.which(_PROGRAM)


def check_key(key: Path) -> None:
    """Raise `ConfigError` now if `sign` could not begin with this key."""
    if not key.is_file():
        raise ConfigError(f"The key {key} is not a file.", hint="Make one: ssh-keygen -t ed25519")
    if find_program() is None:
        raise _no_program()


def sign(path: Path, key: Path) -> bytes:
    """Return the signature of a file.

    Args:
        key: a private key, or the public half of one that `ssh-agent` holds. OpenSSH asks for a
            passphrase on the terminal.

    Raises:
        ConfigError: OpenSSH is missing, or refuses the key.
    """
    check_key(key)
    code, out, said = _run(path, "-Y", "sign", "-f", str(key), "-n", NAMESPACE)
    if code != 0 or not out:
        raise ConfigError(f"{key} cannot sign: {said}.", hint="Name a private key of OpenSSH.")
    return out


def check_signature(path: Path, signature: Path, signers: Path) -> str:
    """Return who signed a file: the name beside the key in `signers`.

    Args:
        signers: a public key (`id_ed25519.pub`), or a file of allowed signers (ssh-keygen(1)).

    Raises:
        ConfigError: OpenSSH is missing, or `signers` cannot be read or holds no key.
        SignatureRejected: the signature is missing, is of another file, or by nobody in `signers`.
    """
    lines = _allowed_signers(signers)
    if not signature.is_file():
        raise SignatureRejected(
            f"{path} is not signed: there is no {signature}.",
            hint="Ask whoever packed it for its signature, or install it without --signer.",
        )
    with tempfile.TemporaryDirectory(prefix="imprompt-") as folder:
        allowed = Path(folder) / "allowed"
        allowed.write_text(lines, "utf-8")
        given = ("-f", str(allowed), "-s", str(signature))
        code, out, said = _run(path, "-Y", "find-principals", *given)
        names = out.decode("utf-8", "replace").splitlines()
        if code == 0 and names:
            code, _, said = _run(
                path, "-Y", "verify", *given, "-I", names[0].split(",")[0], "-n", NAMESPACE
            )
            if code == 0:
                return names[0]
    raise SignatureRejected(
        f"{path} is not signed by a key of {signers}, or was changed since: {said}.",
        hint="Do not use it, unless you know why.",
    )


def _allowed_signers(path: Path) -> str:
    try:
        content = path.read_text("utf-8") if path.stat().st_size <= _MOST_BYTES else ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}.", hint="Name a public key.") from error
    lines = [line for line in content.splitlines() if line.strip() and not line.startswith("#")]
    if not lines or "PRIVATE KEY" in lines[0]:
        raise ConfigError(
            f"{path} holds no public key.", hint="Name a file such as ~/.ssh/id_ed25519.pub."
        )
    name = re.sub(r"[^\w.@-]", "_", path.name)
    return "".join(
        f"{name} {line}\n" if line.startswith(_KEY_KINDS) else f"{line}\n" for line in lines
    )


def _run(path: Path, *words: str) -> tuple[int, bytes, str]:
    """Run `ssh-keygen` with a file as its input; return (exit code, output, last words)."""
    program = find_program()
    if program is None:
        raise _no_program()
    with path.open("rb") as given:
        done = subprocess.run(  # noqa: S603 a program of the system, no words of a stranger
            [program, *words], stdin=given, capture_output=True, check=False
        )
    said = last_line(Exception(done.stderr.decode("utf-8", "replace")), "no reason given")
    return done.returncode, done.stdout, said.rstrip(".")


def _no_program() -> ConfigError:
    return ConfigError(
        f"{_PROGRAM}, which signs and checks, is not installed.", hint="Install OpenSSH."
    )
