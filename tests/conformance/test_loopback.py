"""Programs that start a server and test it, in a run with loopback: the same answers as outside.

Each is a kind of server with its own client. Without loopback none can begin, and the hint says who may turn it on.
"""

import subprocess
import sys
import textwrap

import pytest

import isorun

PROGRAMS = {
    "http.server": """
        import http.server, threading, urllib.error, urllib.request
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200 if self.path == "/" else 404)
                self.end_headers()
                self.wfile.write(f"you asked for {self.path}".encode())
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(201)
                self.end_headers()
                self.wfile.write(body[::-1])
            def log_message(self, *words):
                pass
        with http.server.ThreadingHTTPServer(("localhost", 0), Handler) as server:
            threading.Thread(target=server.serve_forever).start()
            at = f"http://localhost:{server.server_port}"
            print(urllib.request.urlopen(f"{at}/", timeout=10).read())
            print(urllib.request.urlopen(f"{at}/", data=b"abc", timeout=10).status)
            try:
                urllib.request.urlopen(f"{at}/nope", timeout=10)
            except urllib.error.HTTPError as error:
                print(error.code, error.read())
                error.close()
            server.shutdown()
    """,
    "files over http": """
        import http.client, http.server, os, threading
        from functools import partial
        os.makedirs("site", exist_ok=True)
        with open("site/page.html", "w") as file:
            file.write("<p>" + "x" * 300_000)
        class Quiet(http.server.SimpleHTTPRequestHandler):
            def log_message(self, *words):
                pass
        with http.server.HTTPServer(("127.0.0.1", 0), partial(Quiet, directory="site")) as server:
            threading.Thread(target=server.serve_forever).start()
            client = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
            client.request("GET", "/page.html")
            answer = client.getresponse()
            print(answer.status, answer.headers["Content-Type"], len(answer.read()))
            client.close()
            server.shutdown()
    """,
    "asyncio streams": """
        import asyncio
        async def echo(reader, writer):
            while line := await reader.readline():
                writer.write(line.upper())
                await writer.drain()
            writer.close()
        async def ask(port, word):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(word)
            answer = await reader.readline()
            writer.close()
            await writer.wait_closed()
            return answer
        async def main():
            server = await asyncio.start_server(echo, "127.0.0.1", 0)
            async with server:
                port = server.sockets[0].getsockname()[1]
                words = (b"word %d" % number + bytes([10]) for number in range(20))
                print(await asyncio.gather(*(ask(port, word) for word in words)))
        asyncio.run(main())
    """,
    "asyncio datagrams": """
        import asyncio
        class Server(asyncio.DatagramProtocol):
            def connection_made(self, transport):
                self.transport = transport
            def datagram_received(self, data, address):
                self.transport.sendto(data[::-1], address)
        class Client(asyncio.DatagramProtocol):
            def __init__(self, answer):
                self.answer = answer
            def datagram_received(self, data, address):
                self.answer.set_result(data)
        async def main():
            loop = asyncio.get_running_loop()
            server, _ = await loop.create_datagram_endpoint(Server, local_addr=("127.0.0.1", 0))
            answer = loop.create_future()
            to = server.get_extra_info("sockname")
            client, _ = await loop.create_datagram_endpoint(lambda: Client(answer), remote_addr=to)
            client.sendto(b"abc")
            print(await asyncio.wait_for(answer, 10))
            client.close()
            server.close()
        asyncio.run(main())
    """,
    "socketserver in a fork": """
        import os, signal, socket, socketserver
        class Handler(socketserver.StreamRequestHandler):
            def handle(self):
                self.wfile.write(f"{len(self.rfile.readline())}".encode())
        with socketserver.TCPServer(("127.0.0.1", 0), Handler) as server:
            child = os.fork()
            if child == 0:
                server.serve_forever()
            with socket.create_connection(server.server_address, timeout=10) as client:
                client.sendall(b"hello" + bytes([10]))
                print(client.makefile().read())
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    """,
    "a server in a subprocess": """
        import subprocess, sys, urllib.request
        serving = '''
        import http.server
        class Quiet(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"from a child")
            def log_message(self, *words):
                pass
        with http.server.HTTPServer(("127.0.0.1", 0), Quiet) as server:
            print(server.server_port, flush=True)
            server.handle_request()
        '''
        import textwrap
        with subprocess.Popen([sys.executable, "-c", textwrap.dedent(serving)], stdout=subprocess.PIPE) as child:
            port = int(child.stdout.readline())
            print(urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10).read())
        print(child.returncode)
    """,
    "a manager over TCP": """
        from multiprocessing.managers import BaseManager
        import queue
        class Jobs(BaseManager):
            pass
        def main():
            waiting = queue.Queue()
            Jobs.register("waiting", lambda: waiting)
            served = Jobs(("127.0.0.1", 0), b"key")
            served.start()
            Jobs.register("waiting")
            client = Jobs(served.address, b"key")
            client.connect()
            client.waiting().put({"n": 6})
            print(served.waiting().get(timeout=10)["n"] * 7)
            served.shutdown()
        main()
    """,
    "xmlrpc": """
        import threading, xmlrpc.client, xmlrpc.server
        with xmlrpc.server.SimpleXMLRPCServer(("localhost", 0), logRequests=False) as server:
            server.register_function(pow, "power")
            threading.Thread(target=server.serve_forever).start()
            with xmlrpc.client.ServerProxy(f"http://localhost:{server.server_address[1]}") as proxy:
                print(proxy.power(2, 10))
                try:
                    proxy.nothing()
                except xmlrpc.client.Fault as fault:
                    print(fault.faultCode)
            server.shutdown()
    """,
    "wsgi": """
        import threading, urllib.request
        from wsgiref.simple_server import WSGIRequestHandler, make_server
        class Quiet(WSGIRequestHandler):
            def log_message(self, *words):
                pass
        def app(environ, start_response):
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [environ["PATH_INFO"].encode(), b" ", environ["REMOTE_ADDR"].encode()]
        with make_server("127.0.0.1", 0, app, handler_class=Quiet) as server:
            threading.Thread(target=server.handle_request).start()
            print(urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/x", timeout=10).read())
    """,
    "both versions": """
        import socket, threading
        for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            with socket.create_server((host, 0), family=family) as server:
                threading.Thread(target=lambda: server.accept()[0].sendall(bytes(1_000_000))).start()
                with socket.create_connection(server.getsockname()[:2], timeout=10) as client:
                    print(client.getpeername()[0], len(client.makefile("rb").read(1_000_000)))
        with socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True) as server:
            socket.create_connection(("127.0.0.1", server.getsockname()[1]), timeout=10).close()
            print(server.accept()[1][0])
    """,
    "many clients": """
        import selectors, socket, threading
        with socket.create_server(("127.0.0.1", 0), backlog=100) as server:
            def serve():
                for _ in range(100):
                    channel, _ = server.accept()
                    with channel:
                        channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                        channel.sendall(channel.recv(64))
            thread = threading.Thread(target=serve)
            clients = [socket.create_connection(server.getsockname(), timeout=10) for _ in range(100)]
            thread.start()
            for number, client in enumerate(clients):
                client.sendall(b"%d" % number)
            print(sum(int(client.recv(64)) for client in clients))
            for client in clients:
                client.close()
            thread.join()
    """,
    "a line protocol over mail": """
        import smtplib, socket, threading
        def serve(server):
            channel, _ = server.accept()
            with channel, channel.makefile("rwb", 0) as lines:
                lines.write(b"220 here\\r\\n")
                while line := lines.readline():
                    word = line[:4].upper()
                    lines.write({b"DATA": b"354 go on\\r\\n", b"QUIT": b"221 bye\\r\\n"}.get(word, b"250 ok\\r\\n"))
                    if word == b"DATA":
                        while lines.readline() != b".\\r\\n":
                            pass
                        lines.write(b"250 kept\\r\\n")
        with socket.create_server(("127.0.0.1", 0)) as server:
            threading.Thread(target=serve, args=(server,), daemon=True).start()
            with smtplib.SMTP("127.0.0.1", server.getsockname()[1], local_hostname="x", timeout=10) as mail:
                print(mail.sendmail("a@b.c", ["d@e.f"], "text"))
    """,
}


