"""What a participant must not forget: every command it answered, on disk before the answer leaves.

This is the participant contract (docs/guide/participants.md) as code, without any transport:

- the same command id gets the same answer again, and nothing is done twice;
- a compensation that arrives before its action is remembered, and the action is refused when it comes;
- a compensation always succeeds, also of an action that was refused or never seen.

Payments and shipping share this file; inventory holds the same contract in Rust.
"""

import fcntl
import json
import os
import sys
import threading
from dataclasses import dataclass


class BadLedger(Exception):
    """The ledger file can't be used: in use by another process, or not written by this program."""


@dataclass(frozen=True)
class Answer:
    """`code` is 200 for success, else the reason for refusing as a number; `text` says it in words."""

    code: int
    text: str
    body: dict

    @staticmethod
    def done(body):
        return Answer(200, "", body)

    @staticmethod
    def refused(code, text):
        return Answer(code, text, {"error": text})


class Ledger:
    """One JSON object per line. A line is whole in the kernel before `append` returns, so that killing
    the process loses nothing; a power loss may lose the last lines (no fsync: this is an example)."""

    def __init__(self, path):
        self.path = path
        self._file = open(path, "a+b", buffering=0)
        try:
            # Two processes on one ledger would each remember half of the commands.
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise BadLedger(f"{path}: another participant is using this ledger; stop it or name another file")

    def entries(self):
        """All entries, oldest first. A last line without its end was never answered: it is cut off."""
        self._file.seek(0)
        data = self._file.read()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            self._file.truncate(whole)
        for number, line in enumerate(data[:whole].splitlines(), 1):
            try:
                entry = json.loads(line)
                known = isinstance(entry["command"], str) and isinstance(entry["op"], str)
            except (ValueError, KeyError, TypeError):
                known = False
            if not known:
                raise BadLedger(f"{self.path}:{number}: not a ledger line; move the file away to start afresh")
            yield entry

    def append(self, entry):
        line = json.dumps(entry, separators=(",", ":")).encode() + b"\n"
        if self._file.write(line) != len(line):
            # The torn line is cut off at the next start; going on would glue the next one to it.
            sys.stderr.write(f"{self.path}: only a part of a line could be written; is the disk full?\n")
            os._exit(1)


class Memory:
    """Answers commands for one book of state, once each.

    The book is an object with
      `action`, `compensation`   names of the two operations, as they stand in the ledger
      `decide(command, body)`    -> (facts, Answer): what the action would do; changes nothing
      `apply(facts)`             the action happened
      `undo(facts)`              the action was taken back
    where facts are the JSON fields kept in the ledger. Safe to call from several threads.
    """

    def __init__(self, ledger, book):
        self._ledger = ledger
        self._book = book
        self._lock = threading.Lock()
        self._answers = {}  # (op, command) -> Answer
        self._standing = {}  # command -> facts of an action done and not taken back
        self._taken_back = set()  # commands whose compensation came, done or not
        for entry in ledger.entries():
            try:
                self._remember(entry)
            except (KeyError, TypeError, ArithmeticError) as error:
                raise BadLedger(f"{ledger.path}: the entry of {entry['command']} lacks something: {error}")

    def act(self, command, body):
        with self._lock:
            known = self._answers.get((self._book.action, command))
            if known is not None:
                return known
            if command in self._taken_back:
                facts, answer = {"order": _order(body)}, Answer.refused(409, "taken back before it arrived")
            else:
                facts, answer = self._book.decide(command, body)
            return self._record({"op": self._book.action, "command": command, **facts}, answer)

    def take_back(self, command, compensates):
        with self._lock:
            known = self._answers.get((self._book.compensation, command))
            if known is not None:
                return known
            facts = self._standing.get(compensates)
            entry = {"op": self._book.compensation, "command": command, "compensates": compensates}
            entry["order"] = facts["order"] if facts else None
            entry["undone"] = facts is not None
            return self._record(entry, Answer.done({"undone": entry["undone"]}))

    def _record(self, entry, answer):
        if answer.code == 200:
            entry["answer"] = answer.body
        else:
            entry["refused"] = {"code": answer.code, "text": answer.text}
        self._ledger.append(entry)
        return self._remember(entry)

    def _remember(self, entry):
        """The only way state changes, for new entries and for those read at start alike."""
        command = entry["command"]
        if "refused" in entry:
            answer = Answer.refused(entry["refused"]["code"], entry["refused"]["text"])
        else:
            answer = Answer.done(entry["answer"])
            if entry["op"] == self._book.action:
                self._book.apply(entry)
                self._standing[command] = entry
        if entry["op"] == self._book.compensation:
            self._taken_back.add(entry["compensates"])
            facts = self._standing.pop(entry["compensates"], None)
            if facts is not None:
                self._book.undo(facts)
        self._answers[(entry["op"], command)] = answer
        return answer


def _order(body):
    """The order id a request names, for the ledger's readers only."""
    order = body.get("orderId") if isinstance(body, dict) else None
    return order if isinstance(order, str) else None
