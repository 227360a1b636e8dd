"""Whether the holder of a lease is known to be dead."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from entitymill.tables import lease

NO_PROCESS = "4194305"  # Linux gives out none above 4194304


@pytest.mark.parametrize(
    ("changed", "gone"),
    [
        ({}, False),
        ({"pid": NO_PROCESS}, True),
        ({"started": "1"}, True),  # the pid was given out anew
        ({"pid": NO_PROCESS, "boot": "another"}, False),  # of another machine, nobody here knows
        ({"pid": NO_PROCESS, "namespace": "pid:[1]"}, False),
    ],
)
def test_a_process_is_gone_where_this_kernel_has_it_no_more(changed: dict[str, str], *, gone: bool) -> None:
    assert lease.process_gone(json.dumps({**lease.this_process(), **changed})) == gone


@pytest.mark.parametrize("told", [None, "", "no JSON", "[]", "{}", '{"pid": "x"}'])
def test_of_what_tells_no_process_nothing_is_known(told: str | None) -> None:
    assert not lease.process_gone(told)
    assert lease.host_of(told) == "somewhere"


def test_one_that_proc_hides_from_other_users_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with hidepid: the kernel says that it may not be signalled, and /proc has nothing of it."""

    def refused(*_: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refused)
    assert not lease.process_gone(json.dumps({**lease.this_process(), "pid": NO_PROCESS}))


def test_one_that_only_waits_to_be_reaped_is_gone() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        told = json.dumps({**lease.this_process(), "pid": str(child.pid), "started": lease._started(child.pid)})
        alive = lease.process_gone(told)
        child.kill()
        while lease._started(child.pid) is not None:
            pass
        assert (alive, lease.process_gone(told)) == (False, True)  # not yet waited for
