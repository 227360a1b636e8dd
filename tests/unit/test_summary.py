"""What identifies a run."""

from __future__ import annotations

from entitymill import settings
from entitymill.run.summary import compute_scope


def test_what_a_run_ignored_the_next_one_looks_at_again() -> None:
    """Else it would find the same scope and version as the run before, and nothing to do."""
    policies = ("reprocess", "refuse", "ignore")
    chosen = [["source.path=a", "output.path=b", f"incremental.on_fingerprint_change={policy}"] for policy in policies]
    reprocess, refuse, ignore = (compute_scope(settings.load(None, options, {}), "t") for options in chosen)
    assert reprocess == refuse != ignore
