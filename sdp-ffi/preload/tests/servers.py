"""Servers and clients of Python's library, in one process; says what it has moved."""

import asyncio
import functools
import http.server
import os
import socket
import socketserver
import tempfile
import threading
import urllib.request

DATA = os.urandom(300_000)


async def echo(reader, writer):
    while piece := await reader.read(1 << 16):
        writer.write(piece)
        await writer.drain()
    writer.close()


async def client(port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(DATA)
    writer.write_eof()
    assert await reader.read() == DATA
    writer.close()


async def start(serve):
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    # A process that connects to itself does so by TCP until it has accepted.
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write_eof()
    await reader.read()
    writer.close()
    return server


async def with_asyncio():
    server = await start(echo)
    port = server.sockets[0].getsockname()[1]
    await asyncio.gather(*(client(port) for _ in range(20)))

    with tempfile.TemporaryFile() as file:
        file.write(DATA)
        file.flush()

        async def send(reader, writer):
            await asyncio.get_running_loop().sendfile(writer.transport, file, fallback=False)
            writer.close()

        server = await start(send)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        assert await reader.read() == DATA
        writer.close()


class Upper(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(line.upper())


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *words):
        pass


def serving(server):
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    # A process that connects to itself does so by TCP until it has accepted.
    for _ in range(50):
        with socket.create_connection(server.server_address):
            pass
    return server


def with_threads():
    server = serving(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Upper))
    with socket.create_connection(server.server_address) as connection:
        with connection.makefile("rw") as file:
            file.write("hello\n")
            file.flush()
            assert file.readline() == "HELLO\n"
    server.shutdown()


def with_http():
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "data"), "wb") as file:
            file.write(DATA)
        handler = functools.partial(Quiet, directory=folder)
        server = serving(http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler))
        url = f"http://127.0.0.1:{server.server_port}/data"
        for _ in range(5):
            with urllib.request.urlopen(url) as answer:
                assert answer.read() == DATA
        server.shutdown()


asyncio.run(with_asyncio())
with_threads()
with_http()
print("served")
