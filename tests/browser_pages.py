"""Browser tests of the report: where things are on its page, and how to point at them."""

from collections.abc import Callable

from playwright.sync_api import Locator, Page

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
OPTIONS = (
    "--no-sandbox",  # root in a container has no other way
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
Open = Callable[..., Page]


def figure(page: Page, name: str) -> Locator:
    return page.locator("figure", has=page.locator(f'[data-charts="{name}"]'))


def canvas(page: Page, name: str) -> Locator:
    return figure(page, name).locator(".canvas").first


def point(chart: Locator, across: float, down: float = 0.5) -> tuple[float, float]:
    """Where in the window a point of a chart's inside is, at these shares of it."""
    inside = chart.locator(".nsewdrag").first
    inside.scroll_into_view_if_needed()
    box = inside.bounding_box()
    assert box is not None
    return box["x"] + across * box["width"], box["y"] + down * box["height"]


def read_out(chart: Locator) -> str:
    chart.page.wait_for_function(
        "chart => chart.querySelector('.hoverlayer text')", arg=chart.element_handle()
    )
    return "\n".join(chart.locator(".hoverlayer text").all_text_contents())


def drag(page: Page, chart: Locator, start: float, end: float) -> None:
    page.mouse.move(*point(chart, start))
    page.mouse.down()
    page.mouse.move(*point(chart, end), steps=4)
    page.mouse.up()


def x_labels(chart: Locator) -> list[str]:
    labels = chart.locator(".xtick text").all_text_contents()
    return sorted(labels, key=lambda label: float(label.rstrip("%")))


def column(page: Page, index: int) -> list[float]:
    cells = page.locator(f"#agents tbody tr td:nth-child({index + 1})").all_inner_texts()
    return [float(cell.replace("−", "-")) for cell in cells]
