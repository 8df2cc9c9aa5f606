"""The report of a plan: one page with the question, the answer and what would change it."""

import re
from html.parser import HTMLParser

import pytest

from roofline.errors import RooflineError
from roofline.planner import plan
from roofline.requests import SLO, Lengths, Workload
from roofline.units import show_time

pytestmark = pytest.mark.slow

PROMISES = SLO(ttft_s=0.5, tpot_s=0.02)
CHAT = Workload.generated(300, prompt=Lengths.lognormal(mean=800, cv=0.5), output=100, arrivals=25.0, seed=1)
TITLES = ["Question", "Answer", "What binds", "Frontier", "What each promise costs", "Sensitivity", "Growth", "Candidates", "How sure"]


@pytest.fixture(scope="module")
def chat():
    return plan("llama-3.1-8b", CHAT, PROMISES, machines=["h100-sxm", "l40s"], degrees=[1, 3], prices={"h100-sxm": 2.5, "l40s": 0.9})


@pytest.fixture(scope="module")
def pages(chat, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    for form in ("html", "md"):
        chat.report(folder / f"plan.{form}")
    return {form: (folder / f"plan.{form}").read_text(encoding="utf-8") for form in ("html", "md")}


class Page(HTMLParser):
    """Tags that are open, texts of headings and cells, and every address."""

    def __init__(self, text):
        super().__init__()
        self.open, self.headings, self.cells, self.addresses = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.addresses += [value for name, value in attributes if name in ("src", "href")]
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        {"h2": self.headings, "td": self.cells}.get(self.open[-1] if self.open else "", []).append(data)


def rows_of(markdown, title):
    """Cells of the table under a heading, without its first two lines."""
    part = markdown.partition(f"## {title}\n")[2].partition("\n## ")[0]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in part.splitlines() if line.startswith("|")][2:]


def test_both_forms_have_the_same_parts(pages):
    page = Page(pages["html"])
    assert page.headings == re.findall(r"^## (.*)$", pages["md"], flags=re.MULTILINE) == TITLES
    assert page.open == []


def test_the_page_needs_nothing_from_elsewhere(pages):
    assert Page(pages["html"]).addresses == []
    assert not re.search(r"<script|@import|url\(", pages["html"])
    assert "color-scheme: light dark" in pages["html"]
    assert "@page" in pages["html"]


def test_the_answer_is_the_plans(chat, pages):
    best = chat.cheapest
    assert f"{best.candidate}: " in pages["md"]
    assert f"a cost of {best.cost:.4g} per hour" in pages["md"]
    assert all(show_time(value) in pages["md"] for value in best.trial.reached.values())
    assert [row[0] for row in rows_of(pages["md"], "Frontier")] == [str(one.candidate) for one in chat.frontier]


def test_what_would_change_the_answer_is_the_plans(chat, pages):
    promises = rows_of(pages["md"], "What each promise costs")
    shown = {f"{price.relaxed:.4g} at {show_time(price.relaxed_s)}" for price in chat.promises()}
    assert {row[1] for row in promises} == shown
    bars = rows_of(pages["md"], "Sensitivity")
    assert [row[0] for row in bars] == [bar.what for bar in chat.sensitivity()]
    assert [row[2] for row in rows_of(pages["md"], "Growth")] == [str(point.devices) for point in chat.growth([1, 1.5, 2, 3])]


def test_every_candidate_has_its_reason(chat, pages):
    reasons = {row[0]: row[2] for row in rows_of(pages["md"], "Candidates")}
    assert reasons == {record["name"]: record["reason"].replace("|", "\\|") for record in chat.to_records()[:8]}


def test_a_short_report_plans_nothing_again(chat, tmp_path):
    chat.report(tmp_path / "plan.md", changes=False)
    titles = re.findall(r"^## (.*)$", (tmp_path / "plan.md").read_text(), flags=re.MULTILINE)
    assert titles == [title for title in TITLES if title not in ("What each promise costs", "Sensitivity", "Growth")]


def test_promises_that_cannot_be_kept_are_the_answer(tmp_path):
    found = plan("llama-3.1-8b", CHAT, {"tpot_s": 1e-4}, machines="h100-sxm", degrees=1)
    found.report(tmp_path / "plan.html")
    text = (tmp_path / "plan.html").read_text()
    assert "forbids it" in text
    assert Page(text).headings == ["Question", "Answer", "Candidates"]


def test_text_of_others_is_not_taken_for_markup(tmp_path):
    named = Workload(prompt=CHAT.prompt, output=CHAT.output, arrival_s=CHAT.arrival_s, source="<b>a|b</b>")
    found = plan("llama-3.1-8b", named, PROMISES, machines="h100-sxm", degrees=1)
    found.report(tmp_path / "plan.html", changes=False)
    assert "&lt;b&gt;a|b&lt;/b&gt;" in (tmp_path / "plan.html").read_text()


def test_another_form_is_refused(chat, tmp_path):
    with pytest.raises(RooflineError, match=r"'plan\.pdf' is neither \.html nor \.md"):
        chat.report(tmp_path / "plan.pdf")
