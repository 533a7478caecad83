"""The debug server: health and metrics of all processes together."""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.server.harness import Raw, eventually, registry

if TYPE_CHECKING:
    from pathlib import Path


def test_health_when_all_is_well_then_it_is_an_empty_object(tmp_path: Path) -> None:
    with registry(tmp_path) as running:
        answer = httpx.get(f"{running.debug}/debug/health")
        assert (answer.status_code, answer.json()) == (200, {})
        assert httpx.post(f"{running.debug}/debug/health").status_code == 405
        assert httpx.get(f"{running.debug}/").status_code == 404
        assert httpx.head(f"{running.debug}/debug/health").status_code == 200


def test_health_when_a_check_fails_then_it_is_named_with_a_sentence(tmp_path: Path) -> None:
    sick = tmp_path / "sick"
    with registry(tmp_path, _env={"STANDIN_SICK": str(sick)}) as running:
        sick.touch()
        eventually(lambda: httpx.get(f"{running.debug}/debug/health").status_code == 503)
        assert httpx.get(f"{running.debug}/debug/health").json() == {"database": "the stand-in is sick"}
        sick.unlink()
        eventually(lambda: httpx.get(f"{running.debug}/debug/health").status_code == 200)


def test_health_when_a_worker_hangs_then_it_says_so(tmp_path: Path) -> None:
    with registry(tmp_path) as running, Raw(running.address) as client:
        client.get("/hang?seconds=6")
        answer = eventually(lambda: _unwell(running.debug))
        assert answer == {"workers": "1 of 2 worker processes do not answer"}
        assert client.answer()[0] == 200
        eventually(lambda: httpx.get(f"{running.debug}/debug/health", timeout=20).status_code == 200)


def test_health_when_the_registry_stops_then_it_is_unwell(tmp_path: Path) -> None:
    seen, go = tmp_path / "seen", tmp_path / "go"
    with registry(tmp_path) as running, Raw(running.address) as client:
        client.get(f"/slow?seen={seen}&go={go}")
        eventually(seen.exists)
        running.process.send_signal(signal.SIGTERM)
        assert eventually(lambda: _unwell(running.debug)) == {"shutdown": "the registry is stopping"}
        go.touch()
        assert client.answer()[0] == 200
        assert running.process.wait(30) == 0


def test_metrics_when_several_workers_count_then_the_page_has_the_sum(tmp_path: Path) -> None:
    with registry(tmp_path) as running:
        for _ in range(40):
            httpx.get(f"{running.url}/who")
        page = samples(running.debug)
        assert page["registry_http_requests_total", "GET", "/who"] == 40
        assert page["registry_http_response_bytes_total", "/who"] == 200
        assert page["registry_http_request_duration_seconds_count", "GET", "/who"] == 40
        assert page["registry_database_query_duration_seconds_count", "stand_in"] == 2
        assert page["registry_database_pool_connections", "in_use"] == 2
        assert page["registry_database_pool_connections", "idle"] == 4


def test_metrics_when_a_worker_dies_then_its_counts_stay_and_its_connections_do_not(tmp_path: Path) -> None:
    with registry(tmp_path, workers=1) as running:
        for _ in range(5):
            httpx.get(f"{running.url}/who")
        os.kill(running.workers()[0], signal.SIGKILL)
        httpx.get(f"{running.url}/who", timeout=20)
        page = samples(running.debug)
        assert page["registry_http_requests_total", "GET", "/who"] == 6
        assert page["registry_database_pool_connections", "idle"] == 2


def test_metrics_when_they_are_off_then_there_is_no_page(tmp_path: Path) -> None:
    debug = {"addr": "127.0.0.1:0", "prometheus": {"enabled": False}}
    with registry(tmp_path, debug=debug, workers=1) as running:
        assert httpx.get(f"{running.debug}/metrics").status_code == 404
        assert list(tmp_path.glob("registry-metrics-*")) == []


def test_metrics_when_they_have_another_path_then_they_are_there(tmp_path: Path) -> None:
    debug = {"addr": "127.0.0.1:0", "prometheus": {"enabled": True, "path": "/other"}}
    with registry(tmp_path, debug=debug, workers=1) as running:
        assert httpx.get(f"{running.debug}/other").headers["content-type"].startswith("text/plain")
        openmetrics = httpx.get(f"{running.debug}/other", headers={"Accept": "application/openmetrics-text"})
        assert openmetrics.text.endswith("# EOF\n")
        assert httpx.get(f"{running.debug}/metrics").status_code == 404


def test_metrics_when_many_scrape_at_once_then_all_get_a_page(tmp_path: Path) -> None:
    with registry(tmp_path, workers=1) as running:
        statuses: list[int] = []

        def scrape() -> None:
            statuses.append(httpx.get(f"{running.debug}/metrics", timeout=20).status_code)

        threads = [threading.Thread(target=scrape) for _ in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert statuses == [200] * 10


def samples(url: str) -> dict[tuple[str, ...], float]:
    """Name and label values (of the labels sorted by name, but the status code) → value."""
    page = httpx.get(f"{url}/metrics").text
    return {
        (
            sample.name,
            *(value for key, value in sorted(sample.labels.items()) if key not in {"code", "le"}),
        ): (sample.value)
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def _unwell(url: str) -> dict[str, str]:
    answer = httpx.get(f"{url}/debug/health", timeout=20)
    return answer.json() if answer.status_code == 503 else {}
