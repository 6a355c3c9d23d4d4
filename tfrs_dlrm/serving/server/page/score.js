// Scores one example and, in the same request, the example once more for each feature, without that feature.

import { Refusal, ask } from "./api.js";
import { element, fillTable } from "./dom.js";
import { missing } from "./form.js";

const REFUSED = [400, 413]; // a wrong value, or too much in one request

/**
 * Scores `values`, the JSON of each feature's value by name.
 *
 * Returns `{prediction, without, kept}`: the answer for the example; `{feature, prediction}` for each feature
 * left out; and `{feature, why}` for those that cannot be. Throws a Refusal.
 */
export async function leaveOneOut(path, features, values) {
  const kept = [];
  const rows = [];
  for (const feature of features) {
    const why = whyKept(feature, features);
    if (why) kept.push({ feature, why });
    else rows.push({ feature, values: without(feature, features, values) });
  }
  try {
    const [prediction, ...others] = await predict(path, [values, ...rows.map((row) => row.values)]);
    return { prediction, without: rows.map(({ feature }, i) => ({ feature, prediction: others[i] })), kept };
  } catch (e) {
    if (!REFUSED.includes(e.status) || !rows.length) throw e;
  }
  // The example may be wrong, or the model may refuse one without a feature. So each is asked alone.
  const [prediction] = await predict(path, [values]);
  const found = [];
  for (const row of rows) {
    try {
      found.push({ feature: row.feature, prediction: (await predict(path, [row.values]))[0] });
    } catch (e) {
      if (!REFUSED.includes(e.status)) throw e;
      kept.push({ feature: row.feature, why: `the model refuses an example without it (${e.message})` });
    }
  }
  return { prediction, without: found, kept };
}

function whyKept(feature, features) {
  if (feature.missing === null) return "bundle.json does not say its missing value";
  const of = weighted(feature, features);
  if (of) return `it has the weights of ${of.name}, and is left out with it`;
  return feature.may_be_missing ? null : "it may not be missing";
}

/** Returns the feature whose weights `feature` has. */
function weighted(feature, features) {
  return feature.kind === "weights" ? features.find((other) => `${other.name}_weights` === feature.name) : undefined;
}

/** Returns the values without a feature and its weights; the weights of a list stay, one per value. */
function without(feature, features, values) {
  const changed = new Map(values).set(feature.name, missing(feature, values.get(feature.name)));
  const weights = features.find((other) => weighted(other, features) === feature);
  if (weights && !Array.isArray(values.get(weights.name))) changed.set(weights.name, missing(weights));
  return changed;
}

async function predict(path, rows) {
  const listed = (value) => (Array.isArray(value) ? `[${value.join(",")}]` : value);
  const object = (row) => `{${[...row].map(([name, value]) => `${JSON.stringify(name)}:${listed(value)}`).join(",")}}`;
  const { predictions } = await ask(path, `{"instances":[${rows.map(object).join(",")}]}`);
  if (!Array.isArray(predictions)) throw new Refusal(500, "The answer has no predictions.");
  return predictions;
}

/** Returns a prediction as one number: alone, in a list, or of several outputs the one called `output` or the first. */
export function number(prediction, output) {
  if (typeof prediction === "number") return prediction;
  if (Array.isArray(prediction)) return prediction.length === 1 ? number(prediction[0], output) : null;
  if (!prediction || typeof prediction !== "object") return null;
  const values = [prediction[output], ...Object.values(prediction)];
  return values.map((value) => number(value, output)).find((found) => found !== null) ?? null;
}

/** Rounds a score for people. */
export function rounded(value) {
  return value !== 0 && Math.abs(value) < 0.1 ? value.toPrecision(3) : value.toFixed(4);
}

/** Formats a change with its sign. */
export function signed(value) {
  if (value === 0) return "0";
  return `${value > 0 ? "+" : "\u2212"}${Math.abs(value) < 0.001 ? Math.abs(value).toPrecision(2) : Math.abs(value).toFixed(4)}`;
}

/** Shows the result of `leaveOneOut`; `output` is the name of the score: a probability, a prediction. */
export function show(where, { prediction, without: others, kept }, values, of, output) {
  const score = number(prediction, output);
  if (score === null) {
    where.replaceChildren(element("p", {}, `${of} answers:`), element("pre", {}, JSON.stringify(prediction, null, 2)));
    return;
  }
  const head = element("p", {}, element("output", { className: "score" }, rounded(score)), ` ${output}, ${of}`);
  where.replaceChildren(head, ...chart(score, others, values, output), ...notLeftOut(kept));
}

function chart(score, others, values, output) {
  const bars = others
    .map(({ feature, prediction }) => ({ feature, rest: number(prediction, output) }))
    .filter(({ rest }) => rest !== null)
    .map(({ feature, rest }) => ({ feature, rest, change: score - rest }))
    .sort((a, b) => Math.abs(b.change) - Math.abs(a.change));
  if (!bars.length) return [];
  const highest = Math.max(0, ...bars.map(({ change }) => change));
  const range = highest - Math.min(0, ...bars.map(({ change }) => change)) || 1;
  const table = element("table", { className: "chart" });
  const rows = bars.map(({ feature, rest, change }) => [
    [feature.name, element("small", {}, preview(values.get(feature.name)))],
    bar(change / range, highest / range),
    signed(change),
    rounded(rest),
  ]);
  fillTable(table, ["Feature", "", "Contributes", "Without it"], rows);
  table.prepend(element("caption", {}, `Contribution of each feature: the ${output} minus the ${output} without it`));
  return [element("div", { className: "wide" }, table)];
}

/** Draws a bar from zero, which is `right` of the track's width away from its right end. */
function bar(change, right) {
  const filled = element("span", { className: change < 0 ? "bar lower" : "bar raise" });
  const zero = element("span", { className: "zero" });
  filled.style.width = `${100 * Math.abs(change)}%`;
  zero.style.right = `${100 * right}%`;
  filled.style.right = `${100 * (change < 0 ? right : right - change)}%`;
  return element("div", { className: "track", "aria-hidden": "true" }, filled, zero);
}

function preview(value) {
  const text = Array.isArray(value) ? `[${value.join(", ")}]` : value;
  return text.length > 40 ? `${text.slice(0, 39)}\u2026` : text;
}

function notLeftOut(kept) {
  if (!kept.length) return [];
  const items = kept.map(({ feature, why }) => element("li", {}, element("b", {}, feature.name), `: ${why}`));
  return [element("p", {}, "Not left out:"), element("ul", { className: "kept" }, ...items)];
}
