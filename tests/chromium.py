"""A real browser: headless Chromium, driven by selenium, with an eye on its console and its network.

Where there is none, these tests say so and are skipped; with ``JAXCHAIN_BROWSER=required`` in the environment
they fail instead, and with ``JAXCHAIN_BROWSER=off`` they are skipped wherever they are.
"""

import json
import os
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

CONTROLS = "a[href], button, input, select, summary, [tabindex='0']"

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def missing(what):
    """Skip, or fail where a browser is required."""
    message = f"{what} is not on this machine: the page is not tested in a browser."
    if os.environ.get("JAXCHAIN_BROWSER") == "required":
        pytest.fail(message)
    pytest.skip(message)


def tool(*names):
    return next(filter(None, map(shutil.which, names)), None)


@pytest.fixture(scope="session")
def driver():
    if os.environ.get("JAXCHAIN_BROWSER") == "off":
        pytest.skip("JAXCHAIN_BROWSER=off")
    chromium, chromedriver = tool(*NAMES), tool("chromedriver")
    if chromium is None or chromedriver is None:
        missing("Chromium or its driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(chromedriver))
    yield driver
    driver.quit()


class Browser:
    """One page in the browser, as a person has it before them."""

    def __init__(self, driver):
        self.driver = driver

    def open(self, path, address="", size=(1280, 900), dark=False):
        self.resize(*size)
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        self.driver.get("about:blank")
        self.logs()
        self.driver.get(f"{Path(path).as_uri()}{address}")
        WebDriverWait(self.driver, 60).until(lambda d: self.script("return document.documentElement.dataset.ready"))
        return self

    def resize(self, width, height):
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def script(self, text, *args):
        return self.driver.execute_script(text, *args)

    def find(self, selector):
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector):
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def text(self, selector):
        return self.find(selector).get_attribute("textContent").strip()

    def click(self, selector):
        element = self.find(selector)
        self.script("arguments[0].scrollIntoView({block: 'center'})", element)
        element.click()

    def press(self, *keys, into="body"):
        self.find(into).send_keys(*keys)

    def point(self, selector, across, down):
        """Move the pointer over an element, to a place given in shares of its width and height."""
        element = self.find(selector)
        self.script("arguments[0].scrollIntoView({block: 'center'})", element)
        box = element.rect
        offset = round((across - 0.5) * box["width"]), round((down - 0.5) * box["height"])
        ActionChains(self.driver).move_to_element_with_offset(element, *offset).pause(0.1).perform()

    def wait(self, holds, seconds=30):
        WebDriverWait(self.driver, seconds).until(lambda _: holds())

    def logs(self):
        """What the console said and which addresses were asked for, since the last time."""
        said = [entry["message"] for entry in self.driver.get_log("browser")]
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
        return said, asked

    def unreached(self):
        """The markup of all that can be used and that the tabulator key alone does not come to; nothing is pressed."""
        count = self.script(f"""
            const radios = new Set();
            window.wanted = [...document.querySelectorAll("{CONTROLS}")].filter((control) => {{
              if (control.disabled || !control.checkVisibility()) return false;
              if (control.type !== "radio") return true;
              return !radios.has(control.name) && radios.add(control.name);
            }});
            window.reached = new Set();
            document.addEventListener("focusin", ({{ target }}) => reached.add(target));
            return wanted.length;
        """)
        assert count
        self.press(Keys.TAB * (count + 5))
        return self.script("return wanted.filter((one) => !reached.has(one)).map((one) => one.outerHTML.slice(0, 200))")

    def overflow(self):
        """How many pixels the page is wider than its window."""
        return self.script("return document.documentElement.scrollWidth - window.innerWidth")


@pytest.fixture
def browser(driver):
    return Browser(driver)


@pytest.fixture(scope="session")
def axe():
    """axe-core, the accessibility checker, as the text of its script."""
    found = find_spec("axe_core_python")
    if found is None or found.origin is None:
        missing("axe-core-python, which brings axe-core,")
    return (Path(found.origin).parent / "axe.min.js").read_text(encoding="utf-8")


def violations(browser, axe):
    """What axe-core has to say against the page as it stands."""
    browser.script(axe)
    found = browser.driver.execute_async_script(
        "const done = arguments[arguments.length - 1]; axe.run().then((found) => done(found.violations));"
    )
    return [(v["id"], v["nodes"][0]["html"], v["nodes"][0]["failureSummary"]) for v in found]
