"""The page at `/` of the local server, in headless Chromium: what it shows, scores and says of bad values."""

import json
import os
import re
from pathlib import Path
from types import SimpleNamespace

import click_log
import numpy as np
import pytest
import serving_bundles
import tensorflow as tf
from playwright.sync_api import expect
from serving_bundles import by_hand

import tfrs_dlrm as td
from tfrs_dlrm.serving import ServingClient
from tfrs_dlrm.serving.bundle.manifest import BundleManifest, write_manifest
from tfrs_dlrm.serving.exporting.export import ExportOptions, export_model
from tfrs_dlrm.serving.server import resting
from tfrs_dlrm.serving.server.security import Security

HOSTILE = '</td><img src=x onerror="document.title=1"><script>alert(1)</script>'


@pytest.fixture
def visit(browser):
    """Opens a page; no test may leave errors in its console, but for those answers of 4xx that it says it wants."""
    problems, contexts = [], []

    def open_(url, **options):
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.set_default_timeout(30_000)
        page.on("pageerror", lambda e: problems.append(str(e)))
        page.on("console", lambda m: problems.append(m.text) if m.type in ("error", "warning") else None)
        page.on("dialog", lambda d: problems.append(d.message))
        page.on("request", lambda r: None if r.url.startswith(url) else problems.append(r.url))
        page.goto(f"{url}/")
        page.wanted = wanted.append
        return page

    wanted = []
    yield open_
    for context in contexts:
        context.close()
    assert [p for p in problems if not any(w in p for w in wanted)] == []


def damage_manifest(change):
    def damage(path):
        file = os.path.join(path, "assets.extra", "bundle.json")
        with open(file) as f:
            manifest = json.load(f)
        change(manifest)
        with open(file, "w") as f:
            json.dump(manifest, f)

    return damage


def hostile(manifest):
    manifest |= {"model": HOSTILE, "tables": {"storage": HOSTILE, "bytes": float("nan")}, "accuracy": HOSTILE}
    manifest["features"][1] |= {"kind": HOSTILE, "separator": HOSTILE, "example": HOSTILE}
    manifest["features"].append({"name": "__proto__", "dtype": "string", "example": HOSTILE})


def hostile_bundle(path):
    damage_manifest(hostile)(path)
    file = Path(path, "assets.extra/reference.jsonl")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps(r | {"inputs": r["inputs"] | {"__proto__": ""}}) + "\n" for r in rows))
    serving_bundles.seal(path)


