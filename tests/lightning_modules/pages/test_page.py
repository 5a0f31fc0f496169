from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from lightning_modules.metrics import InsertionDeletion
from lightning_modules.pages.page import Page, Section
from lightning_modules.pages.runs import MOST_FAILURES, MOST_PANELS, MOST_ROWS, page_of_run
from lightning_modules.pages.words import explained_words
from lightning_modules.results.report import Report
from lightning_modules.results.tables import Table
from tests.browser import answers

EVIL = '<script>document.title = \'taken\'</script><img src="http://example.org/x.png"> & "猫\'s" {{ 7 * 7 }}'
TABLE = Table(["score", "GradCAM"], [["insertion", "0.5"], ["", "0.6"]], "All of them")


class Elements(HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def addresses(page: Elements) -> Iterator[str]:
    """All that a browser could ask somebody for."""
    for _, attributes in page.elements:
        for name in ("src", "href", "srcset", "action", "poster", "data", "background"):
            if (address := attributes.get(name)) is not None:
                yield address


def test_a_run_on_one_page(write_run: Callable[..., Path]) -> None:
    run = write_run(images=("star", "ring"), report=Report("It looks.", "3 images", [TABLE], ["Odd."], "Read it so."))
    page = Elements(page_of_run(run, ["python look.py"]).html())
    for text in ("run", "It looks.", "3 images", "python look.py", "All of them", "Odd.", "Read it so.", "a machine"):
        assert text in page.text, text
    assert "vgg16" in page.text
    assert "The network says: star (25.0%)." in page.text
    alts = ["All scores", "star: The network says: star (25.0%).", "ring: The network says: ring (25.0%)."]
    alts += [f"image {k}: label: cat; predicted: dog {k}" for k in range(2)]
    assert [image["alt"] for image in page.of("img")] == alts
    assert page.text.index("insertion") < page.text.index("What the words mean")
    meanings = InsertionDeletion.column_meanings
    assert meanings["insertion"] in page.text
    assert meanings["deletion"] not in page.text
    assert "What went wrong" not in page.text
    assert "What this page leaves out" not in page.text


def test_everything_is_in_the_file(write_run: Callable[..., Path]) -> None:
    html = page_of_run(write_run(images=("star",)), ["python look.py --url http://example.org"]).html()
    page = Elements(html)
    assert all(address.startswith(("data:", "#")) for address in addresses(page))
    assert len(list(addresses(page))) > 3
    assert not page.of("script")
    assert "url(" not in html
    assert "@import" not in html
    (policy,) = [meta["content"] for meta in page.of("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_text_stays_text(write_run: Callable[..., Path]) -> None:
    report = Report(EVIL, EVIL, [Table([EVIL, "n"], [[EVIL, "1"]], EVIL)], [EVIL], EVIL)
    run = write_run(report=report, images=(EVIL,), failed=(EVIL,))
    html = page_of_run(run, [EVIL]).html()
    page = Elements(html)
    assert not page.of("script")
    assert all(str(image["src"]).startswith("data:") for image in page.of("img"))
    assert page.text.count(EVIL) >= 9
    assert "49" not in re.sub(r'src="[^"]*"', "", html)
    assert [image["alt"] for image in page.of("img")].count(f"{EVIL}: The network says: {EVIL} (25.0%).") == 1


def test_what_would_turn_text_round_is_left_out() -> None:
    html = Page("a\u202eb", "", [Section("one", commands=["two\n    lines\x00"])]).html()
    assert "a b" in html
    assert "two\n    lines " in html


def test_failures_are_listed(write_run: Callable[..., Path]) -> None:
    report = Report(tables=[Table(["failed", "why"], [["0.png", "listed already"]])])
    page = Elements(page_of_run(write_run(report=report, failed=("b.png", "a.png")), [""]).html())
    assert "What went wrong" in page.text
    assert "a.png it is no image b.png it is no image" in page.text
    assert "listed already" not in page.text


def test_of_a_huge_run_a_part_is_shown_and_the_rest_is_named(write_run: Callable[..., Path]) -> None:
    rows = [[f"row {k}", "1"] for k in range(MOST_ROWS + 1)]
    failed = tuple(f"{k:03d}.png" for k in range(MOST_FAILURES + 1))
    run = write_run(report=Report(tables=[Table(["", "n"], rows)]), n_panels=MOST_PANELS + 1, failed=failed)
    page = Elements(page_of_run(run, [""]).html())
    assert len(page.of("img")) == 1 + MOST_PANELS
    shown = f"Of {MOST_PANELS + 1} figures of single images, {MOST_PANELS} are shown. All lie in {run / 'figures'}."
    assert shown in page.text
    assert f"Of a table of {MOST_ROWS + 1} rows, {MOST_ROWS} are shown. All lie in {run}/results." in page.text
    assert f"The first {MOST_FAILURES} of {MOST_FAILURES + 1}" in page.text
    assert f"row {MOST_ROWS - 1} " in page.text
    assert f"row {MOST_ROWS} " not in page.text
    assert failed[-1] not in page.text


def test_a_run_without_a_report_has_a_page(write_run: Callable[..., Path]) -> None:
    run = write_run()
    (run / "report.json").unlink()
    assert "a machine" in Elements(page_of_run(run, [""]).html()).text


def test_a_report_is_read_as_it_was_saved(tmp_path: Path) -> None:
    report = Report("a", "b", [TABLE], ["c"], "d", {"tag": 0.5}, [TABLE])
    report.save(tmp_path)
    assert dataclasses.asdict(Report.load(tmp_path)) == dataclasses.asdict(report)


def test_of_several_sections_there_are_contents() -> None:
    page = Elements(Page("All", "Of both.", [Section("one", output="| a |\n| b |"), Section("two", "about")]).html())
    links, ids = ([each[name] for each in page.of(tag)] for tag, name in (("a", "href"), ("section", "id")))
    assert links == ["#s1", "#s2"]
    assert ids == ["s1", "s2"]
    assert [tag for tag, _ in page.elements if re.fullmatch(r"h\d", tag)] == ["h1", "h2", "h3", "h2"]


def test_a_word_is_explained_where_it_stands_alone() -> None:
    assert list(explained_words([Table(["mean", "p shifted"], [["top-1", "1"]])])) == ["top-1", "p", "shifted"]
    assert explained_words([Table(["inserting", "top-10", "GradCAMs"], [["x", "insertion", "1"]])]) == {}


def test_writing_is_whole_or_not_at_all(tmp_path: Path) -> None:
    page = Page("猫", "", [Section("one")])
    page.write(tmp_path / "index.html")
    broken = Page("x", "", [Section("one", panels=[None])])  # type: ignore[list-item]
    with pytest.raises(Exception, match="None"):
        broken.write(tmp_path / "index.html")
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]
    assert (tmp_path / "index.html").read_bytes() == page.html().encode()


@pytest.mark.browser
class TestInABrowser:
    @pytest.fixture
    def page(self, write_run: Callable[..., Path]) -> Path:
        run = write_run(report=Report(EVIL, "", [Table(["", "n"], [[EVIL, "1"]])]), images=("star", EVIL), noise=300)
        page_of_run(run, [EVIL]).write(run / "index.html")
        return run / "index.html"

    def test_all_images_are_seen(self, browser: str, page: Path, tmp_path: Path) -> None:
        script = "[...document.images].map(image => image.naturalWidth * (image.complete && image.width > 20))"
        widths = [int(width) for width in answers(browser, page, tmp_path, script).split(",")]
        assert len(widths) == 5
        assert min(widths) >= 100

    def test_nobody_is_asked_for_anything(self, browser: str, page: Path, tmp_path: Path) -> None:
        script = "performance.getEntriesByType('resource').map(each => each.name.slice(0, 5))"
        asked = answers(browser, page, tmp_path, script, "--host-resolver-rules=MAP * ~NOTFOUND")
        assert set(asked.split(",")) <= {"data:", ""}

    def test_text_stays_text(self, browser: str, page: Path, tmp_path: Path) -> None:
        script = "document.title + '|' + document.scripts.length + '|' + document.querySelector('tbody th').textContent"
        title, scripts, cell = answers(browser, page, tmp_path, script).split("|")
        assert (title, scripts) == ("run · VGG Lens", "1")  # the one that asks
        assert cell.startswith("&lt;script&gt;document.title = 'taken'&lt;/script&gt;")

    def test_light_and_dark(self, browser: str, page: Path, tmp_path: Path) -> None:
        script = "['color', 'backgroundColor'].map(name => getComputedStyle(document.body)[name]).join('|')"
        light, dark = (
            answers(browser, page, tmp_path, script, f"--blink-settings=preferredColorScheme={scheme}").split("|")
            for scheme in (1, 0)
        )
        brightness = [[sum(map(int, re.findall(r"\d+", color))) for color in colors] for colors in (light, dark)]
        (ink, paper), (dark_ink, dark_paper) = brightness
        assert paper - ink > 400
        assert dark_ink - dark_paper > 400

    @pytest.mark.parametrize("width", [360, 800, 1600])
    def test_nothing_sticks_out(self, browser: str, page: Path, tmp_path: Path, width: int) -> None:
        # The window of a headless chromium has a least width; a frame has none.
        frame = f"<iframe src='{page.as_uri()}' style='width: {width}px; height: 800px'></iframe>"
        (tmp_path / "frame.html").write_text(f"<html><head></head><body>{frame}</body></html>")
        script = "frames[0].document.documentElement.scrollWidth"
        options = ("--allow-file-access-from-files", "--disable-web-security")
        assert int(answers(browser, tmp_path / "frame.html", tmp_path, script, *options)) <= width
