"""The report of a run: what its page says, that it escapes names and values, and how a browser shows it."""

import dataclasses
import json
from html.parser import HTMLParser

import click_log
import funnel_log
import numpy as np
import pytest
import rating_log
import serving_bundles

from tfrs_dlrm.config import DataConfig, DLRMConfig, RunConfig, TrainConfig
from tfrs_dlrm.data.preparing.prepare import prepare
from tfrs_dlrm.programs import launch
from tfrs_dlrm.schema import Label
from tfrs_dlrm.tools.report.findings import ReportOptions, examine
from tfrs_dlrm.tools.report.page import page
from tfrs_dlrm.training.evaluation import evaluate_run
from tfrs_dlrm.training.loop import train_and_evaluate

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>$\\frac$"
NAME = "<b onclick=alert(1)>"


class Page(HTMLParser):
    """The elements of a page, the texts of its headings and the rows of its tables by caption."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.tables, self.headings, self._open, self._text = [], {}, [], [], ""
        self.feed(text)
        assert not self._open, "elements are not closed"

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in ("meta", "link", "img"):
            self._open.append(tag)
        if tag == "table":
            self._rows = []
        if tag == "tr":
            self._rows.append([])
        if tag in ("th", "td", "caption", "h1", "h2", "h3", "dd"):
            self._text = ""

    def handle_endtag(self, tag):
        assert self._open.pop() == tag
        if tag in ("th", "td"):
            self._rows[-1].append(self._text)
        if tag == "caption":
            self._caption = self._text
        if tag == "table":
            self.tables[self._caption] = self._rows
        if tag.startswith("h") and tag[1:].isdecimal():
            self.headings.append(self._text)

    def handle_data(self, data):
        self._text += data

    def check(self):
        """Nothing runs, nothing is loaded, and every picture is described."""
        tags = {tag for tag, _ in self.elements}
        assert not tags & {"script", "iframe", "object", "b", "svg"}
        for _, attributes in self.elements:
            assert not any(name.startswith("on") for name in attributes)
            assert all(attributes.get(name, "#").startswith(("#", "data:")) for name in ("src", "href"))
        pictures = [attributes for tag, attributes in self.elements if tag == "img"]
        assert pictures and all(len(picture["alt"]) > 10 for picture in pictures)
        return pictures

    def table(self, begin):
        (found,) = (rows for caption, rows in self.tables.items() if caption.startswith(begin))
        return {row[0]: row[1:] for row in found[1:]}


def train(data, workdir):
    config = RunConfig(
        DataConfig(path=data),
        DLRMConfig(embedding_dim=8, bottom_mlp=(8,), top_mlp=(8, 1)),
        train=TrainConfig(batch_size=100, steps=20, eval_every_steps=10, tensorboard=False),
    )
    train_and_evaluate(config, workdir)
    return workdir


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run whose label, most frequent site and own name are markup, and a bundle."""
    folder = tmp_path_factory.mktemp("report")
    click_log.write(str(folder / "log.csv"), 1500)
    text = (folder / "log.csv").read_text().replace("clicked,", f"{NAME},", 1).replace(",s1,", f",{HOSTILE},")
    (folder / "log.csv").write_text(text)
    schema = dataclasses.replace(click_log.SCHEMA, label=Label(NAME))
    prepare(schema, [str(folder / "log.csv")], str(folder / "data"), eval_fraction=0.25)
    train(str(folder / "data"), str(folder / NAME))
    serving_bundles.make(folder / "bundle", 0)
    return folder


@pytest.fixture(scope="module")
def written(folder):
    """The page that the program writes."""
    arguments = ["--group_by=site,slot", "--examples=200", f"--bundle={folder / 'bundle'}", "--nolatency"]
    assert launch.call("report", [f"--workdir={folder / NAME}", *arguments]) == 0
    return folder / NAME / "report.html"


