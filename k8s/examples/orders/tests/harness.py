"""Real processes for the tests of the participants: one nats-server, participants, and ways to call them."""

import asyncio
import http.client
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Optional

import nats

HERE = pathlib.Path(__file__).resolve().parent.parent
START_SECONDS_MAX = 30
# No answer within this time counts as lost. Only tests that lose answers wait for it.
ANSWER_SECONDS_MAX = 20
PYTHON = os.environ.get("PYTHON", sys.executable)


def nats_server_path():
    in_home = pathlib.Path.home() / "go/bin/nats-server"
    candidates = [os.environ.get("NATS_SERVER"), shutil.which("nats-server"), in_home]
    for candidate in candidates:
        if candidate and pathlib.Path(candidate).exists():
            return str(candidate)
    raise FileNotFoundError("nats-server: not in PATH nor in ~/go/bin; set NATS_SERVER")


def inventory_path():
    path = pathlib.Path(os.environ.get("INVENTORY", HERE.parents[2] / "target/debug/inventory"))
    if not path.exists():
        raise FileNotFoundError(f"{path}: run `cargo build -p inventory` first, or set INVENTORY")
    return str(path)


def wait_until(condition):
    """Looks again and again, without taking a whole processor from those who are waited for."""
    end = time.monotonic() + START_SECONDS_MAX
    while not condition():
        if time.monotonic() > end:
            raise AssertionError("what was waited for did not come")
        time.sleep(0.002)


class Process:
    """A process that says in its first line of output that it is ready. Killed when left behind."""

    def __init__(self, command):
        self.command = command
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        watchdog = threading.Timer(START_SECONDS_MAX, self.process.kill)
        watchdog.start()
        self.ready = self.process.stdout.readline().split()
        watchdog.cancel()
        if self.ready[:1] != ["ready"]:
            self.kill()
            raise AssertionError(f"{command} was not ready; its first line: {self.ready}")

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def terminate(self):
        """Asks it to stop; returns its exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(START_SECONDS_MAX)
        finally:
            self.kill()


class NatsServer:
    """A nats-server on a free port of the loopback, which is told by its ports file."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory()
        command = [nats_server_path(), "-a", "127.0.0.1", "-p", "-1", "--ports_file_dir", self.folder.name]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        watchdog = threading.Timer(START_SECONDS_MAX, self.process.kill)
        watchdog.start()
        for line in self.process.stderr:
            if "Server is ready" in line:
                break
        watchdog.cancel()
        # What it says later is read and dropped, so that it never waits for a full pipe.
        threading.Thread(target=lambda: list(self.process.stderr), daemon=True).start()
        ports = pathlib.Path(self.folder.name, f"nats-server_{self.process.pid}.ports")
        wait_until(lambda: ports.exists() and ports.read_text().strip())
        self.url = json.loads(ports.read_text())["nats"][0]

    def stop(self):
        self.process.terminate()
        self.process.wait()
        self.process.stderr.close()
        self.folder.cleanup()


@dataclass(frozen=True)
class Reply:
    """`code` 200 is success; None is no answer at all."""

    code: Optional[int]
    text: str = ""
    body: object = None


class NatsCaller:
    """Sends commands as the saga worker does: NATS requests with the command ids in headers."""

    def __init__(self, url, action, compensation):
        self._action, self._compensation = action, compensation
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._connection = self._run(nats.connect(url))

    def close(self):
        self._run(self._connection.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def act(self, command, body, seconds=ANSWER_SECONDS_MAX):
        return self._run(self._act(command, body, seconds))

    def act_many(self, bodies, seconds=ANSWER_SECONDS_MAX):
        """All at once; the future's result is {command: Reply}."""

        async def all_of_them():
            replies = await asyncio.gather(*(self._act(command, body, seconds) for command, body in bodies.items()))
            return dict(zip(bodies, replies))

        return asyncio.run_coroutine_threadsafe(all_of_them(), self._loop)

    async def _act(self, command, body, seconds):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self._request(self._action, data, {"Tidemill-Command-Id": command}, seconds)

    def take_back(self, command, compensates, seconds=ANSWER_SECONDS_MAX):
        headers = {"Tidemill-Command-Id": command, "Tidemill-Compensates": compensates}
        data = json.dumps({"command": compensates}).encode()
        return self._run(self._request(self._compensation, data, headers, seconds))

    def send_raw(self, headers):
        return self._run(self._request(self._action, b"{}", headers, ANSWER_SECONDS_MAX))

    async def _request(self, subject, data, headers, seconds):
        try:
            message = await self._connection.request(subject, data, timeout=seconds, headers=headers)
        except nats.errors.NoRespondersError:
            return Reply(None, "no responders")
        except nats.errors.TimeoutError:
            return Reply(None, "timeout")
        headers = message.headers or {}
        strange = [name for name in headers if name.startswith("Nats-") and not name.startswith("Nats-Service-Error")]
        if strange:
            raise AssertionError(f"a reply with {strange} would be dropped by the server's log")
        code = int(headers.get("Nats-Service-Error-Code", 200))
        return Reply(code, headers.get("Nats-Service-Error", ""), json.loads(message.data))


class HttpCaller:
    """Sends commands as the saga worker does over HTTP; one connection that is kept, unless it breaks."""

    def __init__(self, port):
        self._port = port
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_SECONDS_MAX)

    def close(self):
        self._connection.close()

    def act(self, command, body, seconds=ANSWER_SECONDS_MAX):
        return self._post("/shipments", body, {"Idempotency-Key": command}, seconds)

    def act_many(self, bodies, seconds=ANSWER_SECONDS_MAX):
        def one(command, body):
            caller = HttpCaller(self._port)
            try:
                return command, caller.act(command, body, seconds)
            finally:
                caller.close()

        pool = ThreadPoolExecutor(16)
        futures = [pool.submit(one, command, body) for command, body in bodies.items()]
        done = pool.submit(lambda: dict(future.result() for future in futures))
        pool.shutdown(wait=False)
        return done

    def take_back(self, command, compensates, seconds=ANSWER_SECONDS_MAX):
        headers = {"Idempotency-Key": command, "Tidemill-Compensates": compensates}
        return self._post("/shipments/cancel", {"command": compensates}, headers, seconds)

    def send_raw(self, headers):
        return self._post("/shipments", {}, headers, ANSWER_SECONDS_MAX)

    def _post(self, path, body, headers, seconds):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self._connection.timeout = seconds
        try:
            self._connection.request("POST", path, data, {"Content-Type": "application/json", **headers})
            response = self._connection.getresponse()
            answer = json.loads(response.read())
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            return Reply(None, type(error).__name__)
        code = 200 if 200 <= response.status < 300 else response.status
        return Reply(code, answer.get("error", "") if code != 200 else "", answer)
