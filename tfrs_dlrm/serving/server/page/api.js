// Requests to this server, with the token where it wants one.

const TOKEN = "token";

/** What the server refused; `status` is 0 where it could not be reached. */
export class Refusal extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export const hasToken = () => sessionStorage.getItem(TOKEN) !== null;
export const keepToken = (token) => sessionStorage.setItem(TOKEN, token);
export const forgetToken = () => sessionStorage.removeItem(TOKEN);

/** The answer to a GET, or to a POST of `body`, the text of a JSON. Throws a Refusal. */
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

/** A message of TensorFlow's without its escapes and the nodes of the graph. */
function plain(message) {
  return message.replaceAll("\\'", "'").replace(/\s*\[\[\{\{(function_)?node .*$/s, "");
}

/** JSON in which a number may be NaN, as in TF Serving's; it becomes null. */
function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    const tokens = /"(?:[^"\\]|\\.)*"|-?(?:NaN|Infinity)/g;
    return JSON.parse(text.replace(tokens, (token) => (token.startsWith('"') ? token : "null")));
  }
}
