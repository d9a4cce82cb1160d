"""The page of ``ddim play`` in a real browser: one server and one browser for all tests of this file."""

import importlib.util
import json
import re
import select
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
from PIL import Image

from tests.helpers import ROOT

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
  pytest.mark.slow,
  pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install chromium"),
  *(
    pytest.mark.skipif(importlib.util.find_spec(name) is None, reason=f"needs {name}: the extra release")
    for name in ("gradio", "playwright")
  ),
]
_PATIENCE = 120_000
"""Milliseconds; something is compiled."""


@pytest.fixture(scope="module")
def address(compilation_cache, small, tmp_path_factory):
  """A server with a small model; what it writes unasked would be in its temporary folder."""
  patch = pytest.MonkeyPatch()
  folder = tmp_path_factory.mktemp("gradio")
  patch.setenv("GRADIO_TEMP_DIR", str(folder))
  patch.setenv("JAX_COMPILATION_CACHE_DIR", str(compilation_cache))
  patch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=1")
  command = [sys.executable, "-m", "ddim_jax", "play", str(small), "--port", "0"]
  process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
  try:
    ready, _, _ = select.select([process.stdout], [], [], 240)
    line = process.stdout.readline() if ready else ""
    assert line.startswith("open http://127.0.0.1:"), (line, process.poll())
    yield line.split()[1]
  finally:
    process.kill()
    process.communicate()
    patch.undo()
  assert [path for path in folder.rglob("*") if path.is_file()] == []  # nothing is written unasked


@pytest.fixture(scope="module")
def browser():
  from playwright.sync_api import sync_playwright

  with sync_playwright() as running:
    opened = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
    yield opened
    opened.close()


@pytest.fixture
def page(browser, address):
  """A page of its own, on which the first pictures have come; any error of the page fails the test."""
  opened, errors = browser.new_page(viewport={"width": 1280, "height": 900}), []
  opened.set_default_timeout(_PATIENCE)
  opened.on("pageerror", lambda error: errors.append(error))
  outside = re.compile(r"^(http://127\.0\.0\.1|data:|blob:)")
  opened.on("request", lambda sent: errors.append(sent.url) if not outside.match(sent.url) else None)
  opened.goto(address)
  opened.wait_for_selector("#draw-download a")
  yield opened
  opened.close()
  assert errors == []


def set_number(page, name, value):
  field = page.locator(f"#{name} input[type=number]")
  field.fill(str(value))
  field.press("Enter")


def sources(page, place):
  return page.eval_on_selector_all(f"#{place}-pictures img", "all => all.map(one => one.src)")


def go(page, tab):
  page.locator("#tabs label").filter(has_text=tab).click()


def wait_for(page, place, text):
  page.wait_for_function(f"document.querySelector('#{place}-status')?.innerText.includes({json.dumps(text)})")


def test_pictures_follow_the_settings_and_so_does_the_address(page, address, browser):
  first = sources(page, "draw")
  assert len(first) == 16  # eight images, and eight predictions
  set_number(page, "steps", 3)
  wait_for(page, "draw", "3 steps, done")
  assert sources(page, "draw") != first
  page.wait_for_function("location.search == '?steps=3'")
  link = page.locator("#draw-download a").get_attribute("href")
  assert link.startswith("data:image/png;base64,")
  again = browser.new_page()  # who opens the link sees the same pictures
  again.set_default_timeout(_PATIENCE)
  again.goto(page.url)
  wait_for(again, "draw", "3 steps, done")
  assert sources(again, "draw") == sources(page, "draw")
  again.goto(address + "?steps=none")
  again.wait_for_selector("#refused [role=alert]")
  assert "steps must be an integer, got 'none'" in again.inner_text("#refused")
  again.close()


def test_the_slider_shows_how_the_pictures_came_about(page):
  final = sources(page, "draw")
  slider = page.locator("#scrub input[type=range]")
  slider.focus()
  slider.press("Home")
  page.wait_for_function("document.querySelector('#draw-pictures h3').innerText == 'At level 801'")
  assert sources(page, "draw") != final


def test_two_pages_have_states_of_their_own(page, browser, address):
  other = browser.new_page()
  other.set_default_timeout(_PATIENCE)
  other.goto(address)
  other.wait_for_selector("#draw-download a")
  assert sources(other, "draw") == sources(page, "draw")
  set_number(page, "seed", 5)
  set_number(other, "steps", 4)
  wait_for(other, "draw", "4 steps, done")
  page.wait_for_function("location.search == '?seed=5'")
  assert other.evaluate("location.search") == "?steps=4"
  assert sources(other, "draw") != sources(page, "draw")
  other.close()


