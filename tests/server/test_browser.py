"""The page in a headless Chromium: every flow, at three widths, by day and by night."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.server.pictures import PARAMETERS, png
from tests.server.processes import ROOT, served

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Locator, Page, Route

pytestmark = pytest.mark.slow

IMAGES = ROOT / "docs" / "images"
SHOTS = "IMPROMPT_SHOTS"
"""The folder for screenshots of the page; without it they go to the test's temporary folder."""

INSTALL = "There is no Chromium. Install Debian's: apt-get install --yes chromium"
_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
FORM_PROPERTIES = """() => [...document.querySelectorAll("form [id], form [name]")]
    .flatMap(node => [node.id, node.name])
    .filter(name => name && name in HTMLFormElement.prototype)"""
CUT_BOXES = """() => [...document.querySelectorAll("textarea")]
    .filter(area => area.checkVisibility() && area.scrollHeight > area.clientHeight)
    .map(area => area.value)"""
NEXT_FRAMES = """() => new Promise(resolve =>
    requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(resolve))))"""
TOPS = """() => [".prompt-box", "figure"]
    .map(selector => document.querySelector(selector).getBoundingClientRect().top)"""
COUNT_URLS = """() => {
    window.urls = {open: 0, most: 0};
    const {createObjectURL, revokeObjectURL} = URL;
    URL.createObjectURL = (blob) => {
        window.urls.most = Math.max(window.urls.most, window.urls.open += 1);
        return createObjectURL.call(URL, blob);
    };
    URL.revokeObjectURL = (url) => { window.urls.open -= 1; revokeObjectURL.call(URL, url); };
}"""
KEEP_SENT = """() => {
    const {fetch} = window;
    window.sent = [];
    window.fetch = (path, options) => {
        if (options?.body instanceof FormData) window.sent.push(...options.body.getAll("image"));
        return fetch(path, options);
    };
}"""
LAST_SENT = """async () => {
    const bytes = new Uint8Array(await window.sent.at(-1).arrayBuffer());
    return btoa(bytes.reduce((text, byte) => text + String.fromCharCode(byte), ""));
}"""
DROP_MANY = """(count) => {
    const answered = (image) => ({image, how: "estimated", prompt: "a fox", nearest: []});
    window.turns = [];
    window.fetch = async (path, {body, signal}) => {
        const n = body.getAll("image").length;
        window.turns.push(n);
        await new Promise(resolve => {
            const {port1, port2} = new MessageChannel();
            port1.onmessage = resolve;
            port2.postMessage(0);
        });
        signal.throwIfAborted();
        const results = Array.from({length: n}, (_, image) => answered(image));
        return new Response(JSON.stringify({results, failed: 0}));
    };
    const transfer = new DataTransfer();
    for (let at = 0; at < count; at += 1) {
        transfer.items.add(new File(["x"], `image-${at}.png`, {type: "image/png"}));
    }
    const drop = new DragEvent("drop", {bubbles: true, cancelable: true, dataTransfer: transfer});
    document.querySelector("#drop-zone").dispatchEvent(drop);
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        if os.environ.get("CI"):
            pytest.fail(INSTALL)
        pytest.skip(INSTALL)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=_FLAGS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images that carry prompts about blue squares."""
    folder = tmp_path_factory.mktemp("page") / "gallery"
    folder.mkdir()
    for number, thing in enumerate(("square", "circle", "triangle", "line")):
        text = f"a blue {thing} on a wall, number {number}\nSteps: 20, Sampler: Euler a, Seed: 1"
        (folder / f"{thing}.png").write_bytes(png((20, 40, 200 + number), parameters=text))
    return folder


@pytest.fixture(scope="module")
def address(gallery: Path) -> Iterator[str]:
    """A server process over a part of the starter corpus and the gallery."""
    folder = gallery.parent / "index"
    corpora = ["--corpus", "starter", "--corpus", f"images:{gallery}", "--sample", "600"]
    words = ["build-index", *corpora, "--index", str(folder)]
    subprocess.run([sys.executable, "cli.py", *words], cwd=ROOT, check=True, capture_output=True)
    with served(folder, gallery.parent / "log", "--thumbnails", str(gallery)) as (_, port):
        yield f"http://127.0.0.1:{port}"


class Seen:
    """What a page did: messages of its console, errors, and hosts that it asked."""

    def __init__(self, page: Page) -> None:
        self.errors: list[str] = []
        self.hosts: set[str] = set()
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on(
            "console",
            lambda message: self.errors.append(message.text) if message.type == "error" else None,
        )
        page.on("request", lambda request: self.hosts.add(request.url.split("/")[2]))