def test_the_page_says_what_other_programs_say_and_escapes_it(folder, written):
    text = written.read_text(encoding="utf-8")
    shown = Page(text)
    assert len(shown.check()) == 7  # curves, three of the scores, two of groups, importance
    assert shown.headings == [
        NAME, "Evaluation", f"Label {NAME}", "Training", "Features", "Data", "Model", "Optimizers", "Export",
    ]  # fmt: skip
    metrics = evaluate_run(str(folder / NAME)).scores.metrics()
    assert {name: float(cells[0].replace(",", "")) for name, cells in shown.table("Metrics of").items()} == (
        pytest.approx(metrics, abs=5e-7, rel=5e-4)
    )
    labels = np.loadtxt(folder / "log.csv", delimiter=",", skiprows=1, usecols=(0, 8))
    rows = shown.table("Labels.")[NAME]
    assert rows[1] == "classification" and int(rows[2].replace(",", "")) + int(rows[4].replace(",", "")) == 1500
    means, weights = [float(rows[3]), metrics["label_mean"]], metrics["weight"]
    total = labels[:, 1].sum()
    assert means[0] * (total - weights) + means[1] * weights == pytest.approx(labels[:, 0] @ labels[:, 1], rel=1e-4)
    manifest = json.loads(next((folder / NAME / "best").glob("*/manifest.json")).read_text())
    table = shown.table("Tables as")["site"]
    assert [int(n) for n in table[:2]] == manifest["rows"]["tables/site"]["shape"]
    assert float(table[3]) == pytest.approx(np.prod(manifest["rows"]["tables/site"]["shape"]) * 4 / 1e6, rel=5e-3)
    layers = shown.table("Weights of")
    assert sum(int(row[1].replace(",", "")) for row in layers.values()) == sum(
        (3 * 8 + 8, (8 + 10) * 8 + 8, 8 + 1)  # 5 vectors have 10 products; age has an indicator
    )
    assert HOSTILE in shown.table("By site") and len(shown.table("By slot")) == 5
    assert {row[0] for row in shown.table("Checks of").values()} <= {"ok", "failed", "skipped"}
    assert "files" in shown.table("Checks of")


def test_what_explain_found_is_shown_if_it_is_of_the_checkpoint(folder, tmp_path):
    workdir = str(folder / NAME)
    assert "importance" not in examine(workdir, ReportOptions(examples=0)).explanation
    assert launch.call("explain", [f"--workdir={workdir}", "--examples=100", "--seeds=1"]) == 0
    found = examine(workdir, ReportOptions(examples=0, group_by=("slot",)))
    assert found.explanation["importance"]["examples"] == 100
    assert len(Page(page(found)).check()) == 8
    path = folder / NAME / "explanation" / "explanation.json"
    path.write_text(path.read_text().replace("/step-", "/step-9"))
    assert examine(workdir, ReportOptions(examples=50)).explanation["importance"]["examples"] == 50


def test_mistakes_are_named_before_anything_is_scored(folder, tmp_path, capfd):
    def call(*arguments):
        capfd.readouterr()
        return launch.call("report", arguments), capfd.readouterr().err

    assert call(f"--workdir={tmp_path}")[1].startswith(f"error: {tmp_path}: holds no run")
    workdir = f"--workdir={folder / NAME}"
    assert "'sight'; did you mean 'site'?" in call(workdir, "--group_by=sight")[1]
    assert "object store" in call(workdir, "--output=s3://bucket/report.html")[1]
    assert str(tmp_path) in call(workdir, f"--bundle={tmp_path}")[1]


@pytest.mark.parametrize(
    "log, labels, pictures", [(funnel_log, 3, 16), pytest.param(rating_log, 1, 6, marks=pytest.mark.matrix)]
)
def test_several_labels_and_regressions(tmp_path, log, labels, pictures):
    workdir = train(log.make(str(tmp_path / "log"), 1200), str(tmp_path / "run"))
    shown = Page(page(examine(workdir, ReportOptions(examples=0))))
    assert len(shown.check()) == pictures
    assert len([h for h in shown.headings if h.startswith("Label ")]) == labels
    assert any(name.startswith("rmse") for name in shown.table("Metrics of"))


def test_a_browser_shows_all_of_it_and_asks_for_nothing(browser, written):
    problems = []
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    tab = context.new_page()
    tab.on("console", lambda message: problems.append(message.text))
    tab.on("pageerror", lambda error: problems.append(str(error)))
    tab.on("request", lambda request: problems.append(request.url) if not request.url.startswith("data:") else None)
    tab.on("dialog", lambda dialog: problems.append(dialog.message))
    tab.goto(written.as_uri())
    assert tab.title() == NAME
    assert problems == [written.as_uri()]
    assert tab.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 100)")
    for width, media in ((1200, "screen"), (390, "screen"), (720, "print")):
        tab.set_viewport_size({"width": width, "height": 900})
        tab.emulate_media(media=media)
        assert tab.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"), width
    context.close()
