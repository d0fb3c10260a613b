"""Run commands as a user who may read the files of others and not write them.

It prints their outcome. Run by test_other_user.py.

    python other_user.py < [["verify", "--index", …], …]

Prints a JSON list of [exit code, standard output, standard error].
"""

from __future__ import annotations

import contextlib
import io
import json
import sys

from imprompt import cli
from tests.store.hardship import obey_permissions


def main() -> None:
    obey_permissions()
    outcomes = []
    for words in json.load(sys.stdin):
        sys.argv = ["imprompt", *words]
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = cli.run()
        outcomes.append([code, out.getvalue(), err.getvalue()])
    sys.stdout.write(json.dumps(outcomes))


if __name__ == "__main__":
    main()
