"""Pages over TLS on a unix socket, as a browser asks: fetch.py SOCKET WHO PATH...

`WHO` names a certificate in /etc/xen-policy-broker/pki. What a page names (src=, href=) is fetched
with it. Prints one JSON object: path to status, kind, policy, body.
"""

import http.client
import json
import re
import socket
import ssl
import sys

PKI = "/etc/xen-policy-broker/pki"
NAMED = re.compile(r'(?:src|href)="(/[^"]*)"')


class Tls(http.client.HTTPConnection):
    """HTTP over TLS over the socket at `path`."""

    def __init__(self, path: str, who: str) -> None:
        super().__init__("xen-policy-broker", timeout=60)
        self._path = path
        self._context = ssl.create_default_context(cafile=f"{PKI}/ca.crt")
        self._context.load_cert_chain(f"{PKI}/{who}.crt", f"{PKI}/{who}.key")

    def connect(self) -> None:
        """To the socket, whatever the name."""
        plain = socket.socket(socket.AF_UNIX)
        plain.settimeout(60)
        plain.connect(self._path)
        self.sock = self._context.wrap_socket(plain, server_hostname=self.host)


def main() -> None:
    """All on one connection, since a proxy serves one."""
    connection = Tls(*sys.argv[1:3])
    wanted, found = sys.argv[3:], {}
    while wanted:
        path = wanted.pop(0)
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read().decode("utf-8", "replace")
        kind = answer.headers.get("Content-Type", "")
        policy = answer.headers.get("Content-Security-Policy", "")
        found[path] = {"status": answer.status, "kind": kind, "policy": policy, "body": body}
        if kind.startswith("text/html"):
            wanted += [it for it in NAMED.findall(body) if it not in found]
    print(json.dumps(found))


main()
