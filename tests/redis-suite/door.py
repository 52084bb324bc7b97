"""A door before the port for Redis clients, for the test suite of the Redis project.

That suite asks its server for more than keys: it empties it, sets its configuration and looks at
encodings. Those commands go to the Redis behind the participant; every other goes to the port. A
flush deletes all keys but those of Assent, which the service's data does not contain.

door.py LISTEN_PORT ASSENT_PORT REDIS_PORT [COMMAND…]

A COMMAND goes to the port although it is about the server: a suite that changes passwords and rights
would lock the participant out of its Redis.
"""

import asyncio
import sys

# What is about the server, not about keys.
OF_THE_SERVER = {
    b"ACL", b"BGREWRITEAOF", b"BGSAVE", b"COMMAND", b"CONFIG", b"DEBUG", b"FUNCTION", b"INFO",
    b"LASTSAVE", b"LATENCY", b"MEMORY", b"OBJECT", b"SAVE", b"SCRIPT", b"SLOWLOG", b"TIME",
}
FLUSHES = {b"FLUSHALL", b"FLUSHDB"}
# Commands of a client that go to the port in one piece.
PIPELINE_MAX = 200
ALL_BUT_OURS = b"""
local cursor, all = '0', 0
repeat
  local found = redis.call('SCAN', cursor, 'COUNT', 1000)
  cursor = found[1]
  for _, key in ipairs(found[2]) do
    if string.sub(key, 1, 7) ~= 'assent:' then all = all + redis.call(ARGV[1], key) end
  end
until cursor == '0'
return all
"""


class Closed(Exception):
    """The other side is gone."""


async def line_of(reader):
    line = await reader.readline()
    if not line.endswith(b"\n"):
        raise Closed
    return line


async def command_of(reader):
    """One command: its words, and its bytes as they came."""
    head = await line_of(reader)
    if not head.startswith(b"*"):
        return head.split(), head
    raw, words = [head], []
    for _ in range(int(head[1:])):
        length = await line_of(reader)
        word = await reader.readexactly(int(length[1:]) + 2)
        raw += [length, word]
        words.append(word[:-2])
    return words, b"".join(raw)


async def reply_of(reader):
    """One whole reply, of RESP2 or RESP3."""
    head = await line_of(reader)
    kind, rest = head[:1], head[1:].strip()
    if kind in b"$=!":
        return head if rest == b"-1" else head + await reader.readexactly(int(rest) + 2)
    if kind in b"*~>%|":
        count = max(int(rest), 0) * (2 if kind in b"%|" else 1)
        # Attributes stand before the reply that they belong to.
        count += kind == b"|"
        return head + b"".join([await reply_of(reader) for _ in range(count)])
    return head


def encoded(*words):
    parts = [b"*%d\r\n" % len(words)]
    parts += [b"$%d\r\n%s\r\n" % (len(word), word) for word in words]
    return b"".join(parts)


async def read_ahead(client, queue):
    """Puts the client's commands into the queue, and None at its end."""
    try:
        while True:
            await queue.put(await command_of(client))
    except (Closed, ConnectionError, asyncio.IncompleteReadError):
        await queue.put(None)


async def ask(side, *commands):
    """The replies to commands that go out in one piece."""
    side[1].write(b"".join(commands))
    return b"".join([await reply_of(side[0]) for _ in commands])


def is_for_redis(words, to_the_port):
    name = words[0].upper() if words else b""
    if name == b"CLIENT":
        return bool(words[1:]) and words[1].upper() in (b"LIST", b"KILL")
    return name in FLUSHES | {b"DBSIZE"} | (OF_THE_SERVER - to_the_port)


async def reply_of_redis(words, raw, redis):
    name = words[0].upper()
    if name in FLUSHES:
        await ask(redis, encoded(b"EVAL", ALL_BUT_OURS, b"0", b"DEL"))
        return b"+OK\r\n"
    if name == b"DBSIZE":
        return await ask(redis, encoded(b"EVAL", ALL_BUT_OURS, b"0", b"EXISTS"))
    return await ask(redis, raw)


async def serve(client, out, assent_port, redis_port, to_the_port):
    assent = await asyncio.open_connection("127.0.0.1", assent_port)
    redis = await asyncio.open_connection("127.0.0.1", redis_port)
    queue = asyncio.Queue(PIPELINE_MAX)
    reading = asyncio.create_task(read_ahead(client, queue))
    try:
        pipeline, command = [], True
        while command:
            command = await queue.get()
            words, raw = command or ([], b"")
            is_redis_s = is_for_redis(words, to_the_port)
            if command and not is_redis_s:
                pipeline.append(raw)
                if words and words[0].upper() == b"HELLO":
                    await ask(redis, raw)
                if not queue.empty() and len(pipeline) < PIPELINE_MAX:
                    continue
            if pipeline:
                out.write(await ask(assent, *pipeline))
                pipeline = []
            if is_redis_s:
                out.write(await reply_of_redis(words, raw, redis))
            await out.drain()
    except (Closed, ConnectionError, asyncio.IncompleteReadError):
        pass
    finally:
        reading.cancel()
        for writer in (out, assent[1], redis[1]):
            writer.close()


async def main(listen, assent_port, redis_port, to_the_port):
    async def one(client, out):
        await serve(client, out, assent_port, redis_port, to_the_port)

    server = await asyncio.start_server(one, "127.0.0.1", listen, limit=2**30)
    async with server:
        await server.serve_forever()


asyncio.run(main(*map(int, sys.argv[1:4]), {name.encode() for name in sys.argv[4:]}))
