// A customer's page: the slider, the timeline and the moment without loading the page anew. What is shown
// is always what the address says.
import { patch } from "./patch.js";

const explorer = document.getElementById("explorer");
const slider = document.getElementById("slider");
const momentBox = document.getElementById("moment");
const timelineBox = document.getElementById("timeline");
const steps = document.getElementById("steps");
const refusals = document.getElementById("refusals");
const news = document.getElementById("news");
const customer = explorer.dataset.customer;

let head = Number(explorer.dataset.head);
let loading = null;

const address = () => new URL(location.href);
const atOf = (url) => Number(url.searchParams.get("at") ?? 0);

/** Shows the moment of an address, and the timeline around it where it is not listed yet. */
async function show(url, { push = false, whole = false } = {}) {
  loading?.abort();
  const mine = (loading = new AbortController());
  const at = atOf(url);
  const listed = at === 0 ? !whole : document.querySelector(`[data-at="${at}"]`) !== null;
  explorer.setAttribute("aria-busy", "true");
  try {
    const response = await fetch(url.pathname + url.search, { signal: mine.signal, headers: { Accept: "text/html" } });
    if (!response.ok && response.status !== 404) throw new Error(`${response.status}`);
    const text = await response.text();
    const page = new DOMParser().parseFromString(text, "text/html");
    const fresh = page.getElementById("explorer");
    if (!fresh) {
      location.assign(url);
      return;
    }
    head = Number(fresh.dataset.head);
    slider.max = head;
    slider.value = page.getElementById("slider").getAttribute("value");
    for (const box of [momentBox, steps, document.querySelector(".strip")]) {
      patch(box, (box.id ? page.getElementById(box.id) : page.querySelector(".strip")).innerHTML);
    }
    if (!listed || whole) {
      patch(timelineBox, page.getElementById("timeline").innerHTML);
      patch(refusals, page.getElementById("refusals").innerHTML);
    }
    choose(Number(slider.value));
    history[push ? "pushState" : "replaceState"](null, "", url);
    news.textContent = "";
    fit();
    copyable();
  } catch (error) {
    if (error.name === "AbortError") return;
    news.textContent = "The moment could not be loaded; the node does not answer. Try again.";
  } finally {
    if (loading === mine) explorer.removeAttribute("aria-busy");
  }
}

/** Marks an event of the timeline and brings it into view, inside of the list only. */
function choose(sequence) {
  let chosen = null;
  for (const item of timelineBox.querySelectorAll("li[data-first]")) {
    const is = Number(item.dataset.first) <= sequence && sequence <= Number(item.dataset.last);
    item.classList.toggle("chosen", is);
    const link = item.querySelector("a");
    if (is) link?.setAttribute("aria-current", "true");
    else link?.removeAttribute("aria-current");
    for (const event of item.querySelectorAll(".folded a")) event.classList.toggle("here", event.dataset.at === String(sequence));
    const details = item.querySelector("details");
    if (is && details && Number(item.dataset.last) !== sequence) details.open = true;
    if (is) chosen = item;
  }
  for (const item of refusals.querySelectorAll("li[data-key]")) item.classList.toggle("chosen", item.dataset.key === `r${sequence}`);
  reveal(chosen?.querySelector(".here") ?? chosen?.querySelector("a") ?? chosen, chosen?.parentElement);
  const refused = refusals.querySelector("li.chosen");
  reveal(refused, refused?.parentElement);
}

function reveal(item, list) {
  if (!item || !list) return;
  const offset = item.getBoundingClientRect().top - list.getBoundingClientRect().top + list.scrollTop;
  if (offset < list.scrollTop || offset + item.offsetHeight > list.scrollTop + list.clientHeight) {
    list.scrollTop = offset - Math.max(0, list.clientHeight - item.offsetHeight) / 2;
  }
}

const at = (sequence) => {
  const url = address();
  url.hash = "";
  if (sequence > 0) url.searchParams.set("at", sequence);
  else url.searchParams.delete("at");
  return url;
};

