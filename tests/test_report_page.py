"""The report in a real browser: it renders offline, without an error, and computes what the tool computes."""

import json
import random
import shlex
from collections.abc import Iterator
from io import BytesIO
from itertools import combinations, pairwise
from pathlib import Path

import pytest
from base_files import GOOD
from calling import Call
from conftest import Program
from PIL import Image
from reporting import Results, alone, failed, flat, hilly, interrupted, planned, stored, trained, write_family
from test_report import SECTIONS, hostile

from scalesearch.report.page import page
from scalesearch.trials import TrialResult, TrialState

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

CHROMIUM = Path("/usr/bin/chromium")
SWITCHES = (
    *("--no-sandbox", "--headless", "--disable-gpu", "--disable-background-networking"),
    *("--no-first-run", "--disable-component-update", "--disable-sync"),
)
UP = {"alpha": (1, 1.4), "beta": (1, 1.3), "gamma": (1, 1.3), "phi": (0.2, 5)}
DOWN = {"alpha": (0.7, 1), "beta": (0.8, 1), "gamma": (0.8, 1), "phi": (0.2, 2)}
BASES = ("resnet18", "resnet50", "mobilenet_v1", "mobilenet_v2", "mobilenet_v3_large", "lite0", "mine.yaml")

pytestmark = [
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no browser at {CHROMIUM}"),
]


class Opened:
    """A page in the browser, with what went wrong on it and what it asked the world for."""

    def __init__(self, browser, file: Path, width: int = 1440, scheme: str = "light") -> None:
        self.page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.page.set_default_timeout(60_000)
        self.faults: list[str] = []
        self.requests: list[str] = []
        self.page.on(
            "console", lambda said: self.faults.append(said.text) if said.type in ("error", "warning") else None
        )
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(file.resolve().as_uri())

    def text(self, id: str) -> str:
        return self.page.locator(f"#x-{id}").inner_text()

    def slide(self, id: str, value: float) -> None:
        """Move a slider, as a hand does."""
        self.page.locator(f"#x-{id}").evaluate(
            "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input', {bubbles: true})); }",
            value,
        )

    def numbers(self) -> dict[str, object]:
        """What the explorer shows, under the names of `scale --json`."""
        whole = {name: int(self.text(name).replace(",", "")) for name in ("macs", "params", "activations")}
        lists = {name: [int(one) for one in self.text(name).split()] for name in ("depths", "widths")}
        return {**whole, **lists, "resolution": int(self.text("resolution").removesuffix(" px"))}


