"""The rendered book, as a reader meets it: strict build, links, and every page in a headless browser without network.

One file on purpose: everything here shares one build and one browser.
"""

import base64
import io
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import pytest
from bs4 import BeautifulSoup
from PIL import Image

from coala_lib.evidence.ledger import load
from coala_lib.workflow import stage

ROOT = Path(__file__).resolve().parents[2]
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --hide-scrollbars"
).split()
# Two messages of the theme's own scripts, on every page, without effect on the reader.
HARMLESS = (
    re.compile(r"Identifier 'THEBE_JS_URL' has already been declared"),
    re.compile(r"Got invalid theme mode: (null|undefined|)\. Resetting to auto\."),
)
UNRENDERED = r"\\\(|\\\[|\$\$|\\begin\{"

# Elements of the text that leave the window without a box of their own to scroll in.
OVERFLOWING = """
const scrolls = e => ['auto', 'scroll', 'hidden'].includes(getComputedStyle(e).overflowX);
return [...document.querySelectorAll('.bd-article *')].filter(e => {
  if (e.closest('mjx-assistive-mml, .headerlink, svg') || !e.getClientRects().length) return false;
  if (e.getBoundingClientRect().right <= window.innerWidth + 1) return false;
  for (let up = e.parentElement; up && !up.matches('.bd-article'); up = up.parentElement) if (scrolls(up)) return false;
  return true;
}).map(e => e.outerHTML.slice(0, 120));
"""

# Text whose contrast with what lies behind it is too low: 4.5 for prose, 3 for code (colours of the highlighter).
PALE = """
const parse = c => { const m = c.match(/[\\d.]+/g).map(Number); return m.length < 4 ? [...m, 1] : m; };
const behind = e => {
  for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor); if (c[3] > 0.99) return c; }
  return parse(getComputedStyle(document.documentElement).backgroundColor);
};
const linear = v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
const contrast = (a, b) => (Math.max(light(a), light(b)) + 0.05) / (Math.min(light(a), light(b)) + 0.05);
return [...document.querySelectorAll('.bd-article *')].filter(e => {
  const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
  if (!own || !e.getClientRects().length || e.closest('.headerlink, mjx-container, svg, button')) return false;
  return contrast(parse(getComputedStyle(e).color), behind(e)) < (e.closest('pre') ? 3 : 4.5);
}).map(e => e.outerHTML.slice(0, 120));
"""

TYPESET = """
const done = arguments[0];
(window.MathJax && MathJax.startup ? MathJax.startup.promise : Promise.resolve()).then(() => done(true));
"""


