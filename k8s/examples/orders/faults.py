"""Faults on request, for tests of those who call a participant. All are off unless switched on."""

import hashlib
import threading
from collections import Counter
from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one attempt."""

    fail: bool  # answer 503, do nothing
    drop: bool  # do the work, lose the answer
    delay_s: float  # do the work, answer this much later


class Faults:
    """Decides by seed, command id and how often that id was seen in this process, so that the same run
    fails in the same places whatever the order of requests."""

    def __init__(self, args):
        self._fail_rate = args.fail_rate
        self._drop_rate = args.drop_rate
        self._delay_s = args.delay_ms / 1000
        self._seed = args.fault_seed
        self._attempts = Counter()
        self._lock = threading.Lock()

    @staticmethod
    def add_arguments(parser):
        group = parser.add_argument_group("faults, for tests (off by default)")
        group.add_argument("--fail-rate", type=_rate, default=0.0, metavar="0..1", help="answer 503 and do nothing")
        group.add_argument("--drop-rate", type=_rate, default=0.0, metavar="0..1", help="do the work, lose the answer")
        group.add_argument("--delay-ms", type=int, default=0, metavar="MS", help="do the work, answer so much later")
        group.add_argument("--fault-seed", type=int, default=0, metavar="N", help="which attempts are hit")

    def next(self, command):
        if self._fail_rate == 0 and self._drop_rate == 0:
            return Fault(False, False, self._delay_s)
        with self._lock:
            self._attempts[command] += 1
            attempt = self._attempts[command]
        fail = self._roll("fail", command, attempt) < self._fail_rate
        drop = self._roll("drop", command, attempt) < self._drop_rate
        return Fault(fail, drop, self._delay_s)

    def _roll(self, kind, command, attempt):
        digest = hashlib.sha256(f"{self._seed}/{kind}/{command}/{attempt}".encode()).digest()
        return int.from_bytes(digest[:8], "big") / 2**64


def _rate(text):
    rate = float(text)
    if not 0 <= rate <= 1:
        raise ValueError(text)
    return rate
