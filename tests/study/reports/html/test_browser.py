"""The report page in a real browser: Debian's chromium, headless, driven by selenium."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from study.records.curves import CURVES, curves_bytes
from study.reports.html import build, build_page
from study.reports.html.content import Source, VectorOptions
from tests.study.records.test_curves import ROW
from tests.study.reports.html.helpers import HOSTILE, finished, numbers_of

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")

from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
WIDE, NARROW = (1280, 900), (390, 844)
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    BROWSER is None or DRIVER is None,
    reason="no chromium with chromedriver (apt-get install chromium chromium-driver)",
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    home = tmp_path_factory.mktemp("browser")
    options = webdriver.ChromeOptions()
    options.binary_location = str(BROWSER)
    downloads = tmp_path_factory.mktemp("downloads")
    prefs: dict[str, Any] = {"download.default_directory": str(downloads)}
    prefs |= {"profile.default_content_setting_values.automatic_downloads": 1}
    options.add_experimental_option("prefs", prefs)
    for flag in (*FLAGS, f"--user-data-dir={home}", f"--window-size={WIDE[0]},{WIDE[1]}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = Service(str(DRIVER), env={**os.environ, "HOME": str(home)})
    driver = webdriver.Chrome(options=options, service=service)
    driver.set_page_load_timeout(60)
    driver.downloads = downloads
    try:
        yield driver
    finally:
        driver.quit()


@pytest.fixture(scope="module")
def address(episodes: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("page")
    page = build(finished(episodes, folder, HOSTILE), "results/made-up", with_vectors=False)
    (folder / "report.html").write_text(page)
    return (folder / "report.html").as_uri()


def opened(browser: Any, address: str, size: tuple[int, int] = WIDE, scheme: str = "light") -> None:
    """The freshly loaded page with all charts drawn, and empty logs (the start page makes requests)."""
    browser.get("about:blank")
    for log in ("browser", "performance"):
        browser.get_log(log)
    metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    browser.get(address)
    wait(lambda: browser.execute_script("return document.documentElement.dataset.drawn"))


def wait(condition: Any, seconds: float = 30) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError("the page did not get there in time")


def written(page: str, folder: Path) -> str:
    (folder / "page.html").write_text(page)
    return (folder / "page.html").as_uri()


def marks(browser: Any, chart: str, setting: str | None = None) -> list[Any]:
    """The marks of settings in a chart; Vega describes each by its setting's name."""
    found = browser.find_elements(By.CSS_SELECTOR, f'#{chart} .chart path[aria-roledescription="point"]')
    return [m for m in found if setting is None or m.get_attribute("aria-label") == setting]


def hover(browser: Any, element: Any) -> None:
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
    time.sleep(0.2)  # scrolling hides the tooltip, and its event is delayed
    ActionChains(browser).move_to_element(element).perform()


def tip(browser: Any) -> str:
    return "".join(e.text for e in browser.find_elements(By.CSS_SELECTOR, "#vg-tooltip-element.visible"))


def settings(browser: Any) -> list[dict[str, Any]]:
    text = browser.execute_script("return document.getElementById('numbers').textContent")
    return json.loads(text)["studies"][0]["datasets"]["settings"]


@pytest.mark.parametrize("size", [WIDE, NARROW])
def test_loads_without_errors_or_requests(browser: Any, address: str, size: tuple[int, int]) -> None:
    opened(browser, address, size)
    assert browser.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert [url for url in sent if not url.startswith("data:")] == [address]
    assert not [m for m in messages if m["method"].startswith("Network.webSocket")]
    assert browser.execute_script("return window.hacked") is None
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")


@pytest.mark.parametrize("size", [WIDE, NARROW])
def test_verdict_and_hero_are_on_the_first_screen(
    browser: Any, episodes: pd.DataFrame, tmp_path: Path, size: tuple[int, int]
) -> None:
    page = build(finished(episodes, tmp_path, "digits-same"), "results/x", with_vectors=False)
    opened(browser, written(page, tmp_path), size)
    for selector in (".verdict .deploy", ".verdict .numbers", "#hero .chart svg"):
        rect = browser.find_element(By.CSS_SELECTOR, selector).rect
        assert rect["y"] + rect["height"] <= size[1], selector
        assert rect["height"] > 20


