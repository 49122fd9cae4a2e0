# SPDX-License-Identifier: GPL-3.0-or-later
"""What connects Ansible and ssh to a lab, as text: pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.plan import UPLINK, NodePlan, Topology


@dataclass(frozen=True)
class Access:
    """Where the files are that ssh needs; sockets is short because a socket's path has 108 bytes at most."""

    config: Path
    key: Path
    known_hosts: Path
    sockets: Path
    python: str
    proxy: Path


def ssh_config(topology: Topology, access: Access) -> str:
    """An ssh_config with one Host per node, reachable by name and by address."""
    hosts = "\n".join(
        f"Host {' '.join(dict.fromkeys((node.name, *node.addresses, node.reached_at)))}\n  HostName {node.reached_at}"
        for node in topology
    )
    return f"""{hosts}

Match all
  User root
  IdentityFile {access.key}
  IdentitiesOnly yes
  HostKeyAlias {topology.name}
  UserKnownHostsFile {access.known_hosts}
  StrictHostKeyChecking yes
  # The helper connects inside the fabric and hands the socket over: no relay in the data path.
  ProxyCommand nsenter --net=/run/netns/{topology.fabric} -- {access.python} -I -S {access.proxy} %h %p
  ProxyUseFdpass yes
  ControlMaster auto
  ControlPersist 60s
  ControlPath {access.sockets}/%C
  ConnectTimeout 10
  ServerAliveInterval 15
  ServerAliveCountMax 8
  LogLevel ERROR
"""


def inventory(topology: Topology, access: Access) -> str:
    """An Ansible inventory: group `nodes`, its connection, and per node the address plan."""
    # Ansible looks for these options in the arguments, not in the file; without them it would use its own socket.
    arguments = f"-F {access.config} -o ControlMaster=auto -o ControlPersist=60s -o ControlPath={access.sockets}/%C"
    hosts = "".join(_host(node) for node in topology)
    return f"""---
nodes:
  vars:
    ansible_user: root
    ansible_python_interpreter: /usr/bin/python3
    ansible_ssh_private_key_file: {_quoted(str(access.key))}
    ansible_ssh_args: {_quoted(arguments)}
    lab_name: {topology.name}
  hosts:
{hosts}"""


def _host(node: NodePlan) -> str:
    containers = "".join(
        f"""        - name: {container.name}
          netns: {container.netns}
          addresses: {_list(container.addresses)}
"""
        for container in node.containers
    )
    return f"""    {node.name}:
      ansible_host: {node.reached_at}
      lab_uplink: {{name: {UPLINK}, mac: {_quoted(node.mac)}, addresses: {_list(node.addresses)}}}
      lab_prefixes: {_list(node.prefixes)}
      lab_containers:{"" if containers else " []"}
{containers}"""


def _list(values: Sequence[str]) -> str:
    return f"[{', '.join(_quoted(value) for value in values)}]"


def _quoted(value: str) -> str:
    """A double-quoted YAML scalar; colons in MACs and addresses would otherwise be read as numbers or maps."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
