// Requests to the server. Errors are one line each.
import { ask, el, field } from "./dom.js";

export class ApiError extends Error {
  constructor(status, line) {
    super(line);
    this.status = status;
  }
}

async function lineOf(answer) {
  try {
    const { detail } = await answer.json();
    if (typeof detail === "string") return detail;
  } catch {
    // no JSON: the status must do
  }
  return `The server answered ${answer.status}.`;
}

async function send(path, options) {
  try {
    return await fetch(path, { credentials: "same-origin", ...options });
  } catch {
    throw new ApiError(0, "The server does not answer. Is it still running?");
  }
}

let keyAsked = null;

async function askKey() {
  let line = "This server lets in whoever knows one of its keys.";
  for (;;) {
    const input = el("input", { type: "password", name: "key", required: true, autocomplete: "current-password" });
    const values = await ask({
      title: "A key, please", body: [el("p", { text: line }), field("API key", input)], confirm: "Come in",
    });
    if (values === null) throw new ApiError(401, "An API key is needed: reload the page to enter it.");
    const body = JSON.stringify({ key: values.key.trim() });
    const answer = await send("/api/session", { method: "POST", body, headers: { "Content-Type": "application/json" } });
    if (answer.ok) return;
    line = await lineOf(answer);
  }
}

async function answered(path, options) {
  const answer = await send(path, options);
  if (answer.status !== 401) return answer;
  keyAsked ??= askKey().finally(() => (keyAsked = null));
  await keyAsked;
  return send(path, options);
}

export async function request(method, path, body) {
  const options = { method };
  if (body instanceof FormData) options.body = body;
  else if (body !== undefined) {
    options.body = JSON.stringify(body);
    options.headers = { "Content-Type": "application/json" };
  }
  const answer = await answered(path, options);
  if (!answer.ok) throw new ApiError(answer.status, await lineOf(answer));
  return answer.status === 204 ? null : answer.json();
}

export const get = (path) => request("GET", path);
export const post = (path, body) => request("POST", path, body);
export const storyPath = (id, rest = "") => `/api/stories/${encodeURIComponent(id)}${rest}`;

// Saves a book as a file; an error comes as an error, not as a file.
export async function download(path) {
  const answer = await answered(path, {});
  if (!answer.ok) throw new ApiError(answer.status, await lineOf(answer));
  const name = /filename="?([\w.-]+)/.exec(answer.headers.get("Content-Disposition") ?? "")?.[1] ?? "story";
  const address = URL.createObjectURL(await answer.blob());
  el("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}
