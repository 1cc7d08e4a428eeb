// patch lays HTML that the server made anew over what is shown, and touches only what differs: focus,
// scroll positions, open details and selections stay.

import { localize } from "./time.js";

/** Makes the content of element that of html. */
export function patch(element, html) {
  const made = document.createElement(element.tagName);
  const parsed = new DOMParser().parseFromString(html, "text/html");
  made.append(...parsed.body.childNodes);
  localize(made);
  children(element, made);
}

const keyOf = (node) => (node.nodeType === Node.ELEMENT_NODE ? node.dataset.key : undefined);
const same = (a, b) => a.nodeType === b.nodeType && a.nodeName === b.nodeName && keyOf(a) === keyOf(b);

function children(was, now) {
  const keyed = new Map();
  for (const node of was.children) if (keyOf(node)) keyed.set(keyOf(node), node);
  let at = was.firstChild;
  for (const node of [...now.childNodes]) {
    const key = keyOf(node);
    let found = key ? keyed.get(key) : at && same(at, node) ? at : null;
    if (found && !same(found, node)) found = null;
    if (!found) {
      was.insertBefore(node, at);
      continue;
    }
    if (found === at) at = at.nextSibling;
    else was.insertBefore(found, at);
    one(found, node);
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

// What people did to a page is theirs.
const theirs = (element, name) => (element.localName === "details" && name === "open") || (element.localName === "input" && name === "value");

function one(was, now) {
  if (was.nodeType !== Node.ELEMENT_NODE) {
    if (was.data !== now.data) was.data = now.data;
    return;
  }
  for (const { name, value } of [...now.attributes]) {
    if (was.getAttribute(name) !== value && !theirs(was, name)) was.setAttribute(name, value);
  }
  for (const { name } of [...was.attributes]) {
    if (!now.hasAttribute(name) && !theirs(was, name)) was.removeAttribute(name);
  }
  if (was.localName !== "select") children(was, now);
}
