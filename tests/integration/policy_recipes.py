# SPDX-License-Identifier: GPL-3.0-or-later
"""What the policies in inventories/policies let through, as they are; see policy_cases.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tests.integration.policy_cases import Case

FOLDER = Path(__file__).resolve().parents[2] / "inventories/policies"


def recipes(*names: str) -> list[Any]:
    return [yaml.safe_load((FOLDER / f"{name}.yml").read_text(encoding="ascii")) for name in names]


# The last name is the one that is tested, those before it are in force too.
RECIPES = {
    ("deny-ingress",): ("web>shop:80 web>out:80 node1>web:80", "db>web:80 client>web/ping shop>web:80 out>web2:80"),
    ("deny-ingress-of-app",): ("web>db:80 client>db:80 db>shop:80", "db>web:80 client>web2:80 out>web:80"),
    ("deny-ingress", "allow-app"): ("client>web:80 out>web2:80 shop>web:80/udp", "web>db:80 web>client:80 out>db:80"),
    ("clients-of-app",): ("web>db:80 web2>db:80", "client>db:80 shop>db:80 out>db:80"),
    ("several-clients",): ("web>db:80 probe>db:80", "web2>db:80 shop>db:80 client>db:80"),
    ("own-namespace",): ("db>web:80 client>web:80 web>shop:80", "shop>web:80 probe>client:80 out>db:80"),
    ("all-namespaces",): ("shop>web:80 probe>web2:80 client>web:80", "out>web:80 node2>web:80"),
    ("one-namespace",): ("shop>web:80 shop>web2:80", "probe>web:80 client>web:80 db>web2:80 out>web:80"),
    ("some-of-one-namespace",): ("probe>db:80", "shop>db:80 web>db:80 client>db:80"),
    ("world",): ("out>web:443 shop>web:443 client>web2:443", "out>web:80 client>web:443/sctp out>web/ping"),
    ("ports",): (
        "db>web:80 db>web:9090 db>web:9091 db>web2:8080 db>web2:9090",
        "db>web:443 db>web:8080 db>web2:80 client>web:80",
    ),
    ("deny-egress",): ("shop>web:80 out>web:80 node1>web:80 probe>client:80", "web>db:80 client>shop:80 db>out/ping"),
    ("deny-egress-of-app",): ("web>db:80 client>db:80/udp web>out:80", "db>web:80 db>client:80 db>out:80"),
    ("deny-egress", "names-only"): ("web>out:53/udp db>client:53/udp", "web>out:80 db>client:80 web>out/ping"),
    ("not-outside",): ("web>db:80 client>shop:80 web2>probe:80/udp", "web>out:80 client>out:53/udp db>node2:80"),
    ("only-outside",): ("db>out:80 db>out:53/udp db>node2:80", "db>web:80 db>client:80 db>probe:80"),
    ("deny-ingress", "ping"): (
        "db>web/ping client>web/ping out>web2/ping",
        "db>web:80 out>web:13.0/icmp shop>client:80",
    ),
    ("allow-app", "quarantine"): (
        "db>web:80 web2>web:80",
        "client>web:80 client>out:80 web>client:80 out>client/ping client>probe:80",
    ),
    ("try-first",): ("db>web:80 client>web/ping shop>web:80 out>web2:80", ""),
}
CASES = {f"recipe {names[-1]}": Case(recipes(*names), *flows) for names, flows in RECIPES.items()}
