// One input for each feature, and the JSON of what was typed. Numbers stay the text that they are, so that int64 keep
// all their digits and NaN, which JSON.stringify cannot write, can be sent. What is no number is sent as a string, and
// the server says what is wrong with it.

import { element } from "./dom.js";

const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$/;

const isList = (feature) => feature.rank === 2;
const isNested = (feature) => feature.rank === null || feature.rank > 2;

/** Returns the type for people: `string, separated by |`. */
export function typeOf(feature) {
  const parts = [feature.dtype];
  if (isList(feature)) parts.push(feature.size ? `vector of ${feature.size}` : "list");
  if (isNested(feature)) parts.push(feature.rank === null ? "any rank" : `rank ${feature.rank - 1}`);
  if (feature.separator) parts.push(`separated by ${feature.separator}`);
  if (feature.time) parts.push(`time ${feature.time}`);
  if (feature.kind === "weights") parts.push("weights");
  return parts.join(", ");
}

/** Returns the text of an input for the JSON of a value; lists have one value per line. */
export function shown(feature, json) {
  if (json === null) return "";
  if (Array.isArray(json)) return json.map((item) => shown({ ...feature, rank: 1 }, item)).join("\n");
  if (feature.dtype === "string") {
    const value = isJson(json) ? JSON.parse(json) : null;
    return typeof value === "string" ? value : value === null ? "" : json;
  }
  return json === "NaN" || json === "null" ? "" : json;
}

/** Returns the JSON of the typed text: a text, or for a list a list of texts. */
export function typed(feature, text) {
  if (isList(feature)) {
    const lines = text.replace(/\n$/, "").split("\n");
    return text === "" ? [] : lines.map((line) => scalar(feature, line));
  }
  if (isNested(feature) && isJson(text)) return text;
  return scalar(feature, text);
}

/** Returns the JSON of the missing value, for a list as long as `value`; null if the bundle has none. */
export function missing(feature, value) {
  if (feature.missing === null) return null;
  return Array.isArray(value) ? value.map(() => feature.missing) : feature.missing;
}

function scalar(feature, text) {
  if (feature.dtype === "string") return JSON.stringify(text);
  const trimmed = text.trim();
  const isFloat = /float/.test(feature.dtype);
  if (trimmed === "") return isFloat ? "NaN" : (feature.missing ?? '""');
  const special = /^([+-]?)(nan|inf|infinity)$/i.exec(trimmed);
  if (isFloat && special) return /nan/i.test(special[2]) ? "NaN" : `${special[1] === "-" ? "-" : ""}Infinity`;
  if (feature.dtype === "bool" && /^(true|false)$/i.test(trimmed)) return trimmed.toLowerCase();
  return NUMBER.test(trimmed) ? canonical(trimmed) : JSON.stringify(text);
}

/** Returns a number in JSON: no plus, no leading zeros, digits on both sides of the point. */
function canonical(text) {
  const [, sign, whole, fraction, exponent] = /^([+-]?)(\d*)\.?(\d*)(.*)$/.exec(text);
  const digits = whole.replace(/^0+(?=\d)/, "") || "0";
  const point = text.includes(".") ? `.${fraction || "0"}` : "";
  return `${sign === "-" ? "-" : ""}${digits}${point}${exponent}`;
}

function isJson(text) {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

/** The inputs of a form: `names`, `values()`, `mark(message, id)` and `unmark()`. */
export class Fields {
  constructor(where, features) {
    this.features = features;
    this._inputs = new Map(features.map((feature, i) => [feature.name, input(feature, i)]));
    const contents = features.map((feature, i) => field(feature, this._inputs.get(feature.name), i));
    where.replaceChildren(...contents);
  }

  /** Returns the JSON of each value, by the name of its feature. */
  values() {
    return new Map(this.features.map((feature) => [feature.name, typed(feature, this._inputs.get(feature.name).value)]));
  }

  /** Returns the typed texts by name that differ from the example. */
  edited() {
    const changed = [...this._inputs].filter(([, made]) => made.value !== made.defaultValue);
    return new Map(changed.map(([name, made]) => [name, made.value]));
  }

  /** Restores the result of `edited` of another form. */
  restore(edited) {
    for (const [name, text] of edited) if (this._inputs.has(name)) this._inputs.get(name).value = text;
  }

  /** Marks the input of the feature that a message names; `id` is of the element that shows the message. */
  mark(message, id) {
    this.unmark();
    const wrong = this._inputs.get(named(message, [...this._inputs.keys()]));
    if (!wrong) return;
    wrong.setAttribute("aria-invalid", "true");
    wrong.setAttribute("aria-errormessage", id);
    wrong.after(element("small", { className: "wrong" }, message));
    wrong.focus();
  }

  /** Removes the mark. */
  unmark() {
    for (const made of this._inputs.values()) {
      if (!made.hasAttribute("aria-invalid")) continue;
      made.removeAttribute("aria-invalid");
      made.removeAttribute("aria-errormessage");
      made.nextElementSibling.remove();
    }
  }
}

/** Returns the first feature that a message of the server quotes, as in `input 'price': ...` or `feature price: ...`. */
function named(message, names) {
  const places = names.map((name) => {
    const found = [`'${name}'`, `feature ${name}:`].map((text) => message.indexOf(text)).filter((at) => at >= 0);
    return { name, at: Math.min(...found, Infinity) };
  });
  const first = places.reduce((a, b) => (b.at < a.at ? b : a), { name: null, at: Infinity });
  return first.name;
}

function input(feature, number) {
  const value = shown(feature, feature.example);
  const long = isList(feature) || isNested(feature) || value.includes("\n");
  const made = element(long ? "textarea" : "input", {
    id: `field-${number}`,
    name: feature.name,
    spellcheck: false,
    "aria-describedby": `hint-${number}`,
    defaultValue: value,
  });
  if (long) made.rows = 3;
  return made;
}

function field(feature, made, number) {
  const what = isList(feature) ? "one value a line" : isNested(feature) ? "as JSON" : null;
  const empty = feature.may_be_missing && feature.kind !== "weights" ? "empty: missing" : null;
  const hint = [typeOf(feature), what, empty].filter(Boolean).join("; ");
  return element(
    "div",
    { className: "field" },
    element("label", { htmlFor: made.id }, feature.name),
    made,
    element("small", { id: `hint-${number}` }, hint),
  );
}
