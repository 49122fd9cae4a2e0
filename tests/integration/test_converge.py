# SPDX-License-Identifier: GPL-3.0-or-later
"""A run on a real kernel: check says what the real run does, a second run has nothing to do, all states."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from ansible_collections.fastpath.node.plugins.module_utils import plan, versions
from ansible_collections.fastpath.node.plugins.module_utils.resources import dataplane
from ansible_collections.fastpath.node.plugins.module_utils.resources.attachments import Attachments
from ansible_collections.fastpath.node.plugins.module_utils.resources.attachments_state import (
    Request as AttachmentsRequest,
)
from ansible_collections.fastpath.node.plugins.module_utils.resources.dataplane_state import Request as DataplaneRequest
from ansible_collections.fastpath.node.plugins.module_utils.run import Ahead
from tests.integration.sandbox import (
    DATAPLANE,
    FABRIC,
    FABRIC_ADDRESSES,
    UPLINK,
    Result,
    Sandbox,
    addresses,
    attachment,
    ips,
    predicted,
)  # fmt: skip

TWO = [attachment(1), attachment(2)]
OTHER_NODE = {"to": "10.128.4.0/24", "via": "192.0.2.1"}


def test_the_whole_life_of_a_node(node: Sandbox) -> None:
    bare = node.snapshot()
    assert node.dataplane({}, "gathered")["gathered"] == {}
    assert node.attachments([], "gathered")["gathered"] == []
    assert predicted(node, "dataplane", DATAPLANE, "merged")["changed"]
    assert predicted(node, "attachments", TWO, "merged")["changed"]
    node.ping("c1", *ips(2), "10.128.3.1", "fd00:128:3::1", "192.0.2.2", "fd00:192::2", *FABRIC_ADDRESSES)
    node.ping(None, *ips(1), *ips(2))
    node.ping(FABRIC, *ips(1), *ips(2))
    assert predicted(node, "attachments", [], "deleted", allow_disruption=True)["after"] == []
    assert predicted(node, "dataplane", {}, "deleted", allow_disruption=True)["after"] == {}
    assert node.snapshot() == bare


def test_check_of_attachments_before_there_is_a_dataplane(node: Sandbox) -> None:
    check = node.attachments(TWO, check=True, ahead=Ahead(DATAPLANE))
    node.dataplane()
    real = node.attachments(TWO, ahead=Ahead(DATAPLANE))
    assert (check["steps"], check["after"]) == (real["steps"], real["after"])


def test_check_of_attachments_before_the_dataplane_changes(node: Sandbox) -> None:
    node.dataplane()
    node.attachments(TWO)
    node.run("ip", "link", "set", UPLINK, "mtu", "1400")
    wider = {**DATAPLANE, "prefixes": ["10.128.3.0/24", "10.128.9.0/24", "fd00:128:3::/64"]}
    items = [TWO[0], {**TWO[1], "addresses": [*TWO[1]["addresses"], "10.128.9.2/32"]}]
    check = node.attachments(items, "overridden", check=True, ahead=Ahead(wider))
    node.dataplane(wider, "replaced")
    real = node.attachments(items, "overridden")
    assert [(item["mtu"], len(item["addresses"])) for item in check["after"]] == [(1400, 2), (1400, 3)]
    assert (check["steps"], check["after"]) == (real["steps"], real["after"])


def test_the_dataplane_changes_its_routing(node: Sandbox) -> None:
    predicted(node, "dataplane", DATAPLANE, "merged")
    direct = {**DATAPLANE, "routing": "direct", "routes": [OTHER_NODE]}
    predicted(node, "dataplane", direct, "replaced")
    predicted(node, "dataplane", {"routes": [{**OTHER_NODE, "via": "192.0.2.9"}]}, "merged")
    assert "10.128.4.0/24 via 192.0.2.9" in node.run("ip", "route")
    assert node.run("ip", "route").count("10.128.4.0/24") == 1
    predicted(node, "dataplane", DATAPLANE, "replaced", allow_disruption=True)
    assert "10.128.4.0/24" not in node.run("ip", "route")


def test_the_dataplane_moves_to_another_uplink_and_prefix(node: Sandbox) -> None:
    node.run("ip", "link", "add", "up2", "type", "veth", "peer", "name", "far2")
    bare = node.snapshot()
    predicted(node, "dataplane", DATAPLANE, "merged")
    moved = {"uplinks": [{"name": "up2"}], "prefixes": ["10.128.5.0/24"]}
    predicted(node, "dataplane", moved, "replaced", allow_disruption=True)
    predicted(node, "dataplane", {}, "deleted", allow_disruption=True)
    assert node.snapshot() == bare


def test_states_of_attachments(node: Sandbox) -> None:
    node.dataplane()
    predicted(node, "attachments", TWO, "merged")
    # merged keeps what is not given, replaced falls back to the defaults
    predicted(node, "attachments", [{"name": "c1", "mtu": 1400}], "merged")
    predicted(node, "attachments", [attachment(2, mtu=1300, mac="02:00:00:00:00:22")], "merged", allow_disruption=True)
    more = [*addresses(1), "10.128.3.200/32"]
    kept = predicted(node, "attachments", [{"name": "c1", "addresses": more}], "merged")["after"]
    assert [item["mtu"] for item in kept] == [1400, 1300]
    node.ping("c2", *ips(1), "10.128.3.200")
    node.ping("c1", *ips(2))
    after = predicted(node, "attachments", [attachment(1)], "replaced", allow_disruption=True)["after"]
    assert [item["mtu"] for item in after] == [1500, 1300]
    assert "10.128.3.200" not in node.endpoints()
    node.ping("c1", *ips(2))
    # overridden removes what is not given
    swapped = predicted(node, "attachments", [attachment(1), attachment(3)], "overridden", allow_disruption=True)
    assert [item["name"] for item in swapped["after"]] == ["c1", "c3"]
    node.ping("c3", *ips(1))
    assert (
        predicted(node, "attachments", [{"name": "c1"}], "deleted", allow_disruption=True)["after"][0]["name"] == "c3"
    )
    assert set(node.endpoints()) == set(ips(3))


def test_an_attachment_moves_to_another_container_and_interface(node: Sandbox) -> None:
    node.dataplane()
    node.attachments(TWO)
    moved = {**attachment(2), "container": {"netns": "/run/netns/c3"}}
    predicted(node, "attachments", [moved], "merged", allow_disruption=True)
    assert "eth0" not in node.run("ip", "link", container="c2")
    node.ping("c3", *ips(1))
    predicted(node, "attachments", [{**moved, "interface": "net1"}], "merged", allow_disruption=True)
    assert "net1" in node.run("ip", "link", container="c3")
    node.ping("c3", *ips(1))


def test_gathered_fed_back_changes_nothing(node: Sandbox) -> None:
    node.dataplane()
    node.attachments(TWO)
    config, items = node.dataplane({}, "gathered")["gathered"], node.attachments([], "gathered")["gathered"]
    for state in ("merged", "replaced"):
        result = node.dataplane(config, state)
        assert (state, result["after"], _touching_the_kernel(result)) == (state, config, [])
    for state in ("merged", "replaced", "overridden"):
        result = node.attachments(items, state)
        assert (state, result["after"], _touching_the_kernel(result)) == (state, items, [])


def _touching_the_kernel(result: Result) -> list[str]:
    """A list with defaults spelled out is another document; nothing else may differ."""
    return [step["action"] for step in result["steps"] if not step["action"].startswith("record ")]


def test_rendered_is_what_a_bare_node_gets_and_touches_nothing(node: Sandbox) -> None:
    bare = node.snapshot()
    config = node.dataplane(state="rendered")
    items = node.attachments(TWO, "rendered", ahead=Ahead(DATAPLANE))
    assert node.snapshot() == bare
    first, second = node.dataplane(), node.attachments(TWO)
    assert (config["rendered"], config["steps"]) == (first["after"], first["steps"])
    assert (items["rendered"], items["steps"]) == (second["after"], second["steps"])
    assert node.attachments(TWO, "rendered")["rendered"] == second["after"]


def test_a_vanished_container_leaves_garbage_that_the_next_run_collects(node: Sandbox) -> None:
    node.dataplane()
    node.attachments(TWO)
    node.end_container("c2")
    result = predicted(node, "attachments", [attachment(1)], "overridden")
    assert result["changed"]
    assert set(node.endpoints()) == set(ips(1))
    assert [pin for pin in node.pins() if "c2" in pin] == []
    node.add_container("c2")
    predicted(node, "attachments", TWO, "merged")
    node.ping("c1", *ips(2))


def _reached(resource: plan.Resource[Any, Any], request: Any) -> tuple[Any, Any]:
    """The whole state as predicted by the steps' effects, and as found after the run."""
    have = resource.have()
    predicted_state = plan.predict(have, resource.plan(have, request))
    plan.converge(resource, request, allow_disruption=True)
    return predicted_state, resource.have()


