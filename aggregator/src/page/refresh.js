// Fetches the page again every five seconds and shows what is new, keeping the place and whatever was
// unfolded. Without this script the page is complete and merely stands still.
"use strict";

const INTERVAL_MS = 5000;

async function refresh() {
  if (document.hidden) return;
  const note = document.getElementById("connection");
  try {
    const response = await fetch(location.href, { headers: { Accept: "text/html" } });
    const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
    if (!response.ok) throw new Error(response.status + " " + response.statusText);
    const unfolded = new Set([...document.querySelectorAll("details[open]")].map((it) => it.id));
    const main = fresh.querySelector("main");
    for (const details of main.querySelectorAll("details")) details.open = unfolded.has(details.id);
    document.querySelector("main").replaceWith(document.adoptNode(main));
    note.textContent = "live";
    note.className = "live";
  } catch (error) {
    note.textContent = "not refreshed: " + error.message;
    note.className = "stale";
  }
}

document.getElementById("connection").textContent = "live";
setInterval(refresh, INTERVAL_MS);
