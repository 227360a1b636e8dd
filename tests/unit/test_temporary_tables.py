"""What a run wrote down for itself, and how it ended."""

from __future__ import annotations

import pytest

from entitymill.tables.temporary_tables import given_back


class Closes:
    """Two of what is to be given back; of the first that may fail."""

    def __init__(self, *, fails: bool) -> None:
        self.fails, self.done = fails, list[str]()

    def first(self) -> None:
        self.done.append("first")
        if self.fails:
            raise OSError("the storage is gone")

    def second(self) -> None:
        self.done.append("second")


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("end", [RuntimeError("the model is broken"), KeyboardInterrupt()])
def test_what_ended_a_run_is_not_hidden_by_what_could_not_be_given_back(end: BaseException, *, fails: bool) -> None:
    closes = Closes(fails=fails)
    with pytest.raises(type(end)) as raised, given_back(closes.first, closes.second):
        raise end
    assert raised.value is end
    assert closes.done == ["first", "second"]


def test_what_could_not_be_given_back_is_an_error_where_nothing_else_went_wrong() -> None:
    with pytest.raises(OSError, match="the storage is gone"), given_back(Closes(fails=True).first):
        pass
    closes = Closes(fails=False)
    with given_back(closes.first, closes.second):
        assert closes.done == []
    assert closes.done == ["first", "second"]