def test_a_picture_is_uploaded_masked_and_painted(page, tmp_path):
  picture = np.full((40, 40, 3), 255, np.uint8)
  Image.fromarray(picture).save(tmp_path / "white.tif")
  (tmp_path / "text.png").write_text("this is no picture")
  (tmp_path / "large.png").write_bytes(bytes(8_000_001))
  go(page, "Your picture")
  page.locator("#paint").click()
  wait_for(page, "pictures", "Choose a picture first")
  for name, said in (("text.png", "it is no picture"), ("large.png", "at most 8 MB, got 8.0 MB")):
    page.set_input_files("#choose input", str(tmp_path / name))
    page.wait_for_function(f"document.querySelector('#said').innerText.includes({json.dumps(said)})")
  page.set_input_files("#choose input", str(tmp_path / "white.tif"))
  page.wait_for_function("document.querySelector('#said').innerText.includes('Draw over')")
  page.wait_for_function(
    "document.querySelector('#canvas canvas').getContext('2d').getImageData(8, 8, 1, 1).data[0] == 255"
  )
  box = page.locator("#canvas canvas").bounding_box()
  page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + box["height"] * 0.5)
  page.mouse.down()
  page.mouse.move(box["x"] + box["width"] * 0.75, box["y"] + box["height"] * 0.5, steps=4)
  page.mouse.up()
  set_number(page, "steps", 4)
  page.locator("#paint").click()
  page.wait_for_selector("#pictures-download a")
  pixels = """async () => {
    const image = document.querySelectorAll('#pictures-pictures img')[1];
    await image.decode();
    const canvas = document.createElement('canvas');
    canvas.width = canvas.height = 16;
    const context = canvas.getContext('2d');
    context.drawImage(image, 0, 0);
    return Array.from(context.getImageData(0, 0, 16, 16).data).filter((_, i) => i % 4 == 0);
  }"""
  painted = np.array(page.evaluate(pixels)).reshape(16, 16)
  assert (painted[:4] == 255).all()  # kept
  assert (painted[12:] == 255).all()
  assert (painted[7:9, 4:12] < 255).any()  # painted anew
  page.locator("#edit").click()
  page.wait_for_function("document.querySelector('#pictures-pictures').innerText.includes('Drawn again')")


def test_a_long_computation_shows_how_far_it_is_and_stops(page):
  set_number(page, "steps", 250)
  page.wait_for_function("/step \\d+ of 250/.test(document.querySelector('#draw-status').innerText)")
  page.locator("#stop").click()
  time.sleep(1)
  halted = page.inner_text("#draw-status")
  time.sleep(1)
  assert page.inner_text("#draw-status") == halted
  assert "250 steps, done" not in halted


def test_solvers_stand_side_by_side_and_two_seeds_have_a_way_between(page):
  go(page, "Solvers")
  page.locator("#names label").filter(has_text="deis3").click()
  page.locator("#names label").filter(has_text="unipc2").click()
  set_number(page, "evaluations", 4)
  page.locator("#compare").click()
  page.wait_for_selector("#solvers-download a")
  titles = page.locator("#solvers-pictures h3").all_inner_texts()
  assert titles == ["ddim, 4 steps, 4 evaluations", "dpmpp-2m, 4 steps, 4 evaluations"]
  go(page, "Between two")
  page.locator("button#between").click()
  page.wait_for_selector("#between-download a")
  middle = sources(page, "between")
  slider = page.locator("#weight input[type=range]")
  slider.focus()
  slider.press("End")
  page.wait_for_function(
    "document.querySelector('#between-pictures h3').innerText == 'Weight 1.00'"
    " && document.querySelector('#between-status').innerText.includes('done')"
  )
  found = sources(page, "between")
  assert found[0] != middle[0]
  assert found[1:] == middle[1:]
  assert found[0] == found[-1]


@pytest.mark.parametrize("path", ["gradio_api/upload", "gradio_api/queue/join"])
def test_no_file_and_no_large_request_is_taken(address, path):
  body = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\nhello\r\n--x--\r\n'
  body = body if path.endswith("upload") else bytes(17_000_000)
  request = urllib.request.Request(address + path, body, {"Content-Type": "multipart/form-data; boundary=x"})
  with pytest.raises((urllib.error.HTTPError, ConnectionError, urllib.error.URLError)) as refused:
    urllib.request.urlopen(request)
  if isinstance(refused.value, urllib.error.HTTPError):
    assert refused.value.code == 413
    refused.value.close()
