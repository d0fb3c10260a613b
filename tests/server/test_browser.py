"""The page in a headless Chromium: drop, paste, choose, type, copy, filter, download, errors."""

from __future__ import annotations

import csv
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.server.processes import ROOT, served

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

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


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = (
        shutil.which("chromium")
        or shutil.which("chromium-browser")
        or shutil.which("google-chrome")
    )
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
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server process over a part of the starter corpus."""
    folder = tmp_path_factory.mktemp("page")
    words = ["build-index", "--corpus", "starter", "--sample", "2000", "--index", str(folder)]
    subprocess.run([sys.executable, "cli.py", *words], cwd=ROOT, check=True, capture_output=True)
    with served(folder, folder / "log") as (_, port):
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
    expected = (
        "status of 4",
        "net::ERR_FAILED",
    )  # a refusal that a test asks for, a connection that one breaks
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
            document.querySelector("#drop").dispatchEvent(made);
        }""",
        [event, list(path.read_bytes()), path.name, kind],
    )


def answers(page: Page, n: int = 1) -> Any:
    """The answers on the page, once they are `n`."""
    page.locator("#status", has_text=f"{n} answer").wait_for()
    found = page.locator("article.answer")
    assert found.count() == n
    return found


def test_a_dropped_image_is_answered_with_its_explanation(page: Page) -> None:
    """The prompt, marked as estimated, and its phrases; contributions; the nearest prompts.

    Those have a score, a bar and a source.
    """
    give(page, "drop", IMAGES / "flower.jpg", "image/jpeg")
    found = answers(page)
    assert found.locator(".badge").inner_text() == "estimated"
    said = found.locator(".how").inner_text()
    assert "composed from the prompts around the image" in said, "2,000 are not calibrated"
    prompt = found.locator("h2.prompt").inner_text()
    assert prompt == ", ".join(found.locator(".phrases .phrase").all_inner_texts()) != ""
    assert found.locator(".phrases .role").first.inner_text().lower() == "subject"
    for support in found.locator(".phrases .support").all_inner_texts():
        assert re.fullmatch(r"[0-9]+ prompts?|seen in the image", support)
    assert found.locator(".contributions .who").all_inner_texts() == ["vit", "knn"]
    assert found.locator("tbody tr").count() == 10
    assert found.locator("tbody .bar").count() == 10
    assert "starter" in found.locator("td.from").first.inner_text()
    widths = page.eval_on_selector_all(
        "tbody .bar > span", "bars => bars.map(bar => bar.getBoundingClientRect().width)"
    )
    assert widths == sorted(widths, reverse=True) and widths[0] > 0


def test_a_pasted_image_that_carries_its_prompt_is_exact_and_can_be_copied(
    page: Page, lighthouse: Path
) -> None:
    """Tool, negative prompt and settings are shown; the button copies just the prompt."""
    give(page, "paste", lighthouse, "image/png")
    found = answers(page)
    assert found.locator(".badge").inner_text() == "exact"
    assert "AUTOMATIC1111" in found.locator(".how").inner_text()
    assert "people, text" in found.locator("dl").inner_text()
    page.get_by_role("button", name="Copy prompt", exact=True).click()
    page.locator("#status", has_text="Copied to the clipboard.").wait_for()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == found.locator("h2").inner_text()
    assert copied.startswith("a small lighthouse on a cliff")


def test_several_chosen_files_are_answered_in_order_and_a_bad_one_is_named(
    page: Page, tmp_path: Path
) -> None:
    """One that cannot be read is named with its reason; the rest is answered."""
    bad = tmp_path / "<b>broken<b>.png"
    bad.write_bytes(b"\x89PNG\r\n\x1a\n")
    page.locator("#files").set_input_files([IMAGES / "flower.jpg", bad, IMAGES / "china.jpg"])
    found = answers(page, 2)
    assert found.locator("figcaption").all_inner_texts() == ["flower.jpg", "china.jpg"]
    assert "<b>broken<b>.png: The image cannot be read" in page.get_by_role("alert").inner_text()
    assert page.locator("b").count() == 0


def estimated(page: Page, fields: Mapping[str, object]) -> Any:
    """Give the page an image that the server answers with an estimate with these fields."""
    result = {
        "image": 0,
        "prompt": "a fox",
        "how": "estimated",
        "nearest": [],
        "encoder": "lite",
        "corpus": "starter",
        "version": "g",
        "seconds": 0.1,
        **fields,
    }
    body = {"results": [result], "failed": 0}
    page.route("**/v1/query", lambda route: route.fulfill(json=body))
    give(page, "drop", IMAGES / "flower.jpg", "image/jpeg")
    return answers(page)


