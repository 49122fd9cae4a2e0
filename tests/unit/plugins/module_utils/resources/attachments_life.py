# SPDX-License-Identifier: GPL-3.0-or-later
"""The lives of attachments: what a node can be in, what can happen to it, and what its kernel objects to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from ansible_collections.fastpath.node.plugins.module_utils.errors import InvalidConfig
from ansible_collections.fastpath.node.plugins.module_utils.plan import Op, Step, predict
from ansible_collections.fastpath.node.plugins.module_utils.resources import attachments_state as pure
from ansible_collections.fastpath.node.plugins.module_utils.resources import attachments_wish as wish

from . import life

NODE = pure.Node(("10.128.3.0/24", "fd00:128:3::/64"), 1500, "g1")
NAMES = ("web-1", "web-2", "web-3", "docker0")
CONTAINERS: tuple[dict[str, Any], ...] = (*({"netns": f"/run/netns/{letter}"} for letter in "abc"), {"pid": 7})
REFERENCES = tuple(f"{kind}:{value}" for container in CONTAINERS for kind, value in container.items())
ADDRESSES = ("10.128.3.7/32", "10.128.3.8", "10.128.3.9/32", "fd00:128:3::7/128", "FD00:128:3:0::8")
FOREIGN = frozenset(["lo", "docker0", "fastpath0"])
NIC = "0000:3b:00.0"
VFS = {
    "0000:3b:00.2": pure.Vf(NIC, "02:00:00:00:3b:02", representor="pf0r0"),
    "0000:3b:00.3": pure.Vf(NIC, "02:00:00:00:3b:03", representor="pf0r1"),
    "0000:5e:00.2": pure.Vf("0000:5e:00.0", "02:00:00:00:5e:02", representor="pf1r0"),
    "0000:3b:00.1": pure.Vf(NIC, "", home=False, driver="vfio-pci", representor="pf0r2"),
}
BARE = pure.State(node=NODE, containers=frozenset(REFERENCES), foreign=FOREIGN, vfs=VFS, netkit=True)
OLD = replace(BARE, netkit=False)  # a kernel without netkit
L3 = pure.Pair("netkit", "l3")

# What a node can be in


def example(name: str, container: int, *addresses: str) -> dict[str, Any]:
    return {"name": name, "container": CONTAINERS[container], "addresses": list(addresses)}


SERVED: tuple[dict[str, Any], ...] = (
    {**example("web-1", 0, "10.128.3.7", "fd00:128:3::7"), "mtu": 1400, "mac": "02:00:00:00:00:01", "routes": []},
    example("web-2", 1, "10.128.3.8"),
)
KINDS: tuple[dict[str, Any], ...] = (
    {}, {"kind": "auto"}, {"kind": "veth"}, {"kind": "netkit"},
    {"kind": "netkit", "mode": "l2"}, {"kind": "netkit", "mode": "l3"},
    {"kind": "vf"}, {"kind": "vf", "vf": NIC}, {"kind": "vf", "vf": "0000:5e:00.2"},
)  # fmt: skip
CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "container": st.sampled_from(CONTAINERS),
        "addresses": st.lists(st.sampled_from(ADDRESSES), min_size=1, max_size=2, unique=True),
        "interface": st.sampled_from(["eth0", "eth1"]),
        "mtu": st.sampled_from([1280, 1400, 1500]),
        "mac": st.sampled_from(["02:00:00:00:00:01", "02:00:00:00:00:02"]),
        "routes": st.lists(
            st.sampled_from([{"to": "10.0.0.0/8"}, {"to": "0.0.0.0/0", "via": "10.128.3.1"}]), max_size=2
        ),
    },
)


def item(base: dict[str, Any], changes: dict[str, Any], kind: dict[str, Any]) -> dict[str, Any]:
    made = {**base, **changes, **kind}
    has_mac = kind.get("mode") != "l3" and kind.get("kind") != "vf"
    return {key: value for key, value in made.items() if key != "mac" or has_mac}


ITEMS = st.builds(item, st.sampled_from([*SERVED, example("web-3", 2, "10.128.3.9")]), CHANGES, st.sampled_from(KINDS))
CONFIGS = st.lists(ITEMS, max_size=3, unique_by=lambda item: str(item["name"])).map(tuple)
PARTS = ITEMS.flatmap(
    lambda item: st.sets(st.sampled_from(sorted(item))).map(
        lambda keys: {k: item[k] for k in item if k in {"name", *keys}}
    )
)
REQUESTS = st.one_of(
    st.builds(pure.Request, CONFIGS, st.sampled_from(["merged", "replaced", "overridden"]), st.booleans()),
    st.builds(pure.Request, st.tuples(PARTS), st.just("merged"), st.booleans()),
    st.builds(
        pure.Request, st.lists(ITEMS, max_size=2, unique_by=lambda i: str(i["name"])).map(tuple), st.just("deleted")
    ),
)


def destroyed(state: pure.State, names: frozenset[str]) -> pure.State:
    """Without these links, as the kernel leaves it: pins and rows of the map stay."""
    return replace(
        state,
        links={name: end for name, end in state.links.items() if name not in names},
        interfaces={name: interface for name, interface in state.interfaces.items() if name not in names},
        endpoints={
            address: replace(point, attachment="") if point.attachment in names else point
            for address, point in state.endpoints.items()
        },
        programs={name: fresh and name not in names for name, fresh in state.programs.items()},
    )


def vanish(state: pure.State, reference: str) -> pure.State:
    """A container ends, and its namespace with it; the kernel brings a VF home."""
    ended = {name: end for name, end in state.links.items() if end.container == reference and end.connected}
    left = destroyed(state, frozenset(name for name, end in ended.items() if not end.vf))
    at_home = {end.vf for end in ended.values()}
    left = replace(left, vfs={pci: replace(vf, home=vf.home or pci in at_home) for pci, vf in left.vfs.items()})
    return replace(moved(left, reference), containers=state.containers - {reference})


def appear(state: pure.State, reference: str) -> pure.State:
    return replace(state, containers=state.containers | {reference})


def moved(state: pure.State, reference: str) -> pure.State:
    """The container has another namespace now, somebody keeps the old one."""
    names = {name for name, end in state.links.items() if end.container == reference}
    return replace(
        state,
        links={name: replace(end, connected=end.connected and name not in names) for name, end in state.links.items()},
        interfaces={name: interface for name, interface in state.interfaces.items() if name not in names},
    )


def upgraded(state: pure.State, reference: str) -> pure.State:
    """The dataplane runs another object; container programs do not yet."""
    return replace(
        state, node=replace(NODE, generation=f"g-{reference}"), programs=dict.fromkeys(state.programs, False)
    )


def tampered(state: pure.State, reference: str) -> pure.State:
    """Somebody in the container takes its addresses, routes and link down; also what a killed Configure leaves."""
    hit = {name for name, end in state.links.items() if end.container == reference}
    none: frozenset[Any] = frozenset()
    return replace(
        state,
        interfaces={
            name: replace(interface, up=False, mtu=1300, addresses=none, routes=none) if name in hit else interface
            for name, interface in state.interfaces.items()
        },
    )


def half_moved(state: pure.State, reference: str) -> pure.State:
    """A move was killed: any of the two pairs serves, another program may run, addresses may lead to both."""
    mine = {name: end for name, end in state.links.items() if end.container == reference and not end.vf}
    hit = {name for name, end in mine.items() if end.connected}
    other = {pure.VETH: pure.NETKIT, pure.NETKIT: L3, L3: pure.VETH}
    macs = {name: state.interfaces[name].mac for name in hit}
    for name, mac in macs.items():
        moved_mac = wish.derived_mac(name) if mac == pure.NO_MAC else mac
        macs[name] = pure.NO_MAC if other[state.links[name].pair] == L3 else moved_mac
    return replace(
        state,
        links={
            name: replace(end, pair=other[end.pair], unfinished=f"{end.pair} stands beside it") if name in hit else end
            for name, end in state.links.items()
        },
        interfaces={
            name: replace(interface, mac=macs[name]) if name in hit else interface
            for name, interface in state.interfaces.items()
        },
        programs={name: fresh and name not in hit for name, fresh in state.programs.items()},
        endpoints={
            address: replace(point, mac=macs[point.attachment]) if point.attachment in hit and ":" in address else point
            for address, point in state.endpoints.items()
        },
    )


def strayed(state: pure.State, _reference: str) -> pure.State:
    """A move was killed and then its links have gone, or it was taken back."""
    return replace(state, strays=frozenset([17, 18]))


def half_made(state: pure.State, _reference: str) -> pure.State:
    """CreateLink was killed before it wrote whose link it is."""
    name = "web-3"
    if name in state.links or name in state.foreign:
        return state
    return replace(state, links={**state.links, name: pure.HostEnd("", pure.VETH, up=False, connected=False)})


def half_given(state: pure.State, reference: str) -> pure.State:
    """The same of one that gets a VF: it is named, and not in the container yet."""
    name, free = "web-3", [pci for pci, vf in state.vfs.items() if vf.home and not vf.user]
    if name in state.links or not free:
        return state
    end = pure.HostEnd(reference, pure.VF, up=False, connected=False, vf=free[0])
    vfs = {**state.vfs, free[0]: replace(state.vfs[free[0]], user=name)}
    return replace(state, links={**state.links, name: end}, vfs=vfs)


def forgotten(state: pure.State, _reference: str) -> pure.State:
    return replace(state, document=None)


def switched_off(state: pure.State, reference: str) -> pure.State:
    """Somebody takes the host end down; also what a run leaves that was killed at its end."""
    return replace(
        state, links={n: replace(end, up=end.up and end.container != reference) for n, end in state.links.items()}
    )


EVENTS = st.sampled_from(
    [vanish, appear, moved, upgraded, tampered, switched_off, half_made, half_given, half_moved, strayed, forgotten]
)
HAPPEN = st.lists(
    st.tuples(EVENTS, st.sampled_from(REFERENCES)).map(lambda pair: lambda state: pair[0](state, pair[1])), max_size=2
)
SERVING = predict(BARE, wish.plan(BARE, pure.Request(SERVED, "replaced")))
ON_VFS: tuple[dict[str, Any], ...] = (
    {**example("web-1", 0, "10.128.3.7", "fd00:128:3::7"), "kind": "vf"},
    {**example("web-2", 1, "10.128.3.8"), "kind": "vf", "vf": "0000:3b:00.3"},
)
LENT = predict(BARE, wish.plan(BARE, pure.Request(ON_VFS, "replaced")))
VETHS = predict(OLD, wish.plan(OLD, pure.Request(SERVED, "replaced")))
NEW = replace(VETHS, netkit=True)  # what was made before an upgrade of the kernel layer knew netkit


def planned(state: pure.State, request: pure.Request) -> tuple[Step[pure.State], ...] | None:
    """None when the wish is refused."""
    try:
        return wish.plan(state, request)
    except InvalidConfig:
        return None


Case = tuple[pure.State, pure.Request, tuple[Step[pure.State], ...]]


def states() -> st.SearchStrategy[pure.State]:
    """Mostly from a node that serves."""
    return life.lives([SERVING, LENT, VETHS, NEW, BARE, OLD], HAPPEN, REQUESTS, planned)


def plans() -> st.SearchStrategy[Case]:
    return life.cases(states(), REQUESTS, planned)


# What a kernel would say to an operation


def why_not(state: pure.State, op: Op[pure.State]) -> str:
    """What the kernel would object to; "" for nothing."""
    name = getattr(op, "name", "")
    if isinstance(op, pure.CreateLink):
        taken = {(end.container, state.interfaces[n].name) for n, end in state.links.items() if end.connected}
        problems = {
            f"{op.container} is not there": op.container not in state.containers,
            f"{name} exists": name in state.links or name in state.foreign,
            f"{op.container} has an {op.interface}": (op.container, op.interface) in taken,
            "the kernel has no netkit": op.pair.kind == "netkit" and not state.netkit,
            f"VF {op.vf} is not to be had": bool(op.vf) and state.vfs[op.vf] != replace(VFS[op.vf], user="", home=True),
        }
    elif isinstance(op, pure.Move):
        end = state.links.get(name)
        problems = {
            "a VF moves nowhere": op.pair == pure.VF or (end is not None and bool(end.vf)),
            f"{name} is not there": end is None or not end.connected or name not in state.interfaces,
            "the kernel has no netkit": op.pair.kind == "netkit" and not state.netkit,
            "a netkit in mode l3 has no MAC, all else has one": (op.pair == L3) != (op.mac == pure.NO_MAC),
        }
    elif isinstance(op, pure.Publish):
        owners = {state.endpoints[address].attachment for address, _row in op.endpoints if address in state.endpoints}
        problems = {
            f"{name} is not there": name not in state.links,
            f"its addresses are those of {owners}": bool(owners - {"", name}),
        }
    else:
        problems = {
            f"{name} is not there": isinstance(op, (pure.Attach, pure.SetUp)) and name not in state.links,
            f"the other end of {name} is not there": isinstance(op, pure.Configure) and name not in state.interfaces,
        }
    return ", ".join(words for words, true in problems.items() if true)


def assert_safe(state: pure.State) -> None:
    for name, end in state.links.items():
        assert not end.up or name in state.programs, f"{name} is up without a program"
    for address, endpoint in state.endpoints.items():
        assert endpoint.attachment in ("", *state.links), f"{address} leads to no link"
    used = {end.vf: name for name, end in state.links.items() if end.vf}
    assert {pci: vf.user for pci, vf in state.vfs.items() if vf.user} == used, "a VF has one user"
    for name in state.links:
        slots = {endpoint.slot for endpoint in state.endpoints.values() if endpoint.attachment == name}
        assert len(slots) <= 1, f"{name} has several rows of statistics"


_KERNEL = life.Kernel(why_not, assert_safe)
carry_out, walk, reached = _KERNEL.carry_out, _KERNEL.walk, _KERNEL.reached

# A slow and simple model of the states' meaning


def present(state: pure.State, written: Mapping[str, Any]) -> pure.Pair:
    """What the attachment has, or else what the node's best is."""
    name, reference = written["name"], "".join(wish.references([written]))
    end, inside = state.links.get(name), state.interfaces.get(name)
    fits = end and inside and (end.container, inside.name) == (reference, written.get("interface", "eth0"))
    best = pure.NETKIT if state.netkit else pure.VETH
    return end.pair if end and end.connected and fits and not end.vf else best


