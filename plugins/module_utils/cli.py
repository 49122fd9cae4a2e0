# SPDX-License-Identifier: GPL-3.0-or-later
"""The command `fastpath` on a node: the same library and the same plan as the modules, without a controller."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, Callable

from . import explain, run, status, store
from .errors import FastpathError
from .follow import follow
from .resources import confirm


def main(arguments: Sequence[str] | None = None) -> int:
    """0: done; 1: failed, the reason on stderr; 2: `plan` found something to do."""
    options = _parser().parse_args(arguments)
    try:
        return _COMMANDS[options.command](options)
    except (FastpathError, OSError) as error:
        sys.stderr.write(f"fastpath: {error}\n")
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fastpath", description="The node's dataplane, from /etc/fastpath")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in _HELP.items():
        command = commands.add_parser(name, help=text)
        command.add_argument("--json", action="store_true", help="print JSON")
        if name in ("plan", "apply"):
            command.add_argument("--skip-absent", action="store_true", help="leave out attachments without a container")
            command.add_argument("--allow-disruption", action="store_true", help="go on though traffic is disturbed")
            command.add_argument(
                "--only", nargs="+", choices=_RESOURCES, default=_RESOURCES, help="leave out the others"
            )
            command.add_argument("--wait", type=float, default=0, metavar="S", help="seconds for NICs to appear")
        if name == "revert":
            command.add_argument("--due", action="store_true", help="wait until the time to confirm it is over")
            command.add_argument("--wait", type=float, default=0, metavar="S", help="seconds for NICs to appear")
        if name == "explain":
            command.add_argument("--from", dest="source", required=True, metavar="A", help="a container or an address")
            command.add_argument("--to", required=True, metavar="B:443/tcp", help="the same, with port and protocol")
        if name == "drops":
            command.add_argument("--follow", action="store_true", required=True, help="print each packet as it goes")
            command.add_argument("--count", type=_positive, metavar="N", help="end after N packets")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def _status(options: argparse.Namespace) -> int:
    found = status.status()
    _print(json.dumps(found, indent=2) if options.json else status.render(found))
    return 0


def _plan(options: argparse.Namespace) -> int:
    results, failed = _converge(options, check=True)
    return 1 if failed else 2 if any(result["changed"] for result in results.values()) else 0


def _apply(options: argparse.Namespace) -> int:
    return int(_converge(options, check=False)[1])


def _converge(options: argparse.Namespace, check: bool) -> tuple[dict[str, dict[str, Any]], bool]:
    """NICs, dataplane, attachments, policies, each as its document says; one without a document is left alone.

    Attachments bring the policies with them: they publish nobody before those are in force. So at boot policies are
    compiled once, when it is known whom they select; what comes after only finds that it is so.

    Returns what was done, and whether something failed: that of the one does not keep the other from being tried.
    """
    allow, wish = options.allow_disruption, store.salvaged("dataplane", None)
    skip = options.skip_absent
    results: dict[str, dict[str, Any]] = {}
    errors: list[str] = []

    def nics() -> Any:
        return store.read("eswitch") if results.get("eswitch", {}).get("changed") else None

    works: dict[str, Callable[[Any], dict[str, Any]]] = {
        "eswitch": lambda items: run.restore_eswitch(items, wait=options.wait, check=check, allow_disruption=allow),
        "dataplane": lambda config: run.run_dataplane(
            config, "replaced", nics=nics(), check=check, allow_disruption=allow
        ),
        "attachments": lambda items: run.run_attachments(
            items, "overridden", ahead=run.Ahead(wish, nics()), skip_absent=skip, check=check, allow_disruption=allow
        ),
        "policies": lambda _kept: run.run_policies([], "merged", assume=wish, check=check),
    }
    for name in (name for name in works if name in options.only):
        try:
            document = store.read(name)
            if document is not None:
                results[name] = works[name](document)
                errors += [f"cannot find the NIC with {words}" for words in results[name].get("absent", ())]
                errors += [f"cannot attach {who}: no VF is free" for who in results[name].get("without_vf", ())]
        except (FastpathError, OSError) as error:
            errors.append(str(error))
    _report(options, results)
    sys.stderr.write("".join(f"fastpath: {text}\n" for text in dict.fromkeys(errors)))
    return results, bool(errors)


def _rollback(options: argparse.Namespace) -> int:
    _report(options, {"dataplane": run.run_dataplane({}, "rolled_back")})
    return 0


def _confirm(options: argparse.Namespace) -> int:
    with store.locked():
        resource = confirm.confirm()
    _print(json.dumps({"confirmed": resource}) if options.json else f"{resource}: confirmed")
    return 0


def _revert(options: argparse.Namespace) -> int:
    with confirm.watching() if options.due else nullcontext():
        results = run.revert(due=options.due, wait=options.wait)
    _report(options, results)
    absent = [words for result in results.values() for words in result["absent"]]
    sys.stderr.write("".join(f"fastpath: cannot find the NIC with {words}\n" for words in absent))
    return 0


def _drops(options: argparse.Namespace) -> int:
    follow(options.json, options.count)
    return 0


def _explain(options: argparse.Namespace) -> int:
    """1 where kernel and documents disagree."""
    answers = explain.explain(options.source, options.to)
    _print(json.dumps(answers, indent=2) if options.json else explain.render(answers))
    return int(any(answer["disagree"] for answer in answers))


def _remove(options: argparse.Namespace) -> int:
    results = {
        "attachments": run.run_attachments([], "deleted", allow_disruption=True),
        "policies": run.run_policies([], "deleted"),
        "dataplane": run.run_dataplane({}, "deleted", allow_disruption=True),
        "eswitch": run.run_eswitch([], "deleted", allow_disruption=True),
    }
    _report(options, results)
    return 0


def install(present: bool, check: bool) -> dict[str, Any]:
    """run.install(), here so that a module that imports it carries this command along."""
    return run.install(present, check=check)


def _report(options: argparse.Namespace, results: dict[str, dict[str, Any]]) -> None:
    if options.json:
        _print(json.dumps(results, indent=2))
        return
    for name, result in results.items():
        steps = [f"  {step['action']}: {step['reason']}" for step in result["steps"]]
        cut = result.get("flows", {}).get("revoked", 0)
        steps += [f"  {cut} open flow(s) are denied now and were cut"] if cut else []
        steps += [f"  warning: {text}" for text in result.get("warnings", ())]
        _print("\n".join([f"{name}: {len(result['steps'])} step(s)", *steps]))


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")


_RESOURCES = ("eswitch", "dataplane", "attachments", "policies")
_HELP = {
    "status": "what runs, with counters",
    "drops": "which packets are dropped, where and why",
    "explain": "which policy decides a packet, and what the kernel says to it",
    "plan": "what apply would do; exit status 2 when that is something",
    "apply": "bring the node to /etc/fastpath",
    "confirm": "keep the change that the node takes back otherwise",
    "revert": "take back the change that is not confirmed, if there is one",
    "rollback": "go back to the programs that ran before the last upgrade",
    "remove": "take everything down and forget /etc/fastpath",
}
_COMMANDS = {
    "status": _status,
    "drops": _drops,
    "explain": _explain,
    "plan": _plan,
    "apply": _apply,
    "confirm": _confirm,
    "revert": _revert,
    "rollback": _rollback,
    "remove": _remove,
}
