"""Kills at every moment: functions that raise before or after their work, as a signal would end a process."""

import functools
import math


class Killed(BaseException):
    """Ends what runs; no `except Exception` stops it."""


class Life:
    """What is left of a life, in moments: two for each call of a mortal function, before and after its work."""

    def __init__(self):
        self.left = math.inf

    def mortal(self, function):
        """Returns a function that does the same, and raises `Killed` once nothing of the life is left."""

        @functools.wraps(function)
        def step(*args, **kwargs):
            self._pass()
            result = function(*args, **kwargs)
            self._pass()
            return result

        return step

    def _pass(self):
        self.left -= 1
        if self.left < 0:
            raise Killed
