"""A server of Python's that makes a process for each connection, and clients in another process."""

import os
import select
import socket
import socketserver
import threading

CLIENTS = 20
LENGTH = 300_000


class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        host, port = self.client_address
        assert self.request.getpeername() == (host, port)
        data = self.rfile.read(LENGTH)
        self.wfile.write(b"%05d" % port + data[::-1])


class Server(socketserver.ForkingTCPServer):
    request_queue_size = CLIENTS
    max_children = CLIENTS
    block_on_close = True


def ask(address, number, good):
    data = bytes([number]) * (LENGTH - 1) + b"."
    with socket.create_connection(address) as client:
        client.settimeout(60)
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: client.recv(65536), b""))
        assert answer == b"%05d" % client.getsockname()[1] + data[::-1]
        good.append(number)


def ask_all(address):
    good = []
    asking = [threading.Thread(target=ask, args=(address, n, good)) for n in range(CLIENTS)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    os._exit(0 if len(good) == CLIENTS else 1)


def main():
    told, tell = os.pipe()
    clients = os.fork()
    if clients == 0:
        host, port = os.read(told, 100).decode().split()
        ask_all((host, int(port)))
    with Server(("127.0.0.1", 0), Handler) as server:
        # From the first wait on the listener takes SDP.
        select.select([server], [], [], 0)
        os.write(tell, b"%s %d" % (server.server_address[0].encode(), server.server_address[1]))
        for _ in range(CLIENTS):
            server.handle_request()
    # The children are waited for.
    _, status = os.waitpid(clients, 0)
    assert status == 0
    print("served")


main()
