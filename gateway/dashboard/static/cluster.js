// The cluster page, live.
import { Chart, keep } from "./charts.js";
import { patch } from "./patch.js";

const chart = (name, options) => new Chart(document.querySelector(`[data-chart=${name}]`), options);
const charts = [
  chart("throughput", { unit: "/s", series: [{ label: "commands", value: (s) => s.commands }, { label: "queries", value: (s) => s.queries }] }),
  chart("latency", { unit: "ms", log: true, series: [{ label: "median", value: (s) => s.p50 }, { label: "p99", value: (s) => s.p99 }, { label: "p99.9", value: (s) => s.p999 }] }),
  chart("refusals", { unit: "/s", names: (s) => s.refusals }),
  chart("errors", { unit: "/s", names: (s) => s.errors }),
  chart("residency", { unit: "/s", series: [{ label: "read from the store", value: (s) => s.recoveries }, { label: "left, being idle", value: (s) => s.passivations }, { label: "gave up", value: (s) => s.gaveUp }] }),
  chart("lag", { unit: "s", series: [{ label: "longest waiting customer", value: (s) => s.lag }] }),
];

let samples = [];
const connection = document.getElementById("connection");
const say = (text) => {
  if (connection.textContent !== text) connection.textContent = text;
};
say("Connecting…");

let live;
const connect = () => {
  live = new EventSource("/dashboard/live");
  live.addEventListener("open", () => say("Live; charts have a point every five seconds."));
  live.addEventListener("error", () => say(live.readyState === EventSource.CLOSED ? "Not connected. Load the page again." : "The connection broke; trying again…"));
  live.addEventListener("samples", (e) => {
    samples = keep(samples, JSON.parse(e.data) ?? []);
    for (const c of charts) c.show(samples);
    document.documentElement.dataset.samples = samples.length;
  });
  for (const part of ["board", "map", "happenings"]) {
    live.addEventListener(part, (e) => {
      patch(document.getElementById(part), JSON.parse(e.data));
      if (part === "board") heard = Date.now();
    });
  }
};

// A page that hears nothing does not go on to say that all is normal. The next status lays the true words over these.
const staleAfter = 6_000;
let heard = Date.now();
setInterval(() => {
  const age = Date.now() - heard;
  const verdict = document.querySelector(".verdict");
  if (age < staleAfter || !verdict) return;
  verdict.className = "verdict unknown";
  verdict.querySelector(".words").textContent = `Unknown: the last status is ${Math.round(age / 1000)} s old`;
}, 1_000);
connect();

// A page that nobody sees asks for nothing: forgotten tabs are many.
let leaving;
document.addEventListener("visibilitychange", () => {
  clearTimeout(leaving);
  if (!document.hidden) {
    if (live.readyState === EventSource.CLOSED) connect();
    return;
  }
  leaving = setTimeout(() => {
    live.close();
    say("Paused while out of sight.");
  }, 30_000);
});

// What the pointer is at is also said below the picture, where a touch can read it.
document.getElementById("map").addEventListener("pointerover", (e) => {
  const title = e.target.closest("rect")?.querySelector("title")?.textContent;
  if (title) document.getElementById("shard").textContent = title;
});
