#!/usr/bin/env python3
"""engine_asyncio: the server of engine_epoll.c in asyncio, by way of ctypes: no package, no thread, no call that waits.

    engine_asyncio.py SOCKET [URL]            then, for instance: socat - UNIX-CONNECT:SOCKET

The class Engine is what is worth copying: the engine's descriptor goes into the loop with add_reader, each request is a future that is
found by its tag, and a task that is cancelled gives its request up. The protocol is that of kv.h. DBHA_LIBRARY: where libdbha.so is.
"""

import asyncio
import ctypes
import os
import re
import signal
import sys
from ctypes import (POINTER, byref, c_bool, c_char, c_char_p, c_int, c_int32, c_int64, c_size_t, c_uint32, c_uint64,
                    c_void_p)

READ, WRITE = 1, 2
OK = 0


class Error(ctypes.Structure):
    _fields_ = [("code", c_int32), ("sqlstate", c_char * 6), ("retry_safe", c_bool), ("outcome_unknown", c_bool),
                ("attempts", c_int32), ("node", c_char * 136), ("message", c_char * 840)]


class Request(ctypes.Structure):
    _fields_ = [("size", c_size_t), ("sql", c_char_p), ("intent", c_int), ("flags", c_uint32), ("timeout_ms", c_int),
                ("n_params", c_int), ("types", c_void_p), ("values", POINTER(c_char_p)), ("lengths", c_void_p),
                ("formats", c_void_p), ("result_format", c_int), ("consistency", c_int), ("token", c_char_p),
                ("route", c_void_p)]


class Route(ctypes.Structure):
    _fields_ = [("size", c_size_t), ("intent", c_int32), ("reason", c_int32), ("role", c_int32), ("attempts", c_int32),
                ("lag_ms", c_int64), ("lag_bytes", c_int64), ("node", c_char * 136), ("why", c_char * 256),
                ("token", c_char * 64)]


class Completion(ctypes.Structure):
    _fields_ = [("size", c_size_t), ("tag", c_uint64), ("code", c_int32), ("result", c_void_p), ("error", Error),
                ("route", Route), ("results", POINTER(c_void_p)), ("n_results", c_int), ("failed", c_int)]


class Options(ctypes.Structure):
    _fields_ = [("size", c_size_t), ("connections", c_int), ("depth", c_int), ("queue", c_int), ("thread", c_int)]


def declare(library, functions):
    for name, (result, *arguments) in functions.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


dbha = declare(ctypes.CDLL(os.environ.get("DBHA_LIBRARY", "libdbha.so.0")), {
    "dbha_open": (c_void_p, c_char_p, POINTER(Error)),
    "dbha_close": (None, c_void_p, c_int),
    "dbha_engine_open": (c_void_p, c_void_p, POINTER(Options), POINTER(Error)),
    "dbha_engine_fd": (c_int, c_void_p, POINTER(Error)),
    "dbha_engine_step": (c_int, c_void_p, POINTER(c_int64), POINTER(Error)),
    "dbha_engine_stop": (None, c_void_p, c_int),
    "dbha_engine_close": (None, c_void_p),
    "dbha_submit": (c_int, c_void_p, POINTER(Request), c_uint64, POINTER(Error)),
    "dbha_submit_cancel": (c_int, c_void_p, c_uint64, POINTER(Error)),
    "dbha_next_completion": (c_int, c_void_p, POINTER(Completion), c_int, POINTER(Error)),
})
libpq = declare(ctypes.CDLL("libpq.so.5"), {
    "PQntuples": (c_int, c_void_p),
    "PQnfields": (c_int, c_void_p),
    "PQgetisnull": (c_int, c_void_p, c_int, c_int),
    "PQgetvalue": (c_char_p, c_void_p, c_int, c_int),
    "PQclear": (None, c_void_p),
})


class DatabaseError(Exception):
    def __init__(self, error):
        super().__init__(error.message.decode())
        self.code, self.outcome_unknown = error.code, error.outcome_unknown


def rows_of(result):
    """What a PGresult has in it, as texts; frees it."""
    try:
        return [tuple(None if libpq.PQgetisnull(result, row, column) else libpq.PQgetvalue(result, row, column).decode()
                      for column in range(libpq.PQnfields(result)))
                for row in range(libpq.PQntuples(result))]
    finally:
        libpq.PQclear(result)


