# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading Ansible's output."""

from demo.playbook import problems, progress, recap

OUTPUT = """\
TASK [fastpath.node.runtime : Copy the BPF object] *****************************
changed: [node1]
PLAY RECAP *********************************************************************
node1                      : ok=12   changed=5    unreachable=0    failed=0    skipped=1    rescued=0    ignored=0
node2                      : ok=2    changed=0    unreachable=1    failed=0    skipped=0    rescued=0    ignored=0
""".splitlines()


def test_progress_shows_tasks_and_errors() -> None:
    assert progress(OUTPUT[0]) == "Copy the BPF object"
    assert progress("TASK [Ping] ***") == "Ping"
    assert progress("TASK [a.b.c : Validating arguments against arg spec 'main' - Do it] ***") == ""
    assert progress(OUTPUT[1]) == ""
    assert progress("fatal: [node1]: FAILED!") == "fatal: [node1]: FAILED!"


def test_recap() -> None:
    found = recap(OUTPUT)
    assert found["node1"]["changed"] == 5
    assert found["node2"]["unreachable"] == 1
    assert recap(OUTPUT[:2]) == {}


def test_problems() -> None:
    found = recap(OUTPUT)
    assert problems(found, ["node1"], second=False) == []
    assert problems(found, ["node1"], second=True) == ["node1: changed=5"]
    assert problems(found, ["node2", "node3"], second=False) == [
        "node2: unreachable=1", "node3 does not appear in the recap",
    ]  # fmt: skip
