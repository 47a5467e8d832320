// The API reference, from /openapi.json: every route with its fields, responses and a form to send requests.

import { byId, element } from "./draw.js";

/** Characters of a response that are shown. */
const SHOWN = 20000;

/** Text whose `code` is set as code. */
function prose(text) {
  const parts = text.replaceAll("``", "`").split("`");
  return parts.map((part, i) => (i % 2 ? element("code", {}, part) : part));
}

function paragraphs(text) {
  return text.trim().split(/\n\s*\n/).map((each) => element("p", {}, ...prose(each.replace(/\s+/g, " "))));
}

const nameOf = (reference) => reference.split("/").at(-1);

/** The constraints of a schema, as text. */
function typeOf(schema) {
  if (schema === undefined) return "";
  if (schema.$ref) return nameOf(schema.$ref);
  if (schema.enum) return schema.enum.map((each) => JSON.stringify(each)).join(" or ");
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  const choices = schema.anyOf ?? schema.oneOf;
  if (choices) return choices.map(typeOf).join(" or ");
  if (schema.type === "array") return `list of ${typeOf(schema.items) || "anything"}`;
  if (schema.type === "object" && schema.additionalProperties?.type) return `object of ${schema.additionalProperties.type}`;
  return schema.format === "binary" ? "bytes" : schema.type ?? "anything";
}

function limits(schema) {
  const limits = [];
  if (schema.default !== undefined && schema.default !== null) limits.push(`default ${JSON.stringify(schema.default)}`);
  if (schema.minimum !== undefined) limits.push(`at least ${schema.minimum}`);
  if (schema.maximum !== undefined) limits.push(`at most ${schema.maximum}`);
  return limits.join(", ");
}

function table(heads, rows) {
  return element("div", { class: "scroll" }, element("table", {},
    element("thead", {}, element("tr", {}, ...heads.map((head) => element("th", { scope: "col" }, head)))),
    element("tbody", {}, ...rows.map((cells) => element("tr", {}, ...cells.map((cell) => element("td", {}, ...[cell].flat())))))));
}

/** The fields of an object, and of each nested object once. */
function fields(schema, schemas, seen = new Set()) {
  const found = [];
  const inner = [];
  const visit = (each) => {
    if (each?.$ref) inner.push(nameOf(each.$ref));
    for (const other of [each?.items, ...(each?.anyOf ?? [])]) if (other) visit(other);
  };
  if (schema?.$ref) inner.push(nameOf(schema.$ref));
  else visit(schema);
  for (const name of inner) {
    if (seen.has(name) || !schemas[name]) continue;
    seen.add(name);
    const { properties = {}, required = [] } = schemas[name];
    const rows = Object.entries(properties).map(([field, each]) => [
      [element("code", {}, field), required.includes(field) ? " (required)" : ""], typeOf(each),
      [...prose(each.description ?? ""), element("span", { class: "quiet" }, ` ${limits(each)}`)]]);
    found.push(element("h4", {}, name), table(["Field", "Type", "Meaning"], rows));
    for (const each of Object.values(properties)) found.push(...fields(each, schemas, seen));
  }
  return found;
}

function exampleOf(content) {
  const json = content?.["application/json"];
  return json?.example ?? Object.values(json?.examples ?? {})[0]?.value;
}