@pytest.fixture
def context(browser: Browser, address: str) -> Iterator[BrowserContext]:
    made = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    made.grant_permissions(["clipboard-read", "clipboard-write"], origin=address)
    made.set_default_timeout(20_000)
    yield made
    made.close()


@pytest.fixture
def page(context: BrowserContext, address: str) -> Iterator[Page]:
    """The page, open; it may ask no other host and must end without an error of its own."""
    opened = context.new_page()
    seen = Seen(opened)
    opened.goto(address)
    opened.get_by_text("prompts of").wait_for()
    yield opened
    assert seen.hosts <= {address.removeprefix("http://"), ""}
    # A refusal that a test asks for, a connection that one breaks.
    expected = ("status of 4", "net::ERR_FAILED")
    assert [error for error in seen.errors if not any(part in error for part in expected)] == []


@pytest.fixture(scope="module")
def lighthouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's picture, which carries its prompt."""
    from examples.demo import draw_lighthouse

    path = tmp_path_factory.mktemp("pictures") / "lighthouse.png"
    draw_lighthouse(path)
    return path


def give(page: Page, event: str, path: Path, kind: str) -> None:
    """Drop or paste a file as a person would: an event that carries it."""
    page.evaluate(
        """async ([event, bytes, name, kind]) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(bytes)], name, {type: kind}));
            const init = {bubbles: true, cancelable: true};
            const made = event === "paste"
                ? new ClipboardEvent("paste", {...init, clipboardData: transfer})
                : new DragEvent("drop", {...init, dataTransfer: transfer});
            document.querySelector("#drop-zone").dispatchEvent(made);
        }""",
        [event, list(path.read_bytes()), path.name, kind],
    )


def choose(page: Page, *paths: Path) -> None:
    page.locator("#image-files").set_input_files([*paths])


def search(page: Page, text: str) -> None:
    page.locator("#text-query").fill(text)
    page.locator("#text-query").press("Enter")


def answer(page: Page) -> Locator:
    """The only answer on the page, once it is there."""
    page.locator("#status", has_text="1 answer.").wait_for()
    found = page.locator("article.answer")
    assert found.count() == 1
    return found


def copied(page: Page) -> str:
    page.locator("#status", has_text="Copied to the clipboard.").wait_for()
    return str(page.evaluate("navigator.clipboard.readText()"))


def saved(page: Page, name: str) -> bytes:
    with page.expect_download() as download:
        page.get_by_role("button", name=name).click()
    return Path(download.value.path()).read_bytes()


def mocked(page: Page, **fields: object) -> None:
    """Let the server answer questions with a result of these fields."""
    named = {"encoder": "lite", "corpus": "starter", "version": "g", "seconds": 0.1}
    estimate: dict[str, object] = {
        "how": "estimated",
        "prompt": "a fox",
        "nearest": [],
        "confidence": None,
    }
    body = {"results": [{**named, **estimate, **fields}], "failed": 0}
    page.route(re.compile("/v1/(query|search)"), lambda route: route.fulfill(json=body))


def hit(**fields: object) -> dict[str, object]:
    text = "a red fox, warm light"
    known = {"row_id": 0, "prompt_key": "0" * 64, "prompt": text, "shown": text, "score": 0.5}
    return {**known, "source": "starter", "source_key": "1", "n_like": 0, **fields}


# ---- one image


def test_an_estimate_is_a_prompt_to_edit_and_phrases_to_choose(page: Page) -> None:
    """From the page to a composed prompt in three clicks: an image, a phrase, "Copy"."""
    give(page, "drop", IMAGES / "flower.jpg", "image/jpeg")
    found = answer(page)
    assert found.locator(".badge").inner_text() == "Estimated"
    assert "composed from the nearest prompts" in found.locator(".how").inner_text()
    box = found.get_by_label("Your prompt")
    prompt = box.input_value()
    pressed = found.locator(".chip[aria-pressed=true]")
    assert pressed.count() == len(prompt.split(", ")) > 0
    titles = found.locator(".chip-row h3").all_inner_texts()
    assert {"Subject", "Medium", "Light", "Quality"} <= set(titles)
    for row in found.locator(".chip-row").all():
        assert 1 <= row.locator(".chip").count() <= 12
    chip = found.locator(".chip[aria-pressed=false]").first
    phrase = str(chip.evaluate("node => node.firstChild.textContent"))
    explained = chip.get_attribute("title") or ""
    assert re.fullmatch(
        r"in \d+ of the nearest prompts|\d+ % likely to be in the prompt", explained
    )
    chip.click()
    assert box.input_value() == f"{prompt}, {phrase}"
    page.get_by_role("button", name="Copy prompt", exact=True).click()
    assert copied(page) == f"{prompt}, {phrase}"
    found.locator(".chip", has_text=phrase).first.click()
    assert box.input_value() == prompt
    box.fill("a hen")
    assert found.locator(".chip[aria-pressed=true]").count() == 0


