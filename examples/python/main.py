"""Calls a licence service: acquire, a typed refusal, retries with the same id, and following a customer.

docs/guide/calling-the-api.md explains each step, and how to run it: python main.py HOST:PORT CUSTOMER
"""
import random
import sys
import time
import uuid

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from licensed.v1 import history_service_pb2 as history, history_service_pb2_grpc
from licensed.v1 import license_service_pb2 as licenses, license_service_pb2_grpc

AGAIN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


def detail(error, message):
    """Returns the detail of an error that has the type of the message, or None."""
    status = rpc_status.from_call(error)
    return next((message for packed in (status.details if status else ()) if packed.Unpack(message)), None)


def insist(call, request):
    """Repeats a call that another attempt may repair: the request is the same, and so is its command id."""
    for failures in range(1, 9):
        try:
            # Longer than the service's --max-deadline (10 s), so that the gateway tells what became of a late command.
            return call(request, timeout=12)
        except grpc.RpcError as error:
            retry = detail(error, error_details_pb2.RetryInfo())
            if (error.code() not in AGAIN and retry is None) or failures == 8:
                raise
            print("retry", flush=True)
            wait = retry.retry_delay.ToTimedelta().total_seconds() if retry else 0
            time.sleep(wait + random.uniform(0, min(0.05 * 2**failures, 2)))


def main(address="127.0.0.1:8080", customer="Bayley"):
    options = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 3000)]
    with grpc.insecure_channel(address, options) as channel:
        service = license_service_pb2_grpc.LicenseServiceStub(channel)
        acquire = licenses.AcquireLicenseRequest(
            customer_id=customer, device_id="iphone", title_id="GlowS01E01", command_id=str(uuid.uuid4()))
        reply = insist(service.AcquireLicense, acquire)
        print("acquired", reply.license.title_id, "until", reply.license.expires_at.ToJsonString())
        print("the same command again: duplicate", str(insist(service.AcquireLicense, acquire).duplicate).lower())

        insist(service.ChangePlan, licenses.ChangePlanRequest(
            customer_id=customer, plan_id="basic", command_id=str(uuid.uuid4())))
        acquire.device_id, acquire.command_id = "ipad", str(uuid.uuid4())
        try:
            insist(service.AcquireLicense, acquire)
        except grpc.RpcError as error:
            refusal = detail(error, licenses.Refusal())
            if refusal is None:
                raise
            print(f"refused by {licenses.Rule.Name(refusal.rule)}: {refusal.current} of {refusal.limit}")

        # Follows from the first event on. A stream that breaks is opened again after the last event that was seen.
        follower, after = history_service_pb2_grpc.HistoryServiceStub(channel), 0
        while after < 4:
            try:
                for message in follower.Follow(history.FollowRequest(customer_id=customer, after_sequence=after)):
                    for item in message.items:
                        if item.HasField("event"):
                            print("event", item.event.sequence, item.event.event)
                    after = message.sequence
                    if after >= 4:
                        break
            except grpc.RpcError as error:
                if error.code() != grpc.StatusCode.UNAVAILABLE:
                    raise
                time.sleep(random.uniform(0, 1))


if __name__ == "__main__":
    main(*sys.argv[1:])
