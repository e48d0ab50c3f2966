"""The report page in a real browser: Debian's chromium, headless, driven by selenium."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from study.records.curves import CURVES, curves_bytes
from study.reports.html import build
from tests.study.records.test_curves import ROW
from tests.study.reports.html.helpers import HOSTILE, finished

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
    for flag in (*FLAGS, f"--user-data-dir={home}", f"--window-size={WIDE[0]},{WIDE[1]}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = Service(str(DRIVER), env={**os.environ, "HOME": str(home)})
    driver = webdriver.Chrome(options=options, service=service)
    driver.set_page_load_timeout(60)
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
    """The freshly loaded page, with empty logs (the browser's start page makes requests)."""
    browser.get("about:blank")
    for log in ("browser", "performance"):
        browser.get_log(log)
    metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    browser.get(address)
    wait(lambda: browser.find_elements(By.CSS_SELECTOR, "#frontier-error .point"))


def wait(condition: Any, seconds: float = 20) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError("the page did not get there in time")


def tip(browser: Any) -> str:
    return browser.find_element(By.ID, "tooltip").text


def point(browser: Any, plot: str, trial: str) -> Any:
    return browser.find_element(By.CSS_SELECTOR, f'#{plot} [data-trial="{trial}"] .point')


def hover(browser: Any, element: Any) -> None:
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
    time.sleep(0.2)  # scrolling hides the tooltip, and its event is delayed
    ActionChains(browser).move_to_element(element).perform()


@pytest.mark.parametrize("size", [WIDE, NARROW])
def test_loads_without_errors_or_requests(browser: Any, address: str, size: tuple[int, int]) -> None:
    opened(browser, address, size)
    time.sleep(0.5)
    assert browser.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert [url for url in sent if not url.startswith("data:")] == [address]
    assert not [m for m in messages if m["method"].startswith("Network.webSocket")]
    assert browser.execute_script("return window.hacked") is None
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")


def test_the_drawings_are_there(browser: Any, address: str, episodes: pd.DataFrame) -> None:
    opened(browser, address)
    drawn = json.loads(browser.execute_script("return document.getElementById('numbers').textContent"))
    n = len(drawn["points"])
    assert n == episodes["trial"].nunique()
    count = {
        "#frontier-error .point": n,
        "#frontier-accuracy .point": n,
        "#frontier-error .bar": n,
        "#frontier-error .steps": 1,
        "#curves-chart .curve": len(drawn["curves"]),
        "#parallel .line": max(len(p["names"]) for p in drawn["parallel"]),
        "#key button": len(drawn["defenses"]),
    }
    for selector, expected in count.items():
        assert len(browser.find_elements(By.CSS_SELECTOR, selector)) == expected, selector
    places = {(e.location["x"], e.location["y"]) for e in browser.find_elements(By.CSS_SELECTOR, ".point")}
    assert len(places) > n  # not all in one place


def test_hovering_tells_the_knobs(browser: Any, address: str) -> None:
    opened(browser, address)
    key = browser.find_elements(By.CSS_SELECTOR, "#key button")
    noise = next(button for button in key if button.text.startswith("noise"))
    noise.click()  # its points lie on those of LPA
    hover(browser, point(browser, "frontier-error", "t004-lpa"))
    text = wait(lambda: tip(browser).startswith("lpa") and tip(browser))
    for part in (
        "lpa budget=",
        "rounds=",
        "sub_features=log",
        "trial t004-lpa",
        "worst-case error",
        "seeds 3",
        " by ",
    ):
        assert part in text
    noise.click()
    hover(browser, point(browser, "frontier-accuracy", "t006-noise"))
    wait(lambda: "noise budget=" in tip(browser))
    curve = browser.find_element(By.CSS_SELECTOR, "#curves-chart")
    hover(browser, curve)
    curve.send_keys(Keys.ARROW_RIGHT)
    wait(lambda: "half of the images below" in tip(browser))


def test_keyboard_choice_and_command(browser: Any, address: str) -> None:
    opened(browser, address)
    plot = browser.find_element(By.ID, "frontier-error")
    plot.send_keys(Keys.ARROW_RIGHT)
    assert wait(lambda: tip(browser)).startswith("undefended")
    plot.send_keys(Keys.ARROW_RIGHT, Keys.ENTER)
    chosen = browser.find_element(By.ID, "chosen")
    trial = chosen.find_elements(By.TAG_NAME, "p")[1].text.removeprefix("trial ")
    command = chosen.find_element(By.TAG_NAME, "code").text
    assert (
        command == f"python study/evaluate.py --like results/made-up --trial {trial} --data-root '/my data'"
    )
    assert len(browser.find_elements(By.CSS_SELECTOR, "#frontier-accuracy .ring")) >= 1
    chosen.find_element(By.CLASS_NAME, "copy").click()
    wait(lambda: chosen.find_element(By.CLASS_NAME, "copy").text in ("copied", "selected"))


def test_a_defense_can_be_hidden_and_tables_sorted(browser: Any, address: str) -> None:
    opened(browser, address)
    before = len(browser.find_elements(By.CSS_SELECTOR, "#frontier-error .point"))
    button = next(
        b for b in browser.find_elements(By.CSS_SELECTOR, "#key button") if b.text.startswith("noise")
    )
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    assert len(browser.find_elements(By.CSS_SELECTOR, "#frontier-error .point")) == before - 12
    heading = browser.find_elements(By.CSS_SELECTOR, "#all-settings thead button")[1]
    browser.execute_script("arguments[0].click()", heading)
    cells = browser.find_elements(By.CSS_SELECTOR, "#all-settings tbody td:nth-child(2)")
    values = [float(c.get_attribute("textContent")) for c in cells]
    assert values == sorted(values)
    browser.execute_script("arguments[0].click()", heading)
    first = browser.find_element(By.CSS_SELECTOR, "#all-settings tbody td:nth-child(2)")
    assert float(first.get_attribute("textContent")) == max(values)


def test_zoom_by_dragging(browser: Any, address: str) -> None:
    opened(browser, address)
    plot = browser.find_element(By.CSS_SELECTOR, "#frontier-error svg")
    ticks = [t.text for t in plot.find_elements(By.TAG_NAME, "text")]
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", plot)
    ActionChains(browser).move_to_element(plot).click_and_hold().move_by_offset(90, 60).release().perform()
    undo = wait(lambda: browser.find_elements(By.CSS_SELECTOR, "#frontier-error .reset"))[0]
    zoomed = browser.find_elements(By.CSS_SELECTOR, "#frontier-error svg text")
    assert [t.text for t in zoomed] != ticks
    undo.click()
    again = browser.find_elements(By.CSS_SELECTOR, "#frontier-error svg text")
    assert [t.text for t in again] == ticks


def test_dark_and_light(browser: Any, address: str) -> None:
    def background() -> str:
        return str(browser.execute_script("return getComputedStyle(document.body).backgroundColor"))

    opened(browser, address, scheme="dark")
    dark = background()
    browser.find_element(By.ID, "theme").click()
    light = background()
    assert (dark, light) == ("rgb(22, 22, 26)", "rgb(255, 255, 255)")
    opened(browser, address)
    assert background() == light


def test_the_heat_map_switches_without_a_script(browser: Any, address: str) -> None:
    opened(browser, address)
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get(address)
        shown = browser.find_element(By.CSS_SELECTOR, ".heat td .e")
        other = browser.find_element(By.CSS_SELECTOR, ".heat td .x")
        assert (shown.is_displayed(), other.is_displayed()) == (True, False)
        browser.find_element(By.CSS_SELECTOR, ".heat input.excess").click()
        assert (shown.is_displayed(), other.is_displayed()) == (False, True)
        assert "Scripts are off" in browser.find_element(By.TAG_NAME, "header").text
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_learning_curves_are_drawn_where_they_are(
    browser: Any, episodes: pd.DataFrame, tmp_path: Path
) -> None:
    frame = episodes.assign(estimated_limit=0.012)
    study = finished(frame, tmp_path)
    study.storage.write(
        f"{study.folder}/{CURVES}", curves_bytes([ROW | {"trial": "none", "limit_low": 0.001}])
    )
    (tmp_path / "page.html").write_text(build(study, "results/made-up", with_vectors=False))
    opened(browser, (tmp_path / "page.html").as_uri())
    assert browser.get_log("browser") == []
    drawn = len(browser.find_elements(By.CSS_SELECTOR, "#frontier-error .point"))
    for selector, n, of in ((".extrapolated", 2, 2), (".limit", 1, drawn)):
        assert len(browser.find_elements(By.CSS_SELECTOR, f"#frontier-error {selector}")) == of
        own = browser.find_elements(By.CSS_SELECTOR, f'#frontier-error [data-trial="none"] {selector}')
        assert len(own) == n
        assert not browser.find_elements(By.CSS_SELECTOR, f"#frontier-accuracy {selector}")
    measured = point(browser, "frontier-error", "none").location["y"]
    interval = browser.find_elements(By.CSS_SELECTOR, "#frontier-error .extrapolated")[0]
    assert interval.rect["y"] + interval.rect["height"] > measured  # lower is less error: 0.001 lies below
    assert "An extrapolation bounds nothing" in browser.find_element(By.ID, "frontier-note").text


def test_excess_and_identification_have_charts(browser: Any, episodes: pd.DataFrame, tmp_path: Path) -> None:
    ok = episodes["status"] == "ok"
    auc = (0.5 + 0.3 * (1 - episodes["confidence_distortion"] / 0.5)).where(ok)
    auc = auc.where(episodes["defense"] != "label-only", 0.5)
    frame = episodes.assign(identification_auc=auc, identification_auc_test=auc - 0.01)
    rounding = frame["defense"] == "rounding"
    for pool in ("", "_test"):
        frame[f"certified_excess{pool}"] = frame["confidence_distortion"].where(rounding, float("nan")) + 0.3
        frame[f"smallest_cell{pool}"] = frame[f"certified_excess{pool}"] * 0 + 5
    (tmp_path / "page.html").write_text(build(finished(frame, tmp_path), "results/x", with_vectors=False))
    opened(browser, (tmp_path / "page.html").as_uri())
    assert browser.get_log("browser") == []
    count = {
        "#frontier-identification .point": frame.loc[ok, "trial"].nunique(),
        "#frontier-excess .cap": frame.loc[rounding, "trial"].nunique() + 1,  # and label-only's
        "#frontier-identification .cap": 0,
    }
    for selector, expected in count.items():
        assert len(browser.find_elements(By.CSS_SELECTOR, selector)) == expected, selector

    def text(plot: str) -> str:
        return browser.find_element(By.CSS_SELECTOR, f"#frontier-{plot} svg").text

    assert "chance: 0.5" in text("identification")
    assert "margin of 0.02" in text("excess")
    assert "mean image" not in text("identification")
    undefended = point(browser, "frontier-identification", "none").rect["y"]
    floor = point(browser, "frontier-identification", "label-only").rect["y"]
    assert undefended < floor  # up: told apart
    hover(browser, point(browser, "frontier-identification", "none"))
    wait(lambda: "identification AUC 0.800" in tip(browser))
    for plot in ("error", "accuracy", "excess", "identification"):  # no two texts of a plot overlap
        words = browser.find_elements(By.CSS_SELECTOR, f"#frontier-{plot} text.line")
        boxes = [word.rect for word in words]
        for i, a in enumerate(boxes):
            for b in boxes[:i]:
                apart = a["x"] + a["width"] <= b["x"] or b["x"] + b["width"] <= a["x"]
                assert apart or a["y"] + a["height"] <= b["y"] + 2 or b["y"] + b["height"] <= a["y"] + 2
