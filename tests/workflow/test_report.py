"""report.html of a real run in a real browser; the job that writes it anew and compares; the model card."""

import json
import re
import shutil

import pytest
from axe_playwright_python.sync_playwright import Axe
from huggingface_hub import ModelCard
from jobs_at_work import ROOT
from playwright.sync_api import Browser, Page

import ice_ray
from ice_ray.config.jobs import ReportConfig
from ice_ray.hyperparameters import IceHyperparameters, spelled
from ice_ray.observe.outcome import outcome_rows
from ice_ray.pipelines.records import FINAL_RETRAINING
from ice_ray.workflow.reporting import report_job
from ice_ray.workflow.running import run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


class Visit:
    """A page that is opened from disk, with all that it asked for and complained of."""

    def __init__(self, browser: Browser, path, **context) -> None:
        self.page: Page = browser.new_context(offline=True, **context).new_page()
        self.asked, self.said = [], []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.address = path.resolve().as_uri()
        self.page.goto(self.address)

    def end(self) -> None:
        """Nothing but itself was asked for, and nothing went wrong."""
        assert [url for url in self.asked if not url.startswith("data:")] == [self.address]
        assert self.said == []
        self.page.context.close()


@pytest.fixture(scope="module")
def told(finished):
    folder, _ = finished
    return {name: json.loads((folder / f"{name}.json").read_text()) for name in ("best", "summary")}


def number(text: str) -> float:
    return float(text.replace(",", ""))


def test_the_report_says_what_the_run_s_files_say(finished, told, browser):
    visit = Visit(browser, finished[0] / "report.html")
    page, best, summary = visit.page, told["best"], told["summary"]
    rows = page.locator("#outcome-table tbody tr")
    assert rows.count() == 7
    for row in rows.all():
        key = row.get_attribute("data-key")
        values = [number(text) for text in row.locator(".value").all_text_contents()]
        assert values == pytest.approx([summary["dense"][key], summary["pruned"][key]], abs=0.005), key
    winner = page.locator("#trials-table tr.won")
    winner.evaluate("row => row.closest('details').open = true")
    cells = winner.locator("th, td").all_text_contents()
    assert number(cells[0].removesuffix(" (winner)")) == best["trial"]
    assert [number(cell) for cell in cells[1:3]] == pytest.approx([best["drop"], best["pruning_seconds"]], abs=0.005)
    point = IceHyperparameters.from_mapping(best["hyperparameters"])
    decided = {name: spelled(value) for name, value in point.as_dict().items() if name not in point.idle}
    for cell in winner.locator("td[data-name]").all():
        assert cell.text_content().strip() == decided.get(cell.get_attribute("data-name"), "\N{EN DASH}")
    for row in page.locator("#hyperparameters-table tr[data-name]").all():
        assert row.locator("td").first.text_content() == decided.get(row.get_attribute("data-name"), "no effect")
    accuracies = page.locator("#steps-table td[data-key='accuracy']").all_text_contents()
    assert [number(text.removeprefix("≈")) for text in accuracies] == pytest.approx(
        [step["accuracy"] for step in summary["steps"]], abs=0.005
    )
    pruning = [step for step in summary["steps"] if step["layers"] != FINAL_RETRAINING]
    cells = page.locator("#steps-table td[data-key='fine-tuned']").all_text_contents()
    tuned = [step["fine_tuned"] for step in pruning]
    assert [cell.startswith("yes") for cell in cells[: len(pruning)]] == (tuned if any(tuned) else [])
    widths = {row.locator("th").text_content(): row for row in page.locator("#widths-table tbody tr").all()}
    assert {layer: int(row.locator("td").nth(1).text_content()) for layer, row in widths.items()} == json.loads(
        (finished[0] / "pruned_model" / "model.json").read_text()
    )["widths"]
    visit.end()


def test_a_point_says_what_it_is_to_the_mouse_and_to_the_keyboard(finished, told, browser):
    visit = Visit(browser, finished[0] / "report.html")
    tip, best = visit.page.locator("#tip"), told["best"]
    assert tip.is_hidden()
    visit.page.locator("svg .winner").first.hover()
    assert tip.is_visible()
    assert f"trial {best['trial']}, the winner" in tip.text_content()
    assert f"{best['drop']:.2f} points lost in {best['pruning_seconds']:.2f} s" in tip.text_content()
    visit.page.mouse.move(0, 0)
    assert tip.is_hidden()
    timeline = visit.page.locator("svg.plot").first
    timeline.locator(".mark[tabindex='0']").focus()
    assert "dense model" in tip.text_content()
    visit.page.keyboard.press("ArrowRight")
    assert "step 1: layer1.0.conv1" in tip.text_content()
    assert ("threshold" in tip.text_content()) == (best["hyperparameters"]["accuracy_drop_threshold"] != "never")
    visit.end()


