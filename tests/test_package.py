"""The wheel and the sdist hold every room, and the wheel answers a query without the clone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
ROOMS = (
    *("commands", "core", "encoders", "ensemble", "environment", "evaluation", "images"),
    *("indexer", "notebook", "retriever", "server", "store"),
)


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist, built from a copy of what git tracks."""
    folder = tmp_path_factory.mktemp("dist")
    source = tmp_path_factory.mktemp("source")
    tracked = (
        subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
        .stdout.decode()
        .split("\0")
    )
    for name in filter(None, tracked):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(source)],
        check=True,
        capture_output=True,
    )
    return folder


def test_both_archives_hold_the_rooms_and_their_data_and_no_tests(archives: Path) -> None:
    """Every file of every room is shipped, data as well as code; tests are not."""
    (wheel,), (sdist,) = archives.glob("*.whl"), archives.glob("*.tar.gz")
    in_wheel = set(zipfile.ZipFile(wheel).namelist())
    with tarfile.open(sdist) as archive:
        in_sdist = {name.partition("/")[2] for name in archive.getnames()}
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--", *ROOMS], cwd=ROOT, capture_output=True, check=True
    )
    names = {name for name in listed.stdout.decode().split("\0") if name}
    assert {"encoders/lite_head.safetensors", "ensemble/phrase_roles.toml"} < names
    names.remove("encoders/graphs/write_graphs.py")  # it needs torch and a clone
    for name in {"cli.py", *names}:
        assert f"imprompt/{name}" in in_wheel
        assert name in in_sdist
    assert not [
        name
        for name in in_wheel
        if name.startswith(
            ("imprompt/tests/", "imprompt/benchmarks/", "imprompt/examples/", "imprompt/docs/")
        )
    ]


def test_the_wheel_builds_an_index_and_answers_a_query(archives: Path, tmp_path: Path) -> None:
    """Unpacked elsewhere, with nothing of the clone in reach, the two verbs work."""
    (wheel,) = archives.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    (tmp_path / "prompts.txt").write_text(
        "a red fox in the snow\na bowl of ramen\na lighthouse at dusk\n", "utf-8"
    )

    def imprompt(*words: str) -> str:
        environment = {
            **os.environ,
            "PYTHONPATH": str(tmp_path / "installed"),
            "PYTHONSAFEPATH": "1",
        }
        script = (
            f"from imprompt import cli; assert cli.__file__.startswith({str(tmp_path)!r}); "
            "cli.main()"
        )
        command = [sys.executable, "-c", script, *words, "--index", str(tmp_path / "index")]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    imprompt("build-index", "--corpus", "prompts.txt")
    answer = json.loads(imprompt("query", "--text", "noodle soup", "-k", "1", "--json"))
    assert answer["nearest"][0]["prompt"] == "a bowl of ramen"
    Image.new("RGB", (64, 64), "red").save(tmp_path / "red.png")
    answer = json.loads(imprompt("query", "red.png", "--json"))
    assert answer["how"] == "estimated"
    assert answer["phrases"]


def test_other_packages_may_be_called_as_our_folders_are(archives: Path, tmp_path: Path) -> None:
    """A package with `core` and `store` works too; uninstalling one leaves the other whole."""
    (wheel,) = archives.glob("*.whl")
    rival = _rival_wheel(tmp_path)
    python = _environment(tmp_path / "venv")
    imprompt_works = [str(python.with_name("imprompt")), "plan", "--rows", "1000"]
    rival_works = [str(python), "-c", "import core.errors, store; print(core.errors.NAME)"]

    def pip(*words: str) -> None:
        command = [sys.executable, "-m", "pip", "--python", str(python), "--quiet", *words]
        subprocess.run(command, check=True, capture_output=True)

    def works(command: list[str]) -> bool:
        run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        return run.returncode == 0

    pip("install", "--no-deps", "--no-index", str(wheel), str(rival))
    assert works(imprompt_works)
    assert works(rival_works)
    pip("uninstall", "--yes", "rival")
    assert works(imprompt_works)
    assert not works(rival_works)
    pip("install", "--no-deps", "--no-index", str(rival))
    pip("uninstall", "--yes", "imprompt")
    assert works(rival_works)
    assert not python.with_name("imprompt").exists()


def test_a_clone_runs_its_own_code(tmp_path: Path) -> None:
    """`python cli.py` runs the files next to it, although another imprompt is installed."""
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    for name in filter(None, tracked.stdout.decode().split("\0")):
        if name.endswith((".py", ".toml", ".txt")) and (ROOT / name).is_file():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    plan = tmp_path / "commands" / "plan.py"
    plan.write_text(plan.read_text("utf-8") + "\nprint(__name__, __file__)\n", "utf-8")
    command = [sys.executable, str(tmp_path / "cli.py"), "plan", "--rows", "1000"]
    run = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert f"imprompt.commands.plan {plan}" in run.stdout


def _rival_wheel(folder: Path) -> Path:
    """Write a wheel named `rival` with the packages `core` and `store`."""
    path = folder / "rival-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        files = {
            "core/__init__.py": "",
            "core/errors.py": "NAME = 'rival'\n",
            "store/__init__.py": "",
            "rival-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: rival\nVersion: 1.0\n",
            "rival-1.0.dist-info/WHEEL": (
                "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            ),
        }
        for name, text in files.items():
            wheel.writestr(name, text)
        record = "".join(f"{name},,\n" for name in files)
        wheel.writestr("rival-1.0.dist-info/RECORD", record + "rival-1.0.dist-info/RECORD,,\n")
    return path


def _environment(folder: Path) -> Path:
    """Make an environment that finds the dependencies of this one, and nothing of the clone.

    A path in a `.pth` file is searched, but the `.pth` files in it, such as that of the editable
    installation, are not read.
    """
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    query = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    site = subprocess.run([str(python), "-c", query], capture_output=True, text=True, check=True)
    dependencies = sysconfig.get_paths()["purelib"]
    (Path(site.stdout.strip()) / "dependencies.pth").write_text(dependencies + "\n", "utf-8")
    return python
