"""Two agents over a chat endpoint, against a server on this machine: what is sent, kept, retried, paid and resumed."""

import email.utils
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from filelock import FileLock

from coala_lib.corpora.agents import THEMES, Plan, setting, view
from coala_lib.corpora.alternating import alternate
from coala_lib.corpora.budget import Budget, Meter, Usage
from coala_lib.corpora.client import ClientError, Local
from coala_lib.corpora.conversation import read_conversation
from coala_lib.corpora.endpoint import Endpoint, Pace
from coala_lib.corpora.generator import clean, generate
from coala_lib.corpora.journal import append, resume

KEY, VARIABLE = "sk-very-secret-0123", "COALA_TEST_KEY"
ASK = [{"role": "user", "content": "Why?"}]


def completion(text, **more):
    used = {"prompt_tokens": 100, "completion_tokens": 10}
    return 200, {}, json.dumps({"choices": [{"message": {"content": text}, **more}], "usage": used})


class Server(ThreadingHTTPServer):
    """Answers by `script`, one entry a request; after its end every request gets a turn of its own."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script, self.seen, self.delay, self.busy, self.busiest = [], [], 0.0, 0, 0
        self.mutex = threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request, client_address):
        pass  # a client that has timed out has gone


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.mutex:
            server.seen.append((time.monotonic(), self.path, dict(self.headers), body))
            number = len(server.seen)
            answer = server.script.pop(0) if server.script else completion(f"Turn {number}.")
            server.busy += 1
            server.busiest = max(server.busiest, server.busy)
        time.sleep(answer if isinstance(answer, float) else server.delay)
        status, headers, text = completion("late") if isinstance(answer, float) else answer
        data = text.encode()
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(data))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)
        with server.mutex:
            server.busy -= 1

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def endpoint(server, monkeypatch):
    monkeypatch.setenv(VARIABLE, KEY)
    with Endpoint(server.url, "tiny", key_variable=VARIABLE, attempts=3, timeout=30.0, pause=0.01) as client:
        yield client


def local(name="local"):
    return Local(lambda messages, temperature: f"Turn {len(messages)} at {temperature}.", name=name)


def rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


# --- who talks


def test_a_setting_depends_on_seed_and_number_alone():
    settings = [setting(Plan(n=1, seed=3), k) for k in range(400)]
    assert settings == [setting(Plan(n=999, seed=3), k) for k in range(400)]
    assert settings[0] != setting(Plan(n=1, seed=4), 0)
    assert {who.subject for who in settings} == set(THEMES)
    assert len(THEMES) == 11
    assert {who.rounds for who in settings} == {2, 3, 4}
    temperatures = [who.temperature for who in settings]
    assert 0.2 <= min(temperatures) < 0.22
    assert 0.88 < max(temperatures) <= 0.9
    for field in ("theme", "student", "student_mood", "tutor", "tutor_mood"):
        assert len({getattr(who, field) for who in settings}) >= 5
    assert len(set(settings)) == 400


def test_each_agent_sees_its_own_turns_as_its_own():
    plan = Plan(n=1)
    who = setting(plan, 0)
    said = [{"role": role, "content": text} for role, text in (("user", "Q1"), ("assistant", "A1"), ("user", "Q2"))]
    tutor, student = view(plan, who, said), view(plan, who, said[:2])
    assert [(m["role"], m["content"]) for m in tutor[1:]] == [("user", "Q1"), ("assistant", "A1"), ("user", "Q2")]
    assert [(m["role"], m["content"]) for m in student[2:]] == [("assistant", "Q1"), ("user", "A1")]
    assert who.tutor in tutor[0]["content"]
    assert who.tutor_mood in tutor[0]["content"]
    assert who.student in student[0]["content"]
    assert who.student_mood in student[0]["content"]
    assert who.tutor not in student[0]["content"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": 0}, "at least 1"),
        ({"subjects": ("alchemy",)}, "alchemy"),
        ({"rounds": (3, 2)}, "fewest"),
        ({"temperature": (0.9, 0.2)}, "low"),
        ({"tutor_words": 0}, "tutor_words"),
    ],
)
def test_a_plan_refuses(change, message):
    with pytest.raises(ValueError, match=message):
        Plan(**({"n": 1} | change))


@pytest.mark.parametrize(
    ("text", "turn"),
    [
        ("Tutor: Yes.", "Yes."),
        ("**Student**: Why: me?", "Why: me?"),
        ("<think>so</think>\n\nYes.", "Yes."),
        ("<think>never ends", ""),
        ("The tutor: a definition.", "The tutor: a definition."),
        ("half \ud800 a pair", "half ? a pair"),
    ],
)
def test_clean(text, turn):
    assert clean(text) == turn


# --- one run


def test_a_run_from_the_first_request_to_pairs(server, endpoint, tmp_path):
    server.delay = 0.02
    out, plan = tmp_path / "talks.jsonl", Plan(n=12, seed=5)
    outcome = generate(plan, endpoint, out, workers=4)
    talks = {talk.conversation_id: talk for talk in (read_conversation(row, "?") for row in rows(out))}
    people = {who.conversation_id: who for who in (setting(plan, k) for k in range(12))}
    assert talks.keys() == people.keys()
    assert all(len(talks[name].messages) == 2 * who.rounds for name, who in people.items())
    replies = sum(who.rounds for who in people.values())
    assert len(alternate(talks.values(), source="talks")) == replies - 12
    assert outcome.usage == Usage(2 * replies, 200 * replies, 20 * replies)
    assert sum(row["usage"]["requests"] for row in rows(out)) == len(server.seen) == 2 * replies
    assert (outcome.written, outcome.found, outcome.failed, outcome.stopped) == (12, 0, {}, "done")
    assert 2 <= server.busiest <= 4
    for _, path, headers, body in server.seen:
        assert path == "/v1/chat/completions"
        assert headers["Authorization"] == f"Bearer {KEY}"
        assert body["model"] == "tiny"
        assert body["max_tokens"] == 256
    sent = Counter(body["temperature"] for *_, body in server.seen)
    assert sent == Counter(who.temperature for who in people.values() for _ in range(2 * who.rounds))
    assert KEY not in "".join(path.read_text() for path in tmp_path.iterdir()) + repr(vars(outcome)) + repr(endpoint)


def test_a_finished_run_asks_for_nothing(server, endpoint, tmp_path):
    generate(Plan(n=2), endpoint, tmp_path / "a.jsonl")
    asked = len(server.seen)
    assert generate(Plan(n=2), endpoint, tmp_path / "a.jsonl").found == 2
    assert len(server.seen) == asked
    assert generate(Plan(n=3), endpoint, tmp_path / "a.jsonl").written == 1


def test_equal_plans_give_equal_files(tmp_path):
    files = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for path, workers in zip(files, (1, 3), strict=True):
        generate(Plan(n=9, seed=1), local(), path, workers=workers)
    first, second = (sorted(path.read_bytes().splitlines()) for path in files)
    assert first == second
    assert len(first) == 9


def test_turns_cut_at_the_longest_length_are_counted(server, endpoint, tmp_path):
    server.script = [completion("cut", finish_reason="length"), completion("whole", finish_reason="stop")]
    assert generate(Plan(n=1), endpoint, tmp_path / "a.jsonl").truncated == 1


def test_extra_fields_add_and_take_away(server):
    extra = {"max_tokens": None, "max_completion_tokens": 9}
    with Endpoint(server.url, "m", key_variable="NO_SUCH_KEY", extra=extra) as client:
        client(ASK, 0.5)
    *_, headers, body = server.seen[0]
    assert body.keys() == {"model", "messages", "temperature", "max_completion_tokens"}
    assert "Authorization" not in headers


# --- when the server misbehaves


@pytest.mark.parametrize(
    ("header", "least"), [("0.3", 0.3), ("date", 0.5), ("past", 0.0), (None, 0.004), ("soon", 0.004)]
)
def test_too_many_requests(server, endpoint, header, least):
    # a date has whole seconds
    dates = {"date": int(time.time()) + 2, "past": int(time.time()) - 60}
    header = email.utils.formatdate(dates[header], usegmt=True) if header in dates else header
    server.script = [(429, {"Retry-After": header} if header else {}, "")]
    assert endpoint(ASK, 0.5).usage.requests == 2
    waited = server.seen[1][0] - server.seen[0][0]
    assert least <= waited < least + 10


def test_a_server_that_asks_for_hours_is_given_up(server, endpoint):
    server.script = [(429, {"Retry-After": "7200"}, "")]
    with pytest.raises(ClientError, match="asks to wait 7200 s, after 1 attempts") as caught:
        endpoint(ASK, 0.5)
    assert not caught.value.fatal


TROUBLE = {
    "errors": (500, {}, "oops"),
    "gateway": (502, {}, "<html>"),
    "no json": (200, {}, "{not json"),
    "no choices": (200, {}, "{}"),
    "an array": (200, {}, "[]"),
    "no text": completion(None),
    "blank": completion(" \n"),
    "number": completion(7),
}


@pytest.mark.parametrize("name", TROUBLE)
def test_passing_trouble_is_tried_again(server, endpoint, name):
    server.script = [TROUBLE[name]] * 2
    reply = endpoint(ASK, 0.5)
    assert (reply.text, reply.usage.requests) == ("Turn 3.", 3)


def test_a_server_that_hangs_is_asked_again(server):
    server.script = [3.0]
    with Endpoint(server.url, "m", key_variable="NO_SUCH_KEY", timeout=0.5, pause=0.01) as client:
        assert client(ASK, 0.5).usage.requests >= 2
    assert server.seen[1][0] - server.seen[0][0] < 2.5


def test_lasting_trouble_ends_after_the_attempts(server, endpoint):
    server.script = [TROUBLE["errors"]] * 3
    with pytest.raises(ClientError, match="status 500, after 3 attempts") as caught:
        endpoint(ASK, 0.5)
    assert (caught.value.fatal, caught.value.requests, len(server.seen)) == (False, 3, 3)


def test_a_server_that_is_not_there():
    with (
        Endpoint("http://127.0.0.1:9/v1", "m", key_variable="NO_SUCH_KEY", attempts=2, pause=0.01) as client,
        pytest.raises(ClientError, match=r"no answer \(ConnectError\), after 2 attempts"),
    ):
        client(ASK, 0.5)


def test_a_refused_key_ends_the_run_and_stays_secret(server, endpoint, tmp_path):
    told = json.dumps({"error": {"message": f"Incorrect API key provided:\n {KEY}. " + "x" * 500}})
    server.script = [(401, {}, told)]
    with pytest.raises(ClientError, match=r"status 401: Incorrect API key provided: \[key\]") as caught:
        generate(Plan(n=5), endpoint, tmp_path / "a.jsonl", workers=1)
    assert len(server.seen) == 1
    assert len(str(caught.value)) < 500
    assert KEY not in repr(caught.value) + "".join(path.read_text() for path in tmp_path.iterdir())
    assert caught.value.__cause__ is None


def test_the_key_follows_no_redirect(server, endpoint):
    server.script = [(307, {"Location": f"{server.url}/elsewhere"}, "")]
    with pytest.raises(ClientError, match="status 307"):
        endpoint(ASK, 0.5)
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    ("url", "key", "message"),
    [
        ("https://me:word@host/v1", "", "must not hold a password"),
        ("http://far.example/v1", KEY, "unencrypted"),
        ("https://host/v1", "two words", "no key has"),
        ("https://host/v1", "clé", "no key has"),
        ("ftp://host/v1", "", "http or https"),
        ("host/v1", "", "http or https"),
        ("https://host/v1?key=1", "", "without a query"),
        ("https://host\n/v1", "", "no address"),
    ],
)
def test_addresses_and_keys_are_checked_first(monkeypatch, url, key, message):
    monkeypatch.setenv(VARIABLE, key)
    with pytest.raises(ValueError, match=message) as caught:
        Endpoint(url, "m", key_variable=VARIABLE)
    assert "me:word" not in str(caught.value)
    assert not key or key not in str(caught.value)


def test_a_conversation_that_fails_is_tried_again_by_the_next_run(server, endpoint, tmp_path):
    out = tmp_path / "a.jsonl"
    server.script = [TROUBLE["errors"]] * 3
    outcome = generate(Plan(n=3), endpoint, out, workers=1)
    assert outcome.failed == {"talk-0-0": "tiny at 127.0.0.1: status 500, after 3 attempts"}
    assert (outcome.written, outcome.stopped) == (2, "done")
    assert outcome.usage.requests == len(server.seen)
    assert generate(Plan(n=3), endpoint, out).written == 1
    assert Counter(row["conversation_id"] for row in rows(out)) == {f"talk-0-{k}": 1 for k in range(3)}


def test_failures_in_a_row_end_the_run(server, endpoint, tmp_path):
    server.script = [TROUBLE["errors"]] * 100
    with pytest.raises(ClientError, match="0 new conversations stand in"):
        generate(Plan(n=50), endpoint, tmp_path / "a.jsonl", workers=1, max_failures=2)
    assert len(server.seen) == 6


def test_an_error_of_the_local_model_comes_out_and_nothing_is_lost(tmp_path):
    calls = []

    def reply(messages, temperature):
        calls.append(messages)
        if len(calls) > 20:
            raise ZeroDivisionError("a bug of the model")
        return "Fine."

    with pytest.raises(ZeroDivisionError):
        generate(Plan(n=50), Local(reply), tmp_path / "a.jsonl", workers=2)
    whole = rows(tmp_path / "a.jsonl")
    assert whole
    assert all(len(row["messages"]) == 2 * row["setting"]["rounds"] for row in whole)


# --- what it may cost


@pytest.mark.parametrize(
    "budget",
    [
        Budget(max_requests=60),
        Budget(max_tokens=20_000),
        Budget(max_cost=0.03, prompt_price=1.0, completion_price=4.0),
    ],
    ids=["requests", "tokens", "cost"],
)
def test_a_budget_is_kept_and_stops_cleanly(server, endpoint, tmp_path, budget):
    out = tmp_path / "a.jsonl"
    outcome = generate(Plan(n=200), endpoint, out, budget=budget, workers=3)
    assert outcome.stopped == "budget"
    assert budget.covers(outcome.usage)
    assert 3 <= outcome.written == len(rows(out)) < 200
    # nothing was spent on halves
    assert outcome.usage.requests == len(server.seen) == sum(len(row["messages"]) for row in rows(out))
    assert outcome.cost == pytest.approx(
        (outcome.usage.prompt_tokens * budget.prompt_price + outcome.usage.completion_tokens * budget.completion_price)
        / 1e6
    )
    assert generate(Plan(n=200), endpoint, out, budget=budget, workers=3).found == outcome.written


def test_retries_count_and_the_cap_holds_up_to_one_request(server, endpoint, tmp_path):
    server.script = [TROUBLE["errors"], TROUBLE["errors"], completion("late")] * 10
    outcome = generate(Plan(n=50), endpoint, tmp_path / "a.jsonl", budget=Budget(max_requests=8), workers=1)
    assert outcome.stopped == "budget"
    assert outcome.usage.requests == len(server.seen) == 9


def test_a_budget_too_small_for_anything_is_refused_first(server, endpoint, tmp_path):
    with pytest.raises(ValueError, match="does not cover one conversation"):
        generate(Plan(n=5), endpoint, tmp_path / "a.jsonl", budget=Budget(max_requests=3))
    assert server.seen == []


@pytest.mark.parametrize(
    ("caps", "message"),
    [({"max_requests": 0}, "max_requests"), ({"max_cost": 1.0}, "price"), ({"prompt_price": -1.0}, "negative")],
)
def test_a_budget_refuses(caps, message):
    with pytest.raises(ValueError, match=message):
        Budget(**caps)


def test_a_hold_waits_until_another_gives_back():
    meter = Meter(Budget(max_requests=10))
    first, got = meter.hold(Usage(requests=8)), []
    waiter = threading.Thread(target=lambda: got.append(meter.hold(Usage(requests=8))))
    waiter.start()
    time.sleep(0.05)
    assert got == []
    first.spend(Usage(requests=2))
    first.close()
    waiter.join(timeout=5)
    assert got[0] is not None


# --- how fast


class Clock:
    now = 0.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


def test_requests_and_tokens_keep_to_their_rates():
    clock = Clock()
    pace = Pace(requests_per_minute=30.0, clock=clock, sleep=clock.sleep)
    starts = []
    for _ in range(4):
        pace.wait(10)
        starts.append(clock.now)
    assert starts == pytest.approx([0, 2, 4, 6])

    clock = Clock()
    pace = Pace(tokens_per_minute=600.0, clock=clock, sleep=clock.sleep)
    pace.wait(100)
    pace.correct(-50)
    pace.wait(100)
    assert clock.now == pytest.approx(5)
    pace.close(60.0)
    pace.wait(1)
    assert clock.now == pytest.approx(65)


def test_the_endpoint_keeps_its_pace(server):
    pace = Pace(requests_per_minute=600.0)
    with Endpoint(server.url, "m", key_variable="NO_SUCH_KEY", pace=pace) as client:
        for _ in range(3):
            client(ASK, 0.5)
    assert server.seen[2][0] - server.seen[0][0] >= 0.15


def test_a_rate_of_nothing_is_refused():
    with pytest.raises(ValueError, match="tokens_per_minute"):
        Pace(tokens_per_minute=0.0)


# --- killed, and resumed

RUN = """
import sys
from coala_lib.corpora.agents import Plan
from coala_lib.corpora.endpoint import Endpoint
from coala_lib.corpora.generator import generate
generate(Plan(n=30), Endpoint(sys.argv[1], "tiny"), sys.argv[2], workers=3)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
@pytest.mark.parametrize("name", ["SIGKILL", "SIGINT"])
def test_kill_and_resume(server, tmp_path, name):
    server.delay = 0.01
    out = tmp_path / "a.jsonl"
    environment = {name: value for name, value in os.environ.items() if name != "OPENAI_API_KEY"}
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, server.url, str(out)], env=environment, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while not (out.exists() and out.read_bytes().count(b"\n") >= 4):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    with pytest.raises(ValueError, match="another run is writing"):
        generate(Plan(n=30), local("tiny"), out)
    process.send_signal(signal.Signals[name])
    process.wait(timeout=60)
    kept = out.read_bytes()
    assert kept.count(b"\n") < 30
    out.write_bytes(kept + b'{"conversation_id": "talk-0-29", "mess')  # a kill within a write leaves this
    outcome = generate(Plan(n=30), local("tiny"), out)
    assert outcome.found == kept.count(b"\n")
    assert out.read_bytes().startswith(kept)
    assert sorted(row["conversation_id"] for row in rows(out)) == sorted(f"talk-0-{k}" for k in range(30))


