"""The site: complete or a clear refusal, the same bytes twice, clean in a real browser; and the last words."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from lrfr.errors import UserError
from lrfr.report import site

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--v=0",
    "--virtual-time-budget=4000",
]
PROBE = """<script>addEventListener("load", () => {
  for (const image of document.images) if (!image.naturalWidth) console.error("broken image " + image.src);
  const head = document.querySelector("table.sortable th:nth-child(2) button");
  if (head) {
    head.click();
    const cells = [...head.closest("table").tBodies[0].rows].map(row => parseFloat(row.cells[1].textContent));
    if (cells.some((value, i) => i && value < cells[i - 1])) console.error("not sorted");
  }
  for (const { name } of performance.getEntriesByType("resource")) {
    if (!name.startsWith("file:")) console.error("request to " + name);
  }
  if (document.documentElement.scrollWidth > innerWidth) console.error("wider than the window");
  document.title = "probed";
});</script>"""


class Links(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.ids: list[str] = []
        self.bare: list[str] = []  # headings without an id
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.targets += [value for key, value in attrs if key in ("href", "src")]
        self.ids += [value for key, value in attrs if key == "id"]
        self.bare += [tag] if re.fullmatch("h[1-6]", tag) and "id" not in dict(attrs) else []


def pages_of(reported) -> list[Path]:
    folder, study = reported
    return [
        folder / study.reports / "index.html",
        *(folder / study.reports / name / "index.html" for name in study.notebooks),
    ]


def test_every_link_leads_somewhere_inside_the_report(reported):
    for page in pages_of(reported):
        links = Links(page.read_text(encoding="utf-8"))
        assert len(links.targets) > 3 and not links.bare and len(set(links.ids)) == len(links.ids)
        for target in links.targets:
            parts = urlsplit(target)
            if parts.scheme == "data":
                continue
            assert not parts.scheme and not parts.netloc, target
            assert (page.parent / unquote(parts.path)).exists() if parts.path else parts.fragment in links.ids, target


def test_index_names_every_notebook_figure_and_table(reported):
    folder, study = reported
    index = (folder / study.reports / "index.html").read_text(encoding="utf-8")
    for path in (folder / study.reports).rglob("*.png"):
        assert path.relative_to(folder / study.reports).as_posix() in index
    for name in site.TABLES:
        assert f'id="table-{name}"' in index
    assert str(folder) not in index and len(index) < 500_000


def test_two_sites_are_the_same_bytes(reported, monkeypatch):
    folder, study = reported
    monkeypatch.chdir(folder)
    assert site.index_html(study) == (study.reports / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "name, stage", [("results", "summary"), ("schemes", "benchmark"), ("tuning", "rank"), ("claims", "claims")]
)
def test_a_missing_table_names_its_stage(project, name, stage):
    (project.reports / "tables" / f"{name}.csv").unlink()
    with pytest.raises(UserError, match=rf"{name}.csv: missing; run `dvc repro {stage}@smoke`"):
        site.index_html(project)


def test_what_has_run_and_the_other_study_are_one_click_away(reported, monkeypatch):
    folder, study = reported
    monkeypatch.chdir(folder)
    page = site.index_html(study)
    assert '<a href="STATUS.md">' in page and "lfw" not in page
    other = folder / "reports" / "lfw"
    other.mkdir()
    (other / "index.html").write_text("another")
    assert '<a href="../lfw/index.html">lfw</a>' in site.index_html(study)
    shutil.rmtree(other)


def test_a_missing_status_names_its_stage(project):
    (project.reports / "STATUS.md").unlink()
    with pytest.raises(UserError, match="STATUS.md: missing; run `dvc repro status@smoke`"):
        site.index_html(project)


def test_a_missing_notebook_names_its_stage(project):
    with pytest.raises(
        UserError, match="00-start-here/index.html: missing; run `dvc repro notebook@smoke-00-start-here`"
    ):
        site.run(project)
    assert not (project.reports / "index.html").exists()


@pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome is installed")
@pytest.mark.parametrize("width", [500, 1200])  # headless Chromium goes no narrower than 500
def test_a_browser_finds_nothing_to_complain_about(reported, tmp_path, width):
    for page in pages_of(reported):
        probed = page.with_name(f"probed-{width}.html")
        html = page.read_text(encoding="utf-8").replace('loading="lazy"', "")  # so that `load` waits for every image
        probed.write_text(html.replace("</body>", f"{PROBE}</body>"), encoding="utf-8")
        command = [
            BROWSER,
            *FLAGS,
            f"--user-data-dir={tmp_path / page.parent.name}",
            f"--window-size={width},2000",
            "--dump-dom",
        ]
        done = subprocess.run([*command, probed.as_uri()], capture_output=True, text=True, timeout=120)
        probed.unlink()
        assert "<title>probed</title>" in done.stdout, "the page's own script did not run to its end"
        assert not re.findall(r"CONSOLE.*", done.stderr), page


@pytest.fixture
def published(project):
    """The invented study, committed in a repository of its own."""
    who = ["-c", "user.name=lrfr", "-c", "user.email=lrfr@localhost"]
    (project.reports / "environment.json").write_text("{}\n")
    for command in (["init", "-q"], ["add", "reports"], [*who, "commit", "-qm", "published"]):
        subprocess.run(["git", *command], check=True)
    return project


def test_the_same_bytes_are_said_to_be_so_whatever_time_it_took(published):
    (published.reports / "tables/cost.csv").write_text("other times\n")
    (published.reports / "environment.json").write_text('{"machine": "another"}\n')
    (published.reports / "untracked.csv").write_text("a\n")
    text = site.ending(published)
    assert "the same bytes as published" in text and "reports/smoke/index.html" in text and "00-start-here" in text


def test_files_that_differ_are_counted_and_the_first_tables_named(published):
    for name in ("tables/runs.csv", "tables/results.csv", "tables/teacher.csv", "tables/tuning.csv", "STATUS.md"):
        (published.reports / name).write_text("other\n")
    (published.reports / "students/kd/log.csv").unlink()
    text = site.ending(published)
    assert "6 of 13 files differ" in text and "another processor rounds differently; see docs/known-issues.md" in text
    assert "tables/results.csv, tables/runs.csv, tables/teacher.csv, ..." in text


def test_without_git_or_a_published_report_it_says_so(project, monkeypatch):
    assert "cannot be compared" in site.ending(project)  # no repository here
    monkeypatch.setenv("PATH", "")
    assert "cannot be compared" in site.ending(project)
    monkeypatch.undo()


def test_a_study_that_is_not_in_git_has_nothing_to_be_compared_with(published, changed):
    assert "nothing to compare it with" in site.ending(changed(published, {"study": "mine"}))
    assert Path("reports/smoke").is_dir()