def test_a_line_is_copied(finished, browser):
    visit = Visit(browser, finished[0] / "report.html", permissions=["clipboard-read", "clipboard-write"])
    visit.page.locator("button.copies").first.click()
    copied = visit.page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith("import ice_ray\n")
    assert f'load_pruned("{finished[0]}/pruned_model")' in copied
    visit.end()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_readable_on_a_phone_in_the_dark_and_with_a_screen_reader(finished, browser, scheme):
    phone = {"viewport": {"width": 375, "height": 800}, "color_scheme": scheme}
    visit = Visit(browser, finished[0] / "report.html", **phone)
    visit.page.locator("details").evaluate_all("all => all.forEach(each => each.open = true)")
    assert visit.page.evaluate("document.documentElement.scrollWidth") == 375
    found = Axe().run(visit.page)
    assert found.violations_count == 0, found.generate_report()
    dark = visit.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 24, 29)"
    assert dark == (scheme == "dark")
    visit.end()


def test_several_runs_are_compared_and_their_reports_written_anew(finished, browser, tmp_path, capsys):
    one, other = tmp_path / "one", tmp_path / "other"
    for copy in (one, other):
        copy.mkdir()
        for name in ("best.json", "trials.parquet", "summary.json"):
            shutil.copy(finished[0] / name, copy)
    (other / "summary.json").unlink()  # a search alone
    content = json.loads((other / "best.json").read_text())
    content["config"]["seed"] = 7
    (other / "best.json").write_text(json.dumps(content))
    assert run(report_job, ReportConfig, "p", [str(one), str(other)]) == 0
    printed = capsys.readouterr().out
    assert [path.name in printed for path in (one / "report.html", tmp_path / "comparison.html")] == [True, True]
    assert "has not been run" in (other / "report.html").read_text()
    visit = Visit(browser, tmp_path / "comparison.html")
    rows = visit.page.locator("#outcome-table tr[data-key='parameters'] td")
    summary = json.loads((one / "summary.json").read_text())
    assert number(rows.first.locator(".value").text_content()) == summary["pruned"]["parameters"]
    assert rows.nth(1).text_content() == "not run"
    differing = visit.page.locator("section[aria-labelledby='options'] tbody tr")
    assert [cell.strip() for cell in differing.locator("th, td").all_text_contents()] == ["--seed", "0", "7"]
    assert visit.page.locator("svg .winner").count() == 2 + 2  # of both runs, and of the legend
    assert Axe().run(visit.page).violations_count == 0
    visit.end()


def test_what_is_no_run_ends_in_one_line(finished, tmp_path, capsys):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "best.json").write_text("{}")
    for arguments, said in (
        ([], "at least one run"),
        ([str(tmp_path)], "a search writes it"),
        ([str(broken)], "is no run of this version"),
        ([str(finished[0]), "--target", "x.html"], "more than one run"),
    ):
        assert run(report_job, ReportConfig, "p", arguments) == 2
        line = capsys.readouterr().err.strip()
        assert said in line
        assert "\n" not in line


def test_the_model_s_folder_is_one_for_the_hub(finished, told):
    """README.md with front matter that the hub's own library reads, weights as safetensors, and the model's JSON."""
    folder, summary = finished[0] / "pruned_model", told["summary"]
    assert {path.name for path in folder.iterdir()} == {"README.md", "model.json", "model.safetensors"}
    card = ModelCard.load(folder / "README.md")
    assert card.data.pipeline_tag == "image-classification"
    (result,) = card.data.eval_results
    assert result.metric_value == pytest.approx(summary["pruned"]["test_accuracy"] / 100, abs=1e-4)
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in card.text.splitlines() if line[:1] == "|"]
    for row, cells in zip(outcome_rows(summary["dense"], summary["pruned"]), table[2:], strict=True):
        assert cells[0] == row.label
        assert [cell.split(" ")[0] for cell in cells[1:3]] == [row.dense, row.pruned]
    (command,) = summary["commands"]
    assert command in card.text
    assert "--name whole" in command
    assert (folder / "model.safetensors").stat().st_size == summary["pruned"]["file_bytes"]
    assert sum(p.numel() for p in ice_ray.load_pruned(folder).parameters()) == summary["pruned"]["parameters"]


def test_latency_is_given_with_what_it_was_measured_under(told):
    summary = told["summary"]
    assert summary["latency"]["threads"] >= 1
    for batch in (1, 64):
        for network in (summary["dense"], summary["pruned"]):
            low, high = network[f"latency_{batch}_ms_spread"]
            assert low <= network[f"latency_{batch}_ms"] <= high
            assert network[f"latency_{batch}_passes"] >= 3


def test_nothing_but_the_page_itself_is_named_in_it(finished):
    text = (finished[0] / "report.html").read_text()
    assert not re.findall(r"(?:src|href)=\"(?!data:)[^\"]*\"|url\(|@import|https?://", text)
    assert str(ROOT) not in text
