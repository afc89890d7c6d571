"""Jobs for the child processes of ``test_isolation``, in their own module so that children import little."""

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
