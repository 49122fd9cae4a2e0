# SPDX-License-Identifier: GPL-3.0-or-later
"""Count the packets that come in from each address, as JSON: count.py SECONDS ADDRESS..."""

from __future__ import annotations

import ipaddress
import json
import select
import socket
import sys
import time

_EVERYTHING = 3  # ETH_P_ALL
_SOURCE = {0x0800: slice(12, 16), 0x86DD: slice(8, 24)}


def main() -> None:
    seconds, *addresses = sys.argv[1:]
    counts = {ipaddress.ip_address(address).packed: 0 for address in addresses}
    deadline = time.monotonic() + float(seconds)
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_EVERYTHING)) as sock:
        while (left := deadline - time.monotonic()) > 0:
            if select.select([sock], [], [], left)[0]:
                data, (_interface, protocol, kind, *_rest) = sock.recvfrom(100)
                source = data[_SOURCE[protocol]] if protocol in _SOURCE else b""
                if source in counts and kind != socket.PACKET_OUTGOING:
                    counts[source] += 1
    found = {str(ipaddress.ip_address(address)): count for address, count in counts.items()}
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
