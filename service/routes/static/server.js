// Requests to the server. The key, if required, is kept only in this module, until the page is closed.

let key = "";

export function useKey(text) {
  key = text;
}

export const hasKey = () => key !== "";

export class ResponseError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** Fetch a route; throws ResponseError with the server's message, or TypeError if the server does not respond. */
export async function ask(path, { body, accept = "application/json" } = {}) {
  const headers = { accept };
  if (key) headers.authorization = `Bearer ${key}`;
  if (body !== undefined) headers["content-type"] = "application/json";
  const response = await fetch(path, {
    method: body === undefined ? "GET" : "POST", headers, cache: "no-store", credentials: "omit",
    body: body === undefined ? undefined : JSON.stringify(body), signal: AbortSignal.timeout(15000),
  });
  if (response.ok) return accept === "application/json" ? response.json() : response.arrayBuffer();
  const content = await response.json().catch(() => null);
  throw new ResponseError(response.status, content?.error?.message ?? `the server responded ${response.status}`);
}