@pytest.fixture(scope="session")
def html(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built pages. The build is strict: a warning fails it, and every test here."""
    copy = tmp_path_factory.mktemp("book") / "copy"
    stage.copy_tree(ROOT, copy)
    return stage.build(copy).parent


@pytest.fixture(scope="session")
def pages(html: Path) -> list[Path]:
    """The pages with text of ours."""
    return sorted([*(html / "book").glob("*.html"), *(html / "notebooks").glob("*.html")])


@pytest.fixture(scope="session")
def soups(html: Path) -> dict[Path, BeautifulSoup]:
    """Every HTML file, parsed."""
    files = [path for path in html.rglob("*.html") if "_static" not in path.parts]
    return {path: BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser") for path in files}


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A headless Chromium with a fresh profile; skips where there is none."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    program = next(filter(None, map(shutil.which, names)), None)
    driver = shutil.which("chromedriver")
    if not program or not driver:
        pytest.skip("no Chromium with its chromedriver on this machine (Debian: apt-get install chromium-driver)")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in [*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    chrome.set_script_timeout(60)
    yield chrome
    chrome.quit()


def show(browser: Any, page: Path, width: int = 1280, mode: str = "light") -> None:
    """Open a page in a window of a given width and colour mode, and wait until its formulas are typeset."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    scheme = [{"name": "prefers-color-scheme", "value": mode}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
    browser.get(page.as_uri())
    browser.execute_async_script(TYPESET)


def picture(browser: Any, element: Any) -> Image.Image:
    """What the reader sees of an element."""
    script = """arguments[0].scrollIntoView({block: 'center', behavior: 'instant'});
    const r = arguments[0].getBoundingClientRect();
    return {x: r.x + scrollX, y: r.y + scrollY, width: r.width, height: r.height, scale: 1};"""
    clip = browser.execute_script(script, element)
    shot = browser.execute_cdp_cmd("Page.captureScreenshot", {"clip": clip})
    return Image.open(io.BytesIO(base64.b64decode(shot["data"]))).convert("RGB")


def test_every_link_and_anchor_inside_the_book_resolves(html: Path, soups: dict[Path, BeautifulSoup]) -> None:
    ids = {path: {tag["id"] for tag in soup.find_all(id=True)} for path, soup in soups.items()}
    broken = []
    for path, soup in soups.items():
        for tag, attribute in [(t, "href") for t in soup.find_all("a", href=True)] + [
            (t, "src") for t in soup.find_all(["img", "script"], src=True)
        ]:
            url = urlparse(tag[attribute])
            if url.scheme or url.netloc or tag[attribute] == "#":
                continue
            target = (path.parent / unquote(url.path)).resolve() if url.path else path
            anchor = unquote(url.fragment)
            if not target.exists() or (anchor and target in ids and anchor not in ids[target]):
                broken.append(f"{path.relative_to(html)}: {tag[attribute]}")
    assert not broken


def test_the_scorecard_shows_every_row_and_counts_them(html: Path, soups: dict[Path, BeautifulSoup]) -> None:
    claims = load(ROOT / "book" / "claims.yml")
    cards = soups[html / "book" / "scorecard.html"].select("div.claim")
    assert [card.find("code").text for card in cards] != []
    assert {card.find("code").text for card in cards} == set(claims)
    assert len({card["id"] for card in cards}) == len(claims)
    for page in ("scorecard", "intro"):
        rows = soups[html / "book" / f"{page}.html"].select("table.claims-summary tbody tr")
        table = [[int(cell.text) for cell in row.find_all("td")[1:]] for row in rows]
        assert table[-1][0] == len(claims)
        assert [sum(column) for column in zip(*table[:-1], strict=True)] == table[-1]
        assert all(row[0] == sum(row[1:]) for row in table)


def test_pages_make_no_error_and_no_request(browser: Any, pages: list[Path]) -> None:
    for page in pages:
        browser.get("about:blank")
        for kind in ("browser", "performance"):
            browser.get_log(kind)  # reading empties it
        show(browser, page)
        errors = [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
        assert [e for e in errors if not any(h.search(e) for h in HARMLESS)] == [], page.name
        messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
        urls = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
        assert urls, "the browser reports no request at all, so nothing was checked"
        assert [url for url in urls if urlparse(url).scheme not in ("file", "data", "blob")] == [], page.name


def test_every_formula_is_rendered(browser: Any, pages: list[Path]) -> None:
    count = 0
    for page in pages:
        show(browser, page)
        formulas = len(browser.find_elements("css selector", ".bd-article .math"))
        rendered = len(browser.find_elements("css selector", ".bd-article mjx-container svg"))
        assert rendered >= formulas, page.name
        # A macro that MathJax does not know is no error to it: its name is set in red.
        wrong = "mjx-merror, [data-mml-node='merror'], mjx-container [fill='red']"
        assert not browser.find_elements("css selector", wrong), page.name
        script = (
            "return [...document.querySelectorAll('.bd-article p, .bd-article td, .coala-claim')].map(e=>e.innerText)"
        )
        raw = [text for text in browser.execute_script(script) if re.search(UNRENDERED, text)]
        assert raw == [], page.name
        count += rendered
    assert count > 100


def test_every_figure_is_drawn_and_described(browser: Any, pages: list[Path]) -> None:
    count = 0
    for page in pages:
        show(browser, page)
        for image in browser.find_elements("css selector", ".bd-article img"):
            name = f"{page.name}: {image.get_attribute('src')[-60:]}"
            assert browser.execute_script("return arguments[0].naturalWidth", image) > 1, name
            alt = image.get_attribute("alt") or ""
            assert len(alt.split()) >= 3, f"{name}: alternative text {alt!r}"
            assert len(picture(browser, image).getcolors(1 << 24)) > 3, f"{name} is blank"
            count += 1
    assert count > 0


def test_no_page_scrolls_sideways_on_a_phone(browser: Any, pages: list[Path]) -> None:
    for page in pages:
        show(browser, page, width=390)
        widths = browser.execute_script("const e=document.documentElement; return [e.scrollWidth, e.clientWidth]")
        assert widths[0] <= widths[1], page.name
        assert browser.execute_script(OVERFLOWING) == [], page.name


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_text_is_readable_in_both_modes(browser: Any, pages: list[Path], mode: str) -> None:
    for page in pages:
        show(browser, page, mode=mode)
        assert browser.execute_script("return document.documentElement.dataset.theme") == mode
        assert browser.execute_script(PALE) == [], page.name
