"""Events that processes send to the driver, through a real Ray."""

import sys
import threading

import pytest
import ray
import torch

from ice_ray.cluster.events import EventChannel
from ice_ray.cluster.session import ray_session


@pytest.mark.slow
def test_events_arrive_in_order_and_what_holds_them_imports_nothing_for_it(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "local")
    heard, enough = [], threading.Event()

    def receive(kind, content):
        heard.append((kind, content))
        if kind == "last":
            enough.set()

    def send(channel: EventChannel) -> None:
        for number in range(3):
            channel.send("tensor", torch.full((2,), float(number)))

    with ray_session():
        channel = EventChannel()
        with channel.listening(receive):
            ray.get(ray.remote(num_cpus=0)(send).remote(channel))
            channel.send("last", None)
            assert enough.wait(60)
        imported = ray.get(channel._mailbox.__ray_call__.remote(lambda _: "torch" in sys.modules))
    assert [(kind, None if content is None else content.tolist()) for kind, content in heard] == [
        *(("tensor", [float(number)] * 2) for number in range(3)),
        ("last", None),
    ]
    assert not imported
