"""Threads that store values, large and small, and compare what they get."""

import os
import socket
import sys
import threading

failures = []


def store(file, key, value):
    file.write(b"set %s 0 0 %d\r\n%s\r\n" % (key, len(value), value))
    file.flush()
    assert file.readline() == b"STORED\r\n"


def load(file, key):
    file.write(b"get %s\r\n" % key)
    file.flush()
    words = file.readline().split()
    value = file.read(int(words[3]))
    assert file.read(7) == b"\r\nEND\r\n"
    return value


def work(number):
    try:
        connection = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
        with connection, connection.makefile("rwb") as file:
            for round in range(24):
                key = b"large-%d-%d" % (number, round % 4)
                value = os.urandom(1 << 20)
                store(file, key, value)
                assert load(file, key) == value
            keys = [b"small-%d-%d" % (number, at) for at in range(500)]
            # A pipeline: no answer is read before the last request has left.
            file.write(b"".join(b"set %s 0 0 %d\r\n%s\r\n" % (k, len(k), k) for k in keys))
            file.flush()
            assert all(file.readline() == b"STORED\r\n" for _ in keys)
            assert all(load(file, key) == key for key in keys)
    except BaseException as failure:
        failures.append(failure)
        raise


threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
sys.exit(len(failures))
