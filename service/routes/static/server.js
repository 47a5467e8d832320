// Asking the server. The key, if one is needed, lives in this module alone and ends with the page.

let key = "";

export function useKey(text) {
  key = text;
}

export const hasKey = () => key !== "";

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** Fetch a route; throws Refused with the server's own message, or TypeError where no server answers. */
export async function ask(path, { body, accept = "application/json" } = {}) {
  const headers = { accept };
  if (key) headers.authorization = `Bearer ${key}`;
  if (body !== undefined) headers["content-type"] = "application/json";
  const answer = await fetch(path, {
    method: body === undefined ? "GET" : "POST", headers, cache: "no-store", credentials: "omit",
    body: body === undefined ? undefined : JSON.stringify(body), signal: AbortSignal.timeout(15000),
  });
  if (answer.ok) return accept === "application/json" ? answer.json() : answer.arrayBuffer();
  const told = await answer.json().catch(() => null);
  throw new Refused(answer.status, told?.error?.message ?? `the server answered ${answer.status}`);
}
