"""The live page in a real browser; skipped where there is no Chromium or no playwright."""

import http.server
import os
import shutil
import threading

import pytest

pytest.importorskip("aiohttp", reason="the page needs aiohttp")

from page_client import (
    LIVE,
    WAIT_S,
    Button,
    ask,
    detection,
    indices_of,
    levels_of,
    pages,
    plain,
    port_of,
    result,
    until,
)

import edge_kp.live.sinks as sinks_module
from edge_kp.live.page import Recording
from edge_kp.live.statistics import Result, Statistics
from edge_kp.types import HeadPose

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture
def serve():
    with pages() as make:
        yield make


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    with playwright.sync_playwright() as driver:
        flags = ["--host-resolver-rules=MAP evil.example 127.0.0.1"]
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            flags.append("--no-sandbox")
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()


@pytest.fixture
def tab(browser):
    """A tab that must have had no complaint, of a script or of the security policy, at the end."""
    said = []
    tab = browser.new_page()
    tab.set_default_timeout(WAIT_S * 1000)
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    yield tab
    tab.close()
    assert [text for text in said if "net::ERR" not in text] == []


@pytest.fixture
def running(serve):
    """Starts runs whose pictures change all the time; returns the page and the statistics."""
    ends = []

    def start(port=0, recorder=None, sources=("camera0",)):
        stats, end = Statistics(), threading.Event()
        page = serve(summary=stats.summary, recorder=recorder, port=port, sources=sources)

        def feed():
            i = 0
            while not end.wait(0.05):
                i += 1
                for source in range(len(sources)):
                    one = result(i, level=40 + 150 * (i // 4 % 2), source=source)
                    one = Result(
                        one.frame, [detection(7, HeadPose(30, 0, 0)), detection(8 + source)], one.timings
                    )
                    stats.add(one, live=True)
                    page.write(one)
                    if isinstance(recorder, Recording):
                        recorder.write(one)

        thread = threading.Thread(target=feed)
        thread.start()

        def stop():
            end.set()
            thread.join()
            page.close()

        ends.append(stop)
        return page, stop

    yield start
    for end in ends:
        end()


# Level in the middle of a picture, read as the browser shows it.
LEVEL = """img => {
  if (!img.complete && !img.naturalWidth) return null;
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 4;
  const pen = canvas.getContext("2d");
  pen.drawImage(img, 0, 0, 4, 4);
  return pen.getImageData(1, 1, 1, 1).data[0];
}"""
INK = """canvas => {
  const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  const colours = new Set();
  for (let i = 0; i < data.length; i += 4) if (data[i + 3] > 200) colours.add(data.slice(i, i + 3).join());
  return colours.size;
}"""


def test_a_browser_shows_moving_pictures_objects_and_curves(tab, running):
    page, _ = running()
    tab.goto(page.url)
    assert tab.title() == "edge_kp"
    until(lambda: tab.evaluate("document.querySelector('img')?.naturalWidth === 64"), "a picture")
    image = tab.locator("img")
    seen = set()
    until(lambda: seen.add(image.evaluate(LEVEL) > 100) or len(seen) == 2, "the picture to change")
    tab.wait_for_selector("#objects td.id")
    assert tab.locator("#objects td.id").all_inner_texts() == ["#7", "#8"]
    assert "+30°" in tab.locator("#objects").inner_text()
    assert "occlusion 0.25" in tab.locator("#objects").inner_text()
    until(lambda: tab.evaluate("points.length > 2"), "points")
    for curve in ("#fps", "#latency"):
        assert tab.locator(curve).evaluate(INK) > 3
    assert tab.locator("#record").is_hidden()  # nothing to record with
    tab.set_viewport_size({"width": 360, "height": 640})
    assert tab.evaluate("document.documentElement.scrollWidth") == 360


@pytest.mark.parametrize("count", [2, 6])
def test_a_browser_shows_every_source(tab, running, count):
    page, _ = running(sources=tuple(f"camera{i}" for i in range(count)))
    tab.goto(page.url)
    pictures = "n => [...document.images].filter(image => image.naturalWidth === 64).length === n"
    until(lambda: tab.evaluate(pictures, count), "every picture")
    for i in range(count):
        seen = set()
        image = tab.locator("img").nth(i)
        until(
            lambda image=image, seen=seen: seen.add((image.evaluate(LEVEL) or 0) > 100) or len(seen) == 2,
            "change",
        )
    until(lambda: tab.locator("#objects td.id").count() == 2 * count, "every object")


def test_a_browser_records_by_clicking(tab, running, tmp_path):
    recording = Recording(tmp_path, plain, [LIVE])
    page, _ = running(recorder=recording)
    tab.goto(page.url)
    tab.click("#start")
    tab.wait_for_selector("#file:not(:empty)")
    name = tab.inner_text("#file")
    assert recording.recording == name
    until(lambda: recording.written > 3, "results")
    tab.click("#stop")
    tab.wait_for_selector("#start:visible")
    assert recording.recording is None
    assert len(levels_of(tmp_path / name)) > 3
    assert indices_of((tmp_path / name).with_suffix(".jsonl"))


def test_a_browser_shows_why_a_recording_failed(tab, running, tmp_path, monkeypatch):
    recording = Recording(tmp_path, plain, [LIVE])
    page, _ = running(recorder=recording)
    monkeypatch.setattr(sinks_module, "RESERVE_BYTES", 2**80)
    tab.goto(page.url)
    tab.click("#start")
    tab.wait_for_selector("#problem:visible")
    assert "the disk is full" in tab.inner_text("#problem")
    tab.wait_for_selector("#start:visible")


def test_a_browser_waits_for_frames_and_comes_back_after_a_restart(tab, running, serve):
    quiet = serve(sources=("<b>camera</b>",))
    tab.goto(quiet.url)
    tab.wait_for_selector("text=waiting for the first frame")
    assert tab.locator("figcaption").inner_text().startswith("<b>camera</b>")  # a name is no markup
    quiet.close()
    tab.wait_for_selector("text=connection lost, trying again")
    _, stop = running(port=port_of(quiet))
    until(lambda: tab.evaluate("document.querySelector('img')?.naturalWidth === 64"), "a picture")
    assert tab.inner_text("#link") == "live"
    assert "camera0" in tab.locator("figcaption").inner_text()
    stop()
    tab.wait_for_selector("text=connection lost, trying again")


EVIL = """<!doctype html><title>evil</title><body>
<form id="form" method="post" target="sink" action="URL/record/start"><input name="a" value="b"></form>
<iframe name="sink"></iframe><iframe id="framed" src="URL/"></iframe><img id="spy" src="URL/picture/0.jpg">
<script>
const out = window.out = {};
(async () => {
  const tries = {
    simple: { method: "POST", mode: "no-cors" },
    header: { method: "POST", headers: { "X-Edge-KP": "1" } },
    credentials: { method: "POST", mode: "cors", credentials: "include" },
  };
  for (const [name, options] of Object.entries(tries)) {
    out[name] = await fetch("URL/record/start", options).then((a) => a.type + a.status, (e) => "refused");
  }
  out.read = await fetch("URL/state").then((a) => a.text(), (e) => "refused");
  document.getElementById("form").submit();
  setTimeout(() => { out.done = true; }, 500);
})();
</script>"""


@pytest.fixture
def evil():
    """Serves a page that attacks the given one, from another port; returns its address."""
    servers = []

    def start(target):
        html = EVIL.replace("URL", target.url.rstrip("/")).encode()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.end_headers()
                self.wfile.write(html)

            def log_message(self, *_):
                pass

        servers.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever).start()
        return servers[-1].server_address[1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("host", ["127.0.0.1", "evil.example"])
def test_a_page_of_another_origin_can_start_and_see_nothing(browser, running, evil, host):
    button = Button()
    page, _ = running(recorder=button)
    until(lambda: ask(page, "/picture/0.jpg")[0] == 200, "a picture to spy on")
    tab = browser.new_page()
    tab.goto(f"http://{host}:{evil(page)}/")
    until(lambda: tab.evaluate("window.out.done"), "the attack to end")
    out = tab.evaluate("out")
    spied = tab.evaluate("document.getElementById('spy').naturalWidth")
    framed = [frame.url for frame in tab.frames if frame.url == page.url]
    tab.close()
    assert (out["header"], out["credentials"], out["read"]) == ("refused", "refused", "refused")
    assert button.told == []
    assert spied == 0
    assert framed == []


def test_a_name_that_was_made_to_point_here_gets_nothing(browser, running):
    button = Button()
    page, _ = running(recorder=button)
    tab = browser.new_page()
    answer = tab.goto(f"http://evil.example:{port_of(page)}/")
    assert answer.status == 403
    assert "unknown host" in tab.inner_text("body")
    tab.evaluate("fetch('/record/start', {method: 'POST', headers: {'X-Edge-KP': '1'}}).then(a => a.status)")
    tab.close()
    assert button.told == []