def written(name: str) -> str:
    return textwrap.dedent(PROGRAMS[name])


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_server_and_its_client_do_as_outside(rt: isorun.SyncRuntime, sealed: str, name: str, tmp_path) -> None:
    """The same output, in the run that asked for loopback; the result says that it had it."""
    if name == "both versions" and not _has_ipv6():
        name = "many clients"
    outside = subprocess.run(
        [sys.executable, "-c", written(name)], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert (outside.returncode, outside.stderr) == (0, "")
    result = rt.execute(written(name), network="loopback", timeout_s=40)
    assert (result.status, result.stdout) == ("ok", outside.stdout), result.report_text
    assert result.isolation["walls"]["network"] == "loopback"
    assert result.isolation["level"] == "full"


def _has_ipv6() -> bool:
    import socket

    try:
        with socket.socket(socket.AF_INET6) as one:
            one.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.parametrize("name", ["http.server", "xmlrpc", "asyncio streams", "a server in a subprocess"])
def test_without_it_the_hint_says_who_may_turn_it_on(rt: isorun.SyncRuntime, sealed: str, name: str) -> None:
    """By the option's two names; loopback is never there by itself."""
    result = rt.execute(written(name), timeout_s=40)
    assert result.status == "failed"
    assert 'have the caller turn loopback on: --loopback (network="loopback")' in result.error.hint
    assert result.isolation["walls"]["network"] == "none"


def test_nothing_leads_out_and_the_hint_says_so(rt: isorun.SyncRuntime, sealed: str) -> None:
    """An address and a name outside; and a port of its own where no server listens."""
    for code in ("socket.create_connection(('192.0.2.1', 80), 5)", "socket.create_connection(('example.org', 80), 5)"):
        result = rt.execute(f"import socket; {code}", network="loopback", timeout_s=30)
        assert "the program has no network" in result.error.hint, result.report_text
    refused = rt.execute("import socket; socket.create_connection(('localhost', 1), 5)", network="loopback")
    assert "no server listens there" in refused.error.hint


def test_a_program_finds_itself_by_its_hostname(rt: isorun.SyncRuntime, sealed: str) -> None:
    """As on any machine: the name has an address, also without loopback; with it a server answers there."""
    found = "import socket\nprint(socket.getfqdn(), socket.gethostbyname(socket.gethostname()))\n"
    serve = """
with socket.create_server((socket.gethostbyname(socket.gethostname()), 0)) as server:
    socket.create_connection((socket.gethostname(), server.getsockname()[1]), 10).close()
    server.accept()[0].close()
"""
    for network, code in (("none", found), ("loopback", found + serve)):
        result = rt.execute(code, network=network, timeout_s=40)
        assert (result.status, result.stdout) == ("ok", "isorun 127.0.1.1\n"), result.report_text


def test_many_runs_may_have_the_same_port(rt: isorun.SyncRuntime, sealed: str) -> None:
    """Each listens on port 8000 of its own at the same time."""
    code = """
import socket, time
with socket.create_server(("127.0.0.1", 8000)) as server:
    socket.create_connection(("127.0.0.1", 8000), 5).close()
    print(server.accept()[1][0])
    time.sleep(1)
"""
    results = list(rt.map([code] * 3, network="loopback", at_once=3, timeout_s=40))
    assert [(result.status, result.stdout) for result in results] == [("ok", "127.0.0.1\n")] * 3
