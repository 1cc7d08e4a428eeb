// Charts of the last minutes.
import { local } from "./time.js";
import uPlot from "./vendor/uPlot.js";

const minutes = 10;
const colours = 8;
// Series beyond the colours have these again, dashed.
const colour = (i) => `--series-${(i % colours) + 1}`;
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

const digits = (v) => (v === 0 ? "0" : v >= 100 ? Math.round(v).toLocaleString("en") : v >= 10 ? v.toFixed(1) : v >= 0.01 ? v.toFixed(2) : v.toPrecision(1));
const tens = (_, splits) => splits.map((v) => (Number.isInteger(Math.round(Math.log10(v) * 1e6) / 1e6) ? v : null));
const clock = (seconds) => local(new Date(seconds * 1000)).slice(11);

/** One chart. series are {label, value(sample)}; names, if given, makes series by name as they come. */
export class Chart {
  constructor(figure, { unit, series, names, log }) {
    this.figure = figure;
    this.holder = figure.querySelector(".plot");
    this.unit = unit;
    this.log = log;
    this.names = names;
    // All names in an order that never changes: a name keeps its colour whatever else is shown.
    this.order = (figure.dataset.names ?? "").split(",").filter((name) => name !== "");
    this.empty = document.createElement("p");
    this.empty.className = "empty";
    this.empty.textContent = `None in the last ${minutes} minutes.`;
    this.holder.before(this.empty);
    this.series = series ?? [];
    this.samples = [];
    this.legend = document.createElement("ul");
    this.legend.className = "legend";
    figure.append(this.legend);
    new ResizeObserver(() => this.#resize()).observe(this.holder);
    addEventListener("themechange", () => this.#build());
    this.#build();
  }

  /** Shows these samples, oldest first. */
  show(samples) {
    this.samples = samples;
    if (this.names && this.#meet()) this.#build();
    else this.plot.setData(this.#data());
    const none = !this.samples.some((s) => this.series.some((line) => line.value(s)));
    this.empty.hidden = !none;
    this.holder.hidden = none;
    if (!none) this.#resize();
    this.#tell();
  }

  // The place of a series among the colours.
  #place(i) {
    const place = this.order.indexOf(this.series[i]?.label);
    return place < 0 ? i : place;
  }

  // A name that was never met before gets a line of its own.
  #meet() {
    const known = new Set(this.series.map((s) => s.label));
    const fresh = new Set();
    for (const sample of this.samples) for (const name of Object.keys(this.names(sample) ?? {})) if (!known.has(name)) fresh.add(name);
    for (const name of [...fresh].sort()) this.series.push({ label: name, value: (s) => this.names(s)?.[name] ?? 0 });
    return fresh.size > 0;
  }

  #data() {
    const values = this.series.length > 0 ? this.series : [{ value: () => 0 }];
    return [this.samples.map((s) => s.at / 1000), ...values.map((line) => this.samples.map((s) => line.value(s) ?? null))];
  }

  #build() {
    this.plot?.destroy();
    const quiet = css("--quiet");
    const grid = { stroke: css("--line"), width: 1 };
    const axis = { stroke: quiet, grid, ticks: { show: false }, font: "12px system-ui, sans-serif", size: 52 };
    const lines = this.series.length > 0 ? this.series : [{ label: "none" }];
    this.plot = new uPlot(
      {
        ...this.#size(),
        legend: { show: false },
        cursor: { points: { size: 6 }, drag: { x: false, y: false } },
        scales: {
          x: { time: true, range: (_, low, high) => [Math.min(low ?? 0, (high ?? 0) - 60), high ?? 0] },
          y: this.log ? { distr: 3, range: (_, low, high) => uPlot.rangeLog(Math.max(low ?? 0.1, 0.001), Math.max(high ?? 10, 1), 10, true) } : { range: (_, __, high) => [0, Math.max(1, (high ?? 0) * 1.15)] },
        },
        axes: [
          { ...axis, size: 28, space: 90, values: (_, splits) => splits.map(clock) },
          { ...axis, space: 30, ...(this.log ? { filter: tens, grid: { ...grid, filter: tens } } : {}), values: (_, splits) => splits.map((v) => (v === null ? "" : digits(v))) },
        ],
        series: [
          {},
          ...lines.map((line, i) => ({ label: line.label, stroke: css(colour(this.#place(i))), width: 2, spanGaps: false, points: { show: false }, dash: this.#place(i) >= colours ? [6, 4] : undefined })),
        ],
        hooks: { setCursor: [(u) => this.#tell(u.cursor.idx)] },
      },
      this.#data(),
      this.holder,
    );
    this.#tell();
  }

  #size() {
    return { width: Math.max(200, this.holder.clientWidth), height: this.holder.clientHeight || 170 };
  }

  #resize() {
    const { width, height } = this.#size();
    if (width !== this.plot.width || height !== this.plot.height) this.plot.setSize({ width, height });
  }

  // The legend has the values under the pointer, or the latest; it is also what is read aloud.
  #tell(index) {
    const sample = this.samples[index ?? this.samples.length - 1];
    const items = this.series.map((line, i) => {
      const value = sample ? line.value(sample) : null;
      const item = document.createElement("li");
      const swatch = document.createElement("span");
      const place = this.#place(i);
      swatch.className = `swatch series-${(place % colours) + 1}${place >= colours ? " dashed" : ""}`;
      const figure = document.createElement("b");
      figure.textContent = value === null || value === undefined ? "–" : `${digits(value)} ${this.unit}`;
      item.append(swatch, `${line.label} `, figure);
      return item;
    });
    this.legend.replaceChildren(...items);
  }
}

/** Keeps the samples of the last minutes. A page that connects again is sent those anew that it has. */
export function keep(samples, fresh) {
  const since = fresh[0]?.at ?? Infinity;
  const all = samples.filter((s) => s.at < since).concat(fresh);
  const from = (all.at(-1)?.at ?? 0) - minutes * 60_000;
  return all.filter((s) => s.at >= from);
}
