"""Checkpoints in memory that stop a stage after some of them, for tests of resuming."""

import sys

import numpy as np


class MemoryCheckpoints(dict):
    """Checkpoints in memory; raises KeyboardInterrupt after ``most`` of them, to stop a stage as a kill would."""

    most = sys.maxsize

    def put(self, name, arrays):
        self[name] = {key: np.array(value) for key, value in arrays.items()}
        if len(self) >= self.most:
            raise KeyboardInterrupt

    def show(self, name, picture):
        self.shown = picture
