// The page: which model and version is shown, and what happens when something is pressed.

import { ask, forgetToken, hasToken, keepToken } from "./api.js";
import { element, say } from "./dom.js";
import { Fields } from "./form.js";
import { showFacts, showFeatures, showVersions } from "./model.js";
import { leaveOneOut, show } from "./score.js";

const at = (id) => document.getElementById(id);
const initialResult = [...at("result").childNodes];

let models = [];
let fields = null; // the inputs of the form
let formOf = null; // the name of the model that they belong to
let asked = 0; // requests so far: an answer to an older one is not shown

const model = () => models.find(({ name }) => name === at("model").value);
const loaded = () => (model()?.versions ?? []).filter(({ state }) => state === "AVAILABLE");
const version = () => loaded().find((one) => one.version === at("version").value);

async function refresh() {
  try {
    models = (await ask("catalog")).models;
  } catch (e) {
    refused(e, at("notice"));
    return;
  }
  say(at("notice"), "");
  at("token-form").hidden = true;
  at("forget").hidden = !hasToken();
  at("choice").hidden = at("content").hidden = false;
  options(at("model"), models.map(({ name }) => name));
  showModel();
}

/** Fills a select; the choice stays if it still exists. */
function options(select, names) {
  const chosen = select.value;
  select.replaceChildren(...names.map((name) => element("option", { value: name }, name)));
  select.value = names.includes(chosen) ? chosen : (names[0] ?? "");
  select.disabled = names.length === 0;
}

function showModel() {
  at("model-title").textContent = model().name;
  document.title = `${model().name} \u2013 local server`;
  showVersions(at("versions"), model().versions);
  options(at("version"), loaded().map((one) => one.version));
  showVersion();
}

function showVersion() {
  const chosen = version();
  const features = chosen?.features ?? [];
  showFacts(at("facts"), chosen);
  showFeatures(at("features"), features);
  const edited = fields && formOf === model().name ? fields.edited() : new Map();
  fields = new Fields(at("fields"), features);
  fields.restore(edited);
  formOf = model().name;
  at("scoring").hidden = !features.length;
  say(at("no-form"), features.length ? "" : whyNoForm(chosen));
  clear();
}

function whyNoForm(chosen) {
  return chosen
    ? "The model has no signature serving_default, which this form needs."
    : "No version of this model is loaded. The table above says why.";
}

function clear() {
  asked += 1;
  fields.unmark();
  say(at("error"), "");
  at("result").replaceChildren(...initialResult);
  at("result").ariaBusy = "false";
}

async function score(event) {
  event.preventDefault();
  clear();
  const request = asked;
  const of = `${model().name}, version ${version().version}`;
  const path = `v1/models/${encodeURIComponent(model().name)}/versions/${version().version}:predict`;
  const values = fields.values();
  const { output } = version();
  at("result").ariaBusy = "true";
  try {
    const found = await leaveOneOut(path, fields.features, values);
    if (request === asked) show(at("result"), found, values, of, output);
  } catch (e) {
    if (request === asked) refused(e, at("error"));
  } finally {
    if (request === asked) at("result").ariaBusy = "false";
  }
}

/** Shows an error of the server; asks for a token if that is the reason. */
function refused(e, where) {
  if (e.status === undefined) throw e;
  if (e.status === 401) {
    say(at("notice"), hasToken() ? "The server refuses this token." : "");
    forgetToken();
    at("forget").hidden = at("choice").hidden = at("content").hidden = true;
    at("token-form").hidden = false;
    at("token").focus();
    return;
  }
  say(where, e.message);
  if (where === at("error")) fields.mark(e.message, "error");
}

at("refresh").addEventListener("click", refresh);
at("model").addEventListener("change", showModel);
at("version").addEventListener("change", showVersion);
at("form").addEventListener("submit", score);
at("form").addEventListener("reset", clear);
at("forget").addEventListener("click", () => {
  forgetToken();
  location.reload();
});
at("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  keepToken(at("token").value.trim());
  at("token").value = "";
  refresh();
});
refresh();