// The slider: the number follows at once, the moment when there is one.
slider.disabled = false;
let pending = 0;
slider.addEventListener("input", () => {
  choose(Number(slider.value));
  cancelAnimationFrame(pending);
  pending = requestAnimationFrame(() => show(at(Number(slider.value))));
});

// Links to other moments, and forms, stay on the page.
explorer.addEventListener("click", (e) => {
  const link = e.target.closest("a[data-at], a[data-step], a[data-filter], a[data-try], .timeline a.button, a.why-link");
  if (!link?.href || e.ctrlKey || e.metaKey || e.shiftKey || e.button !== 0) return;
  e.preventDefault();
  const url = new URL(link.href);
  show(url, { push: true, whole: link.matches(".timeline a.button, a[data-filter]") }).then(() => {
    if (url.hash) document.querySelector(url.hash)?.scrollIntoView({ block: "start" });
    else if (link.matches("a[data-refused], a[data-at]")) momentBox.scrollTop = 0;
    // On a narrow screen what is shown lies below the lists.
    if (link.matches("a[data-refused]") && matchMedia("(max-width: 900px)").matches) momentBox.scrollIntoView();
  });
});
explorer.addEventListener("submit", (e) => {
  const form = e.target;
  if (form.method !== "get") return;
  e.preventDefault();
  const url = new URL(form.action);
  const data = new FormData(form);
  const current = address().searchParams;
  // The filter keeps the moment that is shown now, not that of when the page was made.
  if (form.matches(".filter")) {
    data.delete("at");
    if (current.has("at")) data.set("at", current.get("at"));
  }
  url.search = new URLSearchParams([...data].filter(([, value]) => value !== "")).toString();
  show(url, { push: true, whole: form.matches(".filter") });
});
addEventListener("popstate", () => show(address(), { whole: true }));

// The time of the form is that of the viewer; the service is asked in UTC.
document.querySelector(".find-moment").addEventListener("submit", (e) => {
  const field = e.target.elements.time;
  if (field.value === "") return;
  e.preventDefault();
  const url = new URL(e.target.action);
  const data = new FormData(e.target);
  data.set("time", new Date(field.value).toISOString());
  url.search = new URLSearchParams([...data].filter(([, value]) => value !== "")).toString();
  location.assign(url);
});

// What a person reads out can be pasted into a ticket. Buttons are shown where that works.
const copyable = () => {
  for (const button of document.querySelectorAll("[data-copy]")) button.hidden = !navigator.clipboard;
};
copyable();
momentBox.addEventListener("click", async (e) => {
  const button = e.target.closest("[data-copy]");
  if (!button) return;
  try {
    await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent.trim());
    document.getElementById("copied").textContent = "Copied.";
  } catch {
    document.getElementById("copied").textContent = "The browser does not allow copying; select the sentence.";
  }
});

// Of the fields of What if, only those of the command are shown.
function fit() {
  const command = document.getElementById("try-command");
  for (const label of document.querySelectorAll("label[data-for]")) {
    const wanted = label.dataset.for.split(" ").includes(command.value);
    label.hidden = !wanted;
    label.querySelector("input").disabled = !wanted;
  }
}
momentBox.addEventListener("change", (e) => {
  if (e.target.id === "try-command") fit();
});
fit();
choose(Number(slider.value));

// News: at the end of the history it is shown at once, elsewhere it is told.
const live = new EventSource(`/dashboard/customer/live?id=${encodeURIComponent(customer)}&after=${head}`);
live.addEventListener("head", (e) => {
  const sequence = JSON.parse(e.data);
  if (sequence <= head) return;
  if (atOf(address()) === 0) {
    head = sequence;
    show(address(), { whole: true });
    return;
  }
  const fresh = sequence - head;
  news.textContent = `${fresh === 1 ? "1 new event" : `${fresh} new events`} since this page was loaded; “Now” shows the end.`;
});