/** A form that sends a request and shows the response. */
function tryIt(method, path, operation) {
  const parameters = (operation.parameters ?? []).filter((each) => each.in === "path" || each.in === "query");
  const inputs = parameters.map((each) => element("input", { "aria-label": each.name, placeholder: each.name,
    required: each.required, autocomplete: "off" }));
  const content = operation.requestBody?.content;
  const sample = exampleOf(content) ?? {};
  const body = content && element("textarea", { rows: 4, spellcheck: "false", "aria-label": "Body" });
  if (body) body.value = JSON.stringify(sample);
  const examples = Object.values(content?.["application/json"]?.examples ?? {});
  const choices = body && examples.length > 1
    ? examples.map((each) => {
      const button = element("button", { type: "button", class: "plain" }, each.summary);
      button.addEventListener("click", () => { body.value = JSON.stringify(each.value); });
      return button;
    }) : [];
  const status = element("p", { role: "status", class: "quiet" });
  const response = element("pre", { class: "response", tabindex: "0", "aria-label": "Response", hidden: true });
  const form = element("form", {}, element("h4", {}, "Try it"), ...inputs, ...(body ? [body] : []),
    element("div", { class: "row" }, element("button", { type: "submit" }, `Send ${method}`), ...choices), status, response);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    status.textContent = "Waiting…";
    let target = path;
    parameters.forEach((each, i) => {
      if (each.in === "path") target = target.replace(`{${each.name}}`, encodeURIComponent(inputs[i].value));
    });
    const query = new URLSearchParams(parameters.flatMap((each, i) => (each.in === "query" && inputs[i].value ? [[each.name, inputs[i].value]] : [])));
    const headers = { accept: "application/json, */*;q=0.5" };
    if (byId("key").value) headers.authorization = `Bearer ${byId("key").value}`;
    if (body) headers["content-type"] = "application/json";
    const started = performance.now();
    try {
      const received = await fetch(`${target.slice(1)}${query.size ? `?${query}` : ""}`, {
        method, headers, body: body?.value, cache: "no-store", credentials: "omit", signal: AbortSignal.timeout(30000) });
      const kind = received.headers.get("content-type") ?? "";
      const text = /json|text/.test(kind) ? await received.text() : `${(await received.blob()).size} bytes of ${kind}`;
      status.textContent = `${received.status} in ${(performance.now() - started).toFixed(1)} ms`;
      response.textContent = text.length > SHOWN ? `${text.slice(0, SHOWN)}… and ${text.length - SHOWN} characters more` : text;
    } catch (error) {
      status.textContent = `No response: ${error.message}`;
      response.textContent = "";
    }
    response.hidden = response.textContent === "";
  });
  return form;
}

function route(method, path, operation, schemas) {
  const parts = [...paragraphs(operation.description ?? "")];
  const parameters = operation.parameters ?? [];
  if (parameters.length) {
    parts.push(element("h4", {}, "Parameters"), table(["Name", "Where", "Meaning"], parameters.map((each) => [
      [element("code", {}, each.name), each.required ? " (required)" : ""], each.in, prose(each.description ?? typeOf(each.schema))])));
  }
  const content = Object.entries(operation.requestBody?.content ?? {});
  for (const [type, { schema }] of content) {
    parts.push(element("h4", {}, "Body: ", element("code", {}, type)));
    const found = fields(schema, schemas);
    parts.push(...(found.length ? found : [element("p", { class: "quiet" }, schema?.description ?? typeOf(schema))]));
  }
  parts.push(tryIt(method, path, operation), element("h4", {}, "Responses"), table(["Status", "Format", "Meaning"],
    Object.entries(operation.responses ?? {}).map(([status, each]) => [
      status, Object.keys(each.content ?? {}).join(", "), prose(each.description ?? "")])));
  const good = operation.responses?.["200"] ?? operation.responses?.["201"];
  parts.push(...fields(good?.content?.["application/json"]?.schema, schemas));
  return element("details", { class: "route", id: `${method.toLowerCase()}-${path.slice(1).replaceAll(/[^a-z0-9]+/g, "-")}` },
    element("summary", {}, element("span", { class: "method" }, method), element("code", { class: "path" }, path),
      element("span", { class: "tale" }, ...prose((operation.description ?? operation.summary ?? "").split("\n")[0]))),
    element("div", {}, ...parts));
}

document.querySelector(".key").addEventListener("submit", (event) => event.preventDefault());

async function start() {
  const response = await fetch("openapi.json", { cache: "no-store", credentials: "omit" });
  if (!response.ok) throw new Error(`openapi.json: the server responded ${response.status}`);
  const { info, paths, components } = await response.json();
  byId("version").textContent = info.version;
  byId("about").replaceChildren(...paragraphs(info.description ?? info.summary ?? ""));
  const groups = new Map();
  for (const [path, methods] of Object.entries(paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      const tag = operation.tags?.[0] ?? "other";
      if (!groups.has(tag)) groups.set(tag, []);
      groups.get(tag).push(route(method.toUpperCase(), path, operation, components?.schemas ?? {}));
    }
  }
  byId("tags").replaceChildren(...[...groups.keys()].map((tag) => element("a", { href: `#tag-${tag}` }, tag)));
  byId("routes").replaceChildren(...[...groups].map(([tag, routes]) => element("section", { "aria-labelledby": `tag-${tag}` },
    element("h2", { id: `tag-${tag}` }, tag), ...routes)));
  const chosen = location.hash && document.getElementById(location.hash.slice(1));
  if (chosen) {
    if (chosen instanceof HTMLDetailsElement) chosen.open = true;
    chosen.scrollIntoView();
  }
}

start().catch((error) => {
  byId("failure").textContent = `The interface could not be read: ${error.message}`;
  byId("failure").hidden = false;
});
