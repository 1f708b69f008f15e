"""Servers of every kind that say what they hear, and a client."""

import asyncio
import os
import selectors
import socket
import socketserver
import sys

LEN = 2 << 20


class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        while piece := self.request.recv(1 << 16):
            self.request.sendall(piece)


class Forks(socketserver.ForkingTCPServer):
    request_queue_size = 64
    allow_reuse_address = True


class Threads(socketserver.ThreadingTCPServer):
    request_queue_size = 64
    allow_reuse_address = True


async def echo(reader, writer):
    while piece := await reader.read(1 << 16):
        writer.write(piece)
        await writer.drain()
    writer.close()


async def serve_by_asyncio(port):
    async with await asyncio.start_server(echo, "127.0.0.1", port) as server:
        await server.serve_forever()


def serve_by_select(port):
    selector = selectors.SelectSelector()
    listener = socket.create_server(("127.0.0.1", port), backlog=64)
    listener.setblocking(False)
    selector.register(listener, selectors.EVENT_READ)
    unsent = {}
    while True:
        for key, events in selector.select():
            connection = key.fileobj
            if connection is listener:
                connection, _ = listener.accept()
                connection.setblocking(False)
                unsent[connection] = b""
                selector.register(connection, selectors.EVENT_READ)
                continue
            if events & selectors.EVENT_READ:
                piece = connection.recv(1 << 16)
                if not piece:
                    selector.unregister(connection)
                    connection.close()
                    continue
                unsent[connection] += piece
            if unsent[connection]:
                try:
                    sent = connection.send(unsent[connection])
                except BlockingIOError:
                    sent = 0
                unsent[connection] = unsent[connection][sent:]
            waits = selectors.EVENT_WRITE if unsent[connection] else selectors.EVENT_READ
            selector.modify(connection, waits)


def serve(kind, port):
    if kind == "asyncio":
        asyncio.run(serve_by_asyncio(port))
    elif kind == "select":
        serve_by_select(port)
    else:
        server = {"threads": Threads, "forks": Forks}[kind]
        with server(("127.0.0.1", port), Echo) as server:
            server.serve_forever()


async def call(port):
    sent = os.urandom(LEN)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def send():
        writer.write(sent)
        await writer.drain()

    _, got = await asyncio.gather(send(), reader.readexactly(LEN))
    assert got == sent
    writer.write_eof()
    assert await reader.read() == b""
    writer.close()


async def call_all(port):
    await asyncio.gather(*(call(port) for _ in range(20)))


if sys.argv[1] == "serve":
    try:
        serve(sys.argv[2], int(sys.argv[3]))
    except KeyboardInterrupt:
        pass
else:
    asyncio.run(call_all(int(sys.argv[2])))
