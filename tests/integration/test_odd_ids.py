"""Test ids that look like SQL, format strings, variables, patterns or escapes, in units below and above MAX_LISTED_IDS."""

from __future__ import annotations

import pytest

from entitymill.tables.publisher import MAX_LISTED_IDS

from .stub_world import World, make_texts, world

__all__ = ["world"]
SHAPES = (
    "{{source}} {n}",
    "{{source.sparkSession.version}}{n}",
    "{{{n:08}-1111-2222-3333-444455556666}}",
    "{{}}{n}",
    "{{view}}{n}",
    "${{spark.app.name}}{n}",
    "x'{n}",
    'x"{n}',
    "x`{n}",
    "\\{n}\\",
    "\\u0041{n}",
    "a\x00b{n}",
    "%s%d_{n}",
    "{n}; DROP TABLE x --",
    "/* {n} */",
    "\n\t{n}\r",
    "\U0001f600{n}",
    "e\u0301{n}",
)
LONG = "x" * 5_000


def odd_ids(number: int) -> list[str]:
    return [LONG, *(SHAPES[at % len(SHAPES)].format(n=at) for at in range(number - 1))]


@pytest.mark.parametrize(
    "number", [len(SHAPES) * 3, pytest.param(MAX_LISTED_IDS + 200, marks=pytest.mark.deep)], ids=["few", "many"]
)
def test_odd_ids_are_stored_changed_and_removed(world: World, number: int) -> None:
    ids = odd_ids(number)
    assert len(set(ids)) == number
    world.create({key: f"Name{at} Town{at} text" for at, key in enumerate(ids)})
    world.run()
    world.check()

    world.put({key: f"New{at} Place{at} text" for at, key in enumerate(ids)})
    world.run()
    world.check()

    gone = ids[::5]
    world.delete_all(gone)
    world.put({key: f"Last{at} Place{at} text" for at, key in enumerate(ids) if key not in set(gone)})
    assert world.run().removed == len(gone)
    world.check()
    assert world.run().units == 0


def test_an_output_may_have_any_path(world: World) -> None:
    name = "o${x} {source} {} {source.sparkSession.version} it's `x`"
    odd = World(world.spark, world.directory / name)
    odd.directory.mkdir()
    odd.create(make_texts(4))
    odd.run()
    odd.put({"d01": "Newname Newtown text"})
    odd.run()
    odd.check()
    assert {path.name for path in world.directory.iterdir()} <= {name, "source"}
