// Requests to this server, with the token where it wants one.

const TOKEN = "token";

/** An error of the server; `status` is 0 if it could not be reached. */
export class Refusal extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export const hasToken = () => sessionStorage.getItem(TOKEN) !== null;
export const keepToken = (token) => sessionStorage.setItem(TOKEN, token);
export const forgetToken = () => sessionStorage.removeItem(TOKEN);

/** Returns the answer to a GET, or to a POST of `body`, a JSON text. Throws a Refusal. */
export async function ask(path, body) {
  const headers = hasToken() ? { Authorization: `Bearer ${sessionStorage.getItem(TOKEN)}` } : {};
  let response, text;
  try {
    response = await fetch(path, { method: body === undefined ? "GET" : "POST", headers, body });
    text = await response.text();
  } catch (e) {
    throw new Refusal(0, `The server cannot be reached: ${e.message}`);
  }
  if (response.ok) return parse(text);
  let message = `The server answers ${response.status} ${response.statusText}`;
  try {
    message = String(JSON.parse(text).error ?? message);
  } catch {
    // no JSON: the status has to do
  }
  throw new Refusal(response.status, plain(message));
}

/** Returns a message of TensorFlow without escapes and nodes of the graph. */
function plain(message) {
  return message.replaceAll("\\'", "'").replace(/\s*\[\[\{\{(function_)?node .*$/s, "");
}

/** Parses JSON in which a number may be NaN, as in TF Serving; NaN becomes null. */
function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    const tokens = /"(?:[^"\\]|\\.)*"|-?(?:NaN|Infinity)/g;
    return JSON.parse(text.replace(tokens, (token) => (token.startsWith('"') ? token : "null")));
  }
}
