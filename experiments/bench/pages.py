"""Pages and traces: how long `jaxchain.explore` takes, and how soon a browser can use the page."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from common import browser

import jaxchain as jc
from bench.core import Row
from bench.models import Case, of_net


def report_pages(seed: int, quick: bool) -> Iterable[Row]:
    """Seconds to make a page, its size, and seconds until a headless browser can use it."""
    layers = 5 if quick else 1000
    cases: dict[str, tuple[Case, float, float, float]] = {
        "digits MLP": (of_net(jc.nets.mlp([64, 128, 64, 10]), (64,), seed), 10, 3e6, 1),
        f"{2 * layers:,} stages": (deep(layers, seed), 60, 10e6, 3),
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, ((fun, args), making, size, opening) in cases.items():
            start = time.perf_counter()
            path = jc.report(fun, *args, path=Path(folder) / "report.html")
            yield Row(f"page of {name}: time to make", time.perf_counter() - start, None, "s", at_most=making)
            yield Row(f"page of {name}: size", path.stat().st_size, None, "B", at_most=size)
            if (seconds := until_ready(path)) is not None:
                yield Row(f"page of {name}: until it can be used", seconds, None, "s", at_most=opening)


def deep(layers: int, seed: int) -> Case:
    """Two stages a layer, each layer with weights of its own."""
    weights = jax.random.normal(jax.random.key(seed), (layers, 16, 16)) / 4

    def fun(weights: jax.Array, x: jax.Array) -> jax.Array:
        for k in range(layers):
            x = jnp.tanh(weights[k] @ x)
        return x

    return fun, (weights, jnp.ones(16))


def until_ready(path: Path) -> float | None:
    """Seconds from asking for a page until it answers to keys; ``None`` where there is no browser to ask."""
    try:
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service
        from selenium.webdriver.support.ui import WebDriverWait
    except ImportError:
        print("  selenium is not installed: no browser.")
        return None
    chromium, chromedriver = browser(), shutil.which("chromedriver")
    if chromium is None or chromedriver is None:
        print("  There is no Chromium with its driver on this machine: no browser.")
        return None
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=Service(chromedriver))
    try:
        driver.get(path.as_uri())
        ready = "return document.documentElement.dataset.ready && performance.now() / 1000"
        return float(WebDriverWait(driver, 60, 0.02).until(lambda d: d.execute_script(ready)))
    finally:
        driver.quit()


def traces(seed: int, quick: bool) -> Iterable[Row]:  # noqa: ARG001
    """Seconds to trace a thousand equations, what JAX compiles on the way included."""

    def fun(x: Any) -> Any:
        for _ in range(500):
            x = jnp.sin(x) * x
        return x

    start = time.perf_counter()
    found = jc.trace(fun, jnp.ones(8))
    yield Row(f"trace of {len(found.rows) - 2:,} equations", time.perf_counter() - start, None, "s", at_most=5)


BENCHMARKS: tuple[Callable[[int, bool], Iterable[Row]], ...] = (report_pages, traces)