@pytest.fixture(scope="module")
def browser() -> Iterator:
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=str(CHROMIUM), args=list(SWITCHES))
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def b0_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a whole search of B0 at 2x with its family B1 to B7."""
    folder = tmp_path_factory.mktemp("b0")
    plan, layout = planned()
    results = trained(plan, layout, hilly(plan, layout))
    write_family(folder, plan, layout, results)
    (folder / "report.html").write_text(page(stored(folder, plan, layout, results)))
    return folder / "report.html"


@pytest.fixture(scope="module")
def real_file(finished: tuple[Path, Program]) -> Path:
    """The report that the program wrote of a search of B0 at 0.5x, beside the family that it emitted."""
    return finished[0] / "report.html"


@pytest.fixture
def b0(browser, b0_file: Path) -> Iterator[Opened]:
    opened = Opened(browser, b0_file)
    yield opened
    opened.page.close()


def of_scale(call: Call, command: str) -> dict[str, object] | None:
    """What the tool says of a command that the page shows; None where it finds no network."""
    told = call(*shlex.split(command)[1:], "--json")
    document = json.loads(told.out)
    if told.code:
        assert "no network within" in document["error"]["message"]
        return None
    return {name: document[name] for name in ("macs", "params", "activations", "depths", "widths", "resolution")}


@pytest.mark.parametrize("width", [1440, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_report_of_a_real_run_renders_without_error_or_request(browser, real_file: Path, width: int, scheme: str):
    opened = Opened(browser, real_file, width, scheme)
    for name in SECTIONS:
        assert opened.page.locator(f"#{name}").bounding_box()["height"] > 50
    assert opened.faults == []
    assert opened.requests == [real_file.resolve().as_uri()]
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    ground = opened.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") == (scheme == "light")
    opened.page.close()


@pytest.mark.parametrize("results", [interrupted, failed, alone, flat])
def test_every_kind_of_run_renders_on_a_phone_without_error(browser, tmp_path: Path, results: Results):
    plan, layout = planned()
    (tmp_path / "report.html").write_text(page(stored(tmp_path, plan, layout, results(plan, layout))))
    opened = Opened(browser, tmp_path / "report.html", 390)
    assert opened.faults == []
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= 390
    opened.page.close()


def test_the_page_is_painted_at_once(b0: Opened):
    b0.page.wait_for_function("performance.getEntriesByType('paint').length > 0")
    assert max(b0.page.evaluate("performance.getEntriesByType('paint').map((one) => one.startTime)")) < 2_000


def test_print_is_light_whole_and_no_wider_than_its_paper(b0: Opened):
    b0.page.get_by_role("button", name="Switch between light and dark").click()
    b0.page.set_viewport_size({"width": 678, "height": 1000})  # A4 between chromium's margins
    b0.page.emulate_media(media="print")
    b0.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert b0.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert b0.page.evaluate("document.querySelectorAll('details:not([open])').length") == 0
    assert (
        b0.page.evaluate("[...document.querySelectorAll('table')].filter((one) => one.scrollWidth > 638).length") == 0
    )
    for name in ("phi", "alpha", "beta", "gamma"):
        assert b0.page.locator(f"#x-{name}-value").is_visible()
    b0.page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert b0.page.evaluate("document.querySelectorAll('details[open]').length") == 0


@pytest.mark.parametrize(
    ("width", "figure", "zooms"), [(1000, "wide", True), (800, "narrow", True), (390, "narrow", False)]
)
def test_a_figure_is_drawn_for_the_width_of_the_window(b0: Opened, width: int, figure: str, zooms: bool):
    b0.page.set_viewport_size({"width": width, "height": 900})
    ranking = b0.page.locator("#figure-ranking")
    assert ranking.locator("svg.figure:visible").get_attribute("class") == f"figure {figure}"
    assert ranking.get_by_role("button").is_visible() == zooms


def edges(opened: Opened, selector: str) -> tuple[bool, bool]:
    """Whether the left and the right edge of an element are shaded at half its height, between its lines of text."""
    with Image.open(BytesIO(opened.page.locator(selector).first.screenshot())) as shot:
        grey = shot.convert("L")
        columns = [
            [grey.getpixel((x, y)) for y in range(grey.height // 4, 3 * grey.height // 4)] for x in (0, grey.width - 1)
        ]
    left, right = (sorted(column)[len(column) // 2] < 250 for column in columns)
    return left, right


@pytest.mark.parametrize("selector", ["nav ul", "#family .scroll"])
def test_what_scrolls_is_shaded_at_the_edges_that_hide_more(b0: Opened, selector: str):
    assert edges(b0, selector) == (False, False)
    b0.page.set_viewport_size({"width": 390, "height": 900})
    assert edges(b0, selector) == (False, True)
    b0.page.locator(selector).first.evaluate("(one) => one.scrollTo(one.scrollWidth / 2 - one.clientWidth / 2, 0)")
    assert edges(b0, selector) == (True, True)
    b0.page.locator(selector).first.evaluate("(one) => one.scrollTo(one.scrollWidth, 0)")
    assert edges(b0, selector) == (True, False)
    assert b0.page.evaluate("document.documentElement.scrollWidth") <= 390


def test_no_figure_repeats_the_heading_of_its_section(b0: Opened):
    heads = b0.page.evaluate(
        "[...document.querySelectorAll('section')].map((one) =>"
        " [...one.querySelectorAll('h2, h3')].map((head) => head.textContent))"
    )
    assert all(len(set(texts)) == len(texts) for texts in heads)


def test_percentages_and_names_of_candidates_stay_on_one_line(b0: Opened):
    b0.page.set_viewport_size({"width": 390, "height": 900})
    lines = b0.page.evaluate("[...document.querySelectorAll('.whole')].map((one) => one.getClientRects().length)")
    assert len(lines) > 10
    assert set(lines) == {1}


def test_every_figure_zooms_without_a_request(b0: Opened):
    for button in b0.page.locator("[data-zoom]").all():
        button.click()
        b0.page.wait_for_selector("#zoomed .main-svg")
        b0.page.keyboard.press("Escape")
    assert b0.faults == []
    assert len(b0.requests) == 1


@pytest.mark.parametrize("report", ["b0_file", "real_file"])
def test_the_slider_moves_through_the_members_of_the_family(browser, request: pytest.FixtureRequest, report: str):
    file: Path = request.getfixturevalue(report)
    opened = Opened(browser, file)
    for row in json.loads((file.parent / "family" / "manifest.json").read_text())["members"]:
        opened.slide("phi", row["phi"])
        shown = opened.numbers()
        assert shown == {name: row[name] for name in shown}
        assert opened.text("command") == f"family/{row['name']}/config.yaml"
    opened.slide("phi", 0)
    assert opened.text("macs") == "385,814,752"
    assert opened.page.locator("#x-rows tr:nth-child(2) td.number span").first.inner_text() == "10.0 M"
    opened.page.close()


def holds_to_scale(opened: Opened, call: Call, settings: int, ends: dict[str, tuple[float, float]]) -> None:
    """Hold a page to the tool at settings by chance, by running the command that the page shows at each."""
    chance = random.Random(0)
    found = 0
    for index in range(settings):
        opened.page.locator(f"[name=x-policy][value={('level', 'paper')[index % 2]}]").check()
        for name, (low, high) in ends.items():
            opened.slide(name, chance.uniform(low, high))
        expected = of_scale(call, opened.text("command"))
        assert opened.page.locator("#x-nothing").is_visible() == (expected is None)
        if expected is not None:
            found += 1
            assert opened.numbers() == expected
    assert found > settings / 2
    assert opened.faults == []
    opened.page.close()


@pytest.mark.parametrize(("report", "settings", "ends"), [("b0_file", 20, UP), ("real_file", 8, DOWN)])
def test_the_page_computes_what_scale_computes(
    browser,
    call: Call,
    request: pytest.FixtureRequest,
    report: str,
    settings: int,
    ends: dict[str, tuple[float, float]],
):
    holds_to_scale(Opened(browser, request.getfixturevalue(report)), call, settings, ends)


@pytest.mark.parametrize("base", BASES)
def test_the_page_computes_what_scale_computes_for_every_kind_of_base(browser, call: Call, tmp_path: Path, base: str):
    (tmp_path / "mine.yaml").write_text(GOOD)
    plan, layout = planned(base=base, candidates=3)
    (tmp_path / "report.html").write_text(page(stored(tmp_path, plan, layout, [])))
    opened = Opened(browser, tmp_path / "report.html")
    assert shlex.split(opened.text("command"))[:4] == [
        "scalesearch",
        "scale",
        "--base",
        plan.base.name + Path(base).suffix,
    ]
    assert ("your own base for mine.yaml" in opened.text("source")) == (base == "mine.yaml")
    holds_to_scale(opened, call, 6, UP | {"phi": (0.2, 2.5)})


def test_stages_open_by_click_and_by_keyboard_and_add_up(b0: Opened):
    total = int(b0.text("macs").replace(",", ""))
    cells = b0.page.locator("#x-rows td.number:nth-of-type(6)")
    parts = [int(cell.get_attribute("title").replace(",", "")) for cell in cells.all()]
    assert len(parts) == 9
    assert sum(parts) == total
    stage = b0.page.get_by_role("button", name="stage 3")
    stage.click()
    assert stage.get_attribute("aria-expanded") == "true"
    assert "depthwise 5×5" in b0.page.locator("#x-rows .details").inner_text()
    b0.page.keyboard.press("Enter")
    assert stage.get_attribute("aria-expanded") == "false"


def test_the_sliders_and_members_work_by_keyboard(b0: Opened):
    before = b0.text("macs")
    b0.page.locator("#x-phi").focus()
    b0.page.keyboard.press("ArrowRight")
    assert b0.text("macs") != before
    b0.page.get_by_role("button", name="B3").press("Enter")
    assert b0.text("phi-value") == "2"
    assert b0.page.locator("#x-phi").get_attribute("aria-valuetext") == "2"


def test_members_have_their_names_under_their_own_rule_alone(b0: Opened):
    members = b0.page.locator("[data-mark]")
    assert members.all_inner_texts() == ["B0", "B1", "B2", "B3", "B4", "B5", "B6", "B7"]
    b0.page.get_by_role("button", name="the paper's").click()
    assert members.all_inner_texts() == ["B0", *(f"φ {phi}" for phi in ("0.5", "1", "2", "3.5", "5", "6", "7"))]
    b0.page.get_by_role("button", name="φ 2", exact=True).click()
    assert b0.text("command").startswith("scalesearch scale --base b0 --rounding level --depth 1.44 ")


def test_the_switch_changes_light_to_dark(b0: Opened):
    b0.page.get_by_role("button", name="Switch between light and dark").click()
    assert b0.page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"


def test_everything_that_can_be_operated_has_a_name_and_headings_descend(b0: Opened):
    unnamed = b0.page.evaluate(
        "[...document.querySelectorAll('button, input, a, summary')].filter((one) =>"
        " !(one.textContent.trim() || one.ariaLabel || one.labels?.length)).length"
    )
    assert unnamed == 0
    levels = b0.page.evaluate(
        "[...document.querySelectorAll('main h1, main h2, main h3')].map((one) => +one.tagName[1])"
    )
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_a_screen_reader_hears_the_name_of_a_figure_once_and_no_marks(b0: Opened):
    for figure in b0.page.locator("figure").all():
        title = figure.locator("h3").inner_text()
        heard = [line.strip(" -'").split()[0] for line in figure.aria_snapshot().splitlines() if title in line]
        assert heard == ["heading", "button"]  # which says what it zooms
    assert "▸" not in b0.page.locator("#x-rows").aria_snapshot()
    assert b0.page.locator("#x-nothing").get_attribute("role") == "status"


def overlap(one: dict[str, float], other: dict[str, float]) -> bool:
    """Whether two boxes share more than an edge."""
    return all(
        one[start] < other[start] + other[size] and other[start] < one[start] + one[size]
        for start, size in (("x", "width"), ("y", "height"))
    )


@pytest.mark.parametrize("width", [320, 390, 700, 1440])
def test_buttons_of_members_fit_a_finger_and_cover_each_other_under_no_rule(b0: Opened, width: int):
    b0.page.set_viewport_size({"width": width, "height": 900})
    for rule in b0.page.locator("[data-rule]").all():
        rule.click()
        boxes = [one.bounding_box() for one in b0.page.locator("[data-mark]").all()]
        assert len(boxes) == 8
        assert min(size for box in boxes for size in (box["width"], box["height"])) >= 24
        assert [pair for pair in combinations(boxes, 2) if overlap(*pair)] == []


def test_a_long_reason_takes_three_lines_and_is_whole_in_its_title(browser, tmp_path: Path):
    plan, layout = planned(candidates=3)
    results = trained(plan, layout, hilly(plan, layout))
    reason = "the worker said: " + 1_000 * "long "
    results[-1] = TrialResult(key=results[-1].key, state=TrialState.FAILED, reason=reason)
    (tmp_path / "report.html").write_text(page(stored(tmp_path, plan, layout, results)))
    opened = Opened(browser, tmp_path / "report.html")
    opened.page.locator("#curves summary").click()
    cell = opened.page.locator("#curves td.long").last
    assert cell.locator("div").get_attribute("title") == f"failed: {reason}"
    assert cell.bounding_box()["height"] < 4 * opened.page.locator("#curves thead").bounding_box()["height"]
    heading = opened.page.locator("#curves th", has_text="state")
    assert heading.bounding_box()["x"] == cell.bounding_box()["x"]
    aligned = "one => getComputedStyle(one).textAlign"
    assert heading.evaluate(aligned) == cell.evaluate(aligned) == "left"
    opened.page.close()


def test_hostile_names_run_no_script(browser, tmp_path: Path):
    (tmp_path / "report.html").write_text(page(hostile(tmp_path)))
    opened = Opened(browser, tmp_path / "report.html", 390)
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= 390
    opened.page.set_viewport_size({"width": 1000, "height": 900})  # a phone has no zoom
    for button in opened.page.locator("[data-zoom]").all():
        button.click()
        opened.page.keyboard.press("Escape")
    assert opened.page.evaluate("window.bad") is None
    assert opened.faults == []
    assert len(opened.requests) == 1
    opened.page.close()
