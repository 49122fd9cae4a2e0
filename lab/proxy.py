# SPDX-License-Identifier: GPL-3.0-or-later
"""ssh's ProxyCommand: connect from this network namespace, give the socket to ssh, end.

Usage: proxy.py HOST PORT, with a Unix socket as standard output (ProxyUseFdpass).
"""

from __future__ import annotations

import socket
import sys


def main() -> int:
    host, port = sys.argv[1:3]
    try:
        connection = socket.create_connection((host, int(port)), timeout=10)
    except OSError as error:
        print(f"cannot connect to {host} port {port}: {error}", file=sys.stderr)
        return 1
    connection.settimeout(None)
    with socket.socket(fileno=1) as ssh:
        socket.send_fds(ssh, [b"\0"], [connection.fileno()])
    return 0


if __name__ == "__main__":
    sys.exit(main())
