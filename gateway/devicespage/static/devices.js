// The devices of one customer, who is named by a token: it comes from the page around this one, or with the fragment of
// the address, and is kept in memory only. docs/guide/devices-page.md describes both.
"use strict";
(() => {
  const root = document.documentElement, framed = window.parent !== window;
  const origins = root.dataset.origins.split(" ").filter(Boolean);
  const properties = ["background", "text", "quiet", "line", "card", "accent", "danger", "on-danger"];
  const types = {
    DEVICE_TYPE_PHONE: "Phone", DEVICE_TYPE_TABLET: "Tablet", DEVICE_TYPE_COMPUTER: "Computer", DEVICE_TYPE_TV: "TV",
    DEVICE_TYPE_SET_TOP_BOX: "Set-top box", DEVICE_TYPE_CONSOLE: "Console",
  };
  const offline = "Your devices cannot be shown right now. Your downloads are not affected. Please try again in a moment.";
  let token = "", customer = "", titles = {}, embedder = "", slow = 0, loading = 0;

  const $ = (id) => document.getElementById(id);
  const element = (tag, text, className) => {
    const e = document.createElement(tag);
    if (text) e.textContent = text;
    if (className) e.className = className;
    return e;
  };
  const count = (n, one, many) => `${n} ${n === 1 ? one : many}`;
  const day = (t) => new Date(t).toLocaleDateString(navigator.language, { day: "numeric", month: "long", year: "numeric" });
  const nameOf = (d) => d.deviceName || types[d.deviceType] || d.deviceId;
  const titleOf = (id) => (Object.hasOwn(titles, id) ? titles[id] : id);
  const tell = (message) => { if (embedder) window.parent.postMessage(message, embedder); };

  // accept takes the token and what the service says beside it.
  const accept = (m) => {
    const text = (v) => (typeof v === "string" ? v : "");
    token = text(m.token);
    customer = text(m.customer);
    titles = {};
    for (const [id, name] of Object.entries(m.titles && typeof m.titles === "object" ? m.titles : {})) {
      if (typeof name === "string") titles[id] = name;
    }
    if (m.scheme === "light" || m.scheme === "dark") root.dataset.scheme = m.scheme;
    else delete root.dataset.scheme;
    const theme = m.theme && typeof m.theme === "object" ? m.theme : {};
    for (const p of properties) {
      const value = text(theme[p]);
      if (value && CSS.supports("color", value)) root.style.setProperty("--devices-" + p, value);
      else root.style.removeProperty("--devices-" + p);
    }
    if (/^\d{1,2}px$/.test(text(theme.radius))) root.style.setProperty("--devices-radius", theme.radius);
    if (/^[\w ,"-]{1,100}$/.test(text(theme.font))) root.style.setProperty("--devices-font", theme.font);
  };

  // call asks the API. Errors have the code of the API, and the refusal of a rule if there is one.
  const call = async (method, message) => {
    let response, body;
    try {
      response = await fetch("/licensed.v1.LicenseService/" + method, {
        method: "POST", credentials: "omit", cache: "no-store", referrerPolicy: "no-referrer", signal: AbortSignal.timeout(10000),
        headers: { "Content-Type": "application/json", Authorization: "Bearer " + token },
        body: JSON.stringify({ customerId: customer, ...message }),
      });
      body = await response.json();
    } catch {
      throw { code: "unavailable" };
    }
    if (response.ok) return body;
    const refusal = (body.details || []).find((d) => d.type === "licensed.v1.Refusal");
    throw { code: body.code, refusal: refusal && refusal.debug };
  };

  const show = (part) => {
    clearTimeout(slow);
    for (const id of ["status", "problem", "content"]) $(id).hidden = id !== part;
  };
  const problem = (text, retry) => {
    show("problem");
    $("problem").firstElementChild.textContent = text;
    $("retry").hidden = !retry;
  };
  // failed says what went wrong, in words for the customer.
  const failed = (error) => {
    if (error.code === "unauthenticated") {
      tell({ type: "licensed-devices:expired" });
      problem("You have been signed out. Go back and open this page again.", false);
    } else if (error.code === "permission_denied" || error.code === "invalid_argument") {
      problem("This page cannot show your devices. Go back and open it again.", false);
    } else {
      problem(offline, true);
    }
  };

  // customerOf returns all pages of what the service knows of the customer.
  const customerOf = async () => {
    let all = { devices: [], licenses: [] }, pageToken = "";
    do {
      const page = await call("GetCustomer", { pageToken });
      all = { ...page, devices: all.devices.concat(page.devices || []), licenses: all.licenses.concat(page.licenses || []) };
      pageToken = page.nextPageToken || "";
    } while (pageToken);
    return all;
  };

  const load = async (said) => {
    const turn = ++loading;
    show("status");
    $("status").textContent = "Loading your devices…";
    slow = setTimeout(() => { $("status").textContent = "This takes longer than usual…"; }, 2000);
    try {
      const c = await customerOf();
      if (turn === loading) render(c, said);
    } catch (error) {
      if (turn === loading) failed(error);
    }
  };

  const render = (c, said) => {
    show("content");
    const used = c.devicesInUse.used || 0, limit = c.devicesInUse.limit || 0, full = used >= limit;
    $("summary").textContent = `${used} of ${count(limit, "device", "devices")} with downloads.` +
      (full ? " To download on another device, remove one of these." : "");
    const meter = $("meter");
    meter.max = Math.max(limit, 1);
    meter.value = used;
    meter.classList.toggle("full", full);
    const removals = c.deactivations || {};
    $("removals").textContent = removals.limit === undefined ? "" :
      removals.left ? `You can remove ${count(removals.left, "more device", "more devices")} in 365 days.` :
      `You cannot remove devices with downloads right now.` + (removals.nextAt ? ` It is possible again on ${day(removals.nextAt)}.` : "");
    const list = $("devices");
    list.replaceChildren();
    const active = c.devices.filter((d) => d.active);
    const last = (d) => (d.lastDownloadAt ? Date.parse(d.lastDownloadAt) : 0);
    active.sort((a, b) => (b.activeLicenses || 0) - (a.activeLicenses || 0) || last(b) - last(a));
    for (const d of active) {
      const on = c.licenses.filter((l) => l.status === "LICENSE_STATUS_ACTIVE" && l.license.deviceId === d.deviceId);
      list.append(item(d, on.map((l) => l.license)));
    }
    if (!active.length) list.append(element("li", "No device has downloads yet. The first download adds one."));
    $("status").hidden = !said;
    $("status").textContent = said || "";
    tell({ type: "licensed-devices:height", height: document.querySelector("main").scrollHeight });
  };

  const item = (d, licenses) => {
    const li = element("li"), row = element("div", "", "row"), text = element("div");
    const kind = types[d.deviceType], facts = [];
    if (d.deviceName && kind) facts.push(kind);
    if (d.lastDownloadAt) facts.push("last download " + day(d.lastDownloadAt));
    text.append(element("h2", nameOf(d)), element("p", facts.join(", ") , "quiet"));
    row.append(text);
    li.append(row);
    if (!licenses.length) {
      li.append(element("p", "No downloads. It uses no place, and there is nothing to remove.", "quiet"));
      return li;
    }
    const button = element("button", "Remove");
    button.type = "button";
    button.setAttribute("aria-label", "Remove " + nameOf(d));
    button.addEventListener("click", () => ask(d, licenses));
    row.append(button);
    const details = element("details"), titlesOn = element("ul");
    details.append(element("summary", count(licenses.length, "download", "downloads")), titlesOn);
    for (const l of licenses) {
      const entry = element("li");
      entry.append(element("span", titleOf(l.titleId)), element("span", "until " + day(l.expiresAt), "quiet"));
      titlesOn.append(entry);
    }
    li.append(details);
    return li;
  };

  // refused says why a rule does not allow the removal.
  const refused = (refusal) => "This device cannot be removed right now." +
    (refusal && refusal.nextAllowedAt ? ` It is possible from ${day(refusal.nextAllowedAt)} on.` : "");

  // ask shows what a removal ends, costs and frees, as the service says it, before it is done.
  const ask = async (d, licenses) => {
    const dialog = $("ask"), what = $("consequences"), name = nameOf(d);
    $("question").textContent = `Remove ${name}?`;
    what.replaceChildren(element("p", "One moment…"));
    $("failure").hidden = true;
    $("remove").hidden = true;
    $("remove").disabled = $("keep").disabled = false;
    dialog.showModal();
    // One id for all attempts: the device is removed once.
    const commandId = "page-" + (crypto.randomUUID ? crypto.randomUUID() : Array.from(crypto.getRandomValues(new Uint32Array(4)), String).join("-"));
    const about = { deviceId: d.deviceId, ...(d.activatedAt ? { activatedAt: d.activatedAt } : {}) };
    try {
      const would = await call("DeactivateDevice", { ...about, validateOnly: true });
      const ends = would.releasedTitleIds || [], r = would.removal || {};
      what.replaceChildren(element("p", `${count(ends.length, "download ends", "downloads end")} and can no longer be played on it: `));
      const list = element("ul");
      for (const id of ends) list.append(element("li", titleOf(id)));
      what.append(list);
      const left = (r.deviceLimit || 0) - (r.devicesInUse || 0);
      what.append(element("p", left > 0 ? "Afterwards, you can download on another device." :
        "Afterwards, you still have as many devices as your plan allows."));
      if (r.counted && r.limit !== undefined) {
        what.append(element("p", `This is removal ${r.removals} of ${r.limit} that you have in 365 days.`));
      }
      $("remove").hidden = false;
    } catch (error) {
      if (!error.refusal) { dialog.close(); failed(error); return; }
      what.replaceChildren(element("p", refused(error.refusal)));
    }
    $("remove").onclick = async () => {
      $("remove").disabled = $("keep").disabled = true;
      $("failure").hidden = true;
      try {
        await call("DeactivateDevice", { ...about, commandId });
        dialog.close();
        tell({ type: "licensed-devices:removed", device: d.deviceId });
        await load(`${name} was removed.`);
      } catch (error) {
        $("remove").disabled = $("keep").disabled = false;
        if (error.code === "unauthenticated" || error.code === "permission_denied") { dialog.close(); failed(error); return; }
        $("failure").textContent = error.refusal ? refused(error.refusal) : "That did not work. Please try again.";
        $("failure").hidden = false;
      }
    };
  };

  $("keep").addEventListener("click", () => $("ask").close());
  $("retry").addEventListener("click", () => load());
  if (framed) {
    // Only the page that contains this one, if it is of a known origin, says for whom it is.
    window.addEventListener("message", (e) => {
      if (e.source !== window.parent || !origins.includes(e.origin) || !e.data || e.data.type !== "licensed-devices:open") return;
      embedder = e.origin;
      accept(e.data);
      load();
    });
    window.parent.postMessage({ type: "licensed-devices:ready" }, "*"); // has nothing that others may not know
    slow = setTimeout(() => problem("This page cannot show your devices. Go back and open it again.", false), 10000);
  } else {
    const open = () => {
      const f = new URLSearchParams(location.hash.slice(1));
      // The token does not stay in the address, in the history or in a bookmark.
      history.replaceState(null, "", location.pathname);
      accept({ token: f.get("token"), customer: f.get("customer"), scheme: f.get("scheme") });
      if (token && customer) load();
      else problem("Open this page from the settings of your account.", false);
    };
    window.addEventListener("hashchange", () => { if (location.hash.length > 1) open(); });
    open();
  }
})();
