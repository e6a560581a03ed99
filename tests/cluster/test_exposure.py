"""Whether a dashboard is open to strangers: asked without a token, over the machine's own network address."""

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import ray

from ice_ray.cluster.submission import open_dashboard

HERE = ray.util.get_node_ip_address()


@contextmanager
def answering(status: int, host: str):
    """A server that answers everything so, and keeps what it was asked."""
    asked = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append((self.path, self.headers.get("Authorization")))
            self.send_response(status)
            self.end_headers()

        def log_message(self, *words):
            pass

    server = HTTPServer((host, 0), Answer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"{host}:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.skipif(HERE.startswith("127."), reason="this machine has no network address but the loopback's")
@pytest.mark.parametrize(("status", "is_open"), [(200, True), (401, False), (403, False), (500, False)])
def test_from_outside(status, is_open):
    with answering(status, HERE) as (address, asked):
        assert open_dashboard(address) == open_dashboard(f"http://{address}") == is_open
    assert asked == [("/api/jobs/", None)] * 2


def test_the_loopback_is_nobody_else_s():
    with answering(200, "127.0.0.1") as (address, asked):
        assert not open_dashboard(address)
        assert not open_dashboard(address.replace("127.0.0.1", "localhost"))
    assert not asked


@pytest.mark.parametrize("nothing", ["", "http://", f"{HERE}:1", "[::1]:80"])
def test_where_nobody_answers(nothing):
    assert not open_dashboard(nothing)