def test_the_predicted_state_is_the_real_one_in_every_detail(node: Sandbox) -> None:
    path = str(node.object_file)
    name = versions.object_id(path)
    for state, config in (("replaced", DATAPLANE), ("merged", {"routing": "direct", "routes": [OTHER_NODE]})):
        expected, found = node.call(_reached, dataplane.Dataplane(path), DataplaneRequest(config, state, name))
        assert expected == found
    references = [f"netns:/run/netns/c{number}" for number in (1, 2, 3)]
    moved = {**attachment(2), "container": {"netns": "/run/netns/c3"}}
    for state, items in (("merged", TWO), ("replaced", [attachment(1, mtu=1400), moved]), ("deleted", [])):
        request = AttachmentsRequest(tuple(items), state)
        expected, found = node.call(_reached, Attachments(references), request)
        assert expected == found


def _create(node: Sandbox) -> list[bool]:
    return [node.dataplane()["changed"], node.attachments(TWO)["changed"]]


def test_runs_at_the_same_time_wait_for_each_other(node: Sandbox) -> None:
    with ProcessPoolExecutor(3, multiprocessing.get_context("fork")) as pool:
        first, second = zip(*pool.map(_create, [node] * 3), strict=True)
    assert (sorted(first), sorted(second)) == ([False, False, True], [False, False, True])
    node.ping("c1", *ips(2))
