"""A TLS front for the server, with an authority of its own: some clients send other requests where TLS protects them."""

import socket
import ssl
import threading

import trustme

from steps import ADDRESS, WORK


class Front:
    """Listens on a free port of the loopback interface and hands every connection on, until the `with` block ends."""

    def __enter__(self):
        authority = trustme.CA()
        self.authority = str(WORK / "authority.pem")
        authority.cert_pem.write_to_path(self.authority)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(self.context)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"https://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.listener.close()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:  # the listener is closed
                return
            threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client):
        try:
            client = self.context.wrap_socket(client, server_side=True)
        except OSError:  # a client that went away
            return
        host, port = ADDRESS.split(":")
        server = socket.create_connection((host, int(port)))
        threading.Thread(target=pump, args=(client, server), daemon=True).start()
        pump(server, client)


def pump(source, sink):
    """Hands on what comes until either side ends."""
    try:
        while data := source.recv(1 << 16):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:  # the other side ended first
        pass
