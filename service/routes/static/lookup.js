// Words to vectors: what is found, one vector as a plot, its codes, its neighbors, and the request as code.

import { byId, codeStrip, element, stackedBar, valueBars } from "./draw.js";
import { ask, hasKey } from "./server.js";
import { bits, number } from "./words.js";

const PACKED = "application/vnd.smallfry.packed";
const NEIGHBORS = 10;
const LANGUAGES = { curl, Python: python, JavaScript: javascript };

let model;
let several = false;
let language = "curl";
let latest = 0;
let tell = () => {};

/** Set up the form; `failed` gets errors that the words did not cause. */
export function startLookup(failed) {
  tell = failed;
  byId("lookup").addEventListener("submit", (event) => {
    event.preventDefault();
    look(split(byId("words").value));
  });
  byId("words").addEventListener("input", () => showRequest());
  byId("copy").addEventListener("click", copy);
  for (const name of Object.keys(LANGUAGES)) {
    const input = element("input", { type: "radio", name: "language", value: name, checked: name === language });
    input.addEventListener("change", () => { language = name; showRequest(); });
    byId("languages").append(element("label", {}, input, element("span", {}, name)));
  }
}

/** Look up in this model; requests name it if there are several. Its examples replace the words of another model. */
export function offerModel(offered, named) {
  const other = model?.name !== offered.name;
  [model, several] = [offered, named];
  const kind = kindOf(model);
  byId("words-label").textContent = { texts: "Texts", tokens: "Tokens", ids: `Row numbers, 0 to ${model.rows - 1}` }[kind];
  byId("words-hint").textContent = kind === "ids" ? "Separated by spaces."
    : `Separated by spaces; a ${kind.slice(0, -1)} with spaces goes in "double quotes", where \\" is a quote.`;
  if (other) {
    latest += 1;
    byId("words").value = model.examples.map(quote).join(" ");
    byId("found").replaceChildren();
    byId("token").hidden = byId("lookup-error").hidden = true;
  }
  showRequest();
}

/** The typed words: separated by spaces, or in double quotes, in which \" is a quote and \\ a backslash. */
export function split(text) {
  return [...text.matchAll(/"((?:[^"\\]|\\.)*)"|(\S+)/gs)].map(([, quoted, plain]) => quoted?.replace(/\\(["\\])/g, "$1") ?? plain);
}