def test_neighbours_have_words_with_figures_in_a_tooltip_and_shares_are_folded(page: Page) -> None:
    """And "Use" puts one into the box."""
    choose(page, IMAGES / "flower.jpg")
    found = answer(page)
    assert found.locator(".hit").count() == 10
    for word in found.locator(".word").all():
        assert word.evaluate("node => node.firstChild.textContent") in ("close", "related", "far")
        assert re.fullmatch(r"cosine 0\.\d{3}", word.get_attribute("title") or "")
    assert not found.locator(".contributions").is_visible()
    found.get_by_text("How it was estimated").click()
    assert found.locator(".contributions .who").all_inner_texts() == ["vit", "knn"]
    first = found.locator(".hit").first
    first.get_by_role("button", name="Use").or_(first.get_by_text("Use", exact=True)).first.click()
    text = found.get_by_label("Your prompt").input_value()
    assert text != "" and first.locator(".words").inner_text().startswith(text)
    rows = list(csv.DictReader(io.StringIO(saved(page, "Download as CSV").decode("utf-8-sig"))))
    assert rows[0]["shown"] == text
    assert all(len(row["prompt_key"]) == 64 and row["closeness"] for row in rows)


def test_a_prompt_in_the_file_comes_first_and_the_guess_is_asked_for_when_opened(
    page: Page, lighthouse: Path
) -> None:
    """The prompt, the negative one, all settings; "Copy all" copies the infotext of the file."""
    from examples.demo import PARAMETERS as WRITTEN

    asked: list[str] = []
    page.on(
        "request", lambda request: asked.append(request.url) if "/v1/q" in request.url else None
    )
    give(page, "paste", lighthouse, "image/png")
    found = answer(page)
    assert found.locator(".badge").inner_text() == "Found in the file"
    assert "AUTOMATIC1111" in found.locator(".how").inner_text()
    assert found.locator("h2").inner_text() == WRITTEN.split("\n")[0]
    facts = found.locator("dl").inner_text()
    assert "people, text" in facts and "512x512" in facts
    page.get_by_role("button", name="Copy all").click()
    assert copied(page) == WRITTEN
    page.get_by_role("button", name="Copy negative prompt").click()
    assert copied(page) == "people, text"
    assert len(asked) == 1
    assert found.locator(".chip").count() == 0
    found.get_by_text("What would we have guessed?").click()
    found.locator(".guess .chip").first.wait_for()
    assert len(asked) == 2
    assert found.get_by_label("Your prompt").input_value() not in ("", WRITTEN.split("\n")[0])


def test_nothing_close_has_no_headline_and_an_empty_box(page: Page) -> None:
    """Phrases to choose, and the guess after a click."""
    shared = [{"text": "warm light", "role": "light", "support": 4, "row_ids": [1, 2, 3, 4]}]
    tags = [{"text": "pixel art", "probability": 0.624}]
    mocked(
        page, close=False, confidence=0.04, shared=shared, tags=tags, phrases=[], nearest=[hit()]
    )
    choose(page, IMAGES / "flower.jpg")
    found = answer(page)
    assert found.locator("h2").inner_text() == "Nothing here is close to this image."
    box = found.get_by_label("Your prompt")
    assert box.input_value() == ""
    chips = found.locator(".chip").all_inner_texts()
    assert [chip.split("\n")[0].split(",")[0].strip() for chip in chips] == [
        "pixel art62 %",
        "warm light4",
    ]
    found.get_by_role("button", name="Show the best guess").click()
    assert box.input_value() == "a fox"


