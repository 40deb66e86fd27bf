"""The page in a real browser: no complaint, no request, nothing wider than the screen, every plot really drawn."""

import json

import pytest
from PIL import Image, ImageStat

from ncdemo.report import write_report

LAYOUT = """(() => {
  const shown = [...document.querySelectorAll('figure svg')].filter(svg => svg.getBoundingClientRect().width > 0);
  return {
    overflow: document.documentElement.scrollWidth - innerWidth,
    alarms: [...document.querySelectorAll('figure svg path[style*="--bad"]')].map(path => getComputedStyle(path).stroke),
    plots: shown.map(svg => {
      const box = svg.getBoundingClientRect();
      const texts = [...svg.querySelectorAll('text')].filter(text => text.textContent.trim());
      return {
        label: svg.getAttribute('aria-label'), x: box.x, y: box.y + scrollY, width: box.width, height: box.height,
        font: Math.min(...texts.map(text => parseFloat(getComputedStyle(text).fontSize) * box.width / svg.viewBox.baseVal.width)),
        cut: texts.filter(text => {
          const inner = text.getBoundingClientRect();
          return inner.left < box.left - 12 || inner.right > box.right + 12 || inner.top < box.top - 4 || inner.bottom > box.bottom + 4;
        }).map(text => text.textContent),
      };
    }),
  };
})()"""


def with_links(run):
    """Give its GPUs the fields that are read once a second, two processes each, and an XID."""
    samples = [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]
    for i, sample in enumerate(samples[::2]):
        for gpu in [gpu for gpu in sample["gpus"] if not gpu["error"]]:
            gpu |= {"pcie_tx_bytes_per_s": 1e9 + i, "pcie_rx_bytes_per_s": 2e9, "nvlink_tx_bytes": i * 90_000_000, "nvlink_rx_bytes": i}
            gpu |= {"processes": [{"pid": 4123456 + n, "memory_bytes": (n + 1) << 33} for n in range(2)], "xids": [63] * (i == 10)}
    (run / "samples.jsonl").write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    return run


@pytest.mark.parametrize(("width", "dark"), [(1200, False), (1200, True), (480, False)])
def test_page_in_chromium(train_run, bench_run, browser, tmp_path, width, dark):
    if not browser.find():
        pytest.skip("Chromium is not installed (apt-get install chromium)")
    runs = [train_run("slow"), with_links(train_run("gpu", seed=2, gpus=8, lost=1)), bench_run(flaw=True)]
    page = write_report(runs, tmp_path / "report.html")
    png = tmp_path / "page.png"
    with browser.Chromium() as chromium:
        visit = chromium.visit(page.as_uri(), png=png, width=width, dark=dark, script=LAYOUT)
    assert visit.errors == []
    assert visit.requests == [page.as_uri()]
    assert visit.value["overflow"] <= 0
    assert set(visit.value["alarms"]) == {"rgb(255, 171, 155)" if dark else "rgb(163, 33, 15)"}, "an XID's mark is seen on both papers"
    plots = visit.value["plots"]
    assert len(plots) == 7 + 4 + 3
    image = Image.open(png).convert("L")
    for plot in plots:
        assert plot["cut"] == [], plot["label"]
        assert plot["font"] >= 8, plot["label"]
        box = [round(edge) for edge in (plot["x"], plot["y"], plot["x"] + plot["width"], plot["y"] + plot["height"])]
        assert ImageStat.Stat(image.crop(box)).stddev[0] > 5, f"nothing is drawn: {plot['label']}"
    assert (ImageStat.Stat(image).mean[0] < 100) is dark


def test_the_browser_helper_sees_errors(browser, tmp_path):
    if not browser.find():
        pytest.skip("Chromium is not installed (apt-get install chromium)")
    page = tmp_path / "bad.html"
    page.write_text("<script>console.error('first'); throw new Error('second')</script><img src='absent.png'>")
    with browser.Chromium() as chromium:
        visit = chromium.visit(page.as_uri())
    assert "first" in visit.errors
    assert any("Uncaught" in error for error in visit.errors)
    assert any("ERR_FILE_NOT_FOUND" in error for error in visit.errors)
    assert len(visit.requests) == 2