@pytest.mark.parametrize("close", [True, False])
def test_what_is_not_close_is_said_to_be_a_guess(page: Page, close: bool) -> None:
    """The headline says so, and shared phrases stand for its own; the guess can be copied."""
    result = {
        "phrases": [{"text": "a fox", "role": "subject", "support": 0, "row_ids": []}],
        "shared": [{"text": "warm light", "role": "light", "support": 4, "row_ids": [1, 2, 3, 4]}],
        "tags": [{"text": "pixel art", "probability": 0.624}, {"text": "fox", "probability": 0.2}],
        "confidence": 0.62 if close else 0.04,
        "close": close,
    }
    found = estimated(page, result)
    assert found.locator(".seen").inner_text() == "Seen in the image: pixel art 62 %, fox 20 %"
    headline = found.locator("h2").inner_text()
    said = found.locator(".how").inner_text()
    shown = found.locator(".phrases .phrase").all_inner_texts()
    support = found.locator(".phrases .support").inner_text()
    if close:
        assert (headline, shown, support) == ("a fox", ["a fox"], "seen in the image")
        assert found.locator(".guess").count() == 0
        assert "62 % likely" in said
    else:
        assert headline == "Nothing in the corpus is close to this image."
        assert found.locator(".guess").inner_text() == "Best guess: a fox"
        assert (shown, support) == (["warm light"], "4 prompts")
        assert "4 % likely" in said
    page.get_by_role("button", name="Copy prompt", exact=True).click()
    page.locator("#status", has_text="Copied to the clipboard.").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == "a fox"


@pytest.mark.parametrize("width", [1280, 390])
def test_a_suggestion_says_where_it_comes_from(page: Page, width: int) -> None:
    """The commonest negative prompt and settings, with counts; the negative one can be copied."""
    negative = "(worst quality, low quality:1.4), <b>blurry</b>, " + "watermark" * 20
    result = {
        "phrases": [{"text": "a fox", "role": "subject", "support": 3, "row_ids": [1, 2, 3]}],
        "shared": [],
        "suggested": {
            "n_prompts": 97,
            "negative": {"text": negative, "support": 12},
            "settings": [{"name": "cfg_scale", "value": "7", "support": 8}],
        },
        "confidence": None,
        "close": None,
    }
    page.set_viewport_size({"width": width, "height": 900})
    found = estimated(page, result)
    title = page.get_by_role("heading", name="Suggested: the commonest of the 97 prompts around it")
    assert title.count() == 1
    facts = [line.split("\n") for line in found.locator("dl.suggested > div").all_inner_texts()]
    assert facts == [["negative", negative, "12 prompts"], ["cfg scale", "7", "8 prompts"]]
    assert page.locator("b").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(CONTRAST) == []
    page.get_by_role("button", name="Copy negative prompt", exact=True).click()
    page.locator("#status", has_text="Copied to the clipboard.").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == negative
    if shots := os.environ.get(SHOTS):
        page.screenshot(path=Path(shots) / f"page-suggested-{width}.png", full_page=True)


def test_an_image_is_filtered_as_a_text_is(page: Page) -> None:
    """The prompt is composed of what passes, and the explanation comes along."""
    page.locator("summary").click()
    page.get_by_label("Without").fill("flower")
    give(page, "drop", IMAGES / "flower.jpg", "image/jpeg")
    found = answers(page)
    assert found.locator(".badge").inner_text() == "estimated"
    assert "flower" not in found.locator("h2.prompt").inner_text()
    assert not any("flower" in text for text in found.locator("td.words").all_inner_texts())
    assert found.locator(".contributions .who").all_inner_texts() == ["vit", "knn"]


def test_a_text_is_searched_and_filtered(page: Page) -> None:
    """By keyboard alone; filters are counted and applied, and a bad one is explained.

    The text is the headline, since it has no prompt of its own.
    """
    page.locator("#text").focus()
    page.keyboard.type("a lighthouse at dusk")
    page.keyboard.press("Enter")
    first = answers(page).locator("td.words").all_inner_texts()
    assert len(first) == 10
    assert page.locator("article.answer h2").inner_text() == "a lighthouse at dusk"
    assert page.get_by_role("button", name="Copy prompt", exact=True).count() == 0
    word = first[-1].split()[-1].strip(",.")
    page.locator("summary").focus()
    page.keyboard.press("Enter")
    page.get_by_label("Contains").fill(word)
    assert page.locator("#active").inner_text() == "1"
    page.get_by_role("button", name="Search again").click()
    page.locator("td.words", has_not_text=word).first.wait_for(state="detached")
    answers(page)
    page.get_by_label("Where").fill("no_such_column = 1")
    page.get_by_role("button", name="Search again").click()
    page.get_by_role("alert").locator("p").first.wait_for()
    assert page.locator("article.answer").count() == 0


