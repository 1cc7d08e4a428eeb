// Light or dark, as the system says or as was chosen here. Not a module: it runs before the page is
// painted.
"use strict";
(() => {
  const root = document.documentElement;
  const key = "licensed-theme";
  const system = matchMedia("(prefers-color-scheme: dark)");
  const dark = () => (root.dataset.theme || (system.matches ? "dark" : "light")) === "dark";
  let chosen = null;
  try {
    chosen = localStorage.getItem(key);
  } catch {
    // Storage may be off; then the choice holds for the page.
  }
  if (chosen === "dark" || chosen === "light") root.dataset.theme = chosen;

  const tell = () => {
    const button = document.getElementById("theme");
    if (button) button.textContent = dark() ? "Light" : "Dark";
    dispatchEvent(new Event("themechange"));
  };
  // A page that takes a while shows at once that it is being loaded.
  addEventListener("beforeunload", () => (root.dataset.loading = "true"));
  addEventListener("pageshow", () => delete root.dataset.loading);

  system.addEventListener("change", tell);
  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    button.hidden = false;
    tell();
    button.addEventListener("click", () => {
      root.dataset.theme = dark() ? "light" : "dark";
      try {
        localStorage.setItem(key, root.dataset.theme);
      } catch {
        // As above.
      }
      tell();
    });
  });
})();
