"""A TCP proxy with a bad temper: python3 proxy.py PORT HOST:PORT slow|stall

slow: 64 KiB a second each way, in pieces of 4 KiB that come 20 ms late.
stall: from the third second on nothing passes for five seconds, though every connection stays open.
"""
import socket
import sys
import threading
import time

PIECE = 4096
started = None
told = threading.Event()


def temper(mode):
    global started
    started = started or time.monotonic()
    if mode == "slow":
        time.sleep(0.02 + PIECE / 65536)
        return
    while 3 < time.monotonic() - started < 8:
        if not told.is_set():
            told.set()
            print("stalled", flush=True)
        time.sleep(0.05)


def pump(source, sink, mode):
    try:
        while piece := source.recv(PIECE):
            temper(mode)
            sink.sendall(piece)
    except OSError:
        pass
    for end in (source, sink):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


def main():
    port, target, mode = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    host, _, far_port = target.rpartition(":")
    with socket.create_server(("127.0.0.1", port)) as listener:
        print("ready", flush=True)
        while True:
            near, _ = listener.accept()
            try:
                far = socket.create_connection((host, int(far_port)))
            except OSError:
                near.close()
                continue
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=pump, args=(source, sink, mode), daemon=True).start()


main()
