// Is a device before a trip: borrows downloads, acquires within what it borrowed, and hands back the rest.
// docs/guide/offline-devices.md explains each step. Run as main.ts: npx tsx travel.ts HOST:PORT CUSTOMER
import { randomUUID } from "node:crypto";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { timestampDate } from "@bufbuild/protobuf/wkt";
import { LicenseService } from "./gen/licensed/v1/license_service_pb.js";

const [address = "127.0.0.1:8080", customerId = "Bayley"] = process.argv.slice(2);
const deviceId = "tablet";
const licenses = createClient(
  LicenseService, createConnectTransport({ baseUrl: `http://${address}`, httpVersion: "1.1" }));

async function acquire(titleId: string, signedAllowance = "") {
  // Keep the id with the request: a repeat of it is never a second download.
  const { license, provisional } = await licenses.acquireLicense({
    customerId, deviceId, titleId, commandId: randomUUID(), signed: true, signedAllowance,
  });
  // Provisional, while the service is unavailable: send it again, with its id, before it expires.
  const until = timestampDate(license!.expiresAt!).toISOString();
  console.log(`${provisional ? "granted" : "acquired"} ${titleId} until ${until}`);
}

async function lend(titleIds: string[]) {
  try {
    return await licenses.lendAllowance({ customerId, deviceId, titleIds, commandId: randomUUID() });
  } catch (err) {
    if (!(err instanceof ConnectError) || err.code !== Code.FailedPrecondition) throw err;
    console.log(`nothing is lent: ${err.rawMessage}`);
    return undefined;
  }
}

await acquire("GlowS01E01"); // Only a device with a download borrows.

// Before the trip, while the service is available. The most wanted title is the first.
const lent = await lend(["GlowS01E02", "GlowS01E03"]);
if (lent) {
  const until = timestampDate(lent.allowance!.expiresAt!).toISOString();
  console.log(`lent ${lent.allowance!.titleIds} until ${until}`);

  // During the trip, also while the service is unavailable. What was borrowed is shown with each acquisition.
  await acquire("GlowS01E02", lent.signedAllowance);
  const { titleIds } = await licenses.returnAllowance({ customerId, deviceId, signedAllowance: lent.signedAllowance });
  console.log(`handed back ${titleIds}`);
}