def meaning(written: Mapping[str, Any], now: pure.Pair, vf: str = "") -> dict[str, Any]:
    """What an item of a config means, in the shape of `public`. now: what kind auto is; vf: the VF that it has got."""
    addresses = sorted(f"{address.partition('/')[0]}".lower().replace(":0::", "::") for address in written["addresses"])
    versions = {":" in address for address in addresses}
    default = [{"to": "0.0.0.0/0", "via": "10.128.3.1"}] if False in versions else []
    default += [{"to": "::/0", "via": "fd00:128:3::1"}] if True in versions else []
    routes = [{"via": "10.128.3.1", **route} for route in written.get("routes", default)]
    pair = {key: value for key, value in (("kind", now.kind), ("mode", now.mode)) if value}
    if written.get("kind", "auto") != "auto":
        pair = {"kind": written["kind"]}
        pair.update({"mode": written.get("mode", "l2")} if written["kind"] == "netkit" else {})
        pair.update({"vf": vf} if written["kind"] == "vf" else {})
    mac = (
        {}
        if pair.get("mode") == "l3" or "vf" in pair
        else {"mac": written.get("mac", wish.derived_mac(written["name"]))}
    )
    return {
        "name": written["name"],
        "container": {kind: str(value) for kind, value in written["container"].items()},
        **pair,
        "interface": written.get("interface", "eth0"),
        "addresses": sorted(f"{address}/{128 if ':' in address else 32}" for address in addresses),
        "mtu": written.get("mtu", 1500),
        **mac,
        "routes": sorted(routes, key=lambda route: (":" in route["to"], route["to"])),
    }


def assert_serves(state: pure.State, item: Mapping[str, Any]) -> None:
    """All that packets of this attachment need is there, exactly."""
    name = item["name"]
    reference = "".join(f"{kind}:{value}" for kind, value in item["container"].items())
    pair = pure.Pair(item["kind"], item.get("mode", ""))
    vf, mac = item.get("vf", ""), item.get("mac", pure.NO_MAC)
    assert state.links[name] == pure.HostEnd(reference, pair, up=True, connected=True, vf=vf)
    if vf:
        mac = VFS[vf].mac
        assert state.vfs[vf] == replace(VFS[vf], user=name, home=False)
    assert state.programs[name]
    assert state.interfaces[name].up
    points = {address: point for address, point in state.endpoints.items() if point.attachment == name}
    slot = min(point.slot for point in points.values())
    assert points == {pure.bare(address): pure.Endpoint(name, slot, mac, item["mtu"]) for address in item["addresses"]}
