"""What children are asked to do in ``test_isolation``; apart, so that importing it costs them nothing."""

import sys
from pathlib import Path


def grow(request):
    sys.stdout.write(str(len(bytearray(request["bytes"]))))


def spin(request):
    while True:
        pass


def write_file(request):
    Path(request["path"]).write_bytes(b"x" * 100)
    sys.stdout.write("written")


def shout(request):
    while True:
        sys.stdout.write("x" * 1000)
