"""The page in a real browser, against the real server: what a person does with it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.request import Request, urlopen

import pytest

from support.server import Server, running_server

webdriver = pytest.importorskip("selenium.webdriver")
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.remote.webdriver import WebDriver  # noqa: E402
from selenium.webdriver.support.ui import Select, WebDriverWait  # noqa: E402

SECONDS = 60
PICTURES = bool(os.environ.get("PENSTOCK_PICTURES"))
PROGRAMS = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
pytestmark = pytest.mark.skipif(
    None in PROGRAMS.values(), reason="needs Debian's chromium and chromium-driver"
)
SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": ["Paris", "Rome"]}, "sure": {"type": "boolean"}},
    "required": ["city", "sure"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("page")
    with running_server(folder, "--device", "cpu", "--api-key", "secret") as server:
        yield server


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebDriver]:
    options = webdriver.ChromeOptions()
    options.binary_location = PROGRAMS["chromium"]
    folder = tmp_path_factory.mktemp("browser")
    for switch in ("headless=new", "no-sandbox", "disable-gpu", f"user-data-dir={folder}"):
        options.add_argument(f"--{switch}")
    options.add_argument("--window-size=1280,900")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(executable_path=PROGRAMS["chromedriver"])
    driver = webdriver.Chrome(options=options, service=service)
    try:
        yield driver
    finally:
        driver.quit()


class Page:
    """What a person sees and does."""

    def __init__(self, browser: WebDriver) -> None:
        self.browser = browser

    def find(self, selector: str):
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list:
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def until(self, condition: Callable[[], object]) -> object:
        return WebDriverWait(self.browser, SECONDS, 0.1).until(lambda _: condition())

    def type(self, selector: str, text: str) -> None:
        field = self.find(selector)
        field.clear()
        field.send_keys(text)

    def ask(self, text: str) -> None:
        self.type("#prompt", text + Keys.ENTER)

    def answered(self) -> str:
        """The text of the last answer, once it has ended."""
        self.until(lambda: self.find("#stop").get_attribute("disabled") is not None)
        return self.all("#messages li.assistant .answer")[-1].text

    def errors(self) -> list[str]:
        """What the browser complains of: scripts and the content security policy."""
        log = self.browser.get_log("browser")
        return [one["message"] for one in log if " 401 " not in one["message"]]


@pytest.fixture
def page(server: Server, browser: WebDriver) -> Page:
    """The page, opened anew, with the key entered."""
    page = Page(browser)
    browser.get(server.url + "/")
    page.until(lambda: page.all("#key-dialog[open]"))
    page.type("#key", "secret" + Keys.ENTER)
    page.until(lambda: "penstock-demo" in page.find("#model-name").text)
    page.errors()  # of the test before
    return page


def picture(page: Page, name: str, request: pytest.FixtureRequest) -> None:
    """For docs/images, with PENSTOCK_PICTURES=1."""
    if PICTURES:
        folder = request.config.rootpath / "docs" / "images"
        page.browser.save_screenshot(str(folder / f"{name}.png"))


def test_a_conversation(page: Page) -> None:
    page.type("#p-temperature", "0")
    page.ask("What is the capital of France?")
    assert "Paris" in page.answered()
    assert "out" in page.find("#chat-figures").text
    tokens = page.all("#messages .token")
    assert "".join(token.get_attribute("textContent") for token in tokens) == page.answered()
    webdriver.ActionChains(page.browser).move_to_element(tokens[0]).perform()
    page.until(lambda: page.find("#tip").is_displayed())
    lines = page.find("#tip").text.split("\n")
    shares = [float(line.split(" %")[0]) for line in lines]
    assert 5 <= len(lines) <= 6 and shares == sorted(shares, reverse=True)
    assert [line for line in lines if line.endswith("chosen")] == [page.find("#tip .chosen").text]
    # a second question goes on from the first, and both are there after a reload
    page.ask("What is the capital of Italy?")
    assert "Rome" in page.answered()
    assert len(page.all("#messages li")) == 4
    page.browser.refresh()
    page.until(lambda: page.all("#key-dialog[open]"))
    page.type("#key", "secret" + Keys.ENTER)
    history = Select(page.find("#history"))
    history.select_by_visible_text("What is the capital of France?")
    assert len(page.all("#messages li")) == 4 and "Rome" in page.answered()
    page.find("#delete-chat").click()
    assert page.all("#messages li") == []
    assert page.errors() == []


def test_an_answer_by_keyboard_and_ear(page: Page) -> None:
    page.type("#p-temperature", "0")
    page.ask("What is the capital of France?")
    answer = page.answered()
    # once and whole, and no part of the conversation speaks while it is written
    page.until(lambda: page.find("#said").get_attribute("textContent") == answer)
    assert page.find("#said").get_attribute("role") == "status"
    assert page.all("#messages [aria-live], #messages[aria-live]") == []
    # one token is reached by Tab, the others by arrows; the tip describes it
    first, second, *rest = page.all("#messages .token")
    assert [one.get_attribute("tabindex") for one in (first, second, *rest)].count("0") == 1
    first.send_keys(Keys.ARROW_RIGHT)
    focused = page.browser.switch_to.active_element
    assert focused == second and focused.get_attribute("tabindex") == "0"
    assert focused.get_attribute("aria-describedby") == "tip" and page.find("#tip").is_displayed()
    second.send_keys(Keys.ESCAPE)
    assert not page.find("#tip").is_displayed()
    second.send_keys(Keys.END)
    assert page.browser.switch_to.active_element == rest[-1]


def test_everything_has_a_name(page: Page) -> None:
    """Fields by their label, buttons and tabs by their text."""
    nameless = page.browser.execute_script(
        "return [...document.querySelectorAll('input, select, textarea, button')]"
        ".filter(one => !one.labels?.length && !one.textContent.trim()).map(one => one.id)"
    )
    assert nameless == []


def test_stop_ends_the_request(page: Page, server: Server) -> None:
    page.type("#p-max_tokens", "2000")
    page.find("aside summary").click()
    page.type("#schema", '{"type": "string", "minLength": 1900}')  # so that it does not end itself
    page.ask("Tell me everything.")
    page.until(lambda: page.all("#messages .token"))
    page.find("#stop").click()
    page.answered()
    metrics = "penstock_client_disconnects_total"
    code = "return fetch('metrics').then(r => r.text())"
    page.until(
        lambda: (
            f"{metrics} 0" not in page.browser.execute_script(code)
            and "penstock_running_sequences 0" in page.browser.execute_script(code)
        )
    )
    assert not page.find("#chat-error").is_displayed()


def test_what_is_wrong_is_said_and_nothing_is_lost(page: Page) -> None:
    page.type("#p-top_p", "5")
    page.ask("Hello")
    page.until(lambda: page.find("#chat-error").is_displayed())
    assert "422" in page.find("#chat-error").text and "top_p" in page.find("#chat-error").text
    assert page.find("#prompt").get_attribute("value") == "Hello"
    page.find("aside summary").click()
    page.type("#schema", "{")
    assert "The JSON schema is not valid JSON" in page.find("#schema-state").text
    page.find("#send").click()
    page.until(lambda: "The JSON schema" in page.find("#chat-error").text)


def test_a_schema_holds(page: Page) -> None:
    for summary in page.all("aside summary"):
        summary.click()
    page.type("#schema", json.dumps(SCHEMA))
    assert page.find("#schema-state").text == "valid JSON"
    page.ask("Where?")
    answer = json.loads(page.answered())
    assert answer["city"] in ("Paris", "Rome") and isinstance(answer["sure"], bool)


def test_views_open_by_keyboard(page: Page) -> None:
    page.find("#tab-chat").send_keys(Keys.ARROW_RIGHT)
    page.find("#text")
    page.type("#text", "The capital of France is")
    page.find("#completion-form button").click()
    page.until(lambda: "Paris" in page.find("#continued").text)
    page.find("#tab-completion").send_keys(Keys.ARROW_RIGHT)
    page.until(lambda: len(page.all("#charts path[d^=M]")) >= 3)
    shown = {figure.text.split("\n")[0] for figure in page.all("#charts figure")}
    assert {"Output tokens", "KV cache in use", "Waiting requests"} <= shown
    assert "highest" in page.find("#charts").text
    page.find("#tab-live").send_keys(Keys.END)
    assert "max_total_tokens" in page.find("#card").text
    facts = page.find("#facts").text
    assert "penstock-demo" in facts and "up to 2,048 tokens" in facts and "GiB" in facts
    assert page.errors() == []


@pytest.mark.skipif(not PICTURES, reason="makes docs/images with PENSTOCK_PICTURES=1")
def test_pictures(page: Page, server: Server, request: pytest.FixtureRequest) -> None:
    page.type("#p-seed", "4")
    page.ask("What is the capital of France?")
    page.answered()
    page.ask("Tell me about the river.")
    page.answered()
    unsure = page.find("#messages li:last-child .token:is(.p0, .p1, .p2)")
    webdriver.ActionChains(page.browser).move_to_element(unsure).perform()
    page.until(lambda: page.find("#tip").is_displayed())
    picture(page, "chat", request)
    page.find("#tab-live").click()
    for streams in (1, 4, 12, 6, 2, 9, 3):
        with ThreadPoolExecutor(streams) as pool:
            list(pool.map(lambda _: generate(server), range(6 * streams)))
    picture(page, "live", request)
    page.find("#tab-model").click()
    picture(page, "model", request)


def generate(server: Server) -> None:
    body = {"inputs": "A river is", "parameters": {"max_new_tokens": 60, "do_sample": True}}
    headers = {"content-type": "application/json", "authorization": "Bearer secret"}
    data = json.dumps(body).encode()
    with urlopen(Request(f"{server.url}/generate", data, headers), timeout=SECONDS) as answer:
        answer.read()


def test_a_phone_shows_it_whole(page: Page, server: Server) -> None:
    phone = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    wide = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    try:
        for tab in page.all("[role=tab]"):
            tab.click()
            assert page.browser.execute_script(wide) <= 0, tab.text
        page.browser.get(server.url + "/docs")
        assert page.browser.execute_script(wide) <= 0
    finally:
        page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_api_can_be_tried(page: Page, server: Server, request: pytest.FixtureRequest) -> None:
    page.browser.get(server.url + "/docs")
    page.until(lambda: page.all("#key-dialog[open]"))
    page.type("#key", "secret" + Keys.ENTER)
    page.until(lambda: page.all("#routes details"))
    page.type("#filter", "/v1/completions")
    shown = [one for one in page.all("#routes details") if one.is_displayed()]
    assert len(shown) < 6
    [route] = [one for one in shown if "/v1/completions –" in one.text.split("\n")[0][:30]]
    route.find_element(By.TAG_NAME, "summary").click()
    page.until(lambda: "max_tokens" in route.text and "≥" in route.text)
    picture(page, "api", request)
    route.find_element(By.CSS_SELECTOR, "form button").click()
    page.until(lambda: "Paris" in route.find_element(By.TAG_NAME, "pre").text)
    assert page.errors() == []
