// Times in the viewer's zone. Pages are made in UTC; what a time was in UTC is said when it is pointed at.
const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
const two = (n) => String(n).padStart(2, "0");

/** Returns a time as text in the viewer's zone: 2026-03-01 20:15:00. */
export const local = (at, seconds = true) =>
  `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${two(at.getHours())}:${two(at.getMinutes())}${seconds ? `:${two(at.getSeconds())}` : ""}`;

/** Rewrites the times within an element. */
export function localize(root) {
  for (const element of root.querySelectorAll("time[datetime]")) {
    if (element.title) continue;
    const at = new Date(element.getAttribute("datetime"));
    if (Number.isNaN(at.getTime())) continue;
    const text = element.textContent;
    element.title = text.endsWith("UTC") ? text : `${text} UTC`;
    element.textContent = local(at, /\d\d:\d\d:\d\d/.test(text));
  }
}

localize(document);
const note = document.getElementById("zone");
if (note) note.textContent = zone === "UTC" ? "Times are in UTC." : `Times are in ${zone}; point at one for UTC.`;
