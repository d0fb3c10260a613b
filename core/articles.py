"""The indefinite article of English nouns: a fox, an owl, bread."""

from __future__ import annotations

_PLURAL = ("glasses", "jeans", "pajamas", "binoculars", "trunks", "bars")
_SUBSTANCES = frozenset(
    {
        *("bread", "broccoli", "chain mail", "chocolate sauce", "consomme", "corn", "eggnog"),
        *("food", "furniture", "guacamole", "hay", "ice cream", "mashed potato"),
        "spaghetti carbonara",
    }
)
_SPOKEN_VOWELS = ("a", "e", "i", "o", "u", "8", "hdr", "hour")
_SPOKEN_CONSONANTS = ("uni", "uki", "eu", "one-")


def with_article(noun: str) -> str:
    """Return a noun with its indefinite article, or as it is if it takes none."""
    if noun.endswith(_PLURAL) or noun in _SUBSTANCES:
        return noun
    start = noun.lower()
    is_vowel = start.startswith(_SPOKEN_VOWELS) and not start.startswith(_SPOKEN_CONSONANTS)
    return f"{'an' if is_vowel else 'a'} {noun}"
