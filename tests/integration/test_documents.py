# SPDX-License-Identifier: GPL-3.0-or-later
"""A node that boots with broken documents: what can be restored is, the rest says which file it is and what to do."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.fastpath.node.plugins.module_utils import cli, status
from tests.integration.sandbox import DATAPLANE, FABRIC, Refused, Sandbox, attachment, ips

TWO = [attachment(1), attachment(2)]
BROKEN = {
    "empty": "",
    "truncated": '[{"name": "c1", "conta',
    "zeroes": "\0" * 512,
    "other shape": "7",
}


def _command(*words: str) -> tuple[int, str]:
    """Exit status and errors of `fastpath`."""
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        return cli.main(words), errors.getvalue()


def command(node: Sandbox, *words: str) -> tuple[int, str]:
    found: tuple[int, str] = node.call(_command, *words)
    return found


def write(node: Sandbox, name: str, content: str) -> None:
    node.call(Path(f"/etc/fastpath/{name}").write_text, content)


def switched_off(node: Sandbox) -> None:
    """All that a reboot takes: links and pins. Files stay."""
    links = [name for name in node.run("ls", "/sys/class/net").split() if name in ("fastpath0", "c1", "c2")]
    for name in links:
        node.run("ip", "link", "del", name)
    node.run("rm", "-rf", "/sys/fs/bpf/fastpath")


@pytest.fixture
def booting(node: Sandbox) -> Sandbox:
    """A node that has been converged, and was switched off."""
    node.dataplane()
    node.attachments(TWO)
    switched_off(node)
    return node


def serves(node: Sandbox) -> None:
    node.ping("c1", *ips(2), "192.0.2.1", "fd00:192::1")
    node.ping(FABRIC, *ips(1), *ips(2))


def test_boot_restores_all(booting: Sandbox) -> None:
    assert command(booting, "apply", "--skip-absent", "--allow-disruption") == (0, "")
    serves(booting)
    assert booting.call(status.status)["healthy"]


@pytest.mark.parametrize("draft", ["", '[{"name": "c1"', "[]"])
def test_half_written_draft_is_ignored_and_removed(booting: Sandbox, draft: str) -> None:
    for name in ("attachments", "dataplane", "programs"):
        write(booting, f".{name}.json.new", draft)
    assert command(booting, "apply") == (0, "")
    serves(booting)
    assert not [name for name in booting.run("ls", "-A", "/etc/fastpath").split() if name.startswith(".")]


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_broken_attachments_do_not_keep_the_dataplane_from_coming_back(booting: Sandbox, content: str) -> None:
    write(booting, "attachments.json", content)
    code, errors = command(booting, "apply", "--skip-absent", "--allow-disruption")
    assert code == 1
    assert errors.startswith("fastpath: cannot read /etc/fastpath/attachments.json: ")
    assert "Run the playbook again" in errors
    assert errors.count("\n") == 1
    found = booting.call(status.status)
    assert (found["dataplane"]["prefixes"], found["healthy"]) == (DATAPLANE["prefixes"], False)
    assert "attachments.json" in found["problems"][0]
    # one of them alone would make the others be forgotten
    with pytest.raises(Refused, match=r"attachments\.json"):
        booting.attachments([attachment(1)])
    booting.attachments(TWO, "overridden")  # what the playbook does
    serves(booting)
    assert booting.call(status.status)["healthy"]
    assert command(booting, "plan") == (0, "")


@pytest.mark.parametrize("content", [*BROKEN.values(), "{}", '{"prefixes": 7}'], ids=[*BROKEN, "nothing", "wrong"])
def test_broken_dataplane_is_named_and_the_playbook_mends_it(booting: Sandbox, content: str) -> None:
    write(booting, "dataplane.json", content)
    code, errors = command(booting, "apply", "--skip-absent", "--allow-disruption")
    assert code == 1
    assert "Traceback" not in errors
    assert "config.prefixes" in errors if content.startswith("{") else "/etc/fastpath/dataplane.json" in errors
    booting.dataplane()
    assert command(booting, "apply") == (0, "")
    serves(booting)


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_broken_dataplane_of_a_node_that_serves(node: Sandbox, content: str) -> None:
    node.dataplane()
    node.attachments(TWO)
    write(node, "dataplane.json", content)
    assert command(node, "apply")[0] == 1
    serves(node)
    node.dataplane({}, "merged")  # what is not given is what runs
    assert command(node, "plan") == (0, "")
    write(node, "dataplane.json", content)
    write(node, "attachments.json", content)
    write(node, "programs.json", content)
    assert command(node, "remove") == (0, "")
    assert not node.succeeds("ls", "/etc/fastpath")


@pytest.mark.parametrize("content", [*BROKEN.values(), "{}", '{"current": "0123"}'], ids=[*BROKEN, "nothing", "gone"])
def test_broken_record_of_programs_falls_back_to_what_was_brought(booting: Sandbox, content: str) -> None:
    booting.call(_bring, str(booting.object_file))
    write(booting, "programs.json", content)
    assert command(booting, "apply") == (0, "")
    serves(booting)
    assert command(booting, "plan") == (0, "")


def _bring(path: str) -> None:
    """As the role runtime does."""
    Path("/usr/lib/fastpath/fastpath.bpf.o").write_bytes(Path(path).read_bytes())


@pytest.mark.parametrize(
    "items",
    [
        [{}], [7], [{"name": "c1"}], [{**attachment(1), "addresses": 7}], [{**attachment(1), "container": "c1"}],
        [attachment(1), attachment(1)],
    ],
    ids=str,
)  # fmt: skip
def test_list_that_is_not_ours(booting: Sandbox, items: list[Any]) -> None:
    write(booting, "attachments.json", json.dumps(items))
    code, errors = command(booting, "apply", "--skip-absent")
    assert (code, "Traceback" in errors) == (1, False)
    booting.attachments(TWO, "overridden")
    serves(booting)