def test_a_suggestion_says_where_it_comes_from(page: Page) -> None:
    """The commonest negative prompt and settings, with counts; the negative one can be copied."""
    negative = "(worst quality, low quality:1.4), <b>blurry</b>, " + "watermark" * 20
    settings = [{"name": "cfg_scale", "value": "7", "support": 8}]
    suggested = {"n_prompts": 97, "negative": {"text": negative, "support": 12}}
    mocked(page, suggested={**suggested, "settings": settings})
    page.set_viewport_size({"width": 375, "height": 900})
    choose(page, IMAGES / "flower.jpg")
    found = answer(page)
    title = "Suggested: the commonest of the 97 nearest prompts"
    assert page.get_by_role("heading", name=title).count() == 1
    facts = [line.split("\n") for line in found.locator("dl.suggested > div").all_inner_texts()]
    assert facts == [["negative", negative, "12 prompts"], ["cfg scale", "7", "8 prompts"]]
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    page.get_by_role("button", name="Copy negative prompt", exact=True).click()
    assert copied(page) == negative


def test_an_image_and_words_are_searched_together(page: Page) -> None:
    """The image stays in the field of the text until it is let go."""
    choose(page, IMAGES / "flower.jpg")
    answer(page)
    held = page.locator("#held-image")
    assert held.inner_text().strip().startswith("flower.jpg")
    with page.expect_request("**/v1/query") as asked:
        search(page, "a watercolour")
    assert "multipart" in (asked.value.headers["content-type"])
    page.get_by_role("heading", name="Prompts like “a watercolour”").wait_for()
    found = answer(page)
    assert found.locator("figure img").count() == 1
    assert found.locator(".chip").count() > 5
    mixed = found.locator(".words").all_inner_texts()
    page.get_by_role("button", name="Search without this image").click()
    assert not held.is_visible()
    with page.expect_request("**/v1/search"):
        search(page, "a watercolour")
    page.locator("article.answer:not(.pictured):not(.pending)").wait_for()
    assert answer(page).locator(".words").all_inner_texts() != mixed


def test_pictures_of_a_folder_are_shown_beside_its_prompts(page: Page) -> None:
    """Small, and larger behind a link; a prompt of another source has none."""
    page.locator("#filter-panel > summary").click()
    page.locator("#filter-k").fill("20")
    search(page, "a blue square on a wall")
    found = answer(page)
    images = found.locator(".hit .thumb img")
    assert images.count() == 4
    images.first.evaluate("node => node.decode()")
    size = images.first.evaluate("node => [node.naturalWidth, node.naturalHeight]")
    assert size == [64, 64]
    link = found.locator(".hit .thumb").first
    assert (link.get_attribute("href") or "").endswith("?large=true")
    assert (link.get_attribute("aria-label") or "").startswith("Picture of: a blue")


# ---- texts, filters, addresses, history


def test_a_text_is_searched_and_filtered_by_keyboard_alone(page: Page) -> None:
    """Filters are counted and applied, and a bad one is explained."""
    page.locator("#text-query").focus()
    page.keyboard.type("a lighthouse at dusk")
    page.keyboard.press("Enter")
    found = answer(page)
    first = found.locator(".words").all_inner_texts()
    assert len(first) == 10
    assert found.locator("h2").inner_text() == "Prompts like “a lighthouse at dusk”"
    assert found.get_by_label("Your prompt").input_value() == ""
    found.locator(".chip").first.focus()
    page.keyboard.press("Space")
    assert found.get_by_label("Your prompt").input_value() != ""
    word = first[-1].split()[-1].strip(",.")
    page.locator("#filter-panel > summary").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.type(word)
    assert page.locator("#filter-count").inner_text() == "1"
    page.get_by_role("button", name="Apply filters").press("Enter")
    page.locator(".words", has_not_text=word).first.wait_for(state="detached")
    answer(page)
    page.get_by_text("Advanced").press("Enter")
    page.get_by_label("SQL condition").fill("no_such_column = 1")
    page.get_by_role("button", name="Apply filters").click()
    page.get_by_role("alert").locator("p").first.wait_for()
    assert page.locator("article.answer").count() == 0


def test_sources_are_chosen_and_a_phrase_of_a_result_is_a_filter(page: Page) -> None:
    """With the number of prompts of each source."""
    page.locator("#filter-panel > summary").click()
    sources = page.locator("#filter-sources label")
    named = [text.split() for text in sources.all_inner_texts()]
    assert named == [["starter", "600"], ["gallery", "4"]]
    sources.first.locator("input").uncheck()
    assert page.locator("#filter-count").inner_text() == "1"
    search(page, "a lighthouse")
    found = answer(page)
    assert found.locator(".hit").count() == 4
    hit = found.locator(".hit", has_text="a blue circle")
    hit.get_by_text("Phrases").click()
    hit.get_by_role("button", name="Only prompts with: number 1").click()
    page.locator(".hit", has_text="a blue square").wait_for(state="detached")
    assert answer(page).locator(".hit").count() == 1
    assert page.get_by_label("Contains").input_value() == "number 1"


