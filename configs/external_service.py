"""A service for a part of kind `external` with an `address`. This one likes responses of few words.

    pip install grpcio grpcio-tools
    python3 configs/external_service.py localhost:50051

The messages are made from proto/praetor/v1/scorer.proto when it starts.
"""
import json
import pathlib
import sys
from concurrent import futures

import grpc

sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent / "proto"))
messages, services = grpc.protos_and_services("praetor/v1/scorer.proto")

VERSION = "1"  # another one whenever the same sample may get another verdict


def verdict(sample):
    row = json.loads(sample.metadata)  # the other fields of the prompt's row
    most = row.get("most_words", 100)
    words = len(sample.response.split())
    return messages.ScorerVerdict(
        id=sample.id, score=1 / (1 + words / most), satisfied=words <= most, reason=f"{words} words"
    )


class Scorer(services.ScorerServicer):
    def Describe(self, request, context):
        return messages.DescribeScorerResponse(name="few words", version=VERSION)

    def Score(self, request, context):
        return messages.ScoreSamplesResponse(verdicts=[verdict(s) for s in request.samples], version=VERSION)


if __name__ == "__main__":
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
    services.add_ScorerServicer_to_server(Scorer(), server)
    server.add_insecure_port(sys.argv[1])
    server.start()
    server.wait_for_termination()
