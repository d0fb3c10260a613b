"""Run one command on something hostile, and report what it did to the machine.

The command runs in a process of its own with a home folder that the test owns. An audit hook
(PEP 578), loaded before anything else, logs every socket, every new process, and every Python file
that runs from a folder where only data should lie. A program that serves is given `MAY_LISTEN`, and
may make sockets, not connect them. DuckDB and FAISS open files past that hook, so
the whole home folder is hashed before and after, and the output is searched for a secret that lies
in it.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SECRET = "the-secret-of-this-home"  # noqa: S105 a canary
CANARY = "canary"
"""Hostile code that runs creates a file whose name begins so, in `$CANARIES`."""

_HOOK = """
import os, sys
_log, _data = os.environ["AUDIT_LOG"], os.environ["HOSTILE_FOLDER"]
_net = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto")
_run = ("subprocess.Popen", "os.system", "os.posix_spawn")
def _watch(event, args):
    inet = event == "socket.__new__" and int(args[1]) in (2, 10)
    inet = inet and not os.environ.get("MAY_LISTEN")
    ran = event == "exec" and getattr(args[0], "co_filename", "").startswith(_data)
    if event == "socket.connect" and "/pymp-" in str(args[1]):  # our own worker processes
        return
    if event in ("subprocess.Popen", "os.posix_spawn"):
        if os.path.basename(str(args[0])) in ("uname", "lscpu", "ldconfig"):
            return
    if inet or ran or event in _net or event in _run:
        fd = os.open(_log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(fd, f"{event} {args}\\n".encode())
        os.close(fd)
        if inet or event in _net:
            raise OSError("the test closed the network")
sys.addaudithook(_watch)
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end and the effects of a command; `audit` lists sockets, processes, foreign code.

    `seconds` is its processor time, which other work on the machine leaves alone; `waited_s` is the
    time until it ended.
    """

    code: int
    out: str
    err: str
    seconds: float
    waited_s: float
    peak_bytes: int
    audit: list[str]
    touched: list[str]

    @property
    def message(self) -> str:
        """The error line of standard error without its hint, or all of it."""
        lines = [line for line in self.err.splitlines() if line.startswith("error: ")]
        return lines[-1] if lines else self.err


class Home:
    """A home folder with things that nobody may touch; `hostile` is where the hostile thing lies.

    Args:
        folder: an empty folder. `home/` and `hostile/` are made in it.
    """

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.hostile = folder / "hostile"
        self._scratch = folder / "scratch"
        for place in (self.home, self.hostile, self._scratch, self.home / ".ssh"):
            place.mkdir(parents=True)
        for name in (".bashrc", ".profile", ".ssh/id_ed25519", "secret.txt"):
            (self.home / name).write_text(f"{SECRET} {name}\n")
        (self._scratch / "sitecustomize.py").write_text(_HOOK)

    def state(self) -> dict[str, str]:
        """Path and sha256 of everything in the home folder but its caches."""
        found = {}
        for path in sorted(self.home.rglob("*")):
            name = str(path.relative_to(self.home))
            if path.is_file() and not name.startswith((".cache", ".local")):
                found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        return found

    def run(
        self,
        *words: str | Path,
        timeout_s: float = 120,
        stdin: bytes = b"",
        cwd: Path | None = None,
    ) -> Outcome:
        """Run `python cli.py WORD…` to its end; a time-out is an exit code of -1."""
        return self.run_program(
            [sys.executable, str(ROOT / "cli.py"), *map(str, words)], timeout_s, stdin, cwd
        )

    def run_program(
        self, command: Sequence[str], timeout_s: float, stdin: bytes = b"", cwd: Path | None = None
    ) -> Outcome:
        """Run any program under the same watch."""
        log = self._scratch / f"audit-{time.monotonic_ns()}"
        out, err = (self._scratch / f"{log.name}.{name}" for name in ("out", "err"))
        before, canaries = self.state(), set(self._scratch.glob(f"{CANARY}*"))
        environment = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("HF_", "XDG_", "IMPROMPT_"))
        } | {
            "HOME": str(self.home),
            "PYTHONPATH": f"{self._scratch}{os.pathsep}{ROOT}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "AUDIT_LOG": str(log),
            "HOSTILE_FOLDER": str(self.hostile),
            "CANARIES": str(self._scratch),
            "COLUMNS": "140",
        }
        (self._scratch / f"{log.name}.in").write_bytes(stdin)
        began = time.monotonic()
        with (
            (self._scratch / f"{log.name}.in").open("rb") as given,
            out.open("wb") as out_file,
            err.open("wb") as err_file,
        ):
            process = subprocess.Popen(
                command,
                cwd=cwd or ROOT,
                env=environment,
                stdin=given,
                stdout=out_file,
                stderr=err_file,
            )
            code, seconds, peak = _wait(process, timeout_s)
        waited_s = time.monotonic() - began
        audit = log.read_text().splitlines() if log.exists() else []
        audit += [
            f"canary {path.name}"
            for path in sorted(set(self._scratch.glob(f"{CANARY}*")) - canaries)
        ]
        after = self.state()
        touched = [
            name for name in sorted({*before, *after}) if before.get(name) != after.get(name)
        ]
        said, told = (path.read_bytes().decode("utf-8", "replace") for path in (out, err))
        return Outcome(code, said, told, seconds, waited_s, peak, audit, touched)


def _wait(process: subprocess.Popen[bytes], timeout_s: float) -> tuple[int, float, int]:
    """Wait for (exit code or -1, CPU seconds, peak resident bytes); kill it at the time limit."""
    end, peak = time.monotonic() + timeout_s, 0
    while time.monotonic() < end:
        peak = max(peak, _most_resident(process.pid))
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            return process.returncode, usage.ru_utime + usage.ru_stime, peak
        time.sleep(0.02)
    process.kill()
    _, _, usage = os.wait4(process.pid, 0)
    process.returncode = -1
    return -1, usage.ru_utime + usage.ru_stime, peak


def _most_resident(pid: int) -> int:
    """The peak of a process in bytes.

    What `wait4` says begins with the peak of the process that started it.
    """
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


def check_refused(outcome: Outcome, *, code: int | tuple[int, ...], says: str = "") -> None:
    """Assert that a command refused in one line, with its exit code, and changed nothing."""
    codes = (code,) if isinstance(code, int) else code
    assert outcome.code in codes, (outcome.code, outcome.err)
    check_harmless(outcome)
    assert "Traceback" not in outcome.err, outcome.err
    assert "fault of imprompt" not in outcome.err, outcome.err
    assert says in outcome.err, outcome.err


def check_harmless(outcome: Outcome) -> None:
    """Assert that nothing foreign ran or was fetched, and no user file was read or changed."""
    assert not outcome.audit, outcome.audit
    assert not outcome.touched, outcome.touched
    assert SECRET not in outcome.out + outcome.err


def check_cheap(
    outcome: Outcome, good: Outcome, *, seconds: float = 2.0, mebibytes: int = 256
) -> None:
    """Assert that the cost exceeds that of a good input of the same kind by at most a limit."""
    assert outcome.seconds - good.seconds <= seconds, (outcome.seconds, good.seconds)
    assert outcome.waited_s - good.waited_s <= 20, (
        outcome.waited_s,
        good.waited_s,
    )  # it waits for nothing, either
    assert outcome.peak_bytes - good.peak_bytes <= mebibytes << 20, (
        outcome.peak_bytes,
        good.peak_bytes,
    )