class Engine:
    """Of one event loop: everything happens in its thread."""

    def __init__(self, url, queue=256):
        error = Error()
        self.loop = asyncio.get_running_loop()
        self.tag = 0
        self.futures = {}  # of what is under way, by tag
        self.room = asyncio.Semaphore(queue)  # who finds none waits here, in the order of arrival: the engine never has to refuse
        self.handle = dbha.dbha_open(url.encode() if url else None, byref(error))
        if not self.handle:
            raise DatabaseError(error)
        self.engine = dbha.dbha_engine_open(self.handle, byref(Options(ctypes.sizeof(Options), queue=queue)), byref(error))
        if not self.engine:
            dbha.dbha_close(self.handle, 0)
            raise DatabaseError(error)
        self.fd = dbha.dbha_engine_fd(self.engine, None)
        self.loop.add_reader(self.fd, self.on_ready)

    def on_ready(self):
        dbha.dbha_engine_step(self.engine, None, None)
        self.take_completions()

    def take_completions(self):
        done = Completion(ctypes.sizeof(Completion))
        while dbha.dbha_next_completion(self.engine, byref(done), 0, None) == 1:
            future = self.futures.pop(done.tag)
            self.room.release()
            if future.done():  # its task was cancelled
                libpq.PQclear(done.result)
            elif done.code == OK:
                future.set_result(rows_of(done.result))
            else:
                libpq.PQclear(done.result)
                future.set_exception(DatabaseError(done.error))

    def submit(self, sql, intent, parameters):
        """Hands a request over; its tag."""
        error = Error()
        values = (c_char_p * len(parameters))(*(value.encode() for value in parameters))
        request = Request(ctypes.sizeof(Request), sql.encode(), intent, n_params=len(parameters), values=values)
        self.tag += 1
        if dbha.dbha_submit(self.engine, byref(request), self.tag, byref(error)) != OK:
            raise DatabaseError(error)
        return self.tag

    async def execute(self, intent, sql, *parameters):
        """The rows of one statement, as tuples of texts. A task that is cancelled meanwhile gives it up."""
        await self.room.acquire()  # given back with the completion, which comes in any case
        try:
            tag = self.submit(sql, intent, parameters)
        except BaseException:
            self.room.release()
            raise
        future = self.futures[tag] = self.loop.create_future()
        try:
            return await future
        except asyncio.CancelledError:
            if tag in self.futures:
                dbha.dbha_submit_cancel(self.engine, tag, None)
            raise

    def close(self, drain_ms=2000):
        """What is under way has a moment to end. It is waited for here, and the loop stands still meanwhile."""
        self.loop.remove_reader(self.fd)
        dbha.dbha_engine_stop(self.engine, drain_ms)
        self.take_completions()
        dbha.dbha_engine_close(self.engine)
        dbha.dbha_close(self.handle, 0)
        self.engine = self.handle = None  # who comes too late is refused


TABLE = "CREATE TABLE IF NOT EXISTS dbha_kv (id bigint PRIMARY KEY, said text NOT NULL)"
GET = "SELECT said FROM dbha_kv WHERE id = $1"
PUT = "INSERT INTO dbha_kv VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET said = excluded.said"


async def answer(engine, line):
    if line == "PING":
        return "PONG"
    try:
        if words := re.fullmatch(r"GET (\d+)", line):
            rows = await engine.execute(READ, GET, words[1])
            return f"VALUE {rows[0][0]}" if rows else "NONE"
        if words := re.fullmatch(r"PUT (\d+) (.*)", line):
            await engine.execute(WRITE, PUT, words[1], words[2])
            return "OK"
    except DatabaseError as error:
        return ("UNKNOWN " if error.outcome_unknown else "ERROR ") + str(error).replace("\n", " ")
    return "ERROR say GET id, PUT id text, or PING"


async def serve(engine, reader, writer):
    """One client: one line under way. The next one is read meanwhile, so that it is noticed when he hangs up."""
    next_line = asyncio.create_task(reader.readline())
    try:
        while line := await next_line:
            work = asyncio.create_task(answer(engine, line.decode(errors="replace").rstrip("\n")))
            next_line = asyncio.create_task(reader.readline())
            await asyncio.wait({work, next_line}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done() and not next_line.result():
                work.cancel()
                break
            writer.write((await work + "\n").encode())
            await writer.drain()
    except (ConnectionError, ValueError, asyncio.CancelledError):  # he is gone; his line is too long; the server ends
        pass
    finally:
        next_line.cancel()
        writer.close()


async def main(path, url):
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    engine = Engine(url)
    try:
        await engine.execute(WRITE, TABLE)
        await asyncio.start_unix_server(lambda reader, writer: serve(engine, reader, writer), path, backlog=1024)
        await ended.wait()
    finally:
        engine.close()
        if os.path.exists(path):
            os.unlink(path)


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit("usage: engine_asyncio.py SOCKET [URL]")
    asyncio.run(main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None))