def test_a_file_of_another_run_is_refused(tmp_path):
    out = tmp_path / "a.jsonl"
    generate(Plan(n=2), local(), out)
    before = out.read_bytes()
    for plan, client, differs in (
        (Plan(n=2, seed=1), local(), "seed"),
        (Plan(n=2, rounds=(2, 2)), local(), "rounds"),
        (Plan(n=2), local("other"), "model"),
    ):
        with pytest.raises(ValueError, match=rf"other terms \({differs} differ\)"):
            generate(plan, client, out)
    assert out.read_bytes() == before
    (tmp_path / "a.jsonl.plan.json").unlink()
    with pytest.raises(ValueError, match=r"no readable a\.jsonl\.plan\.json"):
        generate(Plan(n=2), local(), out)


def test_one_run_a_file(tmp_path):
    with FileLock(f"{tmp_path / 'a.jsonl'}.lock"), pytest.raises(ValueError, match="another run is writing"):
        generate(Plan(n=1), local(), tmp_path / "a.jsonl")


@pytest.mark.parametrize("row", ["{}", "[]", "null", "not json", '"text"'])
def test_a_damaged_row_is_named(tmp_path, row):
    out = tmp_path / "a.jsonl"
    resume(out, {}, "id")
    append(out, {"id": "a"})
    out.write_text(out.read_text() + row + "\n")
    with pytest.raises(ValueError, match="row 1 is no object with a id"):
        resume(out, {}, "id")


@pytest.mark.parametrize("change", [{"workers": 0}, {"max_failures": 0}])
def test_numbers_of_a_run_are_checked(tmp_path, change):
    with pytest.raises(ValueError, match="at least 1"):
        generate(Plan(n=1), local(), tmp_path / "a.jsonl", **change)
