"""`make demo`: build the starter index in ./.demo-index and query it with three images.

One image is drawn here and carries its prompt as AUTOMATIC1111 writes it; the others are
photographs that scikit-learn ships.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

ROOT = Path(__file__).resolve().parent.parent
INDEX, IMAGES = ROOT / ".demo-index", ROOT / ".demo-images"
PARAMETERS = (
    "a small lighthouse on a cliff at dusk, warm light, calm sea, flat illustration\n"
    "Negative prompt: people, text\n"
    "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1234, Size: 512x512, Model: demo"
)


def draw_lighthouse(path: Path) -> None:
    """Draw a 512 by 512 PNG whose text chunk `parameters` holds PARAMETERS."""
    picture = Image.new("RGB", (512, 512))
    brush = ImageDraw.Draw(picture)
    for row in range(512):
        brush.line([(0, row), (511, row)], fill=(70 + row // 4, 60 + row // 6, 120 - row // 8))
    brush.rectangle([0, 360, 511, 511], fill=(30, 50, 90))
    brush.polygon([(250, 512), (290, 330), (420, 320), (511, 420), (511, 511)], fill=(50, 40, 45))
    brush.polygon([(330, 330), (340, 170), (370, 170), (380, 330)], fill=(230, 225, 215))
    brush.rectangle([335, 140, 375, 170], fill=(255, 220, 120))
    brush.polygon([(330, 140), (355, 115), (380, 140)], fill=(150, 40, 40))
    text = PngInfo()
    text.add_text("parameters", PARAMETERS)
    picture.save(path, pnginfo=text)


def imprompt(*words: str) -> None:
    """Print a command as a user types it, and run it from this clone."""
    print(f"\n$ imprompt {' '.join(words)}", flush=True)
    subprocess.run([sys.executable, str(ROOT / "cli.py"), *words], cwd=ROOT, check=True)


def main() -> None:
    """Collect the images, build the index, query it."""
    IMAGES.mkdir(exist_ok=True)
    lighthouse = IMAGES / "lighthouse.png"
    draw_lighthouse(lighthouse)
    spec = importlib.util.find_spec("sklearn")
    if spec is None or spec.origin is None:
        sys.exit("scikit-learn is not installed; run `make demo`, which installs it.")
    for name in ("china.jpg", "flower.jpg"):
        photograph = Path(spec.origin).parent / "datasets" / "images" / name
        (IMAGES / name).write_bytes(photograph.read_bytes())
    print("Building the starter index takes about 10 seconds and 13 MB; a second run reuses it.")
    imprompt("build-index", "--index", INDEX.name)
    pictures = [
        str(path.relative_to(ROOT))
        for path in (lighthouse, IMAGES / "china.jpg", IMAGES / "flower.jpg")
    ]
    imprompt("query", *pictures, "--index", INDEX.name)
    print("\nlighthouse.png was drawn by examples/demo.py; the file carries its prompt.")
    print(
        "china.jpg by danielbuechele and flower.jpg by vultilion (Flickr, CC BY 2.0), "
        "as shipped by scikit-learn."
    )
    python = Path(sys.executable)
    shown = python.relative_to(ROOT) if python.is_relative_to(ROOT) else python
    print("\nAsk the index something else, in words or with an image of yours:\n")
    print(f"    {shown} cli.py query --text 'a castle in the mist' --index {INDEX.name}")


if __name__ == "__main__":
    main()