def test_the_address_repeats_a_search_and_back_leads_back(page: Page, address: str) -> None:
    """With its filters, also after a reload."""
    search(page, "a blue square")
    answer(page)
    assert page.url == f"{address}/?q=a+blue+square"
    page.locator("#filter-panel > summary").click()
    page.get_by_label("Contains").fill("circle on, wall")
    page.get_by_role("button", name="Apply filters").click()
    page.wait_for_url(f"{address}/?q=a+blue+square&contains=circle+on%2C+wall")
    page.locator(".words", has_text="square").wait_for(state="detached")
    page.reload()
    assert answer(page).locator(".words").all_inner_texts() == ["a blue circle on a wall, number 1"]
    assert page.get_by_label("Contains").input_value() == "circle on, wall"
    page.go_back()
    page.locator(".hit").nth(9).wait_for()
    assert page.locator("#filter-contains").input_value() == ""
    page.go_back()
    page.locator("article.answer").wait_for(state="detached")
    assert page.locator("#text-query").input_value() == ""
    page.go_forward()
    answer(page)


def test_history_stays_in_this_browser_until_it_is_forgotten(page: Page) -> None:
    """A thumbnail with the prompt, a text that can be searched again."""
    choose(page, IMAGES / "flower.jpg")
    prompt = answer(page).get_by_label("Your prompt").input_value()
    page.get_by_role("button", name="Search without this image").click()
    search(page, "a blue square")
    page.get_by_role("heading", name="Prompts like").wait_for()
    answer(page)
    page.reload()
    answer(page)
    page.get_by_text("History").click()
    items = page.locator("#history li")
    items.nth(1).wait_for()
    assert items.count() == 2
    assert prompt in items.nth(1).inner_text()
    items.nth(1).locator("img").evaluate("node => node.decode()")
    kept = str(page.evaluate("localStorage.getItem('imprompt-history')"))
    assert len(json.loads(kept)) == 2 and len(kept) < 10_000
    items.nth(0).get_by_role("button", name="Search again: a blue square").click()
    answer(page)
    page.get_by_role("button", name="Forget all").click()
    assert not page.locator("#history").is_visible()
    assert page.evaluate("localStorage.length") == 0


def test_no_artists_is_not_offered_without_the_list(page: Page) -> None:
    """The server says whether it has it."""

    def without(route: Route) -> None:
        route.fulfill(json={**route.fetch().json(), "artists": False})

    assert page.locator("#artists-choice").get_attribute("hidden") is None
    page.route("**/v1/info", without)
    page.reload()
    page.get_by_text("prompts of").wait_for()
    assert page.locator("#artists-choice").get_attribute("hidden") is not None


# ---- several images


def test_several_images_are_a_table_that_can_be_saved(
    page: Page, lighthouse: Path, tmp_path: Path
) -> None:
    """In order, a bad one with its reason; as CSV, JSON lines, and a ZIP of text files."""
    bad = tmp_path / "<b>broken<b>.png"
    bad.write_bytes(b"\x89PNG\r\n\x1a\n")
    twin = tmp_path / "lighthouse.webp"
    with Image.open(lighthouse) as picture:
        picture.save(twin)
    choose(page, IMAGES / "flower.jpg", bad, lighthouse, twin)
    page.locator("#status", has_text="3 of 4 images have an answer.").wait_for()
    rows = page.locator("table.batch > tbody > tr")
    names = rows.locator(".image .name").all_inner_texts()
    assert names == ["flower.jpg", bad.name, "lighthouse.png", "lighthouse.webp"]
    assert "The image cannot be read" in rows.nth(1).locator(".failed").inner_text()
    assert page.locator("b").count() == 0
    assert rows.locator("td.how").all_inner_texts()[2] == "in the file"
    rows.nth(2).get_by_role("button", name="Copy the prompt").click()
    prompt = copied(page)
    table = list(csv.DictReader(io.StringIO(saved(page, "as CSV").decode("utf-8-sig"))))
    assert [row["image"] for row in table] == names
    assert (table[2]["prompt"], table[2]["negative"]) == (prompt, "people, text")
    assert table[1]["error"]
    lines = [json.loads(line) for line in saved(page, "JSON lines").splitlines()]
    assert [line["image"] for line in lines] == names
    assert lines[2]["settings"]["seed"] == "1234"
    archive = zipfile.ZipFile(io.BytesIO(saved(page, "ZIP")))
    assert archive.namelist() == ["flower.txt", "lighthouse.txt"]
    assert archive.read("lighthouse.txt").decode() == f"{prompt}\n"
    assert "1 of the images have the name" in page.get_by_role("alert").inner_text()


