"""Who can be in error."""

from __future__ import annotations

from typing import Literal

Party = Literal["frontend", "backend", "both", "undetermined"]
"""`undetermined`: someone was, but it cannot be told who; or someone no sanction reaches."""
