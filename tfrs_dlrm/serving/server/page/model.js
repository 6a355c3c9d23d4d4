// What is shown of a model: facts of the version, versions and their states, features.

import { element, fillTable } from "./dom.js";

const STATES = { START: "waiting", LOADING: "loading", AVAILABLE: "available", UNLOADING: "unloading", END: "unloaded" };

/** Fills the list of facts of a version; it stays empty if none is loaded. */
export function showFacts(list, version) {
  const facts = !version ? [] : version.bundle ? ofBundle(version.bundle) : [["Bundle", "no bundle.json; this is what the signature says"]];
  if (version) facts.push(["Signatures", version.signatures.join(", ")]);
  list.replaceChildren(
    ...facts.map(([what, value]) => element("div", {}, element("dt", {}, what), element("dd", {}, String(value)))),
  );
}

function ofBundle(bundle) {
  const facts = [
    ["Model", bundle.model],
    ["Checkpoint", bundle.checkpoint],
    ["Exported", bundle.created],
    ["TensorFlow", bundle.tensorflow],
  ].filter(([, value]) => value);
  const tables = bundle.tables;
  if (tables) facts.push(["Tables", `${tables.storage}, ${bytes(tables.bytes)}${share(tables)}`]);
  for (const name of ["auc", "rmse"]) {
    const pair = bundle.accuracy?.[name];
    if (!Array.isArray(pair) || !pair.every(Number.isFinite)) continue;
    facts.push([name.toUpperCase(), pair.map((value) => value.toFixed(5)).join(" as trained, ") + " as exported"]);
  }
  return facts;
}

function share(tables) {
  const all = tables.bytes_float32;
  return all > tables.bytes ? ` (${(tables.bytes / all).toFixed(2)} of the ${bytes(all)} of float32)` : "";
}

/** `2.2 KiB`. */
function bytes(count) {
  if (!Number.isFinite(count)) return String(count);
  const units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
  const power = Math.min(units.length - 1, count < 1 ? 0 : Math.floor(Math.log2(count) / 10));
  return `${(count / 1024 ** power).toFixed(power ? 1 : 0)} ${units[power]}`;
}

/** Fills the table of a model's versions. */
export function showVersions(table, versions) {
  const rows = versions.map((version) => {
    const state = version.error ? "refused" : (STATES[version.state] ?? version.state);
    return [version.version, element("span", { className: `state ${state}` }, state), version.labels.join(", "), version.error];
  });
  const heads = ["Version", "State", "Labels", "Why"];
  // A column that says nothing is left out.
  const used = heads.map((_, i) => i < 2 || rows.some((cells) => cells[i]));
  fillTable(table, heads.filter((_, i) => used[i]), rows.map((cells) => cells.filter((_, i) => used[i])));
}

/** Fills the table of a version's features. */
export function showFeatures(table, features) {
  const rows = features.map((feature) => [
    feature.name,
    feature.kind ?? "",
    feature.dtype + (feature.rank === 2 ? ", list" : ""),
    feature.separator ? element("code", {}, feature.separator) : "",
    feature.missing === null ? "unknown" : feature.may_be_missing ? element("code", {}, String(feature.missing)) : "refused",
    feature.context ? "context" : "",
    feature.example === null ? "" : element("code", {}, exampleText(feature.example)),
  ]);
  fillTable(table, ["Feature", "Kind", "Type", "Separator", "Missing value", "Context", "Example"], rows);
}

function exampleText(example) {
  const text = Array.isArray(example) ? `[${example.join(", ")}]` : example;
  return text.length > 80 ? `${text.slice(0, 79)}\u2026` : text;
}