def test_every_setting_is_drawn(browser: Any, address: str, episodes: pd.DataFrame) -> None:
    opened(browser, address)
    n = len(settings(browser))
    assert n == episodes["trial"].nunique()
    for chart in ("hero", "error", "accuracy"):
        assert len(marks(browser, chart)) == n, chart
    places = {(m.location["x"], m.location["y"]) for m in marks(browser, "hero")}
    assert len(places) > n / 2  # not all in one place
    for host in browser.find_elements(By.CSS_SELECTOR, "[data-chart]"):
        assert host.find_elements(By.TAG_NAME, "svg"), host.get_attribute("data-chart")


def test_hovering_tells_the_knobs_and_the_tooltip_goes(browser: Any, address: str) -> None:
    opened(browser, address)
    next(b for b in browser.find_elements(By.CSS_SELECTOR, ".key button") if "noise" in b.text).click()
    row = next(r for r in settings(browser) if r["trial"] == "t004-lpa")
    hover(browser, marks(browser, "error", row["setting"])[0])
    text = wait(lambda: "t004-lpa" in tip(browser) and tip(browser))
    assert f"{row['error']:.4f}" in text
    assert "lpa budget=" in text
    ActionChains(browser).send_keys(Keys.ESCAPE).perform()
    wait(lambda: not tip(browser))


def test_a_click_chooses_and_the_address_keeps_it(browser: Any, address: str) -> None:
    opened(browser, address)
    mark = marks(browser, "hero", "undefended")[0]
    hover(browser, mark)
    ActionChains(browser).click(mark).perform()
    chosen = browser.find_element(By.ID, "chosen")
    wait(lambda: chosen.is_displayed() and chosen.text.startswith("undefended"))
    assert browser.current_url == f"{address}#none"
    browser.refresh()
    wait(lambda: browser.find_element(By.ID, "chosen").text.startswith("undefended"))
    opened(browser, f"{address}#t005")  # the start of a trial's name is enough
    assert "trial t005-lpa" in browser.find_element(By.ID, "chosen").text
    assert browser.find_elements(By.CSS_SELECTOR, 'tr.is-chosen[data-trial="t005-lpa"]')
    command = browser.find_element(By.CSS_SELECTOR, "#chosen code").text
    start = "python study/evaluate.py --like results/made-up --trial t005-lpa"
    assert command == f"{start} --data-root DATA"
    browser.find_element(By.CSS_SELECTOR, "#chosen .copy").click()
    wait(lambda: browser.find_element(By.CSS_SELECTOR, "#chosen .copy").text in ("copied", "selected"))


def test_arrow_keys_go_from_setting_to_setting(browser: Any, address: str) -> None:
    opened(browser, address)
    order = sorted(settings(browser), key=lambda r: (r["distortion"], r["trial"]))
    chart = browser.find_element(By.CSS_SELECTOR, "#hero .chart")
    chart.send_keys(Keys.ARROW_RIGHT)
    wait(lambda: browser.find_element(By.ID, "chosen").text.startswith(order[0]["setting"]))
    chart.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_LEFT)
    wait(lambda: f"trial {order[1]['trial']};" in browser.find_element(By.ID, "chosen").text)
    assert browser.find_element(By.ID, "chosen").get_attribute("aria-live") == "polite"


def test_a_defense_can_be_hidden_and_tables_sorted(browser: Any, address: str) -> None:
    opened(browser, address)
    before = len(marks(browser, "hero"))
    button = next(b for b in browser.find_elements(By.CSS_SELECTOR, ".key button") if "noise" in b.text)
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    wait(lambda: len(marks(browser, "hero")) == before - 12)
    heading = browser.find_elements(By.CSS_SELECTOR, "#all-settings thead button")[1]
    browser.execute_script("arguments[0].click()", heading)
    cells = browser.find_elements(By.CSS_SELECTOR, "#all-settings tbody td:nth-child(2)")
    values = [float(c.get_attribute("textContent")) for c in cells]
    assert values == sorted(values)
    browser.execute_script("arguments[0].click()", heading)
    first = browser.find_element(By.CSS_SELECTOR, "#all-settings tbody td:nth-child(2)")
    assert float(first.get_attribute("textContent")) == max(values)


