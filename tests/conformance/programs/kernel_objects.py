"""epoll, poll, selectors, inotify, eventfd, pidfd, socketpairs, passed descriptors, Unix servers."""

import array
import ctypes
import os
import select
import selectors
import signal
import socket
import socketserver
import struct
import tempfile
import threading

one, two = socket.socketpair()
epoll = select.epoll()
epoll.register(one, select.EPOLLIN | select.EPOLLET)
print("quiet", epoll.poll(0))
two.sendall(b"x" * 10)
print("readable", [event for _, event in epoll.poll(10)], one.recv(100))
epoll.close()
with selectors.DefaultSelector() as selector:
    selector.register(two, selectors.EVENT_WRITE, data="two")
    print(type(selector).__name__, [key.data for key, _ in selector.select(10)])
poll = select.poll()
poll.register(one, select.POLLIN)
two.shutdown(socket.SHUT_WR)
print("poll", [event for _, event in poll.poll(10_000)], select.select([one], [], [], 10)[0] == [one])

left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
with tempfile.TemporaryFile() as file:
    file.write(b"handed over")
    file.flush()
    socket.send_fds(left, [b"take"], [file.fileno()])
message, descriptors, _, _ = socket.recv_fds(right, 10, 1)
print(message, os.pread(descriptors[0], 100, 0))
right.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
left.send(b"who")
_, ancillary, _, _ = right.recvmsg(10, 100)
sender = struct.unpack("3i", ancillary[0][2])
print("credentials", sender == (os.getpid(), os.getuid(), os.getgid()))

libc = ctypes.CDLL(None, use_errno=True)
with tempfile.TemporaryDirectory() as folder:
    watch = libc.inotify_init1(os.O_NONBLOCK)
    libc.inotify_add_watch(watch, os.fsencode(folder), 0x00000100 | 0x00000200)  # create, delete
    open(os.path.join(folder, "new"), "w").close()
    os.unlink(os.path.join(folder, "new"))
    events, seen = os.read(watch, 4096), []
    while events:
        _, mask, _, length = struct.unpack_from("iIII", events)
        seen.append((hex(mask), events[16 : 16 + length].rstrip(b"\0")))
        events = events[16 + length :]
    print("inotify", seen)

    class Reverse(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            for line in self.rfile:
                self.wfile.write(line.strip()[::-1] + b"\n")

    path = os.path.join(folder, "server")
    with socketserver.ThreadingUnixStreamServer(path, Reverse) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        for word in (b"stressed\n", b"drawer\n"):
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(path)
                client.sendall(word)
                client.shutdown(socket.SHUT_WR)
                print("server", client.makefile("rb").read())
        server.shutdown()

counter = os.eventfd(3)
os.eventfd_write(counter, 4)
print("eventfd", os.eventfd_read(counter))
if (pid := os.fork()) == 0:
    signal.pause()
    os._exit(1)
handle = os.pidfd_open(pid)
signal.pidfd_send_signal(handle, signal.SIGKILL)
print("pidfd", select.select([handle], [], [], 10)[0] == [handle], os.waitpid(pid, 0)[1])
reader, writer = os.pipe2(os.O_NONBLOCK)
try:
    os.read(reader, 1)
except BlockingIOError:
    print("pipe", os.write(writer, array.array("i", [1, 2]).tobytes()), len(os.read(reader, 100)))
