# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare a plan with what is: ask.py PLAN sent TALKER PLACE=NETNS...    ask.py PLAN explained NODE

PLAN, as JSON: {"places": {name: [addresses]}, "passes": ["PLACE PLACE:80/tcp", ...], "stops": [...]}
sent        Really sends the flows that begin in these places. Prints those that are not as planned, one a line.
explained   Asks the node's own command about flows of its containers. Prints as JSON those that it denies.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

_PATIENCE = 10.0  # seconds for what must arrive
_SILENCE = 0.3  # seconds more for what must not
Plan = dict[str, Any]


class Flow(NamedTuple):
    text: str
    source: str
    kind: str
    address: str
    port: int


def flows(plan: Plan, texts: Sequence[str], places: Sequence[str]) -> list[Flow]:
    """Those that begin in these places, one for each address of the target."""
    found = []
    for text in texts:
        source, target = text.split()
        target, _slash, kind = target.rpartition("/")
        target, _colon, port = target.partition(":")
        kind = "ping" if kind == "icmp" else kind
        if source in places:
            found += [Flow(text, source, kind, address, int(port or 0)) for address in plan["places"][target]]
    return found


class Talker:
    """Sends from a place."""

    def __init__(self, program: str, netns: str) -> None:
        command = ["nsenter", f"--net={netns}", sys.executable, program, "", ""]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._line()

    def tell(self, *command: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def answered(self) -> set[int]:
        self.tell("state")
        return set(json.loads(self._line())[0])


def sent(plan: Plan, program: str, *places: str) -> list[str]:
    spaces = dict(place.split("=") for place in places)
    wanted = flows(plan, plan["passes"], list(spaces))
    every = [*wanted, *flows(plan, plan["stops"], list(spaces))]
    talkers = {place: Talker(program, netns) for place, netns in spaces.items()}
    for number, flow in enumerate(every):
        talkers[flow.source].tell("send", [[number, flow.kind, flow.address, flow.port]])
    arrived: set[int] = set()
    deadline = time.monotonic() + _PATIENCE
    while not arrived.issuperset(range(len(wanted))) and time.monotonic() < deadline:
        time.sleep(0.05)
        arrived = set().union(*(talker.answered() for talker in talkers.values()))
    time.sleep(_SILENCE)
    arrived = set().union(*(talker.answered() for talker in talkers.values()))
    for talker in talkers.values():
        talker.process.communicate()
    return [
        f"{flow.text} at {flow.address} {'arrived' if number in arrived else 'did not arrive'}"
        for number, flow in enumerate(every)
        if (number in arrived) != (number < len(wanted))
    ]


def explained(plan: Plan, node: str) -> list[str]:
    texts = [*plan["passes"], *plan["stops"]]
    mine = [text for text in texts if any(word.startswith(f"{node}/") for word in text.split())]
    return [json.dumps([text for text in mine if "deny" in _verdicts(plan, text)])]


def _verdicts(plan: Plan, text: str) -> set[str]:
    """Of both families, and of those of the two sides that are here."""
    source, target = text.split()
    place, _colon, port = target.partition(":")
    if "/" in place:
        targets = [target]
    else:  # no container: by its addresses
        targets = [
            f"[{address}]:{port}" if ":" in address else f"{address}:{port}" for address in plan["places"][place]
        ]
    answers = [answer for one in targets for answer in _ask(source, one)]
    assert len(answers) == 2, answers
    return {side["verdict"] for answer in answers for side in answer["verdicts"].values()}


def _ask(source: str, target: str) -> list[dict[str, Any]]:
    command = ["fastpath", "explain", "--json", "--from", source, "--to", target]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{source} to {target}: {done.stdout}{done.stderr}")
    answers: list[dict[str, Any]] = json.loads(done.stdout)
    assert all(answer["current"] for answer in answers), answers
    return answers


def main() -> None:
    path, what, *more = sys.argv[1:]
    plan = json.loads(Path(path).read_text(encoding="utf-8"))
    lines = sent(plan, *more) if what == "sent" else explained(plan, *more)
    sys.stdout.writelines(f"{line}\n" for line in lines)


if __name__ == "__main__":
    main()
