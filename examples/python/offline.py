"""Is a device: acquires a signed licence, and then checks without a connection that it may play.

docs/guide/offline-devices.md explains each step. Run as main.py: python offline.py HOST:PORT CUSTOMER
"""
import json
import sys
import time
import urllib.request
import uuid
from email.utils import parsedate_to_datetime

import grpc
import jwt

from licensed.v1 import license_service_pb2 as licenses, license_service_pb2_grpc

ALLOWED = ("EdDSA",)  # Never what the token says.


def verify(token, jwks, device, clock, seen, first_played):
    """Returns the claims of a licence that the device may use now; otherwise raises jwt.InvalidTokenError."""
    header = jwt.get_unverified_header(token)
    if header.get("typ") != "license+jwt":
        raise jwt.InvalidTokenError("not a licence")
    keys = {key["kid"]: key for key in jwks["keys"]}
    if header.get("kid") not in keys:
        raise jwt.InvalidKeyError("unknown key: fetch the key set again")
    claims = jwt.decode(
        token, jwt.PyJWK(keys[header["kid"]]).key, algorithms=ALLOWED, issuer="licensed", audience="licensed-device",
        # The times are compared below: with the higher of the device's clock and the time of the service.
        options={"require": ["exp", "nbf", "iat", "sub"], "verify_exp": False, "verify_nbf": False, "verify_iat": False})
    now = max(clock, seen)
    if claims["device_id"] != device:
        raise jwt.InvalidTokenError("of another device")
    if now < claims["nbf"]:
        raise jwt.ImmatureSignatureError("the clock is behind: connect")
    if now >= claims["exp"]:
        raise jwt.ExpiredSignatureError("expired: connect and renew")
    if first_played and "play_hours" in claims:
        claims["exp"] = min(claims["exp"], first_played + claims["play_hours"] * 3600)
        if now >= claims["exp"]:
            raise jwt.ExpiredSignatureError("the hours after the first playback have passed")
    return claims


def main(address="127.0.0.1:8080", customer="Bayley"):
    with grpc.insecure_channel(address) as channel:
        token = license_service_pb2_grpc.LicenseServiceStub(channel).AcquireLicense(licenses.AcquireLicenseRequest(
            customer_id=customer, device_id="iphone", title_id="GlowS01E01", command_id=str(uuid.uuid4()),
            signed=True), timeout=12).signed_license
    with urllib.request.urlopen(f"http://{address}/.well-known/jwks.json", timeout=12) as reply:
        jwks, seen = json.load(reply), parsedate_to_datetime(reply.headers["Date"]).timestamp()

    # The connection is gone. The device has stored the token, the keys, and the time of the service that it saw.
    now, hour = time.time(), 3600
    for clock, first_played in (
            (now, None),
            (now - 7200 * hour, None),  # It was set back.
            (now + hour, now),  # The device stores the first playback, and reports it later.
            (now + 100 * hour, now),
            (now + 8760 * hour, None)):
        try:
            claims = verify(token, jwks, "iphone", clock, seen, first_played)
            if "play" in claims["offline"]:
                until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(claims["exp"]))
                print("may play", claims["title_id"], "until", until)
        except jwt.InvalidTokenError as error:
            print(error)


if __name__ == "__main__":
    main(*sys.argv[1:])