/** The inverse of `split` for one word. */
function quote(word) {
  return /[\s"]|^$/.test(word) ? `"${word.replace(/["\\]/g, "\\$&")}"` : word;
}

const named = () => (several ? { model: model.name } : {});

/** What the model takes: the field of a request. */
const kindOf = ({ has_tokenizer, has_vocabulary }) => (has_tokenizer ? "texts" : has_vocabulary ? "tokens" : "ids");

function query(words) {
  const number = (word) => (/^\d+$/.test(word) ? Number(word) : word);
  const kind = kindOf(model);
  return { [kind]: kind === "ids" ? words.map(number) : words, ...named() };
}

function show(error) {
  complain(error.status ? error.message : "The server does not respond.");
  if (!error.status || error.status === 401) tell(error);
}

function complain(text) {
  byId("lookup-error").textContent = text;
  byId("lookup-error").hidden = false;
}

const look = (words) => lookUp(words).catch(show);

async function lookUp(words) {
  const turn = ++latest;
  byId("lookup-error").hidden = true;
  if (!words.length) return;
  const response = await ask("lookup", { body: query(words) });
  if (turn !== latest) return;
  const known = response.found.filter(Boolean).length;
  const chips = words.map((word, i) => chip(word, response.found[i]));
  byId("found").replaceChildren(
    element("p", { class: "quiet" }, `${known} of ${words.length} found`), element("div", { class: "chips" }, ...chips));
  const choose = (i) => {
    chips.forEach((each, j) => each.setAttribute("aria-pressed", String(i === j)));
    return showToken(words[i], response.found[i], response.vectors[i]);
  };
  chips.forEach((each, i) => each.addEventListener("click", () => choose(i).catch(show)));
  await choose(Math.max(0, response.found.indexOf(true)));
}

function chip(word, found) {
  return element("button", { type: "button", class: `chip ${found ? "known" : "unknown"}` },
    element("bdi", { class: "word" }, word || '""'), element("span", { class: "mark" }, found ? "found" : "unknown"));
}

async function showToken(word, found, vector) {
  const place = byId("token");
  place.hidden = false;
  const title = element("h4", { dir: "auto" }, word);
  if (!found) {
    place.replaceChildren(title, element("p", {}, kindOf(model) === "texts" ? "It has no tokens, so its vector is zeros."
      : "Not in the vocabulary. Unknown tokens get zeros, unless the request sets oov."));
    return;
  }
  const turn = latest;
  const length = Math.hypot(...vector);
  const [low, high] = [Math.min(...vector), Math.max(...vector)];
  const codes = element("div");
  const neighbors = element("div");
  place.replaceChildren(title,
    element("figure", {}, valueBars(vector, `The ${vector.length} values of the vector, from ${low.toPrecision(3)} to ${high.toPrecision(3)}`),
      element("figcaption", { class: "quiet" }, `${vector.length} values from ${low.toPrecision(3)} to ${high.toPrecision(3)}, length ${length.toPrecision(4)}`)),
    codes, element("h5", {}, "Nearest by cosine"), neighbors);
  const field = { texts: { vector }, tokens: { token: word }, ids: { id: Number(word) } }[kindOf(model)];
  const [packed, near] = await Promise.all([
    // A pooled vector has no codes.
    kindOf(model) === "texts" ? null : ask("lookup", { body: query(Array(packsFrom(model)).fill(word)), accept: PACKED }),
    length ? ask("neighbors", { body: { ...field, ...named(), k: NEIGHBORS } }) : { neighbors: [] },
  ]);
  if (turn !== latest) return;
  codes.replaceChildren(...packed ? showCodes(packed, model) : []);
  neighbors.replaceChildren(near.neighbors.length
    ? element("ol", { class: "neighbors" }, ...near.neighbors.map(neighbor))
    : element("p", { class: "quiet" }, "All zeros: it has no direction, and so no neighbors."));
}

function neighbor({ token, row, score }) {
  const name = token ?? String(row);
  const bar = [stackedBar([{ className: "score", size: Math.max(0, score) }], 1, "Cosine"),
    element("span", { class: "amount" }, score.toFixed(3))];
  // A token or a row of a text model is no text.
  if (kindOf(model) === "texts") return element("li", {}, element("bdi", {}, name || '""'), ...bar);
  const button = element("button", { type: "button", class: "link", "data-row": row }, element("bdi", {}, name || '""'));
  button.addEventListener("click", () => {
    byId("words").value = quote(name);
    showRequest([name]);
    look([name]);
    byId("words").focus();
  });
  return element("li", {}, button, ...bar);
}

/** How often to request a row so that it is sent as codes: few rows take fewer bytes without what all codes share. */
function packsFrom({ bytes, dim, nbit }) {
  const saved = 4 * dim - Math.ceil(dim * nbit / 8) - (bytes.row_scale ? 2 : 0);
  return nbit > 4 ? 1 : Math.floor((bytes.codebook + bytes.mean + bytes.column_scale) / saved) + 1;
}

/** Read the codes of the first row of a packed response: a safetensors body. */
function showCodes(buffer, model) {
  const length = Number(new DataView(buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
  const nbit = Number(header.__metadata__.nbit);
  const dim = Number(header.__metadata__.dim);
  if (nbit > 4) {
    return [element("p", { class: "quiet" }, `${bits(model.nbit)} a value: too many levels to draw.`)];
  }
  const [begin] = header.codes.data_offsets;
  const bytes = new Uint8Array(buffer, 8 + length + begin);
  const pair = (bit) => bytes[bit >> 3] | bytes[(bit >> 3) + 1] << 8;
  const codes = Array.from({ length: dim }, (_, j) => pair(j * nbit) >> (j * nbit & 7) & 2 ** nbit - 1);
  const window = Math.log2(header.codebook.shape[0]);
  return [element("figure", {},
    codeStrip(codes, 2 ** nbit, `The ${nbit}-bit codes of the vector, 0 to ${2 ** nbit - 1}`),
    element("figcaption", { class: "quiet" }, `${nbit}-bit codes: ${number(Math.ceil(dim * nbit / 8))} bytes instead of ${number(4 * dim)}`
      + (window > nbit ? `; each value depends on ${window} bits, its own and those of the next` : ""))),
  element("details", {}, element("summary", {}, "Codes as digits"),
    element("pre", { class: "digits", tabindex: 0 }, codes.map((code) => code.toString(16)).join("")))];
}

/** Show the request for the typed words. */
export function showRequest(words = split(byId("words").value)) {
  if (!model) return;
  byId("snippet").textContent = LANGUAGES[language](new URL("lookup", document.baseURI).href, JSON.stringify(query(words)));
}

async function copy() {
  const button = byId("copy");
  try {
    await navigator.clipboard.writeText(byId("snippet").textContent);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(byId("snippet"));
    button.textContent = "Selected";
  }
  setTimeout(() => { button.textContent = "Copy"; }, 2000);
}

function curl(url, body) {
  // By standard input, because other users see the arguments of a process.
  const [key, header] = hasKey() ? [`echo "authorization: Bearer $API_KEY" |\n`, "  -H @- \\\n"] : ["", ""];
  return `${key}curl -s ${url} \\\n${header}  -H 'content-type: application/json' \\\n  -d '${body.replaceAll("'", "'\\''")}'`;
}

function python(url, body) {
  const { tokens, ids, texts, model } = JSON.parse(body);
  const base = url.replace(/\/lookup$/, "");
  const [method, what] = texts ? ["encode", texts] : tokens ? ["lookup", tokens] : ["rows", ids];
  const vectors = tokens ? "vectors, found" : "vectors";
  const [imports, key] = hasKey() ? ["import os\n\n", ', api_key=os.environ["API_KEY"]'] : ["", ""];
  return `${imports}from smallfry.client import Client\n\nclient = Client(${JSON.stringify(base)}${key})\n`
    + `${vectors} = client.${method}(${JSON.stringify(what)}${model ? `, model=${JSON.stringify(model)}` : ""})`;
}

function javascript(url, body) {
  const key = hasKey() ? ", authorization: `Bearer ${process.env.API_KEY}`" : "";
  return `const response = await fetch(${JSON.stringify(url)}, {\n  method: "POST",\n`
    + `  headers: {"content-type": "application/json"${key}},\n  body: JSON.stringify(${body}),\n});\nconst {vectors, found} = await response.json();`;
}
