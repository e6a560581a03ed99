"""Choices of how data are read, and of which images decide."""

from __future__ import annotations

from typing import Literal

DataErrors = Literal["stop", "skip"]
Placement = Literal["auto", "memory", "stream"]
DecideOn = Literal["holdout", "test", "train"]
