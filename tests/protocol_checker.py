"""Walk through every interleaving of runs of the protocol's model, and check the tables after each step."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from protocol_model import Defect, Progress, Run, RunFailedError
from protocol_promises import ViolationError, check_documents, check_world
from protocol_tables import Change, Commit, ReadSource, Snapshot, Step, World

TRIES = 3
FAIL, RESUME = "fail", "resume"
"""Special results of a step. FAIL: the run gets `RunFailedError`. RESUME: the run takes its commit as finished."""


class Node:
    """A point in a run: the progress before the current step of the protocol, and the results that the run has seen since.

    Equal points are the same object. A run attempts a commit up to TRIES times. A point after the commit does not depend on
    the results of these attempts.
    """

    def __init__(
        self, run: Run, progress: Progress, history: tuple[Any, ...] = (), points: dict[Any, Node] | None = None
    ) -> None:
        self.run, self.progress, self.history, self.origin, self.attempt = run, progress, history, self, 0
        self.points: dict[Any, Node] = {} if points is None else points
        self.children: dict[Any, Node] = {}
        self.step: Step | None = None
        self.change: Change | None = None
        self.outcome: str | None = None

    @classmethod
    def of(
        cls, run: Run, progress: Progress | None = None, history: tuple[Any, ...] = (), points: dict[Any, Node] | None = None
    ) -> Node:
        """Return the point of a run with this progress and these results."""
        points = {} if points is None else points
        progress = progress or Progress()
        key = progress, history
        if key in points:
            return points[key]
        steps = run.steps(progress)
        try:
            request = next(steps)
            for seen in history:
                request = steps.throw(RunFailedError) if seen is FAIL else steps.send(seen)
        except StopIteration as stop:
            node = Node(run, progress, history, points)
            if isinstance(stop.value, Progress):
                node = cls.of(run, stop.value, (), points)
            else:
                node.outcome = stop.value
        except RunFailedError:
            if progress.step in (2, 7):
                node = Node(run, progress, history, points)
                node.outcome = "failed"
            else:
                node = cls.of(run, progress._replace(step=7, status="failed"), (), points)
        else:
            node = Node(run, progress, history, points)
            if isinstance(request, Change):
                node.change, node.step = request, Snapshot(request.table, request.number)
            else:
                node.step = request
        points[key] = node
        return node

    def is_first(self) -> bool:
        """Return whether the run has not done anything yet."""
        return self.progress.step == 2 and not self.history

    def after(self, seen: Any) -> Node:
        """Return the next point of a run whose current step returns `seen`."""
        child = self.children.get(seen)
        if child is None:
            child = self.children[seen] = self._after(seen)
        return child

    def _after(self, seen: Any) -> Node:
        if self.change is None or (seen is FAIL and self is self.origin):
            return Node.of(self.run, self.progress, (*self.history, seen), self.points)
        if seen is FAIL:
            return self.origin.after(FAIL)
        if isinstance(self.step, Snapshot):
            return self._resumed() if seen is None else self._trying(self.attempt, Commit(self.change, seen))
        if seen:
            return self._resumed()
        if self.attempt + 1 == TRIES:
            return self.origin.after(FAIL)
        number = self.change.number + (self.run.defect is Defect.NUMBER_PER_TRY)
        return self._trying(self.attempt + 1, Snapshot(self.change.table, number))

    def _resumed(self) -> Node:
        if RESUME not in self.origin.children:
            self.origin.children[RESUME] = Node.of(self.run, self.progress, (*self.history, None), self.points)
        return self.origin.children[RESUME]

    def _trying(self, attempt: int, step: Snapshot | Commit) -> Node:
        key = attempt, step
        if key not in self.origin.children:
            node = copy.copy(self.origin)
            node.children, node.attempt, node.step = {}, attempt, step
            if isinstance(step, Snapshot) and self.change is not None:
                node.change = self.change._replace(number=step.number)
            self.origin.children[key] = node
        return self.origin.children[key]


class Move(NamedTuple):
    """A step that a run took, and its result."""

    node: Node
    step: Step
    seen: Any
    world: World
    after: Node

    def __str__(self) -> str:
        return f"{self.node.run.run_id}: {self.step} -> {self.seen}"


class State(NamedTuple):
    """A state of the tables and of all runs, from which the exploration can continue.

    current: number of the run that took the last step; None if the number of switches is not limited.
    switches: how often the next step may still come from another run than the last step; None: no limit.
    failures: how many steps may still fail.
    """

    world: World
    nodes: tuple[Node, ...]
    current: int | None
    switches: int | None
    failures: int


class Checker:
    """Explores every state that some runs can reach.

    versions: number of versions of the source.
    last: run that starts after all others, and that nothing disturbs.
    """

    def __init__(self, versions: int, last: Run) -> None:
        self.versions, self.last = versions, last
        self.states = 0
        self.points: dict[Any, Node] = {}
        self.worlds: dict[World, World] = {}
        self.known_moves: dict[tuple[int, Node], list[Move]] = {}
        self.origins: dict[Any, tuple[State, Move] | None] = {}

    def explore(self, start: World, runs: Iterable[Run], *, switches: int | None = None, failures: int = 0) -> None:
        """Visit every state that the runs can reach."""
        first = State(self.checked(start), tuple(Node.of(run) for run in runs), None, switches, failures)
        waiting, self.origins = [first], {self.key(first): None}
        while waiting:
            state = waiting.pop()
            try:
                for move, following in self.successors(state):
                    key = self.key(following)
                    if key not in self.origins:
                        self.origins[key] = state, move
                        self.check_outcome(move)
                        waiting.append(following)
            except ViolationError as error:
                raise ViolationError(f"{error}\n" + "\n".join(self.path(state))) from None
        self.states += len(self.origins)

    @staticmethod
    def key(state: State) -> Any:
        return id(state.world), *state[1:]  # an equal world is the same object: see `checked`

    def successors(self, state: State) -> Iterator[tuple[Move, State]]:
        for number, node in enumerate(state.nodes):
            if number and state.nodes[number - 1].is_first():
                return  # runs begin in their order
            current, left = None, state.switches
            if left is not None:
                current, left = number, left - (state.current not in (None, number))
                if left < 0:
                    continue
            for failures in {state.failures, max(0, state.failures - 1)}:
                for move in self.moves(state.world, node, failing=failures < state.failures):
                    nodes = (*state.nodes[:number], move.after, *state.nodes[number + 1 :])
                    yield move, State(move.world, nodes, current, left, failures)

    def moves(self, world: World, node: Node, *, failing: bool = False) -> list[Move]:
        """Return the possible results of a run's next step; every world in them was checked."""
        if failing:
            return [move._replace(world=self.checked(move.world)) for move in failing_moves(world, node)]
        key = id(world), node
        if key not in self.known_moves:
            found = moves(world, node, self.versions)
            self.known_moves[key] = [move._replace(world=self.checked(move.world)) for move in found]
        return self.known_moves[key]

    def checked(self, world: World) -> World:
        """Check a world when it is seen for the first time. Return the same object for equal worlds."""
        if world not in self.worlds:
            self.worlds[world] = world
            check_world(world, self.last)
            self.check_last(world)
        return self.worlds[world]

    def check_last(self, start: World) -> None:
        """Check that the last run repairs all tables while all other runs stay frozen, whichever source version it reads."""
        waiting = [(start, Node.of(self.last, points=self.points))]
        while waiting:
            world, node = waiting.pop()
            if world is not start:
                check_world(world, self.last)
            if node.outcome not in (None, "done"):
                raise ViolationError(f"{self.last.run_id}, undisturbed, ends as {node.outcome}: {world}")
            waiting.extend((move.world, move.after) for move in moves(world, node, self.versions))

    @staticmethod
    def check_outcome(move: Move) -> None:
        rows = move.world.runs.rows if move.world.runs else ()
        if move.after.outcome == "done" and (move.after.run.run_id, "done") not in [
            (row.run_id, row.status) for row in rows
        ]:
            raise ViolationError(f"{move.after.run.run_id} reports done; runs has {rows}")

    def path(self, state: State) -> list[str]:
        steps: list[str] = []
        while (origin := self.origins[self.key(state)]) is not None:
            state, move = origin
            steps.append(str(move))
        return steps[::-1]


def moves(world: World, node: Node, versions: int) -> Iterator[Move]:
    """Yield the result of a run's next step, once for each version of the source that the step may read."""
    if node.step is None:
        return
    steps: list[Step] = [node.step]
    if isinstance(node.step, ReadSource) and node.step.version is None:
        steps = [ReadSource(version) for version in range(world.source_version, versions)]
    for step in steps:
        after, seen = step.apply(world)
        check_documents(step, world, after)
        yield Move(node, step, seen, after, node.after(seen))


def failing_moves(world: World, node: Node) -> Iterator[Move]:
    """Yield the results of a next step that fails. A commit may also take effect, and only its reply is lost."""
    if node.step is None:
        return
    yield Move(node, node.step, FAIL, world, node.after(FAIL))
    if isinstance(node.step, Commit):
        after, _ = node.step.apply(world)
        check_documents(node.step, world, after)
        yield Move(node, node.step, False, after, node.after(False))  # what a refused commit returns