def strict(manifest):
    price, _, slot = manifest["features"]
    price["may_be_missing"] = False
    slot |= {"missing": -2000, "example": 2**53 + 1}  # the model's graph refuses less than -1000


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Models of version 0, whose probability is price / 8 + len(site) / 16 + slot / 64."""
    root = tmp_path_factory.mktemp("page")
    damages = {
        "broken": lambda path: os.remove(os.path.join(path, "saved_model.pb")),
        "clicks": None,
        "foreign": lambda path: os.remove(os.path.join(path, "assets.extra", "bundle.json")),
        "hostile": hostile_bundle,
        "strict": damage_manifest(strict),
    }
    for name, damage in damages.items():
        serving_bundles.make(root / name, 0, damage)
    serving_bundles.make(root / "broken", 1, damage_manifest(lambda manifest: manifest.update(features=[7])))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resting, "REST_SECONDS", 0)  # what has no manifest is served at once
        with serving_bundles.running(root) as running:
            yield running


class Lists(tf.Module):
    """Of the values that are not missing, the sum of value * weight / 64."""

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, None], tf.int64, "tags"),
            tf.TensorSpec([None, None], tf.float32, "tags_weights"),
        ]
    )
    def score(self, tags, tags_weights):
        products = tf.where(tags == -1, 0.0, tf.cast(tags, tf.float32) * tags_weights)
        return {"probability": tf.reduce_sum(products, 1) / 64}


@pytest.fixture(scope="module")
def lists(tmp_path_factory):
    root = tmp_path_factory.mktemp("lists") / "lists"
    module = Lists()
    tf.saved_model.save(module, str(root / "1"), {"serving_default": module.score})
    common = {"rank": 2, "separator": None, "context": False, "may_be_missing": True}
    features = [
        {"name": "tags", "kind": "categorical", "dtype": "int64", "missing": -1, "example": [2**60 + 1, 4], **common},
        {"name": "tags_weights", "kind": "weights", "dtype": "float32", "missing": None, "example": [0, 0.1], **common},
    ]
    (root / "1" / "assets.extra").mkdir()
    row = {"inputs": {"tags": [64, -1], "tags_weights": [0.5, 0]}, "probability": 0.5}
    (root / "1" / "assets.extra" / "reference.jsonl").write_text(json.dumps(row))
    write_manifest(str(root / "1"), BundleManifest.from_json({"features": features, "tolerance": 1e-6}))
    with serving_bundles.running(root) as running:
        yield running


def test_lists_have_a_value_a_line(visit, lists):
    """All values missing, and as many of them, is without the feature; its weights stay."""
    page = visit(lists.rest)
    tags, weights = page.get_by_label("tags", exact=True), page.get_by_label("tags_weights")
    expect(tags).to_have_value(f"{2**60 + 1}\n4")
    expect(weights).to_have_value("0.0\n0.1")
    tags.fill("8\n4\n16\n")
    weights.fill("1\n.5\n1e0")
    with page.expect_request("**:predict") as request:
        assert score(page) == (pytest.approx(26 / 64, abs=5e-5), {"tags": pytest.approx((26 / 64, 0), abs=5e-5)})
    row = {"tags": [8, 4, 16], "tags_weights": [1, 0.5, 1]}
    assert json.loads(request.value.post_data) == {"instances": [row, row | {"tags": [-1] * 3}]}
    assert "tags_weights" in page.locator(".kept").inner_text()
    for empty in (tags, weights):
        empty.fill("")
    assert score(page) == (0, {"tags": (0, 0)})


def choose(page, model):
    page.get_by_label("Model").select_option(model)
    expect(page.get_by_role("heading", name=model, exact=True)).to_be_visible()


def score(page):
    page.get_by_role("button", name="Score").click()
    return shown(page)


def shown(page):
    """The probability and, by feature, (what it contributes, the probability without it), in the order shown."""
    output = page.locator("#result output")
    output.wait_for()
    rows = page.locator(".chart tbody tr").all()
    bars = {}
    for row in rows:
        name = row.locator("th").evaluate("cell => cell.firstChild.textContent")
        bars[name] = tuple(float(row.locator("td").nth(i).inner_text().replace("\u2212", "-")) for i in (1, 2))
    return float(output.inner_text()), bars


def test_scores_and_contributions_are_those_worked_out_by_hand(visit, server):
    page = visit(server.rest)
    choose(page, "clicks")
    probability, bars = score(page)
    everything = by_hand(0, 4.5, "abc", 9)
    without = {
        "price": by_hand(0, np.nan, "abc", 9),
        "site": by_hand(0, 4.5, "", 9),
        "slot": by_hand(0, 4.5, "abc", -1),
    }
    assert probability == pytest.approx(everything, abs=5e-5) and list(bars) == ["price", "site", "slot"]
    for name, (change, rest) in bars.items():
        assert (change, rest) == pytest.approx((everything - without[name], without[name]), abs=5.1e-5)
    widths = [bar.bounding_box()["width"] for bar in page.locator(".bar").all()]
    assert widths == sorted(widths, reverse=True) and widths[1] / widths[0] == pytest.approx(1 / 3, abs=0.02)


def test_by_keyboard_and_with_empty_numbers(visit, server):
    """An empty number is a missing one; an int64 keeps all its digits."""
    page = visit(server.rest)
    choose(page, "clicks")
    page.get_by_label("price").focus()
    page.keyboard.press("Control+A")
    page.keyboard.press("Delete")
    for text in ("abcd", str(2**53 + 1)):
        page.keyboard.press("Tab")
        page.keyboard.type(text)
    with page.expect_request("**:predict") as request:
        page.keyboard.press("Enter")
    sent = json.loads(request.value.post_data)["instances"]
    assert np.isnan(sent[0]["price"]) and sent[0] | {"price": 0} == {"price": 0, "site": "abcd", "slot": 2**53 + 1}
    assert [row["slot"] for row in sent] == [2**53 + 1] * 3 + [-1] and len(sent) == 4
    assert shown(page)[0] == pytest.approx((2**53 + 1) / 64, rel=1e-6)
    page.get_by_role("button", name="Reset to the example").click()
    assert score(page)[0] == pytest.approx(by_hand(0, 4.5, "abc", 9), abs=5e-5)


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("price", "4,5", "input 'price': JSON Value: \"4,5\" Type: String is not of expected type: float"),
        ("slot", "1.5", "input 'slot': JSON Value: 1.5 Type: Number is not of expected type: int64"),
        ("slot", str(2**63), "it is outside the range of int64"),
        ("slot", "-1001", "feature slot: below -1000"),
        ("site", "x" * 70_000, "input 'site', row 0: a string of 70000 bytes"),
    ],
)
def test_a_bad_value_is_named_and_marked(visit, server, name, value, message):
    page = visit(server.rest)
    page.wanted("status of 400")
    choose(page, "clicks")
    page.get_by_label(name).fill(value)
    page.get_by_role("button", name="Score").click()
    expect(page.locator("#error")).to_contain_text(message)
    expect(page.locator("#error")).to_have_attribute("role", "alert")
    expect(page.get_by_label(name)).to_be_focused()
    assert page.locator("[aria-invalid=true]").evaluate_all("all => all.map(one => one.name)") == [name]
    page.get_by_label(name).fill("1")
    score(page)
    assert page.locator("#error").is_hidden() and page.locator("[aria-invalid]").count() == 0


def test_what_may_not_be_missing_is_not_left_out(visit, server):
    page = visit(server.rest)
    page.wanted("status of 400")  # the request with all rows, of which the model refuses one
    choose(page, "strict")
    expect(page.get_by_label("slot")).to_have_value("9007199254740993")
    page.get_by_label("slot").fill("9")
    probability, bars = score(page)
    assert probability == pytest.approx(by_hand(0, 4.5, "abc", 9), abs=5e-5) and list(bars) == ["site"]
    kept = page.locator(".kept li").all_inner_texts()
    assert kept[0] == "price: it may not be missing" and re.search(r"^slot: the model refuses.*below -1000", kept[1])
    page.get_by_label("price").fill("")
    page.get_by_role("button", name="Score").click()
    expect(page.locator("#error")).to_contain_text("input 'price' has a NaN")


def test_a_model_without_a_manifest_has_a_form_too(visit, server):
    page = visit(server.rest)
    choose(page, "foreign")
    expect(page.locator("#facts")).to_contain_text("no bundle.json")
    for name, value in {"price": "4.5", "site": "abc", "slot": "9"}.items():
        page.get_by_label(name).fill(value)
    assert score(page) == (pytest.approx(by_hand(0, 4.5, "abc", 9), abs=5e-5), {})
    assert len(page.locator(".kept li").all()) == 3


def test_a_model_without_a_version_says_why(visit, server):
    page = visit(server.rest)
    choose(page, "broken")
    expect(page.locator("#versions .refused")).to_have_count(2)
    expect(page.locator("#versions")).to_contain_text("'features'[0] is 7; an object is expected")
    expect(page.locator("#versions")).to_contain_text("saved_model.pb is missing")
    expect(page.locator("#no-form")).to_contain_text("No version of this model is loaded")
    assert page.locator("#form").is_hidden()


def test_a_bundle_s_texts_are_texts(visit, server):
    page = visit(server.rest)
    choose(page, "hostile")
    expect(page.locator("#facts")).to_contain_text(HOSTILE)
    expect(page.locator("#features")).to_contain_text(HOSTILE)
    expect(page.get_by_label("site")).to_have_value(HOSTILE)
    score(page)
    assert page.locator("img").count() == 0 and page.locator("body script").count() == 0
    policy = server.http.get("/").headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self';") and "unsafe" not in policy


def test_every_input_has_a_label_and_a_small_screen_is_enough(visit, server):
    page = visit(server.rest, viewport={"width": 360, "height": 640}, color_scheme="dark")
    choose(page, "clicks")
    score(page)
    unlabelled = "all => all.filter(one => !one.labels.length).length"
    assert page.locator("input, textarea, select").evaluate_all(unlabelled) == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    background, color = (
        page.evaluate(f"getComputedStyle(document.body).{key}") for key in ("backgroundColor", "color")
    )
    assert sum(map(int, re.findall(r"\d+", background))) < 150 < 600 < sum(map(int, re.findall(r"\d+", color)))


def test_a_token_is_asked_for_and_kept_for_the_tab(visit, server, tmp_path):
    (tmp_path / "token").write_text("s3cret\n")
    serving_bundles.make(tmp_path / "clicks", 0)
    with serving_bundles.running(tmp_path / "clicks", Security(bearer_token_file=str(tmp_path / "token"))) as closed:
        page = visit(closed.rest)
        page.wanted("status of 401")
        for token in ("wrong", "s3cret"):
            page.get_by_label("Bearer token").fill(token)
            page.keyboard.press("Enter")
            if token == "wrong":
                expect(page.locator("#notice")).to_contain_text("refuses this token")
        assert score(page)[0] == pytest.approx(by_hand(0, 4.5, "abc", 9), abs=5e-5)
        page.reload()
        score(page)
        assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
        page.get_by_role("button", name="Forget the token").click()
        expect(page.get_by_label("Bearer token")).to_be_visible()
        assert closed.http.get("/catalog").status_code == 401


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """A trained model with weights, separators and int8 tables."""
    data = click_log.make(str(tmp_path_factory.mktemp("log")))
    model = td.DLRM(td.Schema.load(f"{data}/schema.json"), (16, 8), (16, 1))
    model.compile(embedding_optimizer=td.RowWiseAdagrad(0.1))
    model.fit(td.dataset(data, 64), verbose=0)
    root = str(tmp_path_factory.mktemp("real") / "clicks")
    options = ExportOptions(context=("age", "user", "tags"), storage="int8")
    path = export_model(model, data, root, options, "/somewhere/step-40")[0]
    with open(f"{path}/assets.extra/bundle.json") as f:
        manifest = json.load(f)
    with serving_bundles.running(root) as running:
        yield SimpleNamespace(url=running.rest, features=manifest["features"])


def test_a_trained_model_s_contributions_are_the_client_s(visit, real):
    page = visit(real.url)
    expect(page.locator("#facts")).to_contain_text("step-40")
    expect(page.locator("#facts")).to_contain_text("int8, 2.2 KiB (0.50 of the 4.5 KiB of float32)")
    row = {f["name"]: np.nan if f["example"] is None else f["example"] for f in real.features}
    row |= {"price": 3.25, "tags": "t1|t2", "tags_weights": "1|0.5"}
    for name in ("price", "tags", "tags_weights"):
        page.get_by_label(name, exact=True).fill(str(row[name]))
    probability, bars = score(page)
    missing = {f["name"]: np.nan if f["missing"] is None else f["missing"] for f in real.features}
    assert set(bars) == missing.keys() - {"tags_weights"}
    with ServingClient(real.url, "clicks", timeout=60) as client:

        def predict(values):
            return float(client.predict({k: [v] for k, v in values.items()})["probability"][0])

        assert probability == pytest.approx(predict(row), abs=5.1e-5)
        for name, (change, rest) in bars.items():
            left_out = {name, "tags_weights"} if name == "tags" else {name}
            expected = predict(row | {k: missing[k] for k in left_out})
            assert (change, rest) == pytest.approx((predict(row) - expected, expected), abs=5.2e-5)
    changes = [abs(change) for change, _ in bars.values()]
    assert changes == sorted(changes, reverse=True)
    page.get_by_label("tags_weights").fill("1")
    page.wanted("status of 400")
    page.get_by_role("button", name="Score").click()
    expect(page.locator("#error")).to_contain_text("feature 'tags': not as many weights as values")
    expect(page.get_by_label("tags", exact=True)).to_have_attribute("aria-invalid", "true")
