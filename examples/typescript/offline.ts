// Is a device: acquires a signed licence, and then checks without a connection that it may play.
// docs/guide/offline-devices.md explains each step. Run as main.ts: npx tsx offline.ts HOST:PORT CUSTOMER
import { createPublicKey, randomUUID, verify, type JsonWebKey } from "node:crypto";
import { createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { LicenseService } from "./gen/licensed/v1/license_service_pb.js";

type Key = JsonWebKey & { kid: string };
type Claims = {
  iss: string; aud: string[]; sub: string; device_id: string; title_id: string;
  license: number; nbf: number; exp: number; play_hours?: number; offline: string[];
};

const decode = (part: string) => JSON.parse(Buffer.from(part, "base64url").toString());

// Returns the claims of a licence that the device may use now, and throws otherwise. Times are seconds since 1970, that
// of the first playback 0 if there was none.
function verifyLicense(
  token: string, keys: Key[], device: string, clock: number, seen: number, firstPlayed: number): Claims {
  const [header = "", payload = "", signature = "", ...rest] = token.split(".");
  const { alg, typ, kid } = decode(header);
  // The algorithm is fixed: the token does not choose it.
  if (alg !== "EdDSA" || typ !== "license+jwt" || rest.length > 0) throw new Error("not a licence");
  const key = keys.find((k) => k.kid === kid && k.kty === "OKP" && k.crv === "Ed25519");
  if (!key) throw new Error("unknown key: fetch the key set again");
  const signed = Buffer.from(`${header}.${payload}`);
  if (!verify(null, signed, createPublicKey({ key, format: "jwk" }), Buffer.from(signature, "base64url"))) {
    throw new Error("the signature is wrong");
  }
  const claims: Claims = decode(payload);
  if (claims.iss !== "licensed" || claims.aud.length !== 1 || claims.aud[0] !== "licensed-device") {
    throw new Error("not a licence of this service");
  }
  if (claims.device_id !== device) throw new Error("of another device");
  const now = Math.max(clock, seen); // The clock of the device may have been set back.
  if (!(now >= claims.nbf)) throw new Error("the clock is behind: connect");
  if (!(now < claims.exp)) throw new Error("expired: connect and renew");
  if (firstPlayed && claims.play_hours) claims.exp = Math.min(claims.exp, firstPlayed + claims.play_hours * 3600);
  if (!(now < claims.exp)) throw new Error("the hours after the first playback have passed");
  return claims;
}

const [address = "127.0.0.1:8080", customerId = "Bayley"] = process.argv.slice(2);
const licenses = createClient(
  LicenseService, createConnectTransport({ baseUrl: `http://${address}`, httpVersion: "1.1" }));
const { signedLicense } = await licenses.acquireLicense({
  customerId, deviceId: "iphone", titleId: "GlowS01E01", commandId: randomUUID(), signed: true,
});
const reply = await fetch(`http://${address}/.well-known/jwks.json`);
const seen = Date.parse(reply.headers.get("date")!) / 1000;
const { keys } = (await reply.json()) as { keys: Key[] };

// The connection is gone. The device has stored the token, the keys, and the time of the service that it saw.
const now = Date.now() / 1000, hour = 3600;
for (const [clock, firstPlayed] of [
  [now, 0],
  [now - 7200 * hour, 0], // It was set back.
  [now + hour, now], // The device stores the first playback, and reports it later.
  [now + 100 * hour, now],
  [now + 8760 * hour, 0],
] as const) {
  try {
    const claims = verifyLicense(signedLicense, keys, "iphone", clock, seen, firstPlayed);
    if (claims.offline.includes("play")) {
      console.log(`may play ${claims.title_id} until ${new Date(claims.exp * 1000).toISOString()}`);
    }
  } catch (err) {
    console.log((err as Error).message);
  }
}