def test_the_settings_table_fits(browser: Any, address: str) -> None:
    opened(browser, address)
    box = browser.find_element(By.CSS_SELECTOR, "#settings .scroll")
    assert int(box.get_property("scrollWidth")) <= int(box.get_property("clientWidth")) + 1
    assert browser.find_element(By.CSS_SELECTOR, "#all-settings .copy").is_displayed()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_chart_as_csv_and_png(browser: Any, address: str, scheme: str) -> None:
    opened(browser, address, scheme=scheme)
    for host in browser.find_elements(By.CSS_SELECTOR, "[data-chart]")[:3]:
        name = host.get_attribute("data-chart")
        figure = browser.find_element(By.ID, name)
        for kind in ("csv", "png"):
            for old in browser.downloads.iterdir():
                old.unlink()
            browser.execute_script("arguments[0].click()", figure.find_element(By.CLASS_NAME, kind))
            (file,) = wait(lambda: [f for f in browser.downloads.iterdir() if f.suffix in (".csv", ".png")])
            assert file.suffix == f".{kind}"
            wait(lambda file=file: file.stat().st_size)
            if kind == "csv":
                table = pd.read_csv(file)
                assert len(table) == len(settings(browser))
                assert list(table.columns[:4]) == ["trial", "setting", "defense", "verdict"]
            else:
                picture = Image.open(io.BytesIO(file.read_bytes())).convert("RGB")
                assert picture.width >= 2000
                assert picture.getpixel((2, 2)) == (255, 255, 255)  # light, whatever the page is
                assert len(picture.resize((100, 60)).getcolors(6000)) > 20


def test_a_formula_in_a_record_is_text_in_the_csv(
    browser: Any, episodes: pd.DataFrame, tmp_path: Path
) -> None:
    frame = episodes.assign(defense=episodes["defense"].replace("lfp", "=1+1"))
    opened(browser, written(build(finished(frame, tmp_path), "x", with_vectors=False), tmp_path))
    for old in browser.downloads.iterdir():
        old.unlink()
    browser.find_element(By.CSS_SELECTOR, "#hero .csv").click()
    (file,) = wait(lambda: list(browser.downloads.glob("*.csv")))
    wait(lambda: "'=1+1" in file.read_text())


def test_print_is_one_light_page(browser: Any, address: str) -> None:
    """From a dark screen with a chosen setting and an open tooltip."""
    opened(browser, f"{address}#none", scheme="dark")
    hover(browser, marks(browser, "hero", "undefended")[0])
    wait(lambda: tip(browser))
    media = {"media": "print", "features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    script = "return getComputedStyle(document.querySelector(arguments[0])).getPropertyValue(arguments[1])"
    assert browser.execute_script(script, "body", "background-color") == "rgb(255, 255, 255)"
    for gone in ("#vg-tooltip-element", "#chosen", "nav", "#settings", "#theme", "#hero .tools"):
        assert browser.execute_script(script, gone, "display") == "none", gone
    for there in (".verdict", "#hero svg", "#answer", "footer"):
        assert browser.execute_script(script, there, "display") != "none", there
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": media["features"]})
    printed = browser.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True, "printBackground": True})
    assert len(re.findall(rb"/Type\s*/Page\b", base64.b64decode(printed["data"]))) == 1


def test_dark_and_light(browser: Any, address: str) -> None:
    def background() -> str:
        return str(browser.execute_script("return getComputedStyle(document.body).backgroundColor"))

    def ink() -> str:
        script = "return getComputedStyle(document.querySelector('#hero .chart svg text')).fill"
        return str(browser.execute_script(script))

    opened(browser, address, scheme="dark")
    dark = (background(), ink())
    browser.find_element(By.ID, "theme").click()
    light = (background(), ink())
    assert (dark[0], light[0]) == ("rgb(22, 22, 26)", "rgb(255, 255, 255)")
    assert dark[1] != light[1]  # the charts follow, without being drawn again
    opened(browser, address)
    assert (background(), ink()) == light


