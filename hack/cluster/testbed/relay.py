"""A small TCP relay: one fixed target, or an HTTP proxy when no target is given. Needs nothing but Python.

    relay.py LISTEN [HOST:PORT [PROXY:PORT]]       LISTEN is an inherited socket (a number) or [ADDRESS]:PORT

A socket belongs to the network namespace that it was made in: the driver makes the listening socket on the host, and this
program, run inside the cluster's namespaces, accepts there and dials here. In a cluster that is not ours it runs as a pod.
"""

import asyncio
import contextlib
import os
import socket
import stat
import sys
from urllib.parse import urlsplit

_CHUNK = 1 << 16
_PATIENCE = 30.0


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):  # the other side may be gone already
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()  # keep the other direction: a client may half-close and still read


async def _join(
    left: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    right: tuple[asyncio.StreamReader, asyncio.StreamWriter],
) -> None:
    try:
        await asyncio.gather(_copy(left[0], right[1]), _copy(right[0], left[1]))
    finally:
        right[1].close()


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


async def _dial(address: str, via: str | None = None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = _split(via or address)
    reader, writer = await asyncio.wait_for(asyncio.open_connection(host, port), _PATIENCE)
    if via:
        writer.write(f"CONNECT {address} HTTP/1.1\r\n\r\n".encode())
        answer = await reader.readuntil(b"\r\n\r\n")
        if b" 200 " not in answer.partition(b"\r\n")[0]:
            raise ConnectionRefusedError(f"{via} does not reach {address}")
    return reader, writer


async def _proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    first, _, rest = head.partition(b"\r\n")
    method, target, version = first.decode("latin-1").split(" ", 2)
    if method == "CONNECT":
        try:
            upstream = await _dial(target)
        except (OSError, TimeoutError) as error:
            writer.write(f"HTTP/1.1 502 {type(error).__name__}\r\ncontent-length: 0\r\n\r\n".encode())
            return
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await _join((reader, writer), upstream)
        return
    url = urlsplit(target)
    path = (url.path or "/") + (f"?{url.query}" if url.query else "")
    try:
        upstream = await _dial(f"{url.hostname}:{url.port or 80}")
    except (OSError, TimeoutError) as error:
        reason = f"{type(error).__name__}: {error}".encode()
        answer = f"HTTP/1.1 502 unreachable\r\ncontent-length: {len(reason)}\r\nconnection: close\r\n\r\n"
        writer.write(answer.encode() + reason)
        return
    drop = (b"connection:", b"proxy-connection:", b"keep-alive:")
    kept = [line for line in rest.split(b"\r\n") if line and not line.lower().startswith(drop)]
    lines = [f"{method} {path} {version}".encode("latin-1"), *kept, b"connection: close"]  # one request each
    upstream[1].write(b"\r\n".join(lines) + b"\r\n\r\n")
    await _join((reader, writer), upstream)


async def _serve(listener: socket.socket, target: str | None, via: str | None) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if target is None:
                await _proxy(reader, writer)
            else:
                await _join((reader, writer), await _dial(target, via))
        except (
            OSError,
            TimeoutError,
            asyncio.IncompleteReadError,
            asyncio.LimitOverrunError,
            ValueError,
        ) as error:
            print(f"{target or 'proxy'}: {error!r}", file=sys.stderr, flush=True)
        finally:
            writer.close()

    server = await asyncio.start_server(handle, sock=listener, backlog=512, limit=1 << 18)
    over = asyncio.Event()
    if stat.S_ISFIFO(os.fstat(0).st_mode):  # the other end closes when whoever started us is gone
        asyncio.get_running_loop().add_reader(0, over.set)
    async with server:
        await over.wait()


def main(arguments: list[str]) -> None:
    listen, target, via = [*arguments, None, None][:3]
    if listen is None:
        raise SystemExit(__doc__)
    listener = (
        socket.create_server(_split(listen), backlog=512)
        if ":" in listen
        else socket.socket(fileno=int(listen))
    )
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(listener, target, via))


if __name__ == "__main__":
    main(sys.argv[1:])
