"""The repairs by name."""

from __future__ import annotations

from typing import Literal

RepairKind = Literal["none", "bn", "least-squares", "reconstruction"]