def test_the_table_can_be_saved(page: Page) -> None:
    """As CSV, in the order shown, with what finds each prompt again; no cell is a formula."""
    page.locator("#text").fill("a lighthouse at dusk")
    page.get_by_role("button", name="Find").click()
    shown = answers(page).locator("td.words").all_inner_texts()
    with page.expect_download() as saved:
        page.get_by_role("button", name="Download as CSV").click()
    with Path(saved.value.path()).open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(shown)
    assert all(text.startswith(row["shown"]) for text, row in zip(shown, rows, strict=True))
    assert all(row["prompt"] for row in rows)
    assert all(len(row["prompt_key"]) == 64 for row in rows)


def test_a_server_that_is_gone_is_told(page: Page) -> None:
    """In words, on the page, and the page can be used again."""
    page.route("**/v1/search", lambda route: route.abort())
    page.locator("#text").fill("fox")
    page.keyboard.press("Enter")
    assert "cannot be reached" in page.get_by_role("alert").inner_text()
    page.unroute("**/v1/search")
    page.keyboard.press("Enter")
    answers(page)


def test_markup_stays_text(page: Page) -> None:
    """Whatever a prompt holds is shown, not run; the policy would stop what slipped through."""
    evil = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    hit = {
        "row_id": 0,
        "prompt_key": "0" * 64,
        "prompt": evil,
        "shown": evil,
        "score": 0.5,
        "source": evil,
        "source_key": evil,
        "n_like": 14,
    }
    result = {"text": evil, "how": "searched", "nearest": [hit], "encoder": evil, "corpus": evil}
    body = {"results": [{**result, "version": "g", "seconds": 0.1}], "failed": 0}
    page.route("**/v1/search", lambda route: route.fulfill(json=body))
    page.locator("#text").fill("fox")
    page.keyboard.press("Enter")
    found = answers(page)
    assert found.locator("h2").inner_text() == evil
    assert found.locator("img, script").count() == 0
    assert "and 14 like it" in found.locator("td.words").inner_text()


def test_every_control_has_a_name_and_can_be_reached(page: Page) -> None:
    """What a screen reader and a keyboard need: names, one h1, live regions, a visible focus."""
    give(page, "drop", IMAGES / "flower.jpg", "image/jpeg")
    answers(page)
    page.locator("summary").click()
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("button, input, a, img, table")].filter(node => !(
            node.getAttribute("aria-label") || node.getAttribute("aria-labelledby")
            || node.textContent.trim()
            || node.hasAttribute("alt") || (node.labels && node.labels.length)))
            .map(node => node.outerHTML)"""
    )
    assert nameless == []
    assert page.locator("h1").count() == 1
    assert page.locator("[aria-live=polite]").count() == 1
    reached = set()
    page.evaluate("document.activeElement.blur()")
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()")
        )
    assert {
        "files",
        "text",
        "Find",
        "contains",
        "Copy prompt",
        "Download as CSV",
        "Skip to the answers",
    } <= reached


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_it_fits_a_desk_and_a_phone_by_day_and_by_night(
    browser: Browser, address: str, tmp_path: Path, lighthouse: Path, scheme: str, width: int
) -> None:
    """Nothing is wider than the screen, and text has the contrast of WCAG AA."""
    folder = Path(os.environ.get(SHOTS) or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    context = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme="dark" if scheme == "dark" else "light",
        device_scale_factor=1.5,
    )
    page = context.new_page()
    page.goto(address)
    page.get_by_text("prompts of").wait_for()
    page.screenshot(path=folder / f"page-empty-{width}-{scheme}.png")
    page.locator("summary").click()
    page.locator("#k").fill("5")
    page.locator("summary").click()
    page.locator("#files").set_input_files([IMAGES / "flower.jpg", lighthouse])
    answers(page, 2)
    page.wait_for_timeout(300)  # the pictures are drawn
    page.screenshot(path=folder / f"page-{width}-{scheme}.png", full_page=True)
    page.evaluate("scrollTo(0, 0)")
    page.screenshot(path=folder / f"page-top-{width}-{scheme}.png")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    poor = page.evaluate(CONTRAST)
    assert poor == []
    context.close()


CONTRAST = """() => {
    const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
        .map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
    const parse = colour => (colour.match(/[\\d.]+/g) || []).map(Number);
    const ground = node => {
        for (let at = node; at; at = at.parentElement) {
            const colour = parse(getComputedStyle(at).backgroundColor);
            if (colour.length === 3 || colour[3] === 1) return colour;
        }
        return [255, 255, 255];
    };
    return [...document.querySelectorAll("body *")].filter(node => node.checkVisibility() &&
        [...node.childNodes].some(child => child.nodeType === 3 && child.textContent.trim())
    ).filter(node => {
        const colours = [parse(getComputedStyle(node).color), ground(node)];
        const [a, b] = colours.map(light).sort((x, y) => y - x);
        return (a + .05) / (b + .05) < 4.5;
    }).map(node => node.outerHTML.slice(0, 120));
}"""
