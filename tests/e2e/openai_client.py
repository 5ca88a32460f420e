"""The calls of the official openai client against `praetor serve`: $PRAETOR_PORT, $PRAETOR_KEY; the model is called tiny."""
import concurrent.futures
import json
import os

import openai

URL = f"http://127.0.0.1:{os.environ['PRAETOR_PORT']}/v1"
client = openai.OpenAI(base_url=URL, api_key=os.environ["PRAETOR_KEY"], max_retries=0, timeout=60)
MESSAGES = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hello"}]


def refused(kind, call, **what):
    try:
        call(**what)
    except kind as error:
        return error
    raise AssertionError(f"{what} was not refused")


assert [m.id for m in client.models.list()] == ["tiny"]

# Completions: whole, n, logprobs, stop, seed.
whole = client.completions.create(model="tiny", prompt="a b", max_tokens=12, n=3, seed=5, logprobs=2)
assert [c.index for c in whole.choices] == [0, 1, 2]
assert all(len(c.logprobs.tokens) == len(c.logprobs.token_logprobs) for c in whole.choices)
assert all(len(top) == 2 for c in whole.choices for top in c.logprobs.top_logprobs)
assert whole.usage.completion_tokens == sum(len(c.logprobs.tokens) for c in whole.choices)
again = client.completions.create(model="tiny", prompt="a b", max_tokens=12, n=3, seed=5)
assert [c.text for c in again.choices] == [c.text for c in whole.choices]

# The same, streamed; usage at the end.
text, usage = ["", "", ""], None
for chunk in client.completions.create(model="tiny", prompt="a b", max_tokens=12, n=3, seed=5, stream=True,
                                       stream_options={"include_usage": True}):
    for choice in chunk.choices:
        text[choice.index] += choice.text
    usage = chunk.usage or usage
assert text == [c.text for c in whole.choices], (text, whole)
assert usage.total_tokens == whole.usage.total_tokens

# Chats.
chat = client.chat.completions.create(model="tiny", messages=MESSAGES, max_completion_tokens=10, seed=1, temperature=0.7,
                                      logprobs=True, top_logprobs=4)
content = chat.choices[0].logprobs.content
assert len(content) == chat.usage.completion_tokens and len(content[0].top_logprobs) == 4
stream = client.chat.completions.create(model="tiny", messages=MESSAGES, max_completion_tokens=10, seed=1, temperature=0.7, stream=True)
assert "".join(c.choices[0].delta.content or "" for c in stream) == chat.choices[0].message.content
with client.chat.completions.stream(model="tiny", messages=MESSAGES, max_completion_tokens=10, seed=1, temperature=0.7) as helper:
    pieces = [event.delta for event in helper if event.type == "content.delta"]
assert "".join(pieces) == chat.choices[0].message.content

# Answers bound to a form.
schema = {"type": "object", "properties": {"a": {"type": "boolean"}, "b": {"enum": ["x", "y"]}}, "required": ["a", "b"],
          "additionalProperties": False}
bound = client.chat.completions.create(model="tiny", messages=MESSAGES, max_completion_tokens=40, seed=2,
                                       response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": schema}})
value = json.loads(bound.choices[0].message.content)
assert set(value) == {"a", "b"} and isinstance(value["a"], bool) and value["b"] in ("x", "y"), value
chosen = client.completions.create(model="tiny", prompt="a", max_tokens=20, extra_body={"regex": "(yes|no)"})
assert chosen.choices[0].text in ("yes", "no") and chosen.choices[0].finish_reason == "stop"

# Errors.
error = refused(openai.BadRequestError, client.completions.create, model="tiny", prompt="a", temperature=3)
assert error.param == "temperature" and error.type == "invalid_request_error", error
assert refused(openai.NotFoundError, client.completions.create, model="gpt", prompt="a").code == "model_not_found"
refused(openai.AuthenticationError, openai.OpenAI(base_url=URL, api_key="wrong", max_retries=0).models.list)

# Many at once, and one who leaves in mid-stream.
for chunk in client.completions.create(model="tiny", prompt="a", max_tokens=50, n=8, stream=True):
    break


def stream_of(seed):
    chunks = client.completions.create(model="tiny", prompt="a", max_tokens=30, seed=seed, stream=True)
    return "".join(c.choices[0].text for c in chunks)


with concurrent.futures.ThreadPoolExecutor(64) as pool:
    at_once = list(pool.map(stream_of, range(64)))
assert at_once[::8] == [stream_of(seed) for seed in range(0, 64, 8)]
print("the openai client is served")
