"""Writes events.out.tfevents.golden: a TensorBoard event file that TensorBoard's own reader accepts.

Made with tensorboard 2.21.0 (its Event and Summary classes and its record writer):
  python tests/golden/make_events.py
"""
import os
import pathlib
import shutil
import struct
import tempfile

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

TIME = 1700000000.5
STEPS = [
    (1, [("policy/loss", 0.25), ("reward/mean", -1.5)]),
    (2, [("perf/tokens_per_second", 123456.789)]),  # policy/loss was NaN: left out
    (300, [("policy/loss", 1e-9)]),
]

out = pathlib.Path(__file__).parent / "events.out.tfevents.golden"
with open(out, "wb") as file:
    writer = RecordWriter(file)
    writer.write(Event(wall_time=TIME, file_version="brain.Event:2").SerializeToString())
    for step, values in STEPS:
        summary = Summary(value=[Summary.Value(tag=t, simple_value=v) for t, v in values])
        writer.write(Event(wall_time=TIME, step=step, summary=summary).SerializeToString())

with tempfile.TemporaryDirectory() as folder:
    shutil.copy(out, os.path.join(folder, "events.out.tfevents.praetor"))
    reader = EventAccumulator(folder).Reload()
    seen = {(e.step, tag): e.value for tag in reader.Tags()["scalars"] for e in reader.Scalars(tag)}
wanted = {(s, t): struct.unpack("f", struct.pack("f", v))[0] for s, values in STEPS for t, v in values}
assert seen == wanted, (seen, wanted)
print(f"{out}: {out.stat().st_size} bytes, {len(seen)} values")
