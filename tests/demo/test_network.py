# SPDX-License-Identifier: GPL-3.0-or-later
"""From a node's status to tables and pictures."""

import xml.etree.ElementTree as ET

from demo import network, picture, svg
from demo.network import Network, view
from lab.plan import Topology

TOPOLOGY = Topology.wanted("t", nodes=4, containers=2)
STATUS = {
    "attachments": [
        {"name": "c1", "kind": "veth", "addresses": ["10.128.1.11/32", "fd00:128:1::11/128"],
         "statistics": {"rx_packets": 12, "tx_packets": 3456}},
        {"name": "<odd>", "addresses": []},
    ],
    "hooks": {"from_container": 7, "from_wire": 8, "from_host": 9},
    "drops": {"spoofed": 2, "ttl": 0},
}  # fmt: skip
NETWORK = Network(tuple(view(plan, STATUS if plan.number == 1 else {}) for plan in TOPOLOGY))


def test_view_reads_what_the_node_says() -> None:
    node = NETWORK.nodes[0]
    assert (node.attachments[0].received, node.attachments[0].sent) == (12, 3456)
    assert node.attachments[1].received is None
    assert node.drops == {"spoofed": 2}


def test_a_bare_node_is_shown_as_such() -> None:
    node = NETWORK.nodes[1]
    assert (node.attachments, node.hooks, node.drops) == ((), {}, {})
    assert "no container attached" in picture.draw(NETWORK)


def test_missing_names_what_is_planned_but_not_there() -> None:
    assert network.missing(NETWORK, [TOPOLOGY.node(1), TOPOLOGY.node(2)]) == ["node1/c2", "node2/c1", "node2/c2"]


def test_tables_hold_every_figure() -> None:
    text = network.show(NETWORK)
    for expected in ("10.128.1.11/32 fd00:128:1::11/128", "3,456", "from_wire", "spoofed"):
        assert expected in text


def test_boxes_line_up() -> None:
    lines = picture.draw(NETWORK).splitlines()
    edges = [index for index, line in enumerate(lines) if line.startswith("+--")]
    assert len(edges) == 4  # top and bottom of two rows
    assert len({len(line) for line in lines[edges[0] : edges[1] + 1]}) == 1


def test_the_drawing_is_well_formed() -> None:
    root = ET.fromstring(svg.draw(NETWORK))  # noqa: S314 - our own text
    words = [element.text for element in root.iter() if element.text]
    assert "<odd>" in words
    assert "in 12  out 3,456" in words
