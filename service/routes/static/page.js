// The page: polls the server every two seconds, and reports when it is unreachable.

import { offerModels, showRequest, startLookup } from "./lookup.js";
import { showMemory } from "./memory.js";
import { showModels } from "./models.js";
import { ask, ResponseError, useKey } from "./server.js";
import { addSamples, forget, hasSamples, showTraffic } from "./traffic.js";

const PAUSE = 2000;
const EVERY = { stats: 2, models: 5 };

const byId = (id) => document.getElementById(id);

let turn = 0;
let timer;
let keyGiven = false;
let broken = [];

function say(state, text) {
  const place = byId("state");
  document.body.dataset.state = state;
  place.dataset.state = state;
  if (place.textContent !== text) place.textContent = text;
}

async function refresh() {
  clearTimeout(timer);
  try {
    const traffic = await ask(`dashboard/traffic?history=${!hasSamples()}`);
    addSamples(traffic);
    showTraffic(traffic.bounds);
    if (turn % EVERY.stats === 0) {
      const stats = await ask("stats");
      byId("version").textContent = stats.version;
      showMemory(stats);
    }
    if (turn % EVERY.models === 0) {
      const { models } = await ask("dashboard/models");
      showModels(models);
      offerModels(models);
      broken = models.filter(({ file }) => file.state === "broken").map(({ name }) => name);
    }
    await ask("readyz");
    turn += 1;
    byId("key").hidden = true;
    say("live", broken.length ? `Live, but the file is broken of: ${broken.join(", ")}` : "Live");
  } catch (error) {
    failed(error);
  }
  timer = setTimeout(refresh, PAUSE);
}

function failed(error) {
  turn = 0;
  if (!(error instanceof ResponseError)) {
    forget();
    say("gone", "The server does not respond. Trying again…");
  } else if (error.status === 401) {
    say("key", "A key is required");
    byId("key-wrong").hidden = !keyGiven;
    if (byId("key").hidden) {
      byId("key").hidden = false;
      byId("key-text").focus();
    }
  } else if (error.status === 503) {
    say("starting", `Not ready: ${error.message}`);
  } else {
    say("busy", `The server is busy: ${error.message}`);
  }
}

byId("key").addEventListener("submit", (event) => {
  event.preventDefault();
  keyGiven = true;
  useKey(byId("key-text").value.trim());
  byId("key-text").value = "";
  showRequest();
  refresh();
});
document.addEventListener("visibilitychange", () => document.hidden ? clearTimeout(timer) : refresh());
startLookup(failed);
refresh();
