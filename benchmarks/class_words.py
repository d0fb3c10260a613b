"""Make encoders/class_words.json from WordNet, timm's list of classes and class_words.toml.

    python benchmarks/class_words.py --wordnet FOLDER

FOLDER holds `data.noun` of WordNet 3.0, whose numbers ImageNet's classes carry.
"""

from __future__ import annotations

import argparse
import json
import sys
import tomllib
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from imprompt.core.atomic_files import atomic_write
from imprompt.encoders.class_words import WORDS_PATH
from imprompt.encoders.efficientnet import CLASSES

HAND_MADE = Path(__file__).with_suffix(".toml")
PARENT_LEAST = 0.3
"""The probability from which a parent is said where the table names no other."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--wordnet", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=WORDS_PATH)
    args = parser.parse_args()
    words = class_vocabulary(args.wordnet, tomllib.loads(HAND_MADE.read_text("utf-8")))
    with atomic_write(args.out) as file:
        file.write(_lines(words).encode())


def class_vocabulary(wordnet: Path, hand_made: dict[str, Any]) -> dict[str, Any]:
    """Return the content of the file: names by class, parents by word, and what is not said."""
    from timm.data.imagenet_info import ImageNetInfo

    info, above = ImageNetInfo(), hypernyms(wordnet / "data.noun")
    renamed = hand_made["names"]
    closures = [
        closure(str(info.index_to_label_name(index))[1:], above) for index in range(CLASSES)
    ]
    unsaid = {name for names in hand_made["unsaid"].values() for name in names}
    return {
        "names": [
            renamed.get(str(index), info.index_to_description(index).split(",")[0])
            for index in range(CLASSES)
        ],
        "unsaid": sorted(unsaid),
        "parents": {
            word: {
                "least": rule.get("least", PARENT_LEAST),
                "classes": [
                    index
                    for index, synsets in enumerate(closures)
                    if index not in rule.get("without", [])
                    and (index in rule.get("classes", []) or synsets & set(rule.get("synsets", [])))
                ],
            }
            for word, rule in hand_made["parents"].items()
        },
    }


def hypernyms(data_noun: Path) -> dict[str, list[str]]:
    """Return the numbers of the synsets right above each synset of a file `data.noun`."""
    above = {}
    for line in data_noun.read_text("latin-1").splitlines():
        if not line.startswith(" "):  # the licence is indented
            fields = line.partition("|")[0].split()
            pointers = fields[5 + 2 * int(fields[3], 16) :]
            kinds, targets = pointers[0::4], pointers[1::4]
            above[fields[0]] = [
                target for kind, target in zip(kinds, targets, strict=False) if kind in ("@", "@i")
            ]
    return above


def closure(synset: str, above: dict[str, list[str]]) -> set[str]:
    """Return a synset and all above it."""
    found, left = set(), [synset]
    while left:
        one = left.pop()
        if one not in found:
            found.add(one)
            left += above[one]
    return found


def _lines(words: dict[str, Any]) -> str:
    """Return JSON with one name or parent a line."""
    parts = []
    for key, value in words.items():
        pairs = isinstance(value, dict)
        rows = [
            f"{json.dumps(one)}: {json.dumps(value[one])}" if pairs else json.dumps(one)
            for one in value
        ]
        opening, closing = ("{", "}") if pairs else ("[", "]")
        parts.append(f"{json.dumps(key)}: {opening}\n" + ",\n".join(rows) + f"\n{closing}")
    return "{" + ",\n".join(parts) + "}\n"


if __name__ == "__main__":
    main()
