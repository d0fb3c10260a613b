"""Load the captioner that a source of `caption` names: a server, a tagger, or transformers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from imprompt.core.hub.fetch import Announce, fetch_all
from imprompt.core.hub.hub_files import Wanted, cached_choice, wanted
from imprompt.ensemble import image_to_text, tagger
from imprompt.ensemble.blend_config import CAPTION_SOURCE, CaptionStyle
from imprompt.ensemble.chat_completions import CHAT_PREFIX, ChatCaptioner
from imprompt.ensemble.image_to_text import ImageToText
from imprompt.ensemble.tagger import Tagger


def load_captioner(
    source: str, *, style: CaptionStyle, device: str, offline: bool, announce: Announce
) -> ChatCaptioner | ImageToText | Tagger:
    """Return the captioner of openai:URL#MODEL, a folder, or OWNER/NAME on the hub.

    A tagger ignores `style`. Raises what `load` of these classes raises.
    """
    if source.startswith(CHAT_PREFIX):
        return ChatCaptioner.load(
            source, device=device, offline=offline, announce=announce, style=style
        )
    if not Path(source).expanduser().is_dir():
        fetch_all(lambda: wanted_files(source, style=style), offline=offline, announce=announce)
    if tagger.is_tagger(source):
        return Tagger.load(source, device=device, offline=offline, announce=announce)
    return ImageToText.load(source, device=device, offline=offline, announce=announce, style=style)


def wanted_files(repo: str, *, style: CaptionStyle = "sentence") -> list[Wanted]:
    """Return the files to fetch for a repository, as far as those on this machine tell.

    Of an unknown repository, the file that tells its kind is fetched first: config.json, which
    older taggers lack, or a table of tags.

    Raises what `imprompt.ensemble.image_to_text.wanted_files` raises.
    """
    if tagger.is_tagger(repo):
        return tagger.wanted_files(repo)
    description = replace(wanted(repo, "config.json", tagger.TAGS), name_first=True)
    if repo != CAPTION_SOURCE and cached_choice(description.choices) is None:
        return [description]
    return image_to_text.wanted_files(repo, style=style)
