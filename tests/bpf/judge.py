# SPDX-License-Identifier: GPL-3.0-or-later
"""Scapy as the independent judge of what the dataplane has written."""

from __future__ import annotations

from scapy.all import ICMP, IP, Ether, IPv6, Raw


def checksums_hold(frame: bytes) -> bool:
    """Do the IPv4 header's and the ICMP or ICMPv6 message's checksum hold?"""
    packet = Ether(frame)
    ip, message = (packet[IP], packet[ICMP]) if IP in packet else (packet[IPv6], packet[IPv6].payload)
    body = message.payload.original
    message.remove_payload()
    message.add_payload(Raw(body))  # what is quoted stays as it is, however odd
    for layer, name in ((ip, "chksum"), (message, "chksum"), (message, "cksum")):
        if name in layer.fields:
            delattr(layer, name)
    return bytes(packet) == frame
