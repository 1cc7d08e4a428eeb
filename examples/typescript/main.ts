// Calls a licence service: acquire, a typed refusal, retries with the same id, and following a customer.
// docs/guide/calling-the-api.md explains each step. Run: npm ci && npm run generate && npm start -- HOST:PORT CUSTOMER
import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { timestampDate } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { HistoryService } from "./gen/licensed/v1/history_service_pb.js";
import { LicenseService, RefusalSchema, Rule } from "./gen/licensed/v1/license_service_pb.js";

const [address = "127.0.0.1:8080", customerId = "Bayley"] = process.argv.slice(2);
// Longer than the service's --max-deadline (10 s), so that the gateway tells what became of a late command.
const sessionManager = new Http2SessionManager(`http://${address}`);
const transport = createGrpcTransport({ baseUrl: `http://${address}`, sessionManager, defaultTimeoutMs: 12_000 });
const licenses = createClient(LicenseService, transport);
const history = createClient(HistoryService, transport);

// Codes of calls that another attempt may repair; the last two are what a connection that broke leaves.
const repairable = [Code.Unavailable, Code.DeadlineExceeded, Code.Canceled, Code.Aborted];

// Repeats a call: the request is the same, and so is its command id.
async function insist<T>(call: () => Promise<T>): Promise<T> {
  for (let failures = 1; ; failures++) {
    try {
      return await call();
    } catch (e) {
      const err = ConnectError.from(e);
      const seconds = Number(err.metadata.get("retry-after") ?? 0);
      if ((!repairable.includes(err.code) && seconds === 0) || failures === 8) throw e;
      console.log("retry");
      await sleep(seconds * 1000 + Math.random() * Math.min(50 * 2 ** failures, 2000));
    }
  }
}

const acquire = { customerId, deviceId: "iphone", titleId: "GlowS01E01", commandId: randomUUID() };
const { license } = await insist(() => licenses.acquireLicense(acquire));
console.log(`acquired ${license!.titleId} until ${timestampDate(license!.expiresAt!).toISOString()}`);
const again = await insist(() => licenses.acquireLicense(acquire));
console.log(`the same command again: duplicate ${again.duplicate}`);

await insist(() => licenses.changePlan({ customerId, planId: "basic", commandId: randomUUID() }));
try {
  const other = { ...acquire, deviceId: "ipad", commandId: randomUUID() };
  await insist(() => licenses.acquireLicense(other));
} catch (e) {
  const [refusal] = ConnectError.from(e).findDetails(RefusalSchema);
  if (refusal === undefined) throw e;
  console.log(`refused by ${Rule[refusal.rule]}: ${refusal.current} of ${refusal.limit}`);
}

// Follows from the first event on. A stream that breaks is opened again after the last event that was seen.
let after = 0n;
while (after < 4n) {
  try {
    for await (const m of history.follow({ customerId, afterSequence: after }, { timeoutMs: 0 })) {
      for (const { item } of m.items) {
        if (item.case === "event") console.log(`event ${item.value.sequence} ${item.value.event}`);
      }
      after = m.sequence;
      if (after >= 4n) break;
    }
  } catch (e) {
    if (!repairable.includes(ConnectError.from(e).code)) throw e;
    await sleep(Math.random() * 1000);
  }
}
sessionManager.abort();