def test_a_row_opens_its_answer_and_two_are_compared(page: Page, lighthouse: Path) -> None:
    """Side by side, with the phrases that both have marked."""
    choose(page, IMAGES / "flower.jpg", lighthouse, IMAGES / "china.jpg")
    page.locator("#status", has_text="3 answers.").wait_for()
    opener = page.get_by_role("button", name="open the answer of lighthouse.png")
    opener.press("Enter")
    page.locator(".opened .badge", has_text="Found in the file").wait_for()
    assert opener.get_attribute("aria-expanded") == "true"
    page.get_by_role("button", name="open the answer of flower.jpg").click()
    page.locator(".opened .badge", has_text="Estimated").wait_for()
    assert page.locator(".opened").count() == 1
    assert opener.get_attribute("aria-expanded") == "false"
    compare = page.get_by_role("button", name="Compare", exact=True)
    assert compare.is_disabled()
    for name in ("flower.jpg", "lighthouse.png", "china.jpg"):
        page.get_by_label(f"Compare {name}").check()
    assert not page.get_by_label("Compare flower.jpg").is_checked(), "two at most"
    compare.click()
    sides = page.locator(".side")
    sides.nth(1).locator(".chip").first.wait_for()
    assert sides.locator("figcaption").all_inner_texts() == ["lighthouse.png", "china.jpg"]
    marked = [
        {
            chip.evaluate("node => node.firstChild.textContent")
            for chip in side.locator(".both").all()
        }
        for side in sides.all()
    ]
    assert marked[0] == marked[1] != set()
    page.get_by_role("button", name="Close the comparison").click()
    assert page.locator(".side").count() == 0


def test_more_images_than_a_request_holds_are_all_answered(page: Page, tmp_path: Path) -> None:
    """Twenty, each with its own prompt."""
    for number in range(20):
        content = png((number * 12, 30, 40), parameters=f"picture {number}\nSteps: 20, Seed: 1")
        (tmp_path / f"{number:02}.png").write_bytes(content)
    choose(page, *sorted(tmp_path.glob("*.png")))
    page.locator("#status", has_text="20 answers.").wait_for()
    shown = page.locator(".batch .open").evaluate_all("nodes => nodes.map(n => n.firstChild.data)")
    assert shown == [f"picture {number}" for number in range(20)]


def test_ten_thousand_images_take_turns_in_bounded_memory(page: Page) -> None:
    """A line says how far it is; a cancel keeps what there is, and the rest can follow."""
    page.evaluate(COUNT_URLS)
    page.evaluate(DROP_MANY, 10_000)
    page.locator("#status", has_text=re.compile(r"[1-9]\d* of 10,000 images")).wait_for()
    assert page.locator("#progress-bar").is_visible()
    page.get_by_role("button", name="Cancel").click()
    page.locator("#status", has_text="of 10,000 images have an answer.").wait_for()
    part = int((page.locator("#status").inner_text().split()[0]).replace(",", ""))
    assert 0 < part < 10_000
    page.get_by_role("button", name="Continue").click()
    page.locator("#status", has_text="10,000 answers.").wait_for(timeout=60_000)
    turns = page.evaluate("window.turns")
    assert max(turns) <= 16
    assert sum(turns) - 8 <= 10_000 <= sum(turns), "at most the cancelled turn is asked for again"
    assert page.locator(".batch > tbody > tr").count() == 50
    page.get_by_role("button", name="Next").click()
    assert page.locator(".batch .name").first.inner_text() == "image-50.png"
    assert page.evaluate("window.urls.most") <= 60
    lines = saved(page, "JSON lines").splitlines()
    assert [json.loads(line)["image"] for line in lines] == [
        f"image-{at}.png" for at in range(10_000)
    ]


def test_a_cell_is_as_the_prompt_is(page: Page, tmp_path: Path) -> None:
    """Also one that a spreadsheet could take for a formula: no sign is put before it."""
    formula = '=HYPERLINK("x"), a "fox"'
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(png())
    body = {"results": [{"prompt": formula, "how": "exact"}] * 2, "failed": 0}
    page.route("**/v1/query", lambda route: route.fulfill(json=body))
    choose(page, tmp_path / "a.png", tmp_path / "b.png")
    page.locator("#status", has_text="2 answers.").wait_for()
    table = list(csv.DictReader(io.StringIO(saved(page, "as CSV").decode("utf-8-sig"))))
    assert [row["prompt"] for row in table] == [formula, formula]


