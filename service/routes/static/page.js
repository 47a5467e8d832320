// Polls the server once a second, and reports when it is unreachable.

import { byId, element } from "./draw.js";
import { startLookup, showRequest } from "./lookup.js";
import { selected, showModel } from "./model.js";
import { ask, ResponseError, useKey } from "./server.js";
import { showTable, startTable } from "./table.js";
import { showProcesses, showTotals } from "./totals.js";
import { addSamples, forget, hasSamples, showTraffic } from "./traffic.js";

const PAUSE = 1000;
/** Models and memory are requested every so many turns. */
const EVERY = 5;
/** Files that are listed; the rest is counted. */
const LISTED = 3;

let turn = 0;
let timer;
let running = false;
let keyGiven = false;
let models = [];

function say(state, text) {
  document.body.dataset.state = byId("state").dataset.state = state;
  if (byId("state").textContent !== text) byId("state").textContent = text;
}

async function refresh() {
  clearTimeout(timer);
  if (running) return;
  running = true;
  try {
    const traffic = await ask(`dashboard/traffic?history=${!hasSamples()}`);
    byId("key").hidden = true;
    addSamples(traffic);
    showTraffic(traffic.bounds);
    if (turn % EVERY === 0) {
      const [stats, list] = await Promise.all([ask("stats"), ask("dashboard/models")]);
      models = list.models;
      byId("version").textContent = stats.version;
      showProcesses(stats);
      showTotals(models);
      showFiles(stats.failed);
      showSelected();
    }
    await ask("readyz");
    turn += 1;
    say("live", "Live");
  } catch (error) {
    failed(error);
  }
  running = false;
  if (!document.hidden) timer = setTimeout(refresh, PAUSE);
}

function showSelected() {
  const name = selected(models);
  showTable(models, name);
  showModel(name, models);
}

/** List the files that could not be opened, and those of models that are broken by now. */
function showFiles(failed) {
  const broken = models.filter(({ name, file }) => file.state === "broken" && !failed.some(({ model }) => model === name));
  const files = [...failed, ...broken.map(({ name, file }) => ({ file: name, message: file.message, model: name }))];
  const more = files.length - LISTED;
  byId("files").hidden = !files.length;
  byId("files-title").textContent = files.length === 1 ? "1 file cannot be served" : `${files.length} files cannot be served`;
  byId("files-list").replaceChildren(
    ...files.slice(0, LISTED).map(({ file, message, model }) => element("li", {}, element("b", {}, file), `: ${message}`,
      model ? ` (the file that was loaded before is still served as ${model})` : "")),
    more > 0 ? element("li", {}, `and ${more} more, listed in /stats`) : "");
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

byId("address").textContent = location.host + location.pathname.replace(/\/$/, "");
byId("key").addEventListener("submit", (event) => {
  event.preventDefault();
  keyGiven = true;
  useKey(byId("key-text").value.trim());
  byId("key-text").value = "";
  showRequest();
  refresh();
});
document.addEventListener("visibilitychange", () => document.hidden ? clearTimeout(timer) : refresh());
addEventListener("hashchange", showSelected);
startTable();
startLookup(failed);
refresh();
