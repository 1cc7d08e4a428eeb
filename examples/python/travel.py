"""Is a device before a trip: borrows downloads, acquires within what it borrowed, and hands back the rest.

docs/guide/offline-devices.md explains each step. Run as main.py: python travel.py HOST:PORT CUSTOMER
"""
import sys
import uuid

import grpc

from licensed.v1 import license_service_pb2 as licenses, license_service_pb2_grpc


def acquire(stub, customer, title, allowance=""):
    # Keep the id with the request: a repeat of it is never a second download.
    reply = stub.AcquireLicense(licenses.AcquireLicenseRequest(
        customer_id=customer, device_id="tablet", title_id=title, command_id=str(uuid.uuid4()), signed=True,
        signed_allowance=allowance), timeout=12)
    # Provisional, while the service is unavailable: send it again, with its id, before it expires.
    done = "granted" if reply.HasField("provisional") else "acquired"
    print(done, title, "until", reply.license.expires_at.ToJsonString())


def main(address="127.0.0.1:8080", customer="Bayley"):
    with grpc.insecure_channel(address) as channel:
        stub = license_service_pb2_grpc.LicenseServiceStub(channel)
        acquire(stub, customer, "GlowS01E01")  # Only a device with a download borrows.

        # Before the trip, while the service is available. The most wanted title is the first.
        try:
            lent = stub.LendAllowance(licenses.LendAllowanceRequest(
                customer_id=customer, device_id="tablet", title_ids=["GlowS01E02", "GlowS01E03"],
                command_id=str(uuid.uuid4())), timeout=12)
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.FAILED_PRECONDITION:
                raise
            print("nothing is lent:", error.details())
            return
        print("lent", list(lent.allowance.title_ids), "until", lent.allowance.expires_at.ToJsonString())

        # During the trip, also while the service is unavailable. What was borrowed is shown with each acquisition.
        acquire(stub, customer, "GlowS01E02", lent.signed_allowance)
        rest = stub.ReturnAllowance(licenses.ReturnAllowanceRequest(
            customer_id=customer, device_id="tablet", signed_allowance=lent.signed_allowance), timeout=12)
        print("handed back", list(rest.title_ids))


if __name__ == "__main__":
    main(*sys.argv[1:])