# ---- large files, slow and lost servers


def limit_images(page: Page, *, max_bytes: int) -> None:
    """Load the page anew from a server whose limit of an image is another one."""

    def limited(route: Route) -> None:
        info = route.fetch().json()
        info["limits"]["max_image_bytes"] = max_bytes
        route.fulfill(json=info)

    page.route("**/v1/info", limited)
    page.reload()
    page.get_by_text("prompts of").wait_for()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_large_picture_is_scaled_and_stays_exact(page: Page, tmp_path: Path, kind: str) -> None:
    """The texts of its header go along, and it is not turned twice."""
    limit_images(page, max_bytes=5_600_000)
    page.evaluate(KEEP_SENT)
    noise = np.random.default_rng(0).integers(0, 256, (1400, 1800, 3), np.uint8)
    picture = Image.fromarray(noise)
    path = tmp_path / f"large.{kind.lower()}"
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + PARAMETERS.encode("utf-16-be")
    if kind == "PNG":
        info = PngInfo()
        info.add_text("parameters", PARAMETERS)
        picture.save(path, pnginfo=info)
    elif kind == "JPEG":
        picture.save(path, quality=100, subsampling=0, exif=exif)
    else:
        picture.save(path, lossless=True, exif=exif)
    assert path.stat().st_size > 5_600_000
    choose(page, path)
    found = answer(page)
    sent = base64.b64decode(page.evaluate(LAST_SENT))
    assert len(sent) < 5_600_000
    assert found.locator(".badge").inner_text() == "Found in the file"
    assert found.locator("h2").inner_text() == PARAMETERS.split("\n")[0]
    with Image.open(io.BytesIO(sent)) as scaled:
        size, orientation = scaled.size, scaled.getexif().get(0x0112, 1)
    assert (sorted(size), orientation) == ([1024, 1317], 1)
    if kind == "JPEG":
        assert size == (1024, 1317), "turned by the browser, as its EXIF says"
    else:
        assert "hidden in its pixels is not found" in found.locator(".how").inner_text()


def test_a_file_that_is_too_large_to_send_is_told_in_plain_words(
    page: Page, lighthouse: Path, tmp_path: Path
) -> None:
    """Alone and among others, which are answered."""
    limit_images(page, max_bytes=100_000)
    large = tmp_path / "large.gif"
    large.write_bytes(b"GIF89a" + bytes(1 << 20))
    choose(page, large)
    page.locator("#status", has_text="No answer.").wait_for()
    said = page.get_by_role("alert").inner_text()
    assert said.split("\n")[0] == "The image has 1.0 MB; the limit is 0.1 MB."
    choose(page, large, lighthouse)
    page.locator("#status", has_text="1 of 2 images have an answer.").wait_for()
    assert "the limit is 0.1 MB" in page.locator(".failed").inner_text()


def test_every_control_can_be_reached_by_keyboard(page: Page, lighthouse: Path) -> None:
    """With a visible focus; the skip link comes first."""
    choose(page, lighthouse)
    answer(page)
    page.evaluate("document.activeElement.blur()")
    reached = []
    for _ in range(20):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate("document.activeElement.id || document.activeElement.innerText.trim()")
        )
        style = "getComputedStyle(document.activeElement).outlineStyle"
        assert page.evaluate(style) == "solid" or reached[-1] == "image-files"
    assert reached[0] == "Skip to the answers"
    page.get_by_text("Skip to the answers").press("Enter")
    assert page.url.endswith("/#answers")
    assert page.locator("article.answer").count() == 1
    wanted = {"image-files", "text-query", "Find", "let-go", "Filters", "Copy prompt", "Copy all"}
    assert wanted | {"What would we have guessed?"} <= set(reached)


def test_the_picture_is_shown_at_once_and_a_search_can_be_cancelled(page: Page) -> None:
    """While the server takes its time; afterwards the page can be used again."""
    page.route("**/v1/query", lambda _route: None)
    tall = page.locator("#drop-zone").evaluate("node => node.offsetHeight")
    choose(page, IMAGES / "flower.jpg")
    waiting = page.locator("article.pending")
    waiting.locator("img").evaluate("node => node.decode()")
    assert "Searching" in waiting.inner_text()
    assert page.locator("#drop-zone").evaluate("node => node.offsetHeight") < tall / 2
    page.get_by_role("button", name="Cancel").click()
    page.locator("#status", has_text="Cancelled.").wait_for()
    assert waiting.count() == 0
    page.unroute("**/v1/query")
    choose(page, IMAGES / "flower.jpg")
    answer(page)
    assert not page.get_by_role("button", name="Cancel").is_visible()


