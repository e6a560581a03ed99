"""Silencing Ray Data's progress bars and log lines."""

from __future__ import annotations

import logging

import ray.data


def quiet_ray_data(level: int = logging.ERROR) -> None:
    """No progress bars, and of its log lines only those of `level` and above."""
    logging.getLogger("ray.data").setLevel(level)  # first: it warns of what the next lines ask for
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