def test_without_scripts_the_tables_are_there(browser: Any, address: str) -> None:
    opened(browser, address)
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get(address)
        shown = browser.find_element(By.CSS_SELECTOR, ".heat td .e")
        other = browser.find_element(By.CSS_SELECTOR, ".heat td .x")
        assert (shown.is_displayed(), other.is_displayed()) == (True, False)
        browser.find_element(By.CSS_SELECTOR, ".heat input.excess").click()
        assert (shown.is_displayed(), other.is_displayed()) == (False, True)
        assert "Scripts are off" in browser.find_element(By.TAG_NAME, "main").text
        assert browser.find_element(By.CSS_SELECTOR, ".verdict .deploy").is_displayed()
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_certificates_limits_and_learning_curves_are_drawn(
    browser: Any, episodes: pd.DataFrame, tmp_path: Path
) -> None:
    ok = episodes["status"] == "ok"
    auc = (0.5 + 0.3 * (1 - episodes["confidence_distortion"] / 0.5)).where(ok)
    frame = episodes.assign(identification_auc=auc, identification_auc_test=auc - 0.01, estimated_limit=0.012)
    rounding = frame["defense"] == "rounding"
    for pool in ("", "_test"):
        frame[f"certified_excess{pool}"] = frame["confidence_distortion"].where(rounding, float("nan")) + 0.3
        frame[f"smallest_cell{pool}"] = frame[f"certified_excess{pool}"] * 0 + 5
    study = finished(frame, tmp_path)
    curve = ROW | {"trial": "none", "limit_low": 0.001}
    study.storage.write(f"{study.folder}/{CURVES}", curves_bytes([curve]))
    page = build(study, "results/x", with_vectors=False)
    opened(browser, written(page, tmp_path))
    assert browser.get_log("browser") == []
    rows = numbers_of(page)["studies"][0]["datasets"]["settings"]
    # A layer of Vega-Lite is a group; certificates are the first two of the hero chart.
    bands, ticks = (browser.find_elements(By.CSS_SELECTOR, f"#hero g.layer_{i}_marks path") for i in (0, 1))
    n = sum(r["certified"] is not None for r in rows)
    assert n == frame.loc[rounding, "trial"].nunique() + 1  # and label-only's
    assert (len(bands), len(ticks)) == (n, n)
    assert len(marks(browser, "identification")) == len(rows)
    floor, undefended = (
        marks(browser, "identification", s)[0].rect["y"] for s in ("label-only", "undefended")
    )
    assert undefended < floor  # up: told apart
    assert [r["trial"] for r in rows if "extrapolated_error" in r] == ["none"]
    assert "An extrapolation bounds nothing" in browser.find_element(By.ID, "attackers").text
    words = [e.text for e in browser.find_elements(By.CSS_SELECTOR, "#identification svg text")]
    assert "chance: 0.5" in words


def test_two_studies_on_one_page(browser: Any, episodes: pd.DataFrame, tmp_path: Path) -> None:
    names = ("first", "second")
    sources = [Source.of(finished(episodes, tmp_path / name, name), f"results/{name}") for name in names]
    place = written(build_page(sources, VectorOptions(False)), tmp_path)
    opened(browser, f"{place}#second-1/t005")
    assert browser.get_log("browser") == []
    n = episodes["trial"].nunique()
    assert len(marks(browser, "compare")) == 2 * n
    second = browser.find_element(By.CSS_SELECTOR, 'article[data-study="1"]')
    assert "trial t005-lpa" in second.find_element(By.CSS_SELECTOR, ".chosen").text
    first = browser.find_element(By.CSS_SELECTOR, 'article[data-study="0"]')
    assert not first.find_element(By.CSS_SELECTOR, ".chosen").is_displayed()
    browser.execute_script("arguments[0].querySelector('.key button').click()", first)  # hides it there alone
    counts = [
        len(a.find_elements(By.CSS_SELECTOR, '[data-chart="hero"] path[aria-roledescription="point"]'))
        for a in (first, second)
    ]
    assert counts[0] < counts[1] == n