def test_a_server_that_is_gone_is_told(page: Page) -> None:
    """In words, on the page, and the page can be used again."""
    page.route("**/v1/search", lambda route: route.abort())
    search(page, "fox")
    page.get_by_role("alert").locator("p").first.wait_for()
    assert "cannot be reached" in page.get_by_role("alert").inner_text()
    page.unroute("**/v1/search")
    search(page, "fox")
    answer(page)


def test_markup_stays_text(page: Page) -> None:
    """Whatever a prompt holds is shown, not run; the policy would stop what slipped through."""
    evil = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    shared = [{"text": evil, "role": "light", "support": 2, "row_ids": [1, 2]}]
    nearest = [hit(prompt=evil, shown=evil, source=evil, n_like=14, closeness="far")]
    mocked(page, how="searched", text=evil, nearest=nearest, shared=shared, encoder=evil)
    search(page, "fox")
    found = answer(page)
    assert evil in found.locator("h2").inner_text()
    found.locator(".chip").click()
    assert found.get_by_label("Your prompt").input_value() == evil
    assert found.locator("img, script").count() == 0
    assert "and 14 like it" in found.locator(".words").inner_text()


# ---- for everybody


def test_no_name_of_the_form_hides_a_property_of_forms(page: Page) -> None:
    """An input named "contains" would hide the method that extensions call."""
    assert page.evaluate(FORM_PROPERTIES) == []


def test_it_fits_every_screen_by_day_and_by_night(
    browser: Browser, address: str, tmp_path: Path, lighthouse: Path
) -> None:
    """Every view is as wide as the screen at most, no prompt is cut, and axe finds no fault."""
    from axe_playwright_python.sync_playwright import Axe

    folder = Path(os.environ.get(SHOTS) or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    context = browser.new_context(
        viewport={"width": 1280, "height": 900},
        reduced_motion="reduce",  # so that no colour is between two
    )
    page = context.new_page()
    page.goto(address)
    page.get_by_text("prompts of").wait_for()

    def check(view: str) -> None:
        for width, scheme in product((375, 820, 1280), ("dark", "light")):
            page.set_viewport_size({"width": width, "height": 900})
            page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
            page.evaluate(NEXT_FRAMES)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, view
            assert page.evaluate(CUT_BOXES) == [], (view, width)
            if scheme == "light" or width == 375:  # the colours by night are those of all widths
                only_colours = {"runOnly": ["color-contrast"]} if scheme == "dark" else None
                report = Axe().run(page, options=only_colours)
                named = f"{view}, {width}, {scheme}"
                assert report.violations_count == 0, f"{named}: {report.generate_report()}"
            if view == "image" and width == 375:
                tops = page.evaluate(TOPS)
                assert tops[0] < tops[1], "the prompt is above the picture"
            if os.environ.get(SHOTS):
                page.wait_for_timeout(300)  # the pictures are drawn
                page.evaluate("scrollTo(0, 0)")
                page.screenshot(path=folder / f"page-{view}-{width}-{scheme}.png")

    page.locator("#filter-panel > summary").click()
    page.get_by_text("Advanced").click()
    check("filters")
    page.locator("#filter-panel > summary").click()
    choose(page, IMAGES / "flower.jpg")
    answer(page).get_by_text("How it was estimated").click()
    check("image")
    choose(page, lighthouse)
    answer(page).get_by_text("What would we have guessed?").click()
    page.locator(".guess .chip").first.wait_for()
    check("exact")
    choose(page, IMAGES / "flower.jpg", lighthouse, IMAGES / "china.jpg")
    page.locator("#status", has_text="3 answers.").wait_for()
    check("table")
    page.get_by_role("button", name="open the answer of flower.jpg").click()
    page.locator(".opened .hit").first.wait_for()
    for name in ("flower.jpg", "china.jpg"):
        page.get_by_label(f"Compare {name}").check()
    page.get_by_role("button", name="Compare", exact=True).click()
    page.locator(".side").first.wait_for()
    check("compared")
    search(page, "a blue square on a wall")
    answer(page).get_by_text("Phrases").first.click()
    page.get_by_text("History").click()
    check("text")
    context.close()
